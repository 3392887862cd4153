"""Tolerances of the backends of the self-similarity operator against the definition in float64.

The tests use this table, and so does the benchmark, which skips backends with wrong results. docs/numerics.md has the
reason for each number.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Tolerance:
    """Allowed errors, relative to the value, or for images to their largest element."""

    l1: float
    kl: float
    gradient: float
    graph: float


TOLERANCES = {
    torch.float64: Tolerance(l1=1e-12, kl=1e-10, gradient=1e-11, graph=1e-12),
    torch.float32: Tolerance(l1=2e-6, kl=1e-5, gradient=4e-6, graph=2e-6),
}

# The derivative of |X - Y| jumps at X = Y. If two entries are closer than twice the tolerance of one, relative to the
# larger, rounding decides the sign in float32, also in the definition. The gradient of a masked pixel with such an
# entry cannot be compared in float32. Entries below the least one are too small to change the gradient visibly.
NEAR_TIE = 2 * TOLERANCES[torch.float32].graph
LEAST_IN_A_TIE = 1e-7

# "No worse than naive": the error of the definition in the same dtype, plus this share of rms(truth).
SLACK = 2e-7

# Relative error of the published golden values, by their printed digits, and of float32 results.
GOLDEN_DIGITS = {torch.float64: 1e-9, torch.float32: 1e-5}

# The gradient of loss(x, x), which is only due to the floor, relative to the gradient of two different images.
AT_EQUAL_IMAGES = {torch.float64: 1e-9, torch.float32: 2e-7}
