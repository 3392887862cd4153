"""BSRGAN's degradation: two blurs, two downsamplings, noise and JPEG in random order, and a final JPEG.

K. Zhang et al., "Designing a Practical Degradation Model for Deep Blind Image Super-Resolution", ICCV 2021
(arXiv 2103.14006), section 3. docs/degradations.md lists the differences, with reasons.
"""

import math
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, Field

from selfsr.degrade.base import KernelSizes, PresetSpec, Probability, QualityRange, check_sum_to_one
from selfsr.degrade.blur import Blur
from selfsr.degrade.jpeg import Jpeg
from selfsr.degrade.kernels import GaussianKernel
from selfsr.degrade.noise import CorrelatedNoise, GaussianNoise
from selfsr.degrade.plan import DegradationPlan, Step, bernoulli, choice, uniform, uniform_int
from selfsr.degrade.resample import Mode, Resize, Subsample

_MODES: tuple[Mode, ...] = ("bilinear", "bicubic", "opencv_area")
_OPERATIONS = ("blur", "blur", "downsample2", "downsample3", "noise", "jpeg")

NoiseKind = Literal["color", "gray", "correlated"]
Bound = Annotated[
    tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]],
    Field(description="(a, b) for the bound a + b * scale"),
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

# The BSRGAN part of the paper's blind test sets.
_SSL_TEST: dict[str, Any] = {
    **_SSL,
    "kernel_px": (3, 5, 7, 9, 11),
    "resize_max": (1 / 0.75, 0.0),
    "resize_uniform": "factor",
    "noise_level": (1, 10),
    "jpeg_quality": (85, 95),
}


