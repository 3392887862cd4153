"""SPSR's losses of the gradient map as terms."""

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from selfsr.losses.gradient import gradient_branch_loss, gradient_loss
from selfsr.losses.pixel import Criterion
from selfsr.step import Batch, Clock, Outputs
from selfsr.terms.base import TermSpec
from selfsr.terms.loss_weights import Weight


class GradientTerm(TermSpec):
    """The output's gradient map against the ground truth's (SPSR, CVPR 2020)."""

    kind: Literal["gradient"] = "gradient"
    weight: Weight = Field(0.01, description="what the loss is multiplied by, or how to find that in training")
    criterion: Criterion = Field("l2", description="how the maps are compared")

    def __call__(self, outputs: Outputs, batch: Batch, clock: Clock) -> Tensor:
        """Return the mean over the batch."""
        return gradient_loss(outputs.sr, batch.hr, criterion=self.criterion)


class GradientBranchTerm(TermSpec):
    """The map that the generator predicts beside its image against the ground truth's (SPSR, CVPR 2020)."""

    needs_branch: ClassVar[bool] = True

    kind: Literal["gradient_branch"] = "gradient_branch"
    weight: Weight = Field(0.5, description="what the loss is multiplied by")
    criterion: Criterion = Field("l1", description="how the maps are compared")

    def __call__(self, outputs: Outputs, batch: Batch, clock: Clock) -> Tensor:
        """Return the mean over the batch."""
        assert outputs.branch is not None
        return gradient_branch_loss(outputs.branch, batch.hr, criterion=self.criterion)
