"""The contract of the backends of the self-paced operator: their functions, options and constants."""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from selfsr.losses.structural import WINDOW_PX

Padding = Literal["zero", "reflect", "replicate"]
LossName = Literal["l1", "l2", "charbonnier"]
PacingReduction = Literal["mean", "none"]

# Pixels that the window of docs/pacing.md, eq. 1 reaches to each side.
REACH_PX = WINDOW_PX // 2

# Steps of an epoch, the unit of the age: the published trainer calls 1000 batches an epoch, for any data set.
STEPS_PER_EPOCH = 1000

# Smallest sigma of eq. 4, which avoids 0 / 0: at sigma = 0 only pixels with s = -1 have a weight.
TINY = 1e-30


@dataclass(frozen=True)
class SsimOptions:
    """Options of the SSIM map (eq. 3).

    Attributes:
        c1: constant that stabilizes the comparison of means, in squared units of the images.
        c2: constant that stabilizes the comparison of variances, in the same units.
        padding: how images are padded at the border.
    """

    c1: float
    c2: float
    padding: Padding


@dataclass(frozen=True)
class PacingOptions:
    """Options of the weight and the loss (eq. 4 and 5).

    Attributes:
        peak: largest weight, M.
        loss: elementwise loss that is weighted.
        eps: constant of the Charbonnier loss, unused by the others.
    """

    peak: float
    loss: LossName
    eps: float


class PacingBackend(Protocol):
    """The three functions of a backend module.

    Images are `[N, C, H, W]` with any strides and any float dtype; the two images may differ in both. Results are in
    `compute_dtype(x, y)`, except for the gradient, which has the dtype and layout of `sr`. `sigma` is a scalar tensor
    on the device of the images, in the compute dtype, at least `TINY`.
    """

    def ssim(self, x: Tensor, y: Tensor, options: SsimOptions) -> Tensor:
        """Return the SSIM map of eq. 3, clamped to [-1, 1]."""
        ...

    def weight(self, x: Tensor, y: Tensor, sigma: Tensor, options: SsimOptions, pacing: PacingOptions) -> Tensor:
        """Return the weight of eq. 4."""
        ...

    def loss(
        self,
        sr: Tensor,
        hr: Tensor,
        sigma: Tensor,
        options: SsimOptions,
        pacing: PacingOptions,
        reduction: PacingReduction,
        with_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of eq. 5 and its elementwise derivative with respect to `sr` (eq. 6, before division by n).

        The first result is the mean over all elements or, for "none", the loss of each. The second is empty if
        `with_gradient` is false.
        """
        ...


def compute_dtype(*images: Tensor) -> torch.dtype:
    """Return the dtype of the computation: float64 if any image is float64, else float32."""
    return torch.float64 if any(image.dtype == torch.float64 for image in images) else torch.float32
