"""The base of all degradations: typed options with defaults from a preset."""

from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import AfterValidator, ConfigDict, Field, model_validator

from selfsr.degrade.plan import DegradationPlan
from selfsr.spec import Spec

Probability = Annotated[float, Field(ge=0, le=1)]
_Bounds = tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]


def _check_ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"expected the smaller number first, got {list(bounds)}")
    return bounds


def _check_above_zero(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] <= 0:
        raise ValueError(f"expected two numbers above 0, got {list(bounds)}")
    return bounds


def _check_odd(sizes: tuple[int, ...]) -> tuple[int, ...]:
    for size in sizes:
        if size < 1 or size % 2 == 0:
            raise ValueError(f"expected odd and positive kernel sizes, got {size}")
    return sizes


def check_sum_to_one(shares: dict[Any, float]) -> dict[Any, float]:
    """Check that shares are probabilities that sum to 1."""
    if min(shares.values(), default=-1) < 0 or abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(f"expected shares of at least 0 that sum to 1, got {shares}")
    return shares


Range = Annotated[_Bounds, AfterValidator(_check_ascending)]
PositiveRange = Annotated[_Bounds, AfterValidator(_check_ascending), AfterValidator(_check_above_zero)]
Quality = Annotated[int, Field(ge=1, le=100)]
QualityRange = Annotated[tuple[Quality, Quality], AfterValidator(_check_ascending)]
KernelSizes = Annotated[tuple[int, ...], Field(min_length=1), AfterValidator(_check_odd)]


def require_only_kind(schema: dict[str, Any]) -> None:
    """Mark only `kind` as required in the JSON schema: the preset provides all other keys."""
    schema["required"] = [key for key in schema.get("required", ()) if key == "kind"]


class PresetSpec(Spec):
    """A degradation whose missing options come from its preset; once it is read, all options have a value.

    Attributes:
        presets: options by preset name; the first preset is the default.
        nested: options that are specs themselves and are completed key by key.
    """

    presets: ClassVar[dict[str, dict[str, Any]]]
    nested: ClassVar[tuple[str, ...]] = ()

    model_config: ClassVar[ConfigDict] = ConfigDict(json_schema_extra=require_only_kind)

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, options: Any) -> Any:
        if not isinstance(options, dict):
            return options
        name = options.get("preset", next(iter(cls.presets)))
        if name not in cls.presets:
            return options  # refused by the type of `preset`, which lists the known ones
        completed = {"preset": name, **cls.presets[name], **options}
        for key in cls.nested:
            if isinstance(options.get(key), dict):
                completed[key] = {**cls.presets[name][key], **options[key]}
        return completed

    @property
    def sharpens(self) -> bool:
        """Whether HR is sharpened before it is degraded, both as input of the degradation and as target."""
        return False

    def sample(self, rng: np.random.Generator, height: int, width: int, scale: int) -> DegradationPlan:
        """Sample a plan for one image: all random numbers except for the noise itself.

        Args:
            rng: random number generator.
            height: rows of the image, a multiple of `scale`.
            width: columns of the image, a multiple of `scale`.
            scale: how many times smaller the result is.

        Returns:
            Steps that lead to `height / scale` by `width / scale` pixels.
        """
        raise NotImplementedError

    def smallest_px(self, side_px: int, scale: int) -> float:
        """Return the smallest side, in pixels, that an image of `side_px` can have between two steps."""
        raise NotImplementedError
