"""Elementwise losses: absolute, squared and Charbonnier difference."""

from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from selfsr.errors import InputError, check_choice

Reduction = Literal["none", "mean", "sum"]
Criterion = Literal["l1", "l2", "charbonnier"]

# Lai et al., "Deep Laplacian Pyramid Networks for Fast and Accurate Super-Resolution", CVPR 2017, section 3.3.
CHARBONNIER_EPS = 1e-3


def l1(sr: Tensor, hr: Tensor, *, reduction: Reduction = "none") -> Tensor:
    """Return the absolute difference `|sr - hr|`.

    Args:
        sr: super-resolved images of any one shape, usually `[N, C, H, W]` in [0, 1].
        hr: ground truth of the same shape.
        reduction: "none", "mean" or "sum".

    Returns:
        One value for each element with "none", else a scalar.

    Raises:
        InputError: the shapes differ, or the reduction is unknown.

    >>> l1(torch.tensor([0.5, 1.0]), torch.tensor([1.0, 1.0])).tolist()
    [0.5, 0.0]
    """
    _check_shapes("l1", sr, hr)
    return _reduce("l1", (sr - hr).abs(), reduction)


def l2(sr: Tensor, hr: Tensor, *, reduction: Reduction = "none") -> Tensor:
    """Return the squared difference `(sr - hr)^2`.

    Args:
        sr: super-resolved images of any one shape, usually `[N, C, H, W]` in [0, 1].
        hr: ground truth of the same shape.
        reduction: "none", "mean" or "sum".

    Returns:
        One value for each element with "none", else a scalar.

    Raises:
        InputError: the shapes differ, or the reduction is unknown.

    >>> l2(torch.tensor([0.5, 1.0]), torch.tensor([1.0, 1.0]), reduction="sum").item()
    0.25
    """
    _check_shapes("l2", sr, hr)
    return _reduce("l2", (sr - hr).square(), reduction)


def charbonnier(sr: Tensor, hr: Tensor, *, eps: float = CHARBONNIER_EPS, reduction: Reduction = "none") -> Tensor:
    """Return `sqrt((sr - hr)^2 + eps^2)`, an absolute difference that is smooth at zero.

    From Charbonnier et al., "Two deterministic half-quadratic regularization algorithms for computed imaging",
    ICIP 1994; used for super-resolution since LapSRN (Lai et al., CVPR 2017, eq. 5). Equal images have a loss of
    `eps`, not 0.

    Args:
        sr: super-resolved images of any one shape, usually `[N, C, H, W]` in [0, 1].
        hr: ground truth of the same shape.
        eps: difference at which the loss changes from quadratic to absolute, in the units of the images.
        reduction: "none", "mean" or "sum".

    Returns:
        One value for each element with "none", else a scalar.

    Raises:
        InputError: the shapes differ, `eps` is not positive, or the reduction is unknown.

    >>> charbonnier(torch.tensor(4.0), torch.tensor(1.0), eps=4.0).item()
    5.0
    """
    _check_shapes("charbonnier", sr, hr)
    check_eps("charbonnier", eps)
    return _reduce("charbonnier", torch.sqrt((sr - hr).square() + eps**2), reduction)


class PixelLoss(Protocol):
    """An elementwise loss, as losses of maps and features call it."""

    def __call__(self, sr: Tensor, hr: Tensor, /, *, reduction: Reduction) -> Tensor:
        """Return the reduced loss of `sr` against `hr`."""
        ...


def pixel_loss(caller: str, criterion: str) -> PixelLoss:
    """Return the elementwise loss named `criterion`.

    Raises:
        InputError: the name is unknown.
    """
    check_choice(caller, "criterion", criterion, get_args(Criterion))
    return {"l1": l1, "l2": l2, "charbonnier": charbonnier}[criterion]


def check_eps(caller: str, eps: float) -> None:
    """Check the constant of the Charbonnier loss.

    Raises:
        InputError: it is not positive.
    """
    if not eps > 0:
        raise InputError(f"{caller}: eps must be greater than 0, got {eps}; 1e-3 is usual for images in [0, 1].")


def _check_shapes(caller: str, sr: Tensor, hr: Tensor) -> None:
    # Otherwise a missing channel or batch axis would broadcast, and the mean would be over wrong pairs.
    if sr.shape != hr.shape:
        raise InputError(f"{caller}: sr and hr must have one shape, got {list(sr.shape)} and {list(hr.shape)}.")


def _reduce(caller: str, values: Tensor, reduction: str) -> Tensor:
    check_choice(caller, "reduction", reduction, get_args(Reduction))
    if reduction == "none":
        return values
    return values.mean() if reduction == "mean" else values.sum()
