"""Several degradations, of which each picture meets one."""

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from selfsr.degrade.base import PresetSpec
from selfsr.degrade.bsrgan import Bsrgan
from selfsr.degrade.plan import Plan, pick
from selfsr.degrade.real_esrgan import RealEsrgan
from selfsr.spec import Spec


class Part(Spec):
    """A degradation and how often it is met."""

    share: float = Field(gt=0, le=1, description="of the pictures")
    degrade: Annotated[RealEsrgan | Bsrgan, Field(discriminator="kind")]


# The self-similarity paper's blind test sets.
_SSL_TEST: dict[str, Any] = {
    "parts": [
        {"share": 0.6, "degrade": {"kind": "real_esrgan", "preset": "real_esrgan_ssl_test"}},
        {"share": 0.4, "degrade": {"kind": "bsrgan", "preset": "bsrgan_ssl_test"}},
    ]
}


class Mixture(PresetSpec):
    """Each picture meets one of several degradations."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {"ssl_test": _SSL_TEST}

    kind: Literal["mixture"]
    preset: Literal["ssl_test"] = Field(description="where the parts come from if they are not given")
    parts: tuple[Part, ...] = Field(min_length=1, description="what to choose from, shares that sum to 1")

    @model_validator(mode="after")
    def _fits_together(self) -> "Mixture":
        total = sum(part.share for part in self.parts)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares of parts must sum to 1, got {total:g}")
        if len({part.degrade.sharpens for part in self.parts}) > 1:
            raise ValueError("usm must be the same in all parts: one ground truth serves them all")
        return self

    @property
    def sharpens(self) -> bool:
        """Whether the ground truth is to be sharpened before it is degraded."""
        return self.parts[0].degrade.sharpens

    def draw(self, rng: np.random.Generator, height: int, width: int, scale: int) -> Plan:
        """Draw what happens to one picture; see `PresetSpec.draw`."""
        part = pick(rng, self.parts, [part.share for part in self.parts])
        return part.degrade.draw(rng, height, width, scale)

    def smallest_px(self, side_px: int, scale: int) -> float:
        """Return the smallest side that a picture of `side_px` can shrink to on its way."""
        return min(part.degrade.smallest_px(side_px, scale) for part in self.parts)
