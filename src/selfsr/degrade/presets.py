"""The degradations by name: the presets, the union that a recipe chooses from, and one call for an image."""

from typing import Annotated, Any

import cv2
import numpy as np
from pydantic import BeforeValidator, Field, TypeAdapter

from selfsr.degrade.base import PresetSpec
from selfsr.degrade.bsrgan import Bsrgan
from selfsr.degrade.mixture import Mixture
from selfsr.degrade.plan import carry_out
from selfsr.degrade.real_esrgan import RealEsrgan
from selfsr.errors import check_choice

# The kind of every preset, by its name.
PRESETS: dict[str, str] = {
    **dict.fromkeys(RealEsrgan.presets, "real_esrgan"),
    **dict.fromkeys(Bsrgan.presets, "bsrgan"),
    **dict.fromkeys(Mixture.presets, "mixture"),
}


def _named(given: Any) -> Any:
    """Turn the bare name of a preset into the spec's keys."""
    if not isinstance(given, str):
        return given
    if given not in PRESETS:
        raise ValueError(f"expected one of {', '.join(PRESETS)}, got {given!r}")
    return {"kind": PRESETS[given], "preset": given}


Degradation = Annotated[
    Annotated[RealEsrgan | Bsrgan | Mixture, Field(discriminator="kind")],
    BeforeValidator(_named),
]


def preset(name: str) -> RealEsrgan | Bsrgan | Mixture:
    """Return the degradation of that name.

    Raises:
        InputError: there is none; the error names the nearest.
    """
    check_choice("degrade", "preset", name, tuple(PRESETS))
    return TypeAdapter(Degradation).validate_python(name)


def degraded(degradation: PresetSpec, image: np.ndarray, scale: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a plan and carry it out; a function of the picture and of `rng` alone.

    Args:
        degradation: what to draw from.
        image: float32 RGB `[H, W, 3]` in [0, 1], H and W multiples of `scale`.
        scale: by how much the result is smaller.
        rng: source of the parameters, then of the noise.

    Returns:
        float32 `[H / scale, W / scale, 3]` in [0, 1].
    """
    height, width = image.shape[:2]
    assert height % scale == 0, (height, scale)
    assert width % scale == 0, (width, scale)
    return carry_out(degradation.draw(rng, height, width, scale), image, rng)


def one_thread() -> None:
    """Keep OpenCV from starting threads: pictures are what is spread over cores, and its threads die in a fork."""
    cv2.setNumThreads(1)
