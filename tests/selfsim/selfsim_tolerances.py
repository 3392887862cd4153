"""How far a backend of the self-similarity operator may be from the definition in float64.

docs/numerics.md gives the reason of each number, in the same order.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tolerance:
    """Errors allowed, relative to the value, or for images to their largest element."""

    l1: float
    kl: float
    gradient: float
    graph: float


TOLERANCES = {
    torch.float64: Tolerance(l1=1e-12, kl=1e-10, gradient=1e-11, graph=1e-12),
    torch.float32: Tolerance(l1=2e-6, kl=1e-5, gradient=4e-6, graph=2e-6),
}

# "No worse than naive": how much of rms(truth) a backend may add to the error of the definition, computed in the
# same dtype.
SLACK = 2e-7

# The golden values are printed with this many digits.
GOLDEN_DIGITS = {torch.float64: 1e-9, torch.float32: 1e-5}

# The gradient of loss(x, x): what the floor leaves, relative to the gradient of a pair that differs.
AT_EQUAL_IMAGES = {torch.float64: 1e-9, torch.float32: 2e-7}


def rms(tensor: Tensor) -> float:
    return tensor.double().square().mean().sqrt().item()


def relative_error(found: Tensor, truth: Tensor) -> float:
    """Return the largest error of `found`, relative to the largest element of `truth` (absolute if that is 0)."""
    largest = truth.double().abs().max().item()
    error = (found.double() - truth.double()).abs().max().item()
    return error / largest if largest else error


def assert_no_worse_than_naive(found: Tensor, naive: Tensor, truth: Tensor) -> None:
    """Check that `found` is about as near to `truth` as `naive`, the definition computed in the dtype of `found`."""
    ours, theirs, scale = rms(found.double() - truth), rms(naive.double() - truth), rms(truth)
    limit = theirs + SLACK * scale
    assert ours <= limit, f"rms error {ours:.3g} exceeds {limit:.3g} (naive {theirs:.3g}, scale {scale:.3g})"
