"""Convolution with a kernel, and unsharp masking."""

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from selfsr.degrade.kernels import Kernel

# Sum of the weights that may be trimmed at a kernel's rim, relative to the sum of all: a quarter of float32's last bit.
_NEGLIGIBLE = 2.0**-25

# The unsharp mask of the published code: an OpenCV Gaussian of 51 pixels, whose sigma follows from the size.
USM_SIZE_PX = 51
USM_SIGMA_PX = 0.3 * ((USM_SIZE_PX - 1) * 0.5 - 1) + 0.8
USM_WEIGHT = 0.5
USM_THRESHOLD = 10 / 255


@dataclass(frozen=True)
class Blur:
    """Convolution of each channel with a kernel; the border is reflected without repeating the edge.

    Attributes:
        kernel: the blur kernel.
    """

    name: ClassVar[str] = "blur"
    kernel: Kernel

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # noqa: ARG002 - a step's signature
        """Return the blurred image."""
        return convolve(image, self.kernel.weights())


def convolve(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Convolve each channel of an image with a kernel.

    Rims of the kernel whose weights vanish in float32 are trimmed, and a separable kernel is applied as a column and a
    row: most kernels then cost a few multiplications per pixel.

    Args:
        image: float32 `[H, W, C]`.
        weights: float64 `[k, k]`, k odd.

    Returns:
        float32 `[H, W, C]`; the border is reflected without repeating the edge.
    """
    weights = trim_kernel(weights)
    if len(weights) == 1:
        return image * np.float32(weights[0, 0])
    # OpenCV correlates; a convolution rotates the kernel by 180 degrees.
    rotated = weights[::-1, ::-1]
    factors = _factor(rotated)
    if factors is not None:
        column, row = factors
        return cv2.sepFilter2D(image, cv2.CV_32F, row, column, borderType=cv2.BORDER_REFLECT_101)
    return cv2.filter2D(image, cv2.CV_32F, np.ascontiguousarray(rotated), borderType=cv2.BORDER_REFLECT_101)


def sharpen(image: np.ndarray) -> np.ndarray:
    """Sharpen an image by unsharp masking, as Real-ESRGAN sharpens its ground truth.

    Half of the difference from the blurred image is added where that difference exceeds 10 / 255; the blurred mask of
    these pixels blends the two (Wang et al., 2021, section 3.4, and the published code).

    Args:
        image: float32 `[H, W, C]` in [0, 1].

    Returns:
        float32 `[H, W, C]` in [0, 1].
    """

    def smooth(plane: np.ndarray) -> np.ndarray:
        size = (USM_SIZE_PX, USM_SIZE_PX)
        return cv2.GaussianBlur(plane, size, USM_SIGMA_PX, borderType=cv2.BORDER_REFLECT_101)

    residual = image - smooth(image)
    mask = smooth((np.abs(residual) > USM_THRESHOLD).astype(np.float32)).reshape(image.shape)
    sharp = np.clip(image + np.float32(USM_WEIGHT) * residual, 0, 1)
    return mask * sharp + (1 - mask) * image


def trim_kernel(weights: np.ndarray) -> np.ndarray:
    """Trim outer rings of a kernel as long as the sum of all trimmed weights is negligible."""
    magnitude = np.abs(weights)
    total = magnitude.sum()
    radius = len(weights) // 2
    while radius:
        inner = len(weights) // 2 - radius + 1
        kept = magnitude[inner : len(weights) - inner, inner : len(weights) - inner].sum()
        if total - kept > _NEGLIGIBLE * total:
            break
        radius -= 1
    cut = len(weights) // 2 - radius
    return weights[cut : len(weights) - cut, cut : len(weights) - cut]


def _factor(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return (column, row) whose outer product is the kernel, or None if the kernel is not separable."""
    y, x = np.unravel_index(np.argmax(np.abs(weights)), weights.shape)
    column, row = weights[:, x], weights[y] / weights[y, x]
    if np.abs(np.outer(column, row) - weights).max() > _NEGLIGIBLE * np.abs(weights).max():
        return None
    return np.ascontiguousarray(column), np.ascontiguousarray(row)
