"""SPSR's two losses on gradient maps as terms."""

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from selfsr.losses.gradient import gradient_branch_loss, gradient_loss
from selfsr.losses.pixel import Criterion
from selfsr.step import Batch, Clock, Outputs
from selfsr.terms.base import TermSpec
from selfsr.terms.loss_weights import Weight


class GradientTerm(TermSpec):
    """Distance of the gradient maps of output and ground truth (SPSR, Ma et al., CVPR 2020)."""

    kind: Literal["gradient"] = "gradient"
    weight: Weight = Field(0.01, description="factor of the loss, or how to calibrate it in training")
    criterion: Criterion = Field("l2", description="elementwise loss between the maps")

    def __call__(self, outputs: Outputs, batch: Batch, clock: Clock) -> Tensor:
        """Return the loss as a mean over the batch."""
        return gradient_loss(outputs.sr, batch.hr, criterion=self.criterion)


class GradientBranchTerm(TermSpec):
    """Distance of the predicted gradient map, the generator's branch, to the ground truth's (SPSR, CVPR 2020)."""

    needs_branch: ClassVar[bool] = True

    kind: Literal["gradient_branch"] = "gradient_branch"
    weight: Weight = Field(0.5, description="factor of the loss; a number, since this loss does not act on the output")
    criterion: Criterion = Field("l1", description="elementwise loss between the maps")

    def __call__(self, outputs: Outputs, batch: Batch, clock: Clock) -> Tensor:
        """Return the loss as a mean over the batch."""
        assert outputs.branch is not None
        return gradient_branch_loss(outputs.branch, batch.hr, criterion=self.criterion)
