"""Total variation as a term."""

from typing import Literal

from pydantic import Field
from torch import Tensor

from selfsr.losses.pixel import Criterion
from selfsr.losses.variation import total_variation
from selfsr.step import Batch, Clock, Outputs
from selfsr.terms.base import TermSpec


class TotalVariationTerm(TermSpec):
    """Difference of neighboring pixels of the output, without regard to the ground truth (Rudin et al., 1992)."""

    kind: Literal["total_variation"] = "total_variation"
    criterion: Criterion = Field("l1", description="how neighbors are compared")

    @property
    def minimum_px(self) -> int:
        """Two neighbors."""
        return 2

    def __call__(self, outputs: Outputs, batch: Batch, clock: Clock) -> Tensor:
        """Return the mean over the batch."""
        return total_variation(outputs.sr, criterion=self.criterion)
