"""Pixel weights with mean 1 (docs/pacing.md, eq. 15 to 17), for any sigma.

Early in training every weight is far below the smallest number of float32, and of float64. So weights are compared by
their exponents, and the exponents are computed in float64: at sigma = 0.001 an error of 1e-7 in the SSIM would change a
weight by 40 %.
"""

import torch
from torch import Tensor


def widen(image: Tensor) -> Tensor:
    """Return an image in float64 without its gradient; in its own dtype on devices that have no float64."""
    return image.detach() if image.device.type == "mps" else image.detach().double()


def normalize_weights(distance: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights `exp(-(d / sigma)^2)`, divided by their mean, and the logarithm of their sum before.

    Eq. 16: with the smallest distance `m`, the exponents are `-((d - m) / sigma) ((d + m) / sigma)`. The largest is 0,
    so at least one weight does not underflow.

    Args:
        distance: d of eq. 12, `[N, C, H, W]`, at least 0.
        sigma: scalar, greater than 0, in the dtype and on the device of `distance`.

    Returns:
        The weights v of eq. 15, like `distance`, with mean 1; and the scalar `log sum exp(-(d / sigma)^2)`.
    """
    if distance.numel() == 0:
        return torch.empty_like(distance), distance.new_full((), -torch.inf)
    smallest = distance.amin()
    weight = ((smallest - distance) / sigma * ((distance + smallest) / sigma)).exp_()
    # Axis by axis: torch splits a full sum by the number of threads, and its bits depend on that.
    total = weight.sum(3).sum(2).sum(1).sum()
    return weight * (weight.numel() / total), total.log() - (smallest / sigma).square()
