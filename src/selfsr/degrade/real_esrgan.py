"""Real-ESRGAN's second-order degradation: blur, resize, noise and JPEG, twice, with a sinc filter at the end.

X. Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data", ICCVW 2021
(arXiv 2107.10833), section 3 and figure 2. docs/degradations.md lists the differences, with reasons.
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
    check_sum_to_one,
    require_only_kind,
)
from selfsr.degrade.blur import Blur
from selfsr.degrade.jpeg import Jpeg
from selfsr.degrade.kernels import GaussianKernel, Kernel, Profile, SincKernel
from selfsr.degrade.noise import GaussianNoise, PoissonNoise
from selfsr.degrade.plan import DegradationPlan, Step, bernoulli, choice, uniform, uniform_int
from selfsr.degrade.resample import Mode, Resize
from selfsr.spec import Spec

KernelKind = Literal["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]
Direction = Literal["up", "down", "keep"]
_MODES: tuple[Mode, ...] = ("area", "bilinear", "bicubic")
_PROFILES: dict[str, Profile] = {"generalized": "generalized", "plateau": "plateau"}


class Stage(Spec):
    """One stage: blur, resize, noise and JPEG."""

    model_config: ClassVar[ConfigDict] = ConfigDict(json_schema_extra=require_only_kind)

    blur: Probability = Field(description="probability of a blur")
    kernel_px: KernelSizes = Field(description="sides of blur kernels in pixels, equally likely; larger ones blur more")
    kernels: Annotated[dict[KernelKind, float], AfterValidator(check_sum_to_one)] = Field(
        description="probability of each kind of blur kernel, unless it is a sinc kernel"
    )
    sinc: Probability = Field(description="probability that the blur kernel is a sinc kernel (ringing)")
    sigma_px: PositiveRange = Field(
        description="range of the standard deviation of blur kernels along each axis, in pixels"
    )
    beta_generalized: PositiveRange = Field(
        description="range of the exponent of generalized Gaussians; half of them are below 1, half above"
    )
    beta_plateau: PositiveRange = Field(
        description="range of the exponent of plateau kernels; half of them are below 1, half above"
    )
    resize: Annotated[dict[Direction, float], AfterValidator(check_sum_to_one)] = Field(
        description="probability of upscaling (up), downscaling (down) and keeping the size (keep)"
    )
    resize_range: PositiveRange = Field(description="smallest factor of downscaling, largest factor of upscaling")
    gaussian: Probability = Field(description="probability of Gaussian noise; otherwise Poisson noise")
    gaussian_sigma: Range = Field(
        description="range of the standard deviation of Gaussian noise, on the scale of 0 to 255"
    )
    poisson_scale: Range = Field(description="range of the factor of Poisson noise; 1 is physical shot noise")
    gray: Probability = Field(description="probability that all three channels have the same noise")
    jpeg_quality: QualityRange = Field(
        description="range of the JPEG quality, integers from 1 to 100, both ends included"
    )

    def sample_kernel(self, rng: np.random.Generator) -> Kernel:
        """Sample a blur kernel."""
        size = choice(rng, self.kernel_px)
        if bernoulli(rng, self.sinc):
            # Small kernels are too small for the long waves of a low cutoff.
            return SincKernel(size, uniform(rng, (math.pi / (3 if size < 13 else 5), math.pi)))
        kind = choice(rng, tuple(self.kernels), tuple(self.kernels.values()))
        profile = _PROFILES.get(kind.partition("_")[0], "gaussian")
        first = second = uniform(rng, self.sigma_px)
        rotation, beta = 0.0, 1.0
        if kind.endswith("aniso"):
            second, rotation = uniform(rng, self.sigma_px), uniform(rng, (-math.pi, math.pi))
        if profile != "gaussian":
            low, high = self.beta_generalized if profile == "generalized" else self.beta_plateau
            beta = uniform(rng, (low, 1.0) if bernoulli(rng, 0.5) else (1.0, high))
        return GaussianKernel(size, (first, second), rotation, profile, beta)

    def sample_factor(self, rng: np.random.Generator) -> float:
        """Sample the factor of a resize."""
        low, high = self.resize_range
        direction = choice(rng, tuple(self.resize), tuple(self.resize.values()))
        return {"up": uniform(rng, (1.0, high)), "down": uniform(rng, (low, 1.0)), "keep": 1.0}[direction]

    def sample_noise(self, rng: np.random.Generator) -> Step:
        """Sample the noise."""
        gray = bernoulli(rng, self.gray)
        if bernoulli(rng, self.gaussian):
            return GaussianNoise(uniform(rng, self.gaussian_sigma), gray)
        return PoissonNoise(uniform(rng, self.poisson_scale), gray)

    def sample_jpeg(self, rng: np.random.Generator) -> Jpeg:
        """Sample the JPEG quality."""
        return Jpeg(uniform_int(rng, self.jpeg_quality))

    @property
    def smallest_factor(self) -> float:
        """The smallest factor of a resize."""
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
    "second_probability": 1.0,
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

# As the self-similarity paper trains Real-ESRGAN: mild, so that structure can be distinguished from noise.
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
    "second_probability": 1.0,
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

# The Real-ESRGAN part of the paper's blind test sets.
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
    "second_probability": 0.2,
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

# As StableSR is trained; its variant with the self-similarity loss kept this.
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
    "second_probability": 1.0,
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
    """Blur, resize, noise and JPEG, twice; each image has its own random parameters."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "real_esrgan": _ORIGINAL,
        "real_esrgan_ssl": _SSL,
        "real_esrgan_ssl_test": _SSL_TEST,
        "stablesr_ssl": _STABLESR,
    }
    nested: ClassVar[tuple[str, ...]] = ("first", "second")

    kind: Literal["real_esrgan"]
    preset: Literal["real_esrgan", "real_esrgan_ssl", "real_esrgan_ssl_test", "stablesr_ssl"] = Field(
        description="preset that provides all keys that are not given"
    )
    usm: bool = Field(description="sharpen HR by unsharp masking, both as input of the degradation and as target")
    clean: Probability = Field(description="probability of bicubic LR instead of this degradation")
    first: Stage = Field(description="first stage, at the size of HR")
    second_probability: Probability = Field(description="probability of the second stage and the final sinc filter")
    second: Stage = Field(description="second stage, at the size of LR")
    final_sinc: Probability = Field(description="probability of a sinc filter at the end of the second stage")
    final_sinc_px: KernelSizes = Field(description="sides of that filter in pixels, equally likely")

    @property
    def sharpens(self) -> bool:
        """Whether HR is sharpened before it is degraded, both as input of the degradation and as target."""
        return self.usm

    def sample(self, rng: np.random.Generator, height: int, width: int, scale: int) -> DegradationPlan:
        """Sample a plan for one image; see `PresetSpec.sample`."""
        out = (height // scale, width // scale)
        if bernoulli(rng, self.clean):
            return (Resize(*out, "matlab_bicubic", clip=True),)
        first, steps = self.first, []
        if bernoulli(rng, first.blur):
            steps.append(Blur(first.sample_kernel(rng)))
        factor, mode = first.sample_factor(rng), choice(rng, _MODES)
        steps += [
            Resize(int(height * factor), int(width * factor), mode),
            first.sample_noise(rng),
            first.sample_jpeg(rng),
        ]
        if not bernoulli(rng, self.second_probability):
            return (*steps, Resize(*out, mode))
        second = self.second
        if bernoulli(rng, second.blur):
            steps.append(Blur(second.sample_kernel(rng)))
        factor = second.sample_factor(rng)
        steps.append(Resize(int(height / scale * factor), int(width / scale * factor), choice(rng, _MODES)))
        steps.append(second.sample_noise(rng))
        ending: list[Step] = [Resize(*out, choice(rng, _MODES))]
        if bernoulli(rng, self.final_sinc):
            ending.append(Blur(SincKernel(choice(rng, self.final_sinc_px), uniform(rng, (math.pi / 3, math.pi)))))
        jpeg = second.sample_jpeg(rng)
        return (*steps, *ending, jpeg) if bernoulli(rng, 0.5) else (*steps, jpeg, *ending)

    def smallest_px(self, side_px: int, scale: int) -> float:
        """Return the smallest side, in pixels, that an image of `side_px` can have between two steps."""
        return side_px * min(self.first.smallest_factor, self.second.smallest_factor / scale)
