"""Total variation as a term."""

from typing import Literal

from pydantic import Field
from torch import Tensor

from selfsr.losses.pixel import Criterion
from selfsr.losses.variation import total_variation
from selfsr.step import Batch, Clock, Outputs
from selfsr.terms.base import TermSpec


class TotalVariationTerm(TermSpec):
    """Total variation of the output, without the ground truth (Rudin et al., Physica D 1992)."""

    kind: Literal["total_variation"] = "total_variation"
    criterion: Criterion = Field("l1", description="elementwise loss between neighboring pixels")

    @property
    def minimum_px(self) -> int:
        """Two neighboring pixels."""
        return 2

    def __call__(self, outputs: Outputs, batch: Batch, clock: Clock) -> Tensor:
        """Return the loss as a mean over the batch."""
        return total_variation(outputs.sr, criterion=self.criterion)
