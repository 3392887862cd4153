"""LDL's artifact loss as a term."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor

from selfsr.losses.artifact import WINDOW_PX, artifact_loss
from selfsr.step import Batch, Clock, Outputs
from selfsr.terms.base import TermSpec


class ArtifactTerm(TermSpec):
    """L1 weighted by a map of likely artifacts (LDL, Liang et al., CVPR 2022); needs the EMA generator."""

    needs_ema: ClassVar[bool] = True

    kind: Literal["artifact"] = "artifact"
    window_px: int = Field(
        WINDOW_PX,
        ge=3,
        description="side of the windows for local variances, in pixels, odd; larger windows give a smoother map",
    )
    detach_map: bool = Field(
        False, description="treat the map as a constant; the published code lets a gradient through it"
    )

    @model_validator(mode="after")
    def _odd(self) -> "ArtifactTerm":
        if self.window_px % 2 == 0:
            raise ValueError(f"window_px must be odd, got {self.window_px}")
        return self

    @property
    def minimum_px(self) -> int:
        """Smallest side whose border can be reflected into a window."""
        return self.window_px // 2 + 1

    def __call__(self, outputs: Outputs, batch: Batch, clock: Clock) -> Tensor:
        """Return the loss as a mean over the batch."""
        assert outputs.ema_sr is not None
        return artifact_loss(outputs.sr, batch.hr, outputs.ema_sr, window_px=self.window_px, detach_map=self.detach_map)
