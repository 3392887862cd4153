"""The checkerboard loss as a term."""

from typing import ClassVar, Literal

from pydantic import Field, PositiveInt
from torch import Tensor

from selfsr.losses.checkerboard import checkerboard_loss
from selfsr.step import Batch, Clock, Outputs
from selfsr.terms.base import TermSpec


class CheckerboardTerm(TermSpec):
    """Differences between the mean errors at the positions in the grid of the input; against periodic patterns."""

    smallest_scale: ClassVar[int] = 2

    kind: Literal["checkerboard"] = "checkerboard"
    window_periods: PositiveInt | None = Field(
        8,
        description="side of the windows in which errors are averaged, in periods (pixels of LR); smaller windows find "
        "patterns that change over the image and average less noise away. null, and a smaller crop, are one window",
    )

    @property
    def minimum_px(self) -> int:
        """One pixel of LR, at the smallest scale."""
        return self.smallest_scale

    def __call__(self, outputs: Outputs, batch: Batch, clock: Clock) -> Tensor:
        """Return the loss as a mean over the batch, with the scale as period."""
        window_px = None if self.window_periods is None else self.window_periods * batch.scale
        if window_px is not None and window_px > min(batch.hr.shape[2:]):
            window_px = None
        return checkerboard_loss(outputs.sr, batch.hr, period_px=batch.scale, window_px=window_px)
