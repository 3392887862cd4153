"""Elementwise losses, each optionally with self-paced weighting."""

from typing import Literal

from pydantic import Field, PositiveFloat
from torch import Tensor

from selfsr import SelfPacedLoss
from selfsr.losses.pixel import CHARBONNIER_EPS, charbonnier, l1, l2
from selfsr.step import Batch, Clock, Outputs
from selfsr.terms.base import TermSpec, WeightedMean
from selfsr.terms.pace import PixelPace


class _PixelTerm(TermSpec):
    pace: PixelPace | None = Field(
        None, description="self-paced weighting of the pixels; null weights all pixels equally"
    )

    @property
    def normalizes(self) -> bool:
        """Whether the pixel weights have the mean 1 over the complete batch."""
        return self.pace is not None and self.pace.normalize

    def __call__(self, outputs: Outputs, batch: Batch, clock: Clock) -> Tensor | WeightedMean:
        """Return the loss as a mean over the batch, weighted if the weights are normalized."""
        sr, hr = outputs.sr, batch.hr
        if self.pace is None:
            return self._elementwise(sr, hr).mean()
        if self.pace.normalize:
            weight, log_sum = self.pace.normalized_weight(sr, hr, clock)
            return WeightedMean((weight * self._elementwise(sr, hr)).mean(), log_sum)  # eq. 15
        if self.pace.weighs_as_published:
            loss = self._fused(self.pace)
            loss.check_range.skip()  # the objective has looked at the images, once and not at each step
            return loss(sr, hr, self.pace.age(clock))
        weight = self.pace.weight(sr, hr, clock)
        return self._elementwise(sr * weight, hr * weight).mean()  # eq. 5

    def _elementwise(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return the loss of every element, `[N, C, H, W]`."""
        raise NotImplementedError

    def _fused(self, pace: PixelPace) -> SelfPacedLoss:
        """Return the operator that computes weight, loss and mean in one pass."""
        raise NotImplementedError


class L1Term(_PixelTerm):
    """Mean absolute difference."""

    kind: Literal["l1"] = "l1"

    def _elementwise(self, sr: Tensor, hr: Tensor) -> Tensor:
        return l1(sr, hr)

    def _fused(self, pace: PixelPace) -> SelfPacedLoss:
        return SelfPacedLoss("l1", **pace.options())


class L2Term(_PixelTerm):
    """Mean squared difference. With `pace` the weight is squared, as published."""

    kind: Literal["l2"] = "l2"

    def _elementwise(self, sr: Tensor, hr: Tensor) -> Tensor:
        return l2(sr, hr)

    def _fused(self, pace: PixelPace) -> SelfPacedLoss:
        return SelfPacedLoss("l2", **pace.options())


class CharbonnierTerm(_PixelTerm):
    """Mean of `sqrt(difference^2 + eps^2)` (Charbonnier et al., ICIP 1994)."""

    kind: Literal["charbonnier"] = "charbonnier"
    eps: PositiveFloat = Field(
        CHARBONNIER_EPS,
        description="difference at which the loss changes from quadratic to linear, for images in [0, 1]",
    )

    def _elementwise(self, sr: Tensor, hr: Tensor) -> Tensor:
        return charbonnier(sr, hr, eps=self.eps)

    def _fused(self, pace: PixelPace) -> SelfPacedLoss:
        return SelfPacedLoss("charbonnier", eps=self.eps, **pace.options())
