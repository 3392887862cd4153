"""Optimizers and learning-rate schedules of a recipe. A schedule depends only on the step and has no state."""

import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import nn

from selfsr.spec import Spec

ParameterGroup = dict[str, Any]
_UnitInterval = Annotated[float, Field(ge=0, lt=1)]


class GroupSpec(Spec):
    """A learning rate of its own for some parameters."""

    match: str = Field(description='names of the parameters, such as "upsampler.*"; * stands for any characters')
    lr: PositiveFloat = Field(description="their learning rate before the schedule")


class _OptimizerSpec(Spec):
    """Base of the optimizers; a subclass adds `lr` and `build`."""

    groups: tuple[GroupSpec, ...] = Field(
        (),
        description="learning rates for parameters by name; the first group that matches applies, and lr to the rest. "
        "Use it to train new layers faster than loaded ones",
    )

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """The learning rates before the schedule, of the parameters in no group and then of each group."""
        return (self.lr, *(group.lr for group in self.groups))  # pyright: ignore[reportAttributeAccessIssue]


class AdamSpec(_OptimizerSpec):
    """Adam (Kingma and Ba, ICLR 2015), optionally with L2 regularization."""

    kind: Literal["adam"] = "adam"
    lr: PositiveFloat = Field(1e-4, description="learning rate before the schedule; lower it if the loss becomes NaN")
    betas: tuple[_UnitInterval, _UnitInterval] = Field(
        (0.9, 0.999), description="decay rates of the first and second moment of the gradient, in [0, 1)"
    )
    eps: PositiveFloat = Field(
        1e-8,
        description="added to the root of the second moment; for losses of images in [0, 255] it is 255 times as large",
    )
    weight_decay: float = Field(
        0.0, ge=0, description="factor of the L2 regularization, which is added to the gradient; 0 is none"
    )

    def build(self, parameters: Iterable[nn.Parameter] | Iterable[ParameterGroup]) -> torch.optim.Optimizer:
        """Return the optimizer over `parameters`, or over groups of them with their own options."""
        return torch.optim.Adam(parameters, lr=self.lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay)


class AdamWSpec(_OptimizerSpec):
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019)."""

    kind: Literal["adamw"] = "adamw"
    lr: PositiveFloat = Field(2e-4, description="learning rate before the schedule; lower it if the loss becomes NaN")
    betas: tuple[_UnitInterval, _UnitInterval] = Field(
        (0.9, 0.99), description="decay rates of the first and second moment of the gradient, in [0, 1)"
    )
    eps: PositiveFloat = Field(
        1e-8,
        description="added to the root of the second moment; for losses of images in [0, 255] it is 255 times as large",
    )
    weight_decay: float = Field(0.0, ge=0, description="factor of the decoupled weight decay; 0 is none")

    def build(self, parameters: Iterable[nn.Parameter] | Iterable[ParameterGroup]) -> torch.optim.Optimizer:
        """Return the optimizer over `parameters`, or over groups of them with their own options."""
        return torch.optim.AdamW(parameters, lr=self.lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay)


Optimizer = Annotated[AdamSpec | AdamWSpec, Field(discriminator="kind")]


class _ScheduleSpec(Spec):
    warmup_steps: int = Field(
        0,
        ge=0,
        description="steps over which the learning rate rises linearly to its full value; useful for transformers",
    )

    def factor(self, step: int, steps: int) -> float:
        """Return the factor of the learning rate in `step`, counted from 1, of `steps`."""
        raise NotImplementedError

    def _warmup(self, step: int) -> float:
        return min(1.0, step / self.warmup_steps) if self.warmup_steps else 1.0


class ConstantSpec(_ScheduleSpec):
    """A constant learning rate."""

    kind: Literal["constant"] = "constant"

    def factor(self, step: int, steps: int) -> float:  # noqa: ARG002 - schedules share one signature
        """Return the factor of the learning rate in `step`, counted from 1."""
        return self._warmup(step)


class MultiStepSpec(_ScheduleSpec):
    """A learning rate that is multiplied by `gamma` after each of `at_steps`."""

    kind: Literal["multistep"] = "multistep"
    at_steps: tuple[PositiveInt, ...] = Field(
        description="milestones: steps after which the learning rate drops, in increasing order"
    )
    gamma: float = Field(0.5, gt=0, description="factor of the learning rate at each drop")

    @model_validator(mode="after")
    def _check_order(self) -> "MultiStepSpec":
        if list(self.at_steps) != sorted(set(self.at_steps)):
            raise ValueError(f"at_steps must increase, got {list(self.at_steps)}")
        return self

    def factor(self, step: int, steps: int) -> float:  # noqa: ARG002 - schedules share one signature
        """Return the factor of the learning rate in `step`, counted from 1."""
        return self._warmup(step) * self.gamma ** sum(step > at for at in self.at_steps)


class CosineSpec(_ScheduleSpec):
    """Half a cosine from the full learning rate to `floor` times it (Loshchilov and Hutter, ICLR 2017)."""

    kind: Literal["cosine"] = "cosine"
    floor: float = Field(0.0, ge=0, le=1, description="fraction of the learning rate in the last step, 0 to 1")

    def factor(self, step: int, steps: int) -> float:
        """Return the factor of the learning rate in `step`, counted from 1, of `steps`."""
        if step <= self.warmup_steps:
            return self._warmup(step)
        # Progress is 0 in the first step at the full learning rate, and 1 in the last step.
        progress = (step - 1 - self.warmup_steps) / max(1, steps - 1 - self.warmup_steps)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


Schedule = Annotated[ConstantSpec | MultiStepSpec | CosineSpec, Field(discriminator="kind")]
