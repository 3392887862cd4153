"""The two losses of Beby-GAN as terms."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from selfsr.images.resize import imresize
from selfsr.losses.best_buddy import MEMORY_MB, PATCH_PX, SCALES, back_projection_loss, best_buddy_loss
from selfsr.losses.pixel import Criterion
from selfsr.step import Batch, Clock, Outputs
from selfsr.terms.base import TermSpec


class BestBuddyTerm(TermSpec):
    """Distance of each patch to a similar patch of the ground truth, its best buddy (Beby-GAN, AAAI 2022)."""

    kind: Literal["best_buddy"] = "best_buddy"
    criterion: Criterion = Field("l1", description="elementwise loss between a patch and its best buddy")
    alpha: float = Field(
        1.0, ge=0, description="weight of the similarity to the ground-truth patch in the search; 0 ignores it"
    )
    beta: float = Field(
        1.0, ge=0, description="weight of the similarity to the output patch in the search; 0 ignores it"
    )
    patch_px: PositiveInt = Field(PATCH_PX, description="side of a patch, in pixels")
    scales: tuple[float, ...] = Field(
        SCALES,
        description="sizes of the ground truth that are searched, relative to its full size, in (0, 1]; 1 is required",
    )
    memory_mb: PositiveFloat = Field(
        MEMORY_MB, description="memory budget of the table of distances, in MB; lower it if the GPU runs out of memory"
    )

    @model_validator(mode="after")
    def _ranges(self) -> "BestBuddyTerm":
        if self.alpha == 0 and self.beta == 0:
            raise ValueError("alpha and beta must not both be 0: every patch would be an equally good buddy")
        if 1 not in self.scales or not all(0 < scale <= 1 for scale in self.scales):
            raise ValueError(f"scales must be in (0, 1] and contain 1, got {list(self.scales)}")
        return self

    @property
    def minimum_px(self) -> int:
        """One patch."""
        return self.patch_px

    def __call__(self, outputs: Outputs, batch: Batch, clock: Clock) -> Tensor:
        """Return the loss as a mean over the batch."""
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
    """Distance of the bicubically reduced output to the input (Beby-GAN); only for bicubic inputs."""

    kind: Literal["back_projection"] = "back_projection"
    criterion: Criterion = Field("l1", description="elementwise loss between the pixels")

    def __call__(self, outputs: Outputs, batch: Batch, clock: Clock) -> Tensor:
        """Return the loss as a mean over the batch."""
        height, width = batch.lr.shape[2:]
        return back_projection_loss(
            outputs.sr, batch.lr, lambda sr: imresize(sr, size=(height, width)), criterion=self.criterion
        )
