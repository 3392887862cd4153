"""SSIM and MS-SSIM as terms."""

from typing import Literal

from pydantic import Field, PositiveFloat
from torch import Tensor

from selfsr.losses.structural import SCALE_WEIGHTS, minimum_px, ms_ssim_loss, ssim_loss
from selfsr.step import Batch, Clock, Outputs
from selfsr.terms.base import TermSpec


class SsimTerm(TermSpec):
    """1 - SSIM over the windows that lie inside the crop (Wang et al., 2004); crops of 11 px or more."""

    kind: Literal["ssim"] = "ssim"

    @property
    def minimum_px(self) -> int:
        """One window."""
        return minimum_px()

    def __call__(self, outputs: Outputs, batch: Batch, clock: Clock) -> Tensor:
        """Return the mean over the batch."""
        return ssim_loss(outputs.sr, batch.hr)


class MsSsimTerm(TermSpec):
    """1 - MS-SSIM (Wang et al., 2003); each scale doubles the crop that is needed, from 11 px to 176 for five."""

    kind: Literal["ms_ssim"] = "ms_ssim"
    scale_weights: tuple[PositiveFloat, ...] = Field(
        SCALE_WEIGHTS, min_length=1, description="exponent of each scale, finest first"
    )

    @property
    def minimum_px(self) -> int:
        """One window at the coarsest scale."""
        return minimum_px(len(self.scale_weights))

    def __call__(self, outputs: Outputs, batch: Batch, clock: Clock) -> Tensor:
        """Return the mean over the batch."""
        return ms_ssim_loss(outputs.sr, batch.hr, scale_weights=self.scale_weights)
