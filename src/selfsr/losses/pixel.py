"""The losses of single pixels: absolute, squared and Charbonnier difference."""

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
        reduction: "none" returns one value for each element, "mean" and "sum" a scalar.

    Raises:
        InputError: the shapes differ, or the reduction is unknown.
    """
    _check("l1", sr, hr)
    return _reduce("l1", (sr - hr).abs(), reduction)


def l2(sr: Tensor, hr: Tensor, *, reduction: Reduction = "none") -> Tensor:
    """Return the squared difference `(sr - hr)^2`.

    Args:
        sr: super-resolved images of any one shape, usually `[N, C, H, W]` in [0, 1].
        hr: ground truth of the same shape.
        reduction: "none" returns one value for each element, "mean" and "sum" a scalar.

    Raises:
        InputError: the shapes differ, or the reduction is unknown.
    """
    _check("l2", sr, hr)
    return _reduce("l2", (sr - hr).square(), reduction)


def charbonnier(sr: Tensor, hr: Tensor, *, eps: float = CHARBONNIER_EPS, reduction: Reduction = "none") -> Tensor:
    """Return `sqrt((sr - hr)^2 + eps^2)`, an absolute difference that is smooth at zero.

    From Charbonnier et al., "Two deterministic half-quadratic regularization algorithms for computed imaging",
    ICIP 1994; used for super-resolution since LapSRN (Lai et al., CVPR 2017, eq. 5). The same images have a
    loss of `eps`, not 0.

    Args:
        sr: super-resolved images of any one shape, usually `[N, C, H, W]` in [0, 1].
        hr: ground truth of the same shape.
        eps: the difference at which the loss turns from square to absolute, in the units of the images.
        reduction: "none" returns one value for each element, "mean" and "sum" a scalar.

    Raises:
        InputError: the shapes differ, `eps` is not positive, or the reduction is unknown.
    """
    _check("charbonnier", sr, hr)
    check_eps("charbonnier", eps)
    return _reduce("charbonnier", torch.sqrt((sr - hr).square() + eps**2), reduction)


class Distance(Protocol):
    """A loss of single pixels, as losses of maps and features call it."""

    def __call__(self, sr: Tensor, hr: Tensor, *, reduction: Reduction) -> Tensor:
        """Return the difference, reduced."""
        ...


def distance(where: str, criterion: str) -> Distance:
    """Return the loss of single pixels that goes by the name of `criterion`.

    Raises:
        InputError: there is none of that name.
    """
    check_choice(where, "criterion", criterion, get_args(Criterion))
    return {"l1": l1, "l2": l2, "charbonnier": charbonnier}[criterion]


def check_eps(where: str, eps: float) -> None:
    """Check the constant of the Charbonnier loss."""
    if not eps > 0:
        raise InputError(f"{where}: eps must be greater than 0, got {eps}; 1e-3 is usual for images in [0, 1].")


def _check(where: str, sr: Tensor, hr: Tensor) -> None:
    # Without this a missing channel or batch axis would broadcast, and the mean would be over the wrong pairs.
    if sr.shape != hr.shape:
        raise InputError(f"{where}: sr and hr must have one shape, got {list(sr.shape)} and {list(hr.shape)}.")


def _reduce(where: str, values: Tensor, reduction: str) -> Tensor:
    check_choice(where, "reduction", reduction, get_args(Reduction))
    if reduction == "none":
        return values
    return values.mean() if reduction == "mean" else values.sum()
