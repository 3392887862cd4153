"""All presets by name, the type of `data.degrade`, and a function that degrades one image."""

from typing import Annotated, Any

import cv2
import numpy as np
from pydantic import BeforeValidator, Field, TypeAdapter

from selfsr.degrade.base import PresetSpec
from selfsr.degrade.bsrgan import Bsrgan
from selfsr.degrade.mixture import Mixture
from selfsr.degrade.plan import apply_plan
from selfsr.degrade.real_esrgan import RealEsrgan
from selfsr.errors import check_choice, suggest

# Preset name -> kind.
PRESETS: dict[str, str] = {
    **dict.fromkeys(RealEsrgan.presets, "real_esrgan"),
    **dict.fromkeys(Bsrgan.presets, "bsrgan"),
    **dict.fromkeys(Mixture.presets, "mixture"),
}


def _expand_preset_name(value: Any) -> Any:
    """Turn the name of a preset into the options of its spec."""
    if not isinstance(value, str):
        return value
    if value not in PRESETS:
        raise ValueError(f"expected one of {', '.join(PRESETS)}, got {value!r}{suggest(value, PRESETS)}")
    return {"kind": PRESETS[value], "preset": value}


Degradation = Annotated[
    Annotated[RealEsrgan | Bsrgan | Mixture, Field(discriminator="kind")],
    BeforeValidator(_expand_preset_name),
]


def get_preset(name: str) -> RealEsrgan | Bsrgan | Mixture:
    """Return the degradation of a preset.

    Raises:
        InputError: the preset is unknown; proposes the most similar name.
    """
    check_choice("degrade", "preset", name, tuple(PRESETS))
    return TypeAdapter(Degradation).validate_python(name)


def degrade_image(degradation: PresetSpec, image: np.ndarray, scale: int, rng: np.random.Generator) -> np.ndarray:
    """Degrade one image: sample a plan and apply it. The result depends on the image and `rng` only.

    Args:
        degradation: the distribution of the plans.
        image: float32 RGB `[H, W, 3]` in [0, 1], H and W multiples of `scale`.
        scale: how many times smaller the result is.
        rng: random number generator of the plan and then of the noise.

    Returns:
        float32 `[H / scale, W / scale, 3]` in [0, 1].

    Example:
        >>> hr = np.full((32, 48, 3), 0.5, np.float32)
        >>> degrade_image(get_preset("bsrgan_ssl"), hr, 4, np.random.default_rng(0)).shape
        (8, 12, 3)
    """
    height, width = image.shape[:2]
    assert height % scale == 0, (height, scale)
    assert width % scale == 0, (width, scale)
    return apply_plan(degradation.sample(rng, height, width, scale), image, rng)


def disable_opencv_threads() -> None:
    """Make OpenCV use one thread: images are distributed over the cores, and its threads do not survive a fork."""
    cv2.setNumThreads(1)
