"""SSIM and MS-SSIM as terms."""

from typing import Literal

from pydantic import Field, PositiveFloat
from torch import Tensor

from selfsr.losses.structural import SCALE_WEIGHTS, minimum_px, ms_ssim_loss, ssim_loss
from selfsr.step import Batch, Clock, Outputs
from selfsr.terms.base import TermSpec


class SsimTerm(TermSpec):
    """1 - SSIM over the windows inside the crop (Wang et al., IEEE TIP 2004); needs crops of 11 px or more."""

    kind: Literal["ssim"] = "ssim"

    @property
    def minimum_px(self) -> int:
        """Side of a window."""
        return minimum_px()

    def __call__(self, outputs: Outputs, batch: Batch, clock: Clock) -> Tensor:
        """Return the loss as a mean over the batch."""
        return ssim_loss(outputs.sr, batch.hr)


class MsSsimTerm(TermSpec):
    """1 - MS-SSIM (Wang et al., Asilomar 2003); the smallest crop doubles with each scale, to 176 px for five."""

    kind: Literal["ms_ssim"] = "ms_ssim"
    scale_weights: tuple[PositiveFloat, ...] = Field(
        SCALE_WEIGHTS,
        min_length=1,
        description="exponent of each scale, finest first; use fewer scales for smaller crops",
    )

    @property
    def minimum_px(self) -> int:
        """Side of a window at the coarsest scale, in pixels of the ground truth."""
        return minimum_px(len(self.scale_weights))

    def __call__(self, outputs: Outputs, batch: Batch, clock: Clock) -> Tensor:
        """Return the loss as a mean over the batch."""
        return ms_ssim_loss(outputs.sr, batch.hr, scale_weights=self.scale_weights)
