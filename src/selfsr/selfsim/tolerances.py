"""How far a backend of the self-similarity operator may be from the definition in float64.

The tests and the benchmark, which times no backend whose numbers are wrong, read the same table. docs/numerics.md
gives the reason of each number.
"""

from dataclasses import dataclass

import torch


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

# The derivative of |X - Y| jumps at X = Y. Where two entries are nearer than twice the tolerance of one, relative to
# the larger, rounding decides the sign in float32, in the definition too: a masked pixel with such an entry has no
# gradient in float32 to compare with. Entries below the least one are too small to be seen in the gradient.
NEAR_TIE = 2 * TOLERANCES[torch.float32].graph
LEAST_IN_A_TIE = 1e-7

# "No worse than naive": how much of rms(truth) a backend may add to the error of the definition, computed in the
# same dtype.
SLACK = 2e-7

# The published golden values are printed with this many digits; float32 is held to what they ask of it.
GOLDEN_DIGITS = {torch.float64: 1e-9, torch.float32: 1e-5}

# The gradient of loss(x, x): what the floor leaves, relative to the gradient of a pair that differs.
AT_EQUAL_IMAGES = {torch.float64: 1e-9, torch.float32: 2e-7}
