"""BSRGAN's degradation: blur twice, shrink in two goes, noise and JPEG in a shuffled order, and JPEG at the end.

K. Zhang et al., "Designing a Practical Degradation Model for Deep Blind Image Super-Resolution", ICCV 2021
(arXiv 2103.14006), section 3. What is done differently here, and why: docs/degradations.md.
"""

import math
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, Field

from selfsr.degrade.base import KernelSizes, PresetSpec, Probability, QualityRange, sum_to_one
from selfsr.degrade.blur import Blur
from selfsr.degrade.jpeg import Jpeg
from selfsr.degrade.kernels import Bell
from selfsr.degrade.noise import CorrelatedNoise, GaussianNoise
from selfsr.degrade.plan import Plan, Step, between, chance, pick, whole
from selfsr.degrade.resample import Mode, Resize, Subsample

_MODES: tuple[Mode, ...] = ("bilinear", "bicubic", "opencv_area")
_OPERATIONS = ("blur", "blur", "downsample2", "downsample3", "noise", "jpeg")

NoiseKind = Literal["color", "gray", "correlated"]
Bound = Annotated[
    tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]],
    Field(description="(a, b): the bound is a + b * scale"),
]

_ORIGINAL: dict[str, Any] = {
    "halve": 0.25,
    "anisotropic": 0.5,
    "variance_max": (4.0, 1.0),
    "sigma_max": (2.0, 0.2),
    "kernel_px": (7, 9, 11, 13, 15, 17, 19, 21, 23, 25),
    "resize": 0.75,
    "resize_max": (0.0, 2.0),
    "resize_uniform": "divisor",
    "shifted_px": (25,),
    "shifted_sigma_min": 0.1,
    "shifted_sigma_max": (0.0, 0.6),
    "noise_level": (2, 25),
    "noise": {"color": 0.4, "gray": 0.4, "correlated": 0.2},
    "jpeg": 0.9,
    "jpeg_quality": (30, 95),
}

# As the self-similarity paper trains BSRGAN, SwinIR and ELAN.
_SSL: dict[str, Any] = {
    **_ORIGINAL,
    "anisotropic": 0.3,
    "variance_max": (0.2, 0.2),
    "sigma_max": (0.2, 0.2),
    "kernel_px": (3, 5, 7, 9),
    "resize_max": (1 / 0.85, 0.0),
    "shifted_px": (3, 5, 7, 9),
    "shifted_sigma_max": (0.0, 0.25),
    "noise_level": (1, 12),
    "jpeg_quality": (75, 95),
}

# What the paper's blind test sets were made with, their BSRGAN part.
_SSL_TEST: dict[str, Any] = {
    **_SSL,
    "kernel_px": (3, 5, 7, 9, 11),
    "resize_max": (1 / 0.75, 0.0),
    "resize_uniform": "factor",
    "noise_level": (1, 10),
    "jpeg_quality": (85, 95),
}