class Bsrgan(PresetSpec):
    """Two blurs, two downsamplings, noise and JPEG in random order, and a final JPEG.

    Each image has its own random parameters. A bound (a, b) means a + b * scale, where the scale is 2 after an image
    for scale 4 was halved.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "bsrgan": _ORIGINAL,
        "bsrgan_ssl": _SSL,
        "bsrgan_ssl_test": _SSL_TEST,
    }

    kind: Literal["bsrgan"]
    preset: Literal["bsrgan", "bsrgan_ssl", "bsrgan_ssl_test"] = Field(
        description="preset that provides all keys that are not given"
    )
    halve: Probability = Field(description="probability of a first resize by 1/2, at scale 4 only")
    anisotropic: Probability = Field(
        description="probability of an anisotropic Gaussian kernel; the others are isotropic"
    )
    variance_max: Bound = Field(
        description="largest variance of an anisotropic kernel along an axis; the smallest is 0"
    )
    sigma_max: Bound = Field(
        description="largest standard deviation of an isotropic kernel in pixels; the smallest is 0"
    )
    kernel_px: KernelSizes = Field(description="sides of blur kernels in pixels, equally likely")
    resize: Probability = Field(
        description="probability that the first downsampling is a resize, not a shifted Gaussian and every n-th pixel"
    )
    resize_max: Bound = Field(description="largest divisor of that resize; the smallest is 1")
    resize_uniform: Literal["divisor", "factor"] = Field(
        description="whether the divisor or the factor of that resize is uniform"
    )
    shifted_px: KernelSizes = Field(description="sides of the shifted Gaussian in pixels, equally likely")
    shifted_sigma_min: float = Field(ge=0, description="smallest standard deviation of the shifted Gaussian, in pixels")
    shifted_sigma_max: Bound = Field(description="largest standard deviation of the shifted Gaussian, in pixels")
    noise_level: Annotated[
        tuple[int, int],
        Field(description="range of the noise's standard deviation: integers, on the scale of 0 to 255"),
    ]
    noise: Annotated[dict[NoiseKind, float], AfterValidator(check_sum_to_one)] = Field(
        description="probability of each kind of noise"
    )
    jpeg: Probability = Field(description="probability of a JPEG compression before the final one")
    jpeg_quality: QualityRange = Field(
        description="range of the JPEG quality, integers from 1 to 100, both ends included"
    )

    def sample(self, rng: np.random.Generator, height: int, width: int, scale: int) -> DegradationPlan:
        """Sample a plan for one image; see `PresetSpec.sample`."""
        out = (height // scale, width // scale)
        steps: list[Step] = []
        if scale == 4 and bernoulli(rng, self.halve):
            height, width, scale = height // 2, width // 2, 2
            mode = "matlab_bicubic" if bernoulli(rng, 0.5) else choice(rng, _MODES)
            steps.append(Resize(height, width, mode, clip=True))
        order = [_OPERATIONS[i] for i in rng.permutation(len(_OPERATIONS))]
        second, third = order.index("downsample2"), order.index("downsample3")
        if second > third:
            order[second], order[third] = order[third], order[second]
        for operation in order:
            if operation == "blur":
                steps.append(Blur(self._sample_kernel(rng, scale)))
            elif operation == "downsample2":
                steps += self._sample_downsample2(rng, height, width, scale)
            elif operation == "downsample3":
                steps.append(Resize(*out, choice(rng, _MODES), clip=True))
            elif operation == "noise":
                steps.append(self._sample_noise(rng))
            elif bernoulli(rng, self.jpeg):
                steps.append(Jpeg(uniform_int(rng, self.jpeg_quality)))
        return (*steps, Jpeg(uniform_int(rng, self.jpeg_quality)))

    def _sample_kernel(self, rng: np.random.Generator, scale: int) -> GaussianKernel:
        size = choice(rng, self.kernel_px)
        if bernoulli(rng, self.anisotropic):
            variances = (0.0, _evaluate_bound(self.variance_max, scale))
            first, second = (math.sqrt(uniform(rng, variances)) for _ in range(2))
            return GaussianKernel(size, (first, second), uniform(rng, (0.0, math.pi)))
        sigma = uniform(rng, (0.0, _evaluate_bound(self.sigma_max, scale)))
        return GaussianKernel(size, (sigma, sigma))

    def _sample_downsample2(self, rng: np.random.Generator, height: int, width: int, scale: int) -> list[Step]:
        if bernoulli(rng, self.resize):
            most = _evaluate_bound(self.resize_max, scale)
            by_factor = self.resize_uniform == "factor"
            factor = uniform(rng, (1 / most, 1.0)) if by_factor else 1 / uniform(rng, (1.0, most))
            return [Resize(int(height * factor), int(width * factor), choice(rng, _MODES), clip=True)]
        sigma = uniform(rng, (self.shifted_sigma_min, _evaluate_bound(self.shifted_sigma_max, scale)))
        # Centered on the n x n block whose first pixel is kept.
        kernel = GaussianKernel(choice(rng, self.shifted_px), (sigma, sigma), shift_px=(scale - 1) / 2)
        return [Blur(kernel), Subsample(scale)]

    def _sample_noise(self, rng: np.random.Generator) -> Step:
        level = uniform_int(rng, self.noise_level)
        kind = choice(rng, tuple(self.noise), tuple(self.noise.values()))
        if kind != "correlated":
            return GaussianNoise(level, gray=kind == "gray")
        return CorrelatedNoise(_sample_covariance(rng, self.noise_level[1]))

    def smallest_px(self, side_px: int, scale: int) -> float:
        """Return the smallest side, in pixels, that an image of `side_px` can have between two steps."""
        return min(side_px / scale, side_px / _evaluate_bound(self.resize_max, scale))


def _evaluate_bound(bound: tuple[float, float], scale: int) -> float:
    return bound[0] + bound[1] * scale


def _sample_covariance(rng: np.random.Generator, level: int) -> tuple[tuple[float, float, float], ...]:
    """Sample the covariance of correlated noise: `level^2 |U' D U|`, D diagonal from U(0, 1), U random orthogonal.

    The published code takes the absolute values of the elements, after which eigenvalues can be negative. It then
    samples by a singular value decomposition, which takes the absolute values of the eigenvalues. The result is the
    covariance that its noise has.
    """
    diagonal = np.diag(rng.random(3))
    basis = np.linalg.svd(rng.random((3, 3)))[0]
    values, vectors = np.linalg.eigh(np.abs(level**2 * (basis.T @ diagonal @ basis)))
    covariance = (vectors * np.abs(values)) @ vectors.T
    return tuple(tuple(float(x) for x in row) for row in covariance)  # pyright: ignore[reportReturnType]
