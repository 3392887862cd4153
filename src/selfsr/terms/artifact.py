"""LDL's artifact loss as a term."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor

from selfsr.losses.artifact import WINDOW_PX, artifact_loss
from selfsr.step import Batch, Clock, Outputs
from selfsr.terms.base import TermSpec


class ArtifactTerm(TermSpec):
    """L1 weighted by how likely a pixel is an artifact (LDL, CVPR 2022); needs the averaged generator's output."""

    needs_ema: ClassVar[bool] = True

    kind: Literal["artifact"] = "artifact"
    window_px: int = Field(WINDOW_PX, ge=3, description="side of the windows whose variance counts, odd")
    detach_map: bool = Field(False, description="take the map for a constant; published: its variances have a gradient")

    @model_validator(mode="after")
    def _odd(self) -> "ArtifactTerm":
        if self.window_px % 2 == 0:
            raise ValueError(f"window_px must be odd, got {self.window_px}")
        return self

    @property
    def minimum_px(self) -> int:
        """What the windows of border pixels are mirrored from."""
        return self.window_px // 2 + 1

    def __call__(self, outputs: Outputs, batch: Batch, clock: Clock) -> Tensor:
        """Return the mean over the batch."""
        assert outputs.ema_sr is not None
        return artifact_loss(outputs.sr, batch.hr, outputs.ema_sr, window_px=self.window_px, detach_map=self.detach_map)
