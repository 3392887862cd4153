"""The focal frequency loss as a term."""

from typing import Literal

from pydantic import Field
from torch import Tensor

from selfsr.losses.frequency import ALPHA, focal_frequency_loss
from selfsr.step import Batch, Clock, Outputs
from selfsr.terms.base import TermSpec


class FocalFrequencyTerm(TermSpec):
    """Distance of spectra that weights frequencies by their error (Jiang et al., ICCV 2021)."""

    kind: Literal["focal_frequency"] = "focal_frequency"
    alpha: float = Field(
        ALPHA,
        ge=0,
        description="exponent of the weight of a frequency; larger values focus on the frequencies with the largest "
        "error, 0 weights all equally",
    )

    def __call__(self, outputs: Outputs, batch: Batch, clock: Clock) -> Tensor:
        """Return the loss as a mean over the batch."""
        return focal_frequency_loss(outputs.sr, batch.hr, alpha=self.alpha)
