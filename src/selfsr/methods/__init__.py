"""The contract between a training method and the loop: Clock, Ratio, Update, Method."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from selfsr.data.batch import Batch


@dataclass(frozen=True)
class Clock:
    """The time of training, on which schedules and curricula depend and nothing else does.

    Attributes:
        step: number of the optimiser step being taken, counted from 1.
        steps_per_epoch: how many steps the recipe calls an epoch.
        steps: of the whole run; None where there is no run, as for a loss that is called by itself.
    """

    step: int
    steps_per_epoch: int
    steps: int | None = None

    @property
    def epoch(self) -> float:
        """Fractional epochs, `step / steps_per_epoch`: the age of the self-paced paper, never 0 in a step."""
        return self.step / self.steps_per_epoch

    @property
    def share(self) -> float:
        """Share of the run that is done with this step, `step / steps`, 1 in the last one."""
        assert self.steps is not None, "a clock outside a run has no share of it"
        return self.step / self.steps


@dataclass(frozen=True)
class Ratio:
    """A masked loss, not yet divided: the loop divides by the count over all processes and micro-batches.

    Attributes:
        total: the sum over the counted pixels, a scalar with a gradient.
        count: how many pixels were counted in this batch, a scalar without one.
    """

    total: Tensor
    count: Tensor


@dataclass(frozen=True)
class Outputs:
    """What the generator made of a batch, as the terms see it.

    Attributes:
        sr: the output `[N, C, H, W]`.
        branch: a second output of generators that have one, such as SPSR's gradient map, `[N, C, H, W]`.
        average: what the averaged generator makes of the same input, without a gradient, where a term asks for it.
    """

    sr: Tensor
    branch: Tensor | None = None
    average: Tensor | None = None

    @classmethod
    def of(cls, output: "Tensor | tuple[Tensor, Tensor]") -> "Outputs":
        """Take what a generator in training returns: the output, or the output and its branch."""
        return cls(output) if isinstance(output, Tensor) else cls(*output)

    def float(self) -> "Outputs":
        """Return the same in float32."""
        branch, average = (None if image is None else image.float() for image in (self.branch, self.average))
        return Outputs(self.sr.float(), branch, average)


@dataclass(frozen=True)
class Update:
    """Take one optimiser step on `net` now, to make the sum of `terms` smaller.

    Attributes:
        net: key in `Method.nets` and in the recipe's optimisers.
        terms: the weighted losses by name; each is logged, as `loss/<net>/<name>`.
        figures: scalars that are logged by these names and nothing else, means over the batch.
    """

    net: str
    terms: dict[str, Tensor | Ratio]
    figures: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Setup:
    """What a method is built from, besides its own options.

    Attributes:
        generator: maps `[N, C, h, w]` to `[N, C, s*h, s*w]`; on its device.
        device: where the run is.
        channels: of the images, 1 or 3.
        crop_px: the side of ground-truth crops.
        averaged: maps the same input by the averaged generator, without a gradient; None where no average is kept.
    """

    generator: nn.Module
    device: torch.device
    channels: int
    crop_px: int
    averaged: Callable[[Tensor], Tensor] | None


class Method(Protocol):
    """A way to train: what is stepped on, in which order, with which losses.

    The networks in `nets` may be wrapped for several processes after the method was built. A pass whose gradient an
    update is to take goes through them; a pass that leaves a network's own weights alone goes through the network
    as it was given.
    """

    nets: nn.ModuleDict

    def updates(self, batch: Batch, clock: Clock) -> Iterator[Update]:
        """Yield the updates of one step; the loop takes each before the method goes on."""
        ...

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Return the count of every term that is a `Ratio`, known from the batch before any forward pass."""
        ...

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps besides networks and optimisers: tensors and plain values."""
        ...

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up what a checkpoint kept."""
        ...

    def upscale(self, lr: Tensor) -> Tensor:
        """Upscale `[N, C, h, w]` to `[N, C, s*h, s*w]`, both in [0, 1]."""
        ...
