"""Beby-GAN's two losses as terms."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from selfsr.images.resize import imresize
from selfsr.losses.best_buddy import MEMORY_MB, PATCH_PX, SCALES, back_projection_loss, best_buddy_loss
from selfsr.losses.pixel import Criterion
from selfsr.step import Batch, Clock, Outputs
from selfsr.terms.base import TermSpec


class BestBuddyTerm(TermSpec):
    """Each patch against the ground truth's patch that is nearest to it and to its target (Beby-GAN, AAAI 2022)."""

    kind: Literal["best_buddy"] = "best_buddy"
    criterion: Criterion = Field("l1", description="how patches are compared once the buddies are found")
    alpha: float = Field(1.0, ge=0, description="how much a buddy must be like the ground truth's patch")
    beta: float = Field(1.0, ge=0, description="how much a buddy must be like the output's patch")
    patch_px: PositiveInt = Field(PATCH_PX, description="side of a patch")
    scales: tuple[float, ...] = Field(SCALES, description="sizes of hr in which buddies are looked for, 1 among them")
    memory_mb: PositiveFloat = Field(MEMORY_MB, description="budget of the table of distances")

    @model_validator(mode="after")
    def _ranges(self) -> "BestBuddyTerm":
        if self.alpha == 0 and self.beta == 0:
            raise ValueError("alpha and beta must not both be 0: every patch would be as good a buddy as any")
        if 1 not in self.scales or not all(0 < scale <= 1 for scale in self.scales):
            raise ValueError(f"scales must be in (0, 1], 1 among them, got {list(self.scales)}")
        return self

    @property
    def minimum_px(self) -> int:
        """One patch."""
        return self.patch_px

    def __call__(self, outputs: Outputs, batch: Batch, clock: Clock) -> Tensor:
        """Return the mean over the batch."""
        return best_buddy_loss(
            outputs.sr,
            batch.hr,
            criterion=self.criterion,
            alpha=self.alpha,
            beta=self.beta,
            patch_px=self.patch_px,
            scales=self.scales,
            memory_mb=self.memory_mb,
        )


class BackProjectionTerm(TermSpec):
    """The output, reduced by MATLAB's bicubic, against the input (Beby-GAN); for inputs that were made like this."""

    kind: Literal["back_projection"] = "back_projection"
    criterion: Criterion = Field("l1", description="how the pixels are compared")

    def __call__(self, outputs: Outputs, batch: Batch, clock: Clock) -> Tensor:
        """Return the mean over the batch."""
        height, width = batch.lr.shape[2:]
        return back_projection_loss(
            outputs.sr, batch.lr, lambda sr: imresize(sr, size=(height, width)), criterion=self.criterion
        )
