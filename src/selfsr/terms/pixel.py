"""Losses pixel by pixel, each with or without self-paced weighting."""

from typing import Literal

from pydantic import Field, PositiveFloat
from torch import Tensor

from selfsr import SelfPacedLoss
from selfsr.losses.pixel import CHARBONNIER_EPS, charbonnier, l1, l2
from selfsr.step import Batch, Clock, Outputs
from selfsr.terms.base import TermSpec
from selfsr.terms.pace import Pace


class _PixelTerm(TermSpec):
    pace: Pace | None = Field(None, description="weigh the pixels by the self-paced schedule")

    def __call__(self, outputs: Outputs, batch: Batch, clock: Clock) -> Tensor:
        """Return the mean over the batch."""
        sr, hr = outputs.sr, batch.hr
        if self.pace is None:
            return self._each(sr, hr).mean()
        if self.pace.weighs_as_published:
            return self._fused(self.pace)(sr, hr, self.pace.age(clock))
        weight = self.pace.weight(sr, hr, clock)
        return self._each(sr * weight, hr * weight).mean()  # eq. 5

    def _each(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return the loss of every element."""
        raise NotImplementedError

    def _fused(self, pace: Pace) -> SelfPacedLoss:
        """Return weight, loss and mean as one operator."""
        raise NotImplementedError


class L1Term(_PixelTerm):
    """Mean absolute difference."""

    kind: Literal["l1"] = "l1"

    def _each(self, sr: Tensor, hr: Tensor) -> Tensor:
        return l1(sr, hr)

    def _fused(self, pace: Pace) -> SelfPacedLoss:
        return SelfPacedLoss("l1", **pace.options())


class L2Term(_PixelTerm):
    """Mean squared difference. With `pace` the weight enters squared, as published."""

    kind: Literal["l2"] = "l2"

    def _each(self, sr: Tensor, hr: Tensor) -> Tensor:
        return l2(sr, hr)

    def _fused(self, pace: Pace) -> SelfPacedLoss:
        return SelfPacedLoss("l2", **pace.options())


class CharbonnierTerm(_PixelTerm):
    """Mean of `sqrt(difference^2 + eps^2)` (Charbonnier et al., ICIP 1994)."""

    kind: Literal["charbonnier"] = "charbonnier"
    eps: PositiveFloat = Field(CHARBONNIER_EPS, description="where the square turns into the absolute value, of [0, 1]")

    def _each(self, sr: Tensor, hr: Tensor) -> Tensor:
        return charbonnier(sr, hr, eps=self.eps)

    def _fused(self, pace: Pace) -> SelfPacedLoss:
        return SelfPacedLoss("charbonnier", eps=self.eps, **pace.options())
