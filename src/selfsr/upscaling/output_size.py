"""The size of an upscaled image, from that of the input."""

import math
from dataclasses import dataclass

from selfsr.errors import InputError

# Models upscale by at most 16. A larger factor is a mistake, often a side in pixels, and would write gigabytes.
_LARGEST_FACTOR = 64


@dataclass(frozen=True)
class OutputSize:
    """The size of each output: a factor of the input's, and a limit of the longer side.

    Args:
        factor: output side divided by input side, from 1/64 to 64.
        max_side_px: the longest side that an output may have; both sides of a larger one shrink by the same factor.

    Raises:
        InputError: the factor is not in [1/64, 64], or the limit is below 1 px.

    Example:
        >>> OutputSize(2.5).compute(100, 301)
        (250, 753)
        >>> OutputSize(4, max_side_px=600).compute(100, 300)
        (200, 600)
    """

    factor: float
    max_side_px: int | None = None

    def __post_init__(self) -> None:
        if not 1 / _LARGEST_FACTOR <= self.factor <= _LARGEST_FACTOR:  # NaN is in no interval
            raise InputError(
                f"upscale: expected an output factor from 1/{_LARGEST_FACTOR} to {_LARGEST_FACTOR}, got "
                f"{self.factor:g}; pass one such as 2.5, or limit the size in pixels with --max-side."
            )
        if self.max_side_px is not None and self.max_side_px < 1:
            raise InputError(
                f"upscale: expected a longest side of at least 1 px, got {self.max_side_px}; pass one such as 4096."
            )

    def compute(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) of the output, rounded half up and at least 1, for an input of this size in pixels."""
        factor = self.factor
        if self.max_side_px is not None:
            factor = min(factor, self.max_side_px / max(height, width))
        # The added term compensates the rounding of the product: 150 * 1.15 is 172.49999999999997.
        rows, columns = (max(1, math.floor(side * factor + 0.5 + 1e-9)) for side in (height, width))
        return rows, columns
