"""What every degradation of a recipe is: typed numbers of a preset, of which any can be changed."""

from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import AfterValidator, ConfigDict, Field, model_validator

from selfsr.degrade.plan import Plan
from selfsr.spec import Spec

Probability = Annotated[float, Field(ge=0, le=1)]
_Bounds = tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"the smaller number must come first, got {list(bounds)}")
    return bounds


def _above_zero(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] <= 0:
        raise ValueError(f"both numbers must exceed 0, got {list(bounds)}")
    return bounds


def _odd(sizes: tuple[int, ...]) -> tuple[int, ...]:
    for size in sizes:
        if size < 1 or size % 2 == 0:
            raise ValueError(f"kernel sizes must be odd and positive, got {size}")
    return sizes


def sum_to_one(shares: dict[Any, float]) -> dict[Any, float]:
    """Check that shares are a distribution."""
    if min(shares.values(), default=-1) < 0 or abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(f"the shares must be at least 0 and sum to 1, got {shares}")
    return shares


Range = Annotated[_Bounds, AfterValidator(_ascending)]
PositiveRange = Annotated[_Bounds, AfterValidator(_ascending), AfterValidator(_above_zero)]
Quality = Annotated[int, Field(ge=1, le=100)]
QualityRange = Annotated[tuple[Quality, Quality], AfterValidator(_ascending)]
KernelSizes = Annotated[tuple[int, ...], Field(min_length=1), AfterValidator(_odd)]


def only_kind_required(schema: dict[str, Any]) -> None:
    """Tell validators of documents that no other key need be given: the preset has them all."""
    schema["required"] = [key for key in schema.get("required", ()) if key == "kind"]


class PresetSpec(Spec):
    """A spec whose missing keys come from the preset it names; all numbers are spelled out once it is read."""

    presets: ClassVar[dict[str, dict[str, Any]]]
    nested: ClassVar[tuple[str, ...]] = ()  # keys that hold specs, which are completed key by key

    model_config = ConfigDict(json_schema_extra=only_kind_required)

    @model_validator(mode="before")
    @classmethod
    def _completed(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        name = given.get("preset", next(iter(cls.presets)))
        if name not in cls.presets:
            return given  # refused by the type of `preset`, which lists the known ones
        whole = {"preset": name, **cls.presets[name], **given}
        for part in cls.nested:
            if isinstance(given.get(part), dict):
                whole[part] = {**cls.presets[name][part], **given[part]}
        return whole

    @property
    def sharpens(self) -> bool:
        """Whether the ground truth is to be sharpened before it is degraded."""
        return False

    def draw(self, rng: np.random.Generator, height: int, width: int, scale: int) -> Plan:
        """Draw what happens to one picture; all randomness but the noise itself is decided here.

        Args:
            rng: source of the numbers.
            height: rows of the picture, a multiple of `scale`.
            width: columns, a multiple of `scale`.
            scale: by how much the result is smaller.

        Returns:
            Steps whose last one leaves `height / scale` by `width / scale` pixels.
        """
        raise NotImplementedError

    def smallest_px(self, side_px: int, scale: int) -> float:
        """Return the smallest side that a picture of `side_px` can shrink to on its way."""
        raise NotImplementedError
