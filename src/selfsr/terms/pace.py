"""The self-paced schedule of a recipe: the published one, and what one would try next."""

from typing import Any, Literal

import torch
from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor

from selfsr import self_paced_weight, ssim_map
from selfsr.pacing.contract import TINY
from selfsr.pacing.loss import ALPHA, BETA, PEAK
from selfsr.spec import Spec
from selfsr.step import Clock


class Pace(Spec):
    """Self-paced pixel weighting (docs/pacing.md, eq. 3 and 4): a pixel weighs `peak * exp(-((ssim + 1) / sigma)^2)`.

    `sigma = alpha * age + beta` grows with the fractional epoch, whose length is the recipe's `steps_per_epoch`: that
    number sets the speed of the curriculum. With `clock: run` the age is the share of the run that is done, and the
    length of an epoch does not matter. `clock`, `order` and `ssim` are eq. 11 to 13, of which only the first choices
    were published.
    """

    alpha: float = Field(ALPHA, ge=0, description="growth of sigma in an epoch, or with clock: run in the whole run")
    beta: float = Field(BETA, ge=0, description="sigma at the start")
    peak: PositiveFloat = Field(PEAK, description="largest weight")
    data_range: PositiveFloat = Field(1.0, description="range of the SSIM constants; 1/255 is the published code's")
    padding: Literal["zero", "reflect", "replicate"] = Field("zero", description="border of the SSIM map")
    clock: Literal["epoch", "run"] = Field("epoch", description="age in epochs, or as the share of the run, 0 to 1")
    order: Literal["hard_first", "easy_first"] = Field(
        "hard_first", description="which pixels weigh something first: the least similar, or the most similar"
    )
    ssim: Literal["channel", "pixel", "image"] = Field(
        "channel", description="what has a weight of its own: each channel of a pixel, a pixel, or only an image"
    )

    @model_validator(mode="after")
    def _moves(self) -> "Pace":
        if self.alpha == 0 and self.beta == 0:
            raise ValueError("alpha and beta must not both be 0: every weight would be 0 and nothing would train")
        return self

    @property
    def weighs_as_published(self) -> bool:
        """Whether the operators of `selfsr.pacing` know this weight."""
        return self.order == "hard_first" and self.ssim == "channel"

    def options(self) -> dict[str, Any]:
        """Return the options of `self_paced_weight` and `SelfPacedLoss`."""
        return self.model_dump(include={"alpha", "beta", "peak", "data_range", "padding"})

    def age(self, clock: Clock) -> float:
        """Return what sigma grows with: fractional epochs, or the share of the run that is done."""
        return clock.progress if self.clock == "run" else clock.epoch

    def weight(self, sr: Tensor, hr: Tensor, clock: Clock) -> Tensor:
        """Return the weight of every element of `sr` against `hr`, both `[N, C, H, W]`, without a gradient.

        With s the SSIM map, or its mean over a pixel or an image, and `d = 1 + s` for hard_first, `d = 1 - s` for
        easy_first, it is `peak * exp(-(d / sigma)^2)` (eq. 12 and 13).
        """
        if self.weighs_as_published:
            return self_paced_weight(sr, hr, self.age(clock), **self.options())
        s = ssim_map(sr, hr, data_range=self.data_range, padding=self.padding)
        if self.ssim != "channel":
            s = s.mean(dim=1 if self.ssim == "pixel" else (1, 2, 3), keepdim=True).expand_as(s)
        distance = 1 + s if self.order == "hard_first" else 1 - s
        sigma = max(self.alpha * self.age(clock) + self.beta, TINY)
        return self.peak * torch.exp(-((distance / sigma) ** 2))
