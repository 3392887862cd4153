"""How errors are measured, and the bound "no worse than naive". The numbers are in selfsr.selfsim.tolerances."""

from torch import Tensor

from selfsr.selfsim.tolerances import AT_EQUAL_IMAGES, GOLDEN_DIGITS, SLACK, TOLERANCES

__all__ = ["AT_EQUAL_IMAGES", "GOLDEN_DIGITS", "TOLERANCES", "assert_no_worse_than_naive", "relative_error", "rms"]


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
