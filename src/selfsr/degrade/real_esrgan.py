"""Real-ESRGAN's second-order degradation: blur, resize, noise and JPEG, twice, with a sinc filter at the end.

X. Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data", ICCVW 2021
(arXiv 2107.10833), section 3 and figure 2. What is done differently here, and why: docs/degradations.md.
"""

import math
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, ConfigDict, Field

from selfsr.degrade.base import (
    KernelSizes,
    PositiveRange,
    PresetSpec,
    Probability,
    QualityRange,
    Range,
    only_kind_required,
    sum_to_one,
)
from selfsr.degrade.blur import Blur
from selfsr.degrade.jpeg import Jpeg
from selfsr.degrade.kernels import Bell, Kernel, Profile, Sinc
from selfsr.degrade.noise import GaussianNoise, PoissonNoise
from selfsr.degrade.plan import Plan, Step, between, chance, pick, whole
from selfsr.degrade.resample import Mode, Resize
from selfsr.spec import Spec

KernelKind = Literal["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]
Direction = Literal["up", "down", "keep"]
_MODES: tuple[Mode, ...] = ("area", "bilinear", "bicubic")
_PROFILES: dict[str, Profile] = {"generalized": "generalized", "plateau": "plateau"}


class Stage(Spec):
    """One round of blur, resize, noise and JPEG."""

    model_config = ConfigDict(json_schema_extra=only_kind_required)

    blur: Probability = Field(description="of a blur at all")
    kernel_px: KernelSizes = Field(description="sides of blur kernels, equally likely")
    kernels: Annotated[dict[KernelKind, float], AfterValidator(sum_to_one)] = Field(description="kinds and shares")
    sinc: Probability = Field(description="of a sinc kernel in place of those kinds")
    sigma_px: PositiveRange = Field(description="standard deviation of kernels, each axis")
    beta_generalized: PositiveRange = Field(description="exponent, half of the draws below 1 and half above")
    beta_plateau: PositiveRange = Field(description="exponent, half of the draws below 1 and half above")
    resize: Annotated[dict[Direction, float], AfterValidator(sum_to_one)] = Field(description="up, down, keep: shares")
    resize_range: PositiveRange = Field(description="smallest factor of down, largest of up")
    gaussian: Probability = Field(description="of Gaussian noise; Poisson otherwise")
    gaussian_sigma: Range = Field(description="standard deviation of Gaussian noise, of 255")
    poisson_scale: Range = Field(description="factor of Poisson noise")
    gray: Probability = Field(description="of one noise value for all three channels")
    jpeg_quality: QualityRange = Field(description="whole numbers, both ends included")

    def kernel(self, rng: np.random.Generator) -> Kernel:
        """Draw a blur kernel."""
        size = pick(rng, self.kernel_px)
        if chance(rng, self.sinc):
            # Small kernels cannot hold the long waves of a low cutoff.
            return Sinc(size, between(rng, (math.pi / (3 if size < 13 else 5), math.pi)))
        kind = pick(rng, tuple(self.kernels), tuple(self.kernels.values()))
        profile = _PROFILES.get(kind.partition("_")[0], "gaussian")
        first = second = between(rng, self.sigma_px)
        rotation, beta = 0.0, 1.0
        if kind.endswith("aniso"):
            second, rotation = between(rng, self.sigma_px), between(rng, (-math.pi, math.pi))
        if profile != "gaussian":
            low, high = self.beta_generalized if profile == "generalized" else self.beta_plateau
            beta = between(rng, (low, 1.0) if chance(rng, 0.5) else (1.0, high))
        return Bell(size, (first, second), rotation, profile, beta)

    def factor(self, rng: np.random.Generator) -> float:
        """Draw the factor of a resize."""
        low, high = self.resize_range
        direction = pick(rng, tuple(self.resize), tuple(self.resize.values()))
        return {"up": between(rng, (1.0, high)), "down": between(rng, (low, 1.0)), "keep": 1.0}[direction]

    def noise(self, rng: np.random.Generator) -> Step:
        """Draw the noise."""
        gray = chance(rng, self.gray)
        if chance(rng, self.gaussian):
            return GaussianNoise(between(rng, self.gaussian_sigma), gray)
        return PoissonNoise(between(rng, self.poisson_scale), gray)

    def jpeg(self, rng: np.random.Generator) -> Jpeg:
        """Draw the compression."""
        return Jpeg(whole(rng, self.jpeg_quality))

    @property
    def smallest_factor(self) -> float:
        """How far a resize can shrink."""
        return min(self.resize_range[0], 1.0) if self.resize.get("down") else 1.0


_SIX_KINDS = {
    "iso": 0.45,
    "aniso": 0.25,
    "generalized_iso": 0.12,
    "generalized_aniso": 0.03,
    "plateau_iso": 0.12,
    "plateau_aniso": 0.03,
}
_TWO_KINDS = {"iso": 0.7, "aniso": 0.3}

_ORIGINAL: dict[str, Any] = {
    "usm": True,
    "clean": 0.0,
    "first": {
        "blur": 1.0,
        "kernel_px": (7, 9, 11, 13, 15, 17, 19, 21),
        "kernels": _SIX_KINDS,
        "sinc": 0.1,
        "sigma_px": (0.2, 3.0),
        "beta_generalized": (0.5, 4.0),
        "beta_plateau": (1.0, 2.0),
        "resize": {"up": 0.2, "down": 0.7, "keep": 0.1},
        "resize_range": (0.15, 1.5),
        "gaussian": 0.5,
        "gaussian_sigma": (1.0, 30.0),
        "poisson_scale": (0.05, 3.0),
        "gray": 0.4,
        "jpeg_quality": (30, 95),
    },
    "second_stage": 1.0,
    "second": {
        "blur": 0.8,
        "kernel_px": (7, 9, 11, 13, 15, 17, 19, 21),
        "kernels": _SIX_KINDS,
        "sinc": 0.1,
        "sigma_px": (0.2, 1.5),
        "beta_generalized": (0.5, 4.0),
        "beta_plateau": (1.0, 2.0),
        "resize": {"up": 0.3, "down": 0.4, "keep": 0.3},
        "resize_range": (0.3, 1.2),
        "gaussian": 0.5,
        "gaussian_sigma": (1.0, 25.0),
        "poisson_scale": (0.05, 2.5),
        "gray": 0.4,
        "jpeg_quality": (30, 95),
    },
    "final_sinc": 0.8,
    "final_sinc_px": (7, 9, 11, 13, 15, 17, 19, 21),
}

# As the self-similarity paper trains Real-ESRGAN: so mild that structure can be told from noise.
_SSL: dict[str, Any] = {
    "usm": False,
    "clean": 0.0,
    "first": {
        "blur": 1.0,
        "kernel_px": (3, 5, 7),
        "kernels": _TWO_KINDS,
        "sinc": 0.01,
        "sigma_px": (0.1, 0.6),
        "beta_generalized": (0.1, 2.0),
        "beta_plateau": (0.1, 1.0),
        "resize": {"up": 0.1, "down": 0.85, "keep": 0.05},
        "resize_range": (0.9, 1.1),
        "gaussian": 0.5,
        "gaussian_sigma": (1.0, 8.0),
        "poisson_scale": (0.05, 0.5),
        "gray": 0.2,
        "jpeg_quality": (85, 95),
    },
    "second_stage": 1.0,
    "second": {
        "blur": 0.8,
        "kernel_px": (3, 5),
        "kernels": _TWO_KINDS,
        "sinc": 0.01,
        "sigma_px": (0.1, 0.4),
        "beta_generalized": (0.1, 2.0),
        "beta_plateau": (0.1, 1.0),
        "resize": {"up": 0.1, "down": 0.85, "keep": 0.05},
        "resize_range": (0.9, 1.1),
        "gaussian": 0.5,
        "gaussian_sigma": (0.0, 4.0),
        "poisson_scale": (0.0, 0.3),
        "gray": 0.2,
        "jpeg_quality": (87, 95),
    },
    "final_sinc": 0.1,
    "final_sinc_px": (3, 5),
}

# What the paper's blind test sets were made with, their Real-ESRGAN part.
_SSL_TEST: dict[str, Any] = {
    **_SSL,
    "first": {
        **_SSL["first"],
        "sigma_px": (0.1, 0.4),
        "beta_generalized": (0.1, 0.7),
        "beta_plateau": (0.1, 0.7),
        "resize_range": (0.8, 1.1),
        "jpeg_quality": (87, 95),
    },
    "second_stage": 0.2,
    "second": {
        **_SSL["second"],
        "sigma_px": (0.1, 0.3),
        "beta_generalized": (0.1, 0.5),
        "beta_plateau": (0.1, 0.5),
        "resize_range": (0.8, 1.1),
        "gaussian_sigma": (0.0, 5.0),
        "poisson_scale": (0.0, 0.4),
        "jpeg_quality": (90, 95),
    },
}

# StableSR's, which its self-similarity variant kept.
_STABLESR: dict[str, Any] = {
    "usm": False,
    "clean": 0.01,
    "first": {
        **_ORIGINAL["first"],
        "kernel_px": (3, 5, 7, 9, 11, 13, 15, 17, 19, 21),
        "sigma_px": (0.2, 1.5),
        "beta_generalized": (0.5, 2.0),
        "beta_plateau": (1.0, 1.5),
        "resize_range": (0.3, 1.5),
        "gaussian_sigma": (1.0, 15.0),
        "poisson_scale": (0.05, 2.0),
        "jpeg_quality": (60, 95),
    },
    "second_stage": 1.0,
    "second": {
        **_ORIGINAL["second"],
        "blur": 0.5,
        "kernel_px": (3, 5, 7, 9, 11),
        "sigma_px": (0.2, 1.0),
        "beta_generalized": (0.5, 2.0),
        "beta_plateau": (1.0, 1.5),
        "resize_range": (0.6, 1.2),
        "gaussian_sigma": (1.0, 12.0),
        "poisson_scale": (0.05, 1.0),
        "jpeg_quality": (60, 100),
    },
    "final_sinc": 0.8,
    "final_sinc_px": (3, 5, 7, 9, 11),
}


class RealEsrgan(PresetSpec):
    """Blur, resize, noise and JPEG, twice; each picture with numbers of its own."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "real_esrgan": _ORIGINAL,
        "real_esrgan_ssl": _SSL,
        "real_esrgan_ssl_test": _SSL_TEST,
        "stablesr_ssl": _STABLESR,
    }
    nested: ClassVar[tuple[str, ...]] = ("first", "second")

    kind: Literal["real_esrgan"]
    preset: Literal["real_esrgan", "real_esrgan_ssl", "real_esrgan_ssl_test", "stablesr_ssl"] = Field(
        description="where the keys that are not given come from"
    )
    usm: bool = Field(description="sharpen the ground truth, both as the input of the degradation and as the target")
    clean: Probability = Field(description="of plain bicubic LR in place of the whole process")
    first: Stage = Field(description="at the size of HR")
    second_stage: Probability = Field(description="of the second stage with the final sinc filter")
    second: Stage = Field(description="at the size of LR")
    final_sinc: Probability = Field(description="of a sinc filter in the second stage's end")
    final_sinc_px: KernelSizes = Field(description="sides of that filter, equally likely")

    @property
    def sharpens(self) -> bool:
        """Whether the ground truth is to be sharpened before it is degraded."""
        return self.usm

    def draw(self, rng: np.random.Generator, height: int, width: int, scale: int) -> Plan:
        """Draw what happens to one picture; see `PresetSpec.draw`."""
        out = (height // scale, width // scale)
        if chance(rng, self.clean):
            return (Resize(*out, "matlab_bicubic", clip=True),)
        first, steps = self.first, []
        if chance(rng, first.blur):
            steps.append(Blur(first.kernel(rng)))
        factor, mode = first.factor(rng), pick(rng, _MODES)
        steps += [Resize(int(height * factor), int(width * factor), mode), first.noise(rng), first.jpeg(rng)]
        if not chance(rng, self.second_stage):
            return (*steps, Resize(*out, mode))
        second = self.second
        if chance(rng, second.blur):
            steps.append(Blur(second.kernel(rng)))
        factor = second.factor(rng)
        steps.append(Resize(int(height / scale * factor), int(width / scale * factor), pick(rng, _MODES)))
        steps.append(second.noise(rng))
        ending: list[Step] = [Resize(*out, pick(rng, _MODES))]
        if chance(rng, self.final_sinc):
            ending.append(Blur(Sinc(pick(rng, self.final_sinc_px), between(rng, (math.pi / 3, math.pi)))))
        jpeg = second.jpeg(rng)
        return (*steps, *ending, jpeg) if chance(rng, 0.5) else (*steps, jpeg, *ending)

    def smallest_px(self, side_px: int, scale: int) -> float:
        """Return the smallest side that a picture of `side_px` can shrink to on its way."""
        return side_px * min(self.first.smallest_factor, self.second.smallest_factor / scale)