class Bsrgan(PresetSpec):
    """Blur twice, downsample twice, noise and JPEG in a random order, JPEG; each picture with numbers of its own.

    Bounds written as (a, b) mean a + b * scale, where the scale is 2 once a picture for 4 was halved.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "bsrgan": _ORIGINAL,
        "bsrgan_ssl": _SSL,
        "bsrgan_ssl_test": _SSL_TEST,
    }

    kind: Literal["bsrgan"]
    preset: Literal["bsrgan", "bsrgan_ssl", "bsrgan_ssl_test"] = Field(
        description="where the keys that are not given come from"
    )
    halve: Probability = Field(description="of a first resize by 1/2, at scale 4 only")
    anisotropic: Probability = Field(description="of an anisotropic Gaussian; isotropic otherwise")
    variance_max: Bound = Field(description="largest variance of an anisotropic kernel along an axis; smallest 0")
    sigma_max: Bound = Field(description="largest standard deviation of an isotropic kernel; smallest 0")
    kernel_px: KernelSizes = Field(description="sides of blur kernels, equally likely")
    resize: Probability = Field(description="of a resize in downsample 2; else a shifted Gaussian and every n-th pixel")
    resize_max: Bound = Field(description="largest divisor of that resize; smallest 1")
    resize_uniform: Literal["divisor", "factor"] = Field(description="which of the two is drawn evenly")
    shifted_px: KernelSizes = Field(description="sides of the shifted Gaussian, equally likely")
    shifted_sigma_min: float = Field(ge=0, description="its smallest standard deviation")
    shifted_sigma_max: Bound = Field(description="its largest standard deviation")
    noise_level: Annotated[tuple[int, int], Field(description="standard deviation of 255, whole numbers")]
    noise: Annotated[dict[NoiseKind, float], AfterValidator(sum_to_one)] = Field(description="kinds and shares")
    jpeg: Probability = Field(description="of a JPEG before the last one")
    jpeg_quality: QualityRange = Field(description="whole numbers, both ends included")

    def draw(self, rng: np.random.Generator, height: int, width: int, scale: int) -> Plan:
        """Draw what happens to one picture; see `PresetSpec.draw`."""
        out = (height // scale, width // scale)
        steps: list[Step] = []
        if scale == 4 and chance(rng, self.halve):
            height, width, scale = height // 2, width // 2, 2
            mode = "matlab_bicubic" if chance(rng, 0.5) else pick(rng, _MODES)
            steps.append(Resize(height, width, mode, clip=True))
        order = [_OPERATIONS[i] for i in rng.permutation(len(_OPERATIONS))]
        second, third = order.index("downsample2"), order.index("downsample3")
        if second > third:
            order[second], order[third] = order[third], order[second]
        for operation in order:
            if operation == "blur":
                steps.append(Blur(self._kernel(rng, scale)))
            elif operation == "downsample2":
                steps += self._downsample2(rng, height, width, scale)
            elif operation == "downsample3":
                steps.append(Resize(*out, pick(rng, _MODES), clip=True))
            elif operation == "noise":
                steps.append(self._noise(rng))
            elif chance(rng, self.jpeg):
                steps.append(Jpeg(whole(rng, self.jpeg_quality)))
        return (*steps, Jpeg(whole(rng, self.jpeg_quality)))

    def _kernel(self, rng: np.random.Generator, scale: int) -> Bell:
        size = pick(rng, self.kernel_px)
        if chance(rng, self.anisotropic):
            variances = (0.0, _bound(self.variance_max, scale))
            first, second = (math.sqrt(between(rng, variances)) for _ in range(2))
            return Bell(size, (first, second), between(rng, (0.0, math.pi)))
        sigma = between(rng, (0.0, _bound(self.sigma_max, scale)))
        return Bell(size, (sigma, sigma))

    def _downsample2(self, rng: np.random.Generator, height: int, width: int, scale: int) -> list[Step]:
        if chance(rng, self.resize):
            most = _bound(self.resize_max, scale)
            uniform = self.resize_uniform
            factor = between(rng, (1 / most, 1.0)) if uniform == "factor" else 1 / between(rng, (1.0, most))
            return [Resize(int(height * factor), int(width * factor), pick(rng, _MODES), clip=True)]
        sigma = between(rng, (self.shifted_sigma_min, _bound(self.shifted_sigma_max, scale)))
        # Centered on the block of which every n-th pixel keeps the first.
        kernel = Bell(pick(rng, self.shifted_px), (sigma, sigma), shift_px=(scale - 1) / 2)
        return [Blur(kernel), Subsample(scale)]

    def _noise(self, rng: np.random.Generator) -> Step:
        level = whole(rng, self.noise_level)
        kind = pick(rng, tuple(self.noise), tuple(self.noise.values()))
        if kind != "correlated":
            return GaussianNoise(level, gray=kind == "gray")
        return CorrelatedNoise(_covariance(rng, self.noise_level[1]))

    def smallest_px(self, side_px: int, scale: int) -> float:
        """Return the smallest side that a picture of `side_px` can shrink to on its way."""
        return min(side_px / scale, side_px / _bound(self.resize_max, scale))


def _bound(bound: tuple[float, float], scale: int) -> float:
    return bound[0] + bound[1] * scale


def _covariance(rng: np.random.Generator, level: int) -> tuple[tuple[float, float, float], ...]:
    """Draw the covariance of correlated noise: `level^2 |U' D U|`, D diagonal of U(0, 1), U a random orthogonal basis.

    The published code takes the elements' absolute values, after which eigenvalues can be negative, and then samples
    through a singular value decomposition, which takes their absolute values, too. So what its noise has is this.
    """
    diagonal = np.diag(rng.random(3))
    basis = np.linalg.svd(rng.random((3, 3)))[0]
    values, vectors = np.linalg.eigh(np.abs(level**2 * (basis.T @ diagonal @ basis)))
    covariance = (vectors * np.abs(values)) @ vectors.T
    return tuple(tuple(float(x) for x in row) for row in covariance)  # pyright: ignore[reportReturnType]
