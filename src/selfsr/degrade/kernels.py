"""Blur kernels: Gaussian, generalized Gaussian and plateau, and the circular low-pass filter ("sinc").

A kernel has a few parameters and computes its weights from them: float64 `[size, size]` with sum 1, indexed by row y
and column x, with the origin in the middle.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

Profile = Literal["gaussian", "generalized", "plateau"]

# Below this a Gaussian is a single pixel to float64, and its exponent would overflow.
_SMALLEST_SIGMA_PX = 0.02


@dataclass(frozen=True)
class GaussianKernel:
    """A Gaussian kernel or a relative: a function of `q = x' S^-1 x`, where S is the covariance of the Gaussian.

    Gaussian: `exp(-q / 2)`; generalized: `exp(-q^beta / 2)`; plateau: `1 / (1 + q^beta)` (Wang et al., "Real-ESRGAN",
    2021, section 3.1, after Liu et al., 2020).

    Attributes:
        size_px: side of the kernel, odd.
        sigma_px: standard deviations along the two axes of the ellipse.
        rotation: angle in radians from the x axis (columns) to the first axis, toward growing y (rows).
        profile: the function of q.
        beta: exponent of the generalized and plateau profiles.
        shift_px: shift of the peak to the upper left, by linear interpolation of the weights.
    """

    size_px: int
    sigma_px: tuple[float, float]
    rotation: float = 0.0
    profile: Profile = "gaussian"
    beta: float = 1.0
    shift_px: float = 0.0

    def weights(self) -> np.ndarray:
        """Compute the weights, float64 `[size, size]` with sum 1."""
        axis = np.arange(self.size_px) - self.size_px // 2
        x, y = axis[None, :], axis[:, None]
        cos, sin = math.cos(self.rotation), math.sin(self.rotation)
        first, second = (max(sigma, _SMALLEST_SIGMA_PX) for sigma in self.sigma_px)
        q = ((cos * x + sin * y) / first) ** 2 + ((cos * y - sin * x) / second) ** 2
        if self.profile == "gaussian":
            kernel = np.exp(-q / 2)
        elif self.profile == "generalized":
            kernel = np.exp(-(q**self.beta) / 2)
        else:
            kernel = 1 / (1 + q**self.beta)
        if self.shift_px:
            move = _compute_shift_matrix(self.size_px, self.shift_px)
            kernel = move @ kernel @ move.T
        return kernel / kernel.sum()


@dataclass(frozen=True)
class SincKernel:
    """The ideal circular low-pass filter, truncated to a square: it causes overshoot and ringing.

    `w J1(w r) / (2 pi r)`, at the origin `w^2 / (4 pi)` (Wang et al., 2021, eq. 6), then divided by the sum.

    Attributes:
        size_px: side of the kernel, odd.
        cutoff: angular frequency w in radians per pixel; pi passes all frequencies along the axes.
    """

    size_px: int
    cutoff: float

    def weights(self) -> np.ndarray:
        """Compute the weights, float64 `[size, size]` with sum 1."""
        axis = np.arange(self.size_px) - self.size_px // 2
        r = np.hypot(axis[None, :], axis[:, None])
        middle = self.size_px // 2
        r[middle, middle] = 1  # its weight is set below
        bessel = torch.special.bessel_j1(torch.from_numpy(self.cutoff * r)).numpy()
        kernel = self.cutoff * bessel / (2 * math.pi * r)
        kernel[middle, middle] = self.cutoff**2 / (4 * math.pi)
        return kernel / kernel.sum()


Kernel = GaussianKernel | SincKernel


def _compute_shift_matrix(size_px: int, shift_px: float) -> np.ndarray:
    """Return the matrix `[size, size]` that interpolates a vector linearly at i + shift; the last entry repeats."""
    position = np.clip(np.arange(size_px) + shift_px, 0, size_px - 1)
    left = np.minimum(position.astype(int), size_px - 2)
    matrix = np.zeros((size_px, size_px))
    rows = np.arange(size_px)
    matrix[rows, left] = 1 - (position - left)
    matrix[rows, left + 1] = position - left
    return matrix
