"""A mixture: each image gets one of several degradations."""

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from selfsr.degrade.base import PresetSpec
from selfsr.degrade.bsrgan import Bsrgan
from selfsr.degrade.plan import DegradationPlan, choice
from selfsr.degrade.real_esrgan import RealEsrgan
from selfsr.spec import Spec


class MixturePart(Spec):
    """A degradation with its share of the images."""

    share: float = Field(gt=0, le=1, description="share of the images, above 0; all shares sum to 1")
    degrade: Annotated[RealEsrgan | Bsrgan, Field(discriminator="kind")]


# The self-similarity paper's blind test sets.
_SSL_TEST: dict[str, Any] = {
    "parts": [
        {"share": 0.6, "degrade": {"kind": "real_esrgan", "preset": "real_esrgan_ssl_test"}},
        {"share": 0.4, "degrade": {"kind": "bsrgan", "preset": "bsrgan_ssl_test"}},
    ]
}


class Mixture(PresetSpec):
    """Each image gets one of several degradations."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {"ssl_test": _SSL_TEST}

    kind: Literal["mixture"]
    preset: Literal["ssl_test"] = Field(description="source of the parts if they are not given")
    parts: tuple[MixturePart, ...] = Field(min_length=1, description="degradations with their shares, which sum to 1")

    @model_validator(mode="after")
    def _check_parts(self) -> "Mixture":
        total = sum(part.share for part in self.parts)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"expected shares of parts that sum to 1, got {total:g}")
        if len({part.degrade.sharpens for part in self.parts}) > 1:
            raise ValueError("expected the same usm in all parts, since they share the ground truth")
        return self

    @property
    def sharpens(self) -> bool:
        """Whether HR is sharpened before it is degraded, both as input of the degradation and as target."""
        return self.parts[0].degrade.sharpens

    def sample(self, rng: np.random.Generator, height: int, width: int, scale: int) -> DegradationPlan:
        """Sample a plan for one image; see `PresetSpec.sample`."""
        part = choice(rng, self.parts, [part.share for part in self.parts])
        return part.degrade.sample(rng, height, width, scale)

    def smallest_px(self, side_px: int, scale: int) -> float:
        """Return the smallest side, in pixels, that an image of `side_px` can have between two steps."""
        return min(part.degrade.smallest_px(side_px, scale) for part in self.parts)
