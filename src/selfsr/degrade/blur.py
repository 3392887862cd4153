"""Convolution with a kernel, and unsharp masking."""

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from selfsr.degrade.kernels import Kernel

# Weights left out at a kernel's rim, all together, of a sum of one: a quarter of float32's last bit there.
_NEGLIGIBLE = 2.0**-25

# The unsharp mask of the published code: an OpenCV Gaussian of 51 pixels, whose sigma follows from the size.
USM_SIZE_PX = 51
USM_SIGMA_PX = 0.3 * ((USM_SIZE_PX - 1) * 0.5 - 1) + 0.8
USM_WEIGHT = 0.5
USM_THRESHOLD = 10 / 255


@dataclass(frozen=True)
class Blur:
    """Convolution of each channel with a kernel; the border is mirrored, its pixel not repeated.

    Attributes:
        kernel: what to convolve with.
    """

    name: ClassVar[str] = "blur"
    kernel: Kernel

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # noqa: ARG002 - a step's signature
        """Return the blurred image."""
        return convolved(image, self.kernel.weights())


def convolved(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Convolve every channel of float32 `[H, W, C]` with square odd `weights`, float64 `[k, k]`.

    Rims of the kernel whose weights vanish in float32 are left out, and a kernel that is a product of a row and a
    column is applied as such: most kernels then cost a few multiplications a pixel.
    """
    weights = trimmed(weights)
    if len(weights) == 1:
        return image * np.float32(weights[0, 0])
    # OpenCV correlates; a convolution turns the kernel by 180 degrees.
    turned = weights[::-1, ::-1]
    factors = _factors(turned)
    if factors is not None:
        column, row = factors
        return cv2.sepFilter2D(image, cv2.CV_32F, row, column, borderType=cv2.BORDER_REFLECT_101)
    return cv2.filter2D(image, cv2.CV_32F, np.ascontiguousarray(turned), borderType=cv2.BORDER_REFLECT_101)


def sharpened(image: np.ndarray) -> np.ndarray:
    """Return the unsharp mask of float32 `[H, W, C]` in [0, 1], as Real-ESRGAN sharpens its ground truth.

    Half of the difference from the blurred image is added where that difference exceeds 10 / 255, blended by the
    blurred indicator of these places (Wang et al., 2021, section 3.4, and the published code).
    """

    def smooth(picture: np.ndarray) -> np.ndarray:
        size = (USM_SIZE_PX, USM_SIZE_PX)
        return cv2.GaussianBlur(picture, size, USM_SIGMA_PX, borderType=cv2.BORDER_REFLECT_101)

    residual = image - smooth(image)
    where = smooth((np.abs(residual) > USM_THRESHOLD).astype(np.float32)).reshape(image.shape)
    sharp = np.clip(image + np.float32(USM_WEIGHT) * residual, 0, 1)
    return where * sharp + (1 - where) * image


def trimmed(weights: np.ndarray) -> np.ndarray:
    """Cut off outer rings as long as what is cut, in all, stays negligible."""
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


def _factors(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return (column, row) whose product is the kernel, if there are such."""
    y, x = np.unravel_index(np.argmax(np.abs(weights)), weights.shape)
    column, row = weights[:, x], weights[y] / weights[y, x]
    if np.abs(np.outer(column, row) - weights).max() > _NEGLIGIBLE * np.abs(weights).max():
        return None
    return np.ascontiguousarray(column), np.ascontiguousarray(row)
