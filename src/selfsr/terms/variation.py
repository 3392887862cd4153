"""Total variation as a term."""

from typing import Literal

from pydantic import Field
from torch import Tensor

from selfsr.data.batch import Batch
from selfsr.losses.pixel import Criterion
from selfsr.losses.variation import total_variation
from selfsr.terms.base import TermSpec
from selfsr.terms.contract import Clock, Outputs


class TotalVariationTerm(TermSpec):
    """Difference of neighbouring pixels of the output, without regard to the ground truth (Rudin et al., 1992)."""

    kind: Literal["total_variation"] = "total_variation"
    criterion: Criterion = Field("l1", description="how neighbours are compared")

    @property
    def minimum_px(self) -> int:
        """Two neighbours."""
        return 2

    def __call__(self, made: Outputs, batch: Batch, clock: Clock) -> Tensor:  # noqa: ARG002 - terms share one signature
        """Return the mean over the batch."""
        return total_variation(made.sr, criterion=self.criterion)
