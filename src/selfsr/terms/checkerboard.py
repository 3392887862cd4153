"""The checkerboard loss as a term."""

from typing import ClassVar, Literal

from pydantic import Field, PositiveInt
from torch import Tensor

from selfsr.losses.checkerboard import checkerboard_loss
from selfsr.step import Batch, Clock, Outputs
from selfsr.terms.base import TermSpec


class CheckerboardTerm(TermSpec):
    """Penalize patterns that repeat with the scale: the mean error must be equal at all positions in an LR pixel."""

    smallest_scale: ClassVar[int] = 2

    kind: Literal["checkerboard"] = "checkerboard"
    window_periods: PositiveInt | None = Field(
        8,
        description="side of the windows over which errors are averaged, in LR pixels; small windows find patterns "
        "that change over the image, large ones average more noise away. null, or a window larger than the crop, "
        "averages over the complete crop",
    )

    @property
    def minimum_px(self) -> int:
        """The smallest period."""
        return self.smallest_scale

    def __call__(self, outputs: Outputs, batch: Batch, clock: Clock) -> Tensor:
        """Return the loss as a mean over the batch, with the scale as period."""
        window_px = None if self.window_periods is None else self.window_periods * batch.scale
        if window_px is not None and window_px > min(batch.hr.shape[2:]):
            window_px = None
        return checkerboard_loss(outputs.sr, batch.hr, period_px=batch.scale, window_px=window_px)
