"""Error measures, and the bound "no worse than naive", with the numbers of selfsr.selfsim.tolerances."""

from torch import Tensor

from selfsr.selfsim.tolerances import AT_EQUAL_IMAGES, GOLDEN_DIGITS, SLACK, TOLERANCES

__all__ = ["AT_EQUAL_IMAGES", "GOLDEN_DIGITS", "TOLERANCES", "assert_no_worse_than_naive", "relative_error", "rms"]


def rms(tensor: Tensor) -> float:
    return tensor.double().square().mean().sqrt().item()


def relative_error(result: Tensor, truth: Tensor) -> float:
    """Return the largest error, relative to the largest element of `truth` (absolute if that is 0)."""
    largest = truth.double().abs().max().item()
    error = (result.double() - truth.double()).abs().max().item()
    return error / largest if largest else error


def assert_no_worse_than_naive(result: Tensor, naive: Tensor, truth: Tensor) -> None:
    """Check that `result` is about as close to `truth` as `naive`, the definition in the same dtype."""
    error, naive_error, scale = rms(result.double() - truth), rms(naive.double() - truth), rms(truth)
    limit = naive_error + SLACK * scale
    assert error <= limit, f"rms error {error:.3g} exceeds {limit:.3g} (naive {naive_error:.3g}, scale {scale:.3g})"
