"""Optimizers and learning-rate schedules of a recipe. A schedule is a function of the step, so it has no state."""

import math
from collections.abc import Iterable
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import nn

from selfsr.spec import Spec

_UnitInterval = Annotated[float, Field(ge=0, lt=1)]


class AdamSpec(Spec):
    """Adam (Kingma and Ba, ICLR 2015), with L2 regularization where `weight_decay` is set."""

    kind: Literal["adam"] = "adam"
    lr: PositiveFloat = Field(1e-4, description="learning rate before the schedule")
    betas: tuple[_UnitInterval, _UnitInterval] = Field((0.9, 0.999), description="decay of the two moments")
    eps: PositiveFloat = Field(1e-8, description="added to the root of the second moment")
    weight_decay: float = Field(0.0, ge=0, description="L2 regularization")

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimizer over `parameters`."""
        return torch.optim.Adam(parameters, lr=self.lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay)


class AdamWSpec(Spec):
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019)."""

    kind: Literal["adamw"] = "adamw"
    lr: PositiveFloat = Field(2e-4, description="learning rate before the schedule")
    betas: tuple[_UnitInterval, _UnitInterval] = Field((0.9, 0.99), description="decay of the two moments")
    eps: PositiveFloat = Field(1e-8, description="added to the root of the second moment")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay")

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimizer over `parameters`."""
        return torch.optim.AdamW(parameters, lr=self.lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay)


Optimizer = Annotated[AdamSpec | AdamWSpec, Field(discriminator="kind")]


class _Warmup(Spec):
    warmup_steps: int = Field(0, ge=0, description="steps over which the rate rises linearly to its full size")

    def _warmup(self, step: int) -> float:
        return min(1.0, step / self.warmup_steps) if self.warmup_steps else 1.0


class ConstantSpec(_Warmup):
    """The learning rate stays as it is."""

    kind: Literal["constant"] = "constant"

    def factor(self, step: int, steps: int) -> float:  # noqa: ARG002 - schedules share one signature
        """Return what the learning rate of `step` (counted from 1) is multiplied by."""
        return self._warmup(step)


class MultiStepSpec(_Warmup):
    """The learning rate is multiplied by `gamma` after each of `at_steps`."""

    kind: Literal["multistep"] = "multistep"
    at_steps: tuple[PositiveInt, ...] = Field(description="steps after which the rate drops")
    gamma: float = Field(0.5, gt=0, description="what each drop multiplies the rate by")

    @model_validator(mode="after")
    def _ascending(self) -> "MultiStepSpec":
        if list(self.at_steps) != sorted(set(self.at_steps)):
            raise ValueError(f"at_steps must rise from one to the next, got {list(self.at_steps)}")
        return self

    def factor(self, step: int, steps: int) -> float:  # noqa: ARG002 - schedules share one signature
        """Return what the learning rate of `step` (counted from 1) is multiplied by."""
        return self._warmup(step) * self.gamma ** sum(step > at for at in self.at_steps)


class CosineSpec(_Warmup):
    """Half a cosine from the full rate to `floor` times it at the last step (Loshchilov and Hutter, ICLR 2017)."""

    kind: Literal["cosine"] = "cosine"
    floor: float = Field(0.0, ge=0, le=1, description="share of the rate that is left at the end")

    def factor(self, step: int, steps: int) -> float:
        """Return what the learning rate of `step` (counted from 1, of `steps`) is multiplied by."""
        if step <= self.warmup_steps:
            return self._warmup(step)
        # The first full-rate step has progress 0 and the last has progress 1.
        progress = (step - 1 - self.warmup_steps) / max(1, steps - 1 - self.warmup_steps)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


Schedule = Annotated[ConstantSpec | MultiStepSpec | CosineSpec, Field(discriminator="kind")]
