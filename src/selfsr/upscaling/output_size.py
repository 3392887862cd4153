"""The size of an upscaled image, from that of the input."""

import math
from dataclasses import dataclass

from selfsr.errors import InputError


@dataclass(frozen=True)
class OutputSize:
    """The size of each output: a factor of the input's, and a limit of the longer side.

    Args:
        factor: sides of the output, over those of the input; any positive number.
        max_side_px: the longest side that an output may have; both sides of a larger one shrink by the same factor.

    Raises:
        InputError: the factor is not a positive number, or the limit is below 1 px.

    Example:
        >>> OutputSize(2.5).compute(100, 301)
        (250, 753)
        >>> OutputSize(4, max_side_px=600).compute(100, 300)
        (200, 600)
    """

    factor: float
    max_side_px: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.factor) and self.factor > 0):
            raise InputError(
                f"upscale: expected a positive factor of the size, got {self.factor:g}; pass one such as 2.5."
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
