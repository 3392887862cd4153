"""Self-paced pixel weighting in a recipe: the published form and three variants."""

import math
from typing import Any, Literal

import torch
from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor

from selfsr import self_paced_weight, ssim_map
from selfsr.pacing.contract import TINY
from selfsr.pacing.loss import ALPHA, BETA, PEAK
from selfsr.pacing.normalized import normalize_weights, widen
from selfsr.spec import Spec
from selfsr.step import Clock


class Pace(Spec):
    """Self-paced pixel weights `peak * exp(-((ssim + 1) / sigma)^2)` (docs/pacing.md, eq. 3 and 4).

    `sigma = alpha * age + beta`, and the age is the fractional epoch. So the recipe's `steps_per_epoch` sets the speed
    of the curriculum. With `clock: run` the age is the fraction of the run, and the length of an epoch does not
    matter. `clock`, `order` and `ssim` are eq. 11 to 13; only their first choices were published.
    """

    alpha: float = Field(
        ALPHA,
        ge=0,
        description="growth of sigma per epoch, or over the complete run with clock: run; larger values reach uniform "
        "weights sooner",
    )
    beta: float = Field(
        BETA, ge=0, description="sigma at the start; above 0, easy pixels have weight from the first step on"
    )
    peak: PositiveFloat = Field(PEAK, description="largest weight of a pixel; it scales the loss")
    data_range: PositiveFloat = Field(
        1.0, description="data range of the SSIM constants; 1/255 reproduces the published code"
    )
    padding: Literal["zero", "reflect", "replicate"] = Field(
        "zero", description="padding of the images for the SSIM map; zero is published"
    )
    clock: Literal["epoch", "run"] = Field(
        "epoch", description="unit of the age: epochs, or the fraction of the run, 0 to 1"
    )
    order: Literal["hard_first", "easy_first"] = Field(
        "hard_first",
        description="pixels with weight at the start: hard_first, the least similar ones; easy_first, the most similar",
    )
    ssim: Literal["channel", "pixel", "image"] = Field(
        "channel",
        description="granularity of the weights: one for each channel of a pixel, for each pixel, or for each image",
    )

    @model_validator(mode="after")
    def _check_growth(self) -> "Pace":
        if self.alpha == 0 and self.beta == 0:
            raise ValueError("alpha and beta must not both be 0: every weight would be 0 and nothing would train")
        return self

    @property
    def weighs_as_published(self) -> bool:
        """Whether the operators of `selfsr.pacing` compute these weights."""
        return self.order == "hard_first" and self.ssim == "channel"

    def options(self) -> dict[str, Any]:
        """Return the options of `self_paced_weight` and `SelfPacedLoss`."""
        return self.model_dump(include={"alpha", "beta", "peak", "data_range", "padding"})

    def age(self, clock: Clock) -> float:
        """Return the age: fractional epochs, or the fraction of the run that is done."""
        return clock.progress if self.clock == "run" else clock.epoch

    @property
    def last_ssim(self) -> float:
        """The SSIM of the pixels that get their weight last: 1 for hard_first; 0, no similarity, for easy_first."""
        return 1.0 if self.order == "hard_first" else 0.0

    def share_of_peak(self, clock: Clock) -> float:
        """Return the weight over its peak, 0 to 1, of a pixel with `last_ssim` (docs/pacing.md, eq. 12 and 13).

        Example:
            >>> round(Pace().share_of_peak(Clock(step=2000, steps_per_epoch=1000)), 4)  # exp(-(2 / 2)^2)
            0.3679
        """
        return math.exp(-((self._last_distance / self._sigma(clock)) ** 2))

    def first_step(self, share: float, steps_per_epoch: int, steps: int) -> int | None:
        """Return the first step at which `share_of_peak` is at least `share`, by the inverse of eq. 13.

        Args:
            share: greater than 0 and less than 1.
            steps_per_epoch: steps of an epoch.
            steps: steps of the run. The step may lie after its end.

        Returns:
            A step, counted from 1; None if `alpha` is 0 and the share is never reached.

        Example:
            >>> Pace().first_step(0.5, steps_per_epoch=1000, steps=400)  # sigma is 2 / sqrt(ln 2)
            2403
        """
        needed_sigma = self.sigma_of_share(share)
        if self.beta >= needed_sigma:
            return 1
        if self.alpha == 0:
            return None
        unit_steps = steps if self.clock == "run" else steps_per_epoch
        return max(1, math.ceil((needed_sigma - self.beta) / self.alpha * unit_steps))

    def sigma_of_share(self, share: float) -> float:
        """Return the sigma at which `share_of_peak` is `share`: `d / sqrt(-ln share)`."""
        return self._last_distance / math.sqrt(-math.log(share))

    @property
    def _last_distance(self) -> float:
        """The distance d of eq. 12 at `last_ssim`."""
        return 1 + self.last_ssim if self.order == "hard_first" else 1 - self.last_ssim

    def weight(self, sr: Tensor, hr: Tensor, clock: Clock) -> Tensor:
        """Return the weight of every element, without a gradient (docs/pacing.md, eq. 12 and 13).

        With s the SSIM map, or its mean over a pixel or an image, and `d = 1 + s` for hard_first or `d = 1 - s` for
        easy_first, the weight is `peak * exp(-(d / sigma)^2)`.

        Args:
            sr: output `[N, C, H, W]` in [0, 1].
            hr: ground truth of the same shape.
            clock: time of the step.

        Returns:
            `[N, C, H, W]`, in [0, peak].
        """
        if self.weighs_as_published:
            return self_paced_weight(sr, hr, self.age(clock), **self.options())
        return self.peak * torch.exp(-((self._distance(sr, hr) / self._sigma(clock)) ** 2))

    def _distance(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return d of eq. 12, `[N, C, H, W]`, without a gradient, in the precision of the images."""
        s = ssim_map(sr, hr, data_range=self.data_range, padding=self.padding)
        if self.ssim != "channel":
            s = s.mean(dim=1 if self.ssim == "pixel" else (1, 2, 3), keepdim=True).expand_as(s)
        return 1 + s if self.order == "hard_first" else 1 - s

    def _sigma(self, clock: Clock) -> float:
        return max(self.alpha * self.age(clock) + self.beta, TINY)


class PixelPace(Pace):
    """Self-paced weights of a pixel loss, which may keep their mean at 1."""

    normalize: bool = Field(
        False,
        description="divide the weights by their mean over the batch, so that the curriculum moves weight between "
        "pixels without growing the loss (docs/pacing.md, eq. 15); then peak has no effect. false is published",
    )

    @model_validator(mode="after")
    def _check_peak(self) -> "PixelPace":
        if self.normalize and self.peak != PEAK:
            raise ValueError(f"peak has no effect with normalize: true, got {self.peak}; leave it out")
        return self

    @property
    def weighs_as_published(self) -> bool:
        """Whether the operators of `selfsr.pacing` compute these weights."""
        return super().weighs_as_published and not self.normalize

    def normalized_weight(self, sr: Tensor, hr: Tensor, clock: Clock) -> tuple[Tensor, Tensor]:
        """Return the weights with mean 1, without a gradient, and their log sum before (docs/pacing.md, eq. 15, 16).

        Args:
            sr: output `[N, C, H, W]` in [0, 1].
            hr: ground truth of the same shape.
            clock: time of the step.

        Returns:
            The weights over these images, `[N, C, H, W]`, in the dtype of `sr`; and the logarithm of their sum before
            the division, a scalar, in float64 where the device has it.
        """
        distance = self._distance(widen(sr), widen(hr))
        weight, log_sum = normalize_weights(distance, distance.new_tensor(self._sigma(clock)))
        return weight.to(sr.dtype), log_sum
