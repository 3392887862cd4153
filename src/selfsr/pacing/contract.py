"""What every backend of the self-paced operator provides, and the words and numbers they share."""

import functools
import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

Padding = Literal["zero", "reflect", "replicate"]
LossName = Literal["l1", "l2", "charbonnier"]
Reduction = Literal["mean", "none"]

# The window of docs/pacing.md, eq. 1: 11 x 11 taps of a Gaussian with a standard deviation of 1.5 pixels.
REACH_PX = 5
_WINDOW_SIGMA_PX = 1.5

# sigma of eq. 4 never gets smaller, so that 0 / 0 cannot arise: at sigma = 0 only s = -1 has a weight.
TINY = 1e-30


@functools.cache
def taps() -> tuple[float, ...]:
    """Return g(0) to g(5) of eq. 1, one side of the symmetric window, with the whole window summing to 1."""
    side = [math.exp(-(k**2) / (2 * _WINDOW_SIGMA_PX**2)) for k in range(REACH_PX + 1)]
    total = side[0] + 2 * sum(side[1:])
    return tuple(value / total for value in side)


@dataclass(frozen=True)
class Ssim:
    """The SSIM map's options (eq. 3).

    Attributes:
        c1: constant that steadies the comparison of means, in squared units of the images.
        c2: constant that steadies the comparison of variances.
        padding: what lies beyond the border.
    """

    c1: float
    c2: float
    padding: Padding


@dataclass(frozen=True)
class Pace:
    """The weight's and the loss's options (eq. 4 and 5).

    Attributes:
        peak: largest weight, M.
        loss: which difference the weight multiplies.
        eps: constant of the Charbonnier loss; the others do not read it.
    """

    peak: float
    loss: LossName
    eps: float


class Backend(Protocol):
    """The three products of the operator.

    The images are `[N, C, H, W]` with any strides and in any float dtype, the two may differ in both. Results
    are in `compute_dtype(x, y)`, except for the gradient, which has the dtype and layout of its image.
    `sigma` is a scalar tensor on the device of the images, in the compute dtype, at least `TINY`.
    """

    def ssim(self, x: Tensor, y: Tensor, options: Ssim) -> Tensor:
        """Return the SSIM map of eq. 3, clamped to [-1, 1]."""
        ...

    def weight(self, x: Tensor, y: Tensor, sigma: Tensor, options: Ssim, pace: Pace) -> Tensor:
        """Return the weight of eq. 4."""
        ...

    def loss(
        self,
        sr: Tensor,
        hr: Tensor,
        sigma: Tensor,
        options: Ssim,
        pace: Pace,
        reduction: Reduction,
        with_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of eq. 5 and its elementwise derivative by `sr` (eq. 6, not yet divided by n).

        The first result is the mean over all elements or, for "none", the loss of each. The second is empty
        if `with_gradient` is false.
        """
        ...


def compute_dtype(*images: Tensor) -> torch.dtype:
    """Return the dtype that is computed in: float64 if any image is float64, else float32."""
    return torch.float64 if any(image.dtype == torch.float64 for image in images) else torch.float32
