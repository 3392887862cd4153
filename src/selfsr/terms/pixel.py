"""Losses pixel by pixel, each with or without self-paced weighting."""

from typing import Literal

from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor

from selfsr import SelfPacedLoss
from selfsr.data.batch import Batch
from selfsr.losses.pixel import CHARBONNIER_EPS, charbonnier, l1, l2
from selfsr.methods import Clock, Outputs
from selfsr.pacing import ALPHA, BETA, PEAK
from selfsr.spec import Spec
from selfsr.terms.base import TermSpec


class Pace(Spec):
    """Self-paced pixel weighting (docs/pacing.md, eq. 3 and 4): a pixel weighs `peak * exp(-((ssim + 1) / sigma)^2)`.

    `sigma = alpha * epoch + beta` grows with the fractional epoch of the clock, whose length is the recipe's
    `steps_per_epoch`: that number sets the speed of the curriculum.
    """

    alpha: float = Field(ALPHA, ge=0, description="growth of sigma in an epoch")
    beta: float = Field(BETA, ge=0, description="sigma at the start")
    peak: PositiveFloat = Field(PEAK, description="largest weight")
    data_range: PositiveFloat = Field(1.0, description="range of the SSIM constants; 1/255 is the published code's")
    padding: Literal["zero", "reflect", "replicate"] = Field("zero", description="border of the SSIM map")

    @model_validator(mode="after")
    def _moves(self) -> "Pace":
        if self.alpha == 0 and self.beta == 0:
            raise ValueError("alpha and beta must not both be 0: every weight would be 0 and nothing would train")
        return self


class _PixelTerm(TermSpec):
    pace: Pace | None = Field(None, description="weigh the pixels by the self-paced schedule")

    def __call__(self, made: Outputs, batch: Batch, clock: Clock) -> Tensor:
        """Return the mean over the batch."""
        if self.pace is None:
            return self._plain(made.sr, batch.hr)
        return self._paced(self.pace)(made.sr, batch.hr, clock.epoch)

    def _plain(self, sr: Tensor, hr: Tensor) -> Tensor:
        raise NotImplementedError

    def _paced(self, pace: Pace) -> SelfPacedLoss:
        raise NotImplementedError


class L1Term(_PixelTerm):
    """Mean absolute difference."""

    kind: Literal["l1"] = "l1"

    def _plain(self, sr: Tensor, hr: Tensor) -> Tensor:
        return l1(sr, hr, reduction="mean")

    def _paced(self, pace: Pace) -> SelfPacedLoss:
        return SelfPacedLoss("l1", **pace.model_dump())


class L2Term(_PixelTerm):
    """Mean squared difference. With `pace` the weight enters squared, as published."""

    kind: Literal["l2"] = "l2"

    def _plain(self, sr: Tensor, hr: Tensor) -> Tensor:
        return l2(sr, hr, reduction="mean")

    def _paced(self, pace: Pace) -> SelfPacedLoss:
        return SelfPacedLoss("l2", **pace.model_dump())


class CharbonnierTerm(_PixelTerm):
    """Mean of `sqrt(difference^2 + eps^2)` (Charbonnier et al., ICIP 1994)."""

    kind: Literal["charbonnier"] = "charbonnier"
    eps: PositiveFloat = Field(CHARBONNIER_EPS, description="where the square turns into the absolute value, of [0, 1]")

    def _plain(self, sr: Tensor, hr: Tensor) -> Tensor:
        return charbonnier(sr, hr, eps=self.eps, reduction="mean")

    def _paced(self, pace: Pace) -> SelfPacedLoss:
        return SelfPacedLoss("charbonnier", eps=self.eps, **pace.model_dump())
