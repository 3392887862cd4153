"""The contract between a training method and the loop: Update, Setup, Method."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from selfsr.step import Batch, Clock, MaskedSum
from selfsr.terms.objective import Objective


@dataclass(frozen=True)
class Update:
    """Take one optimizer step on `net` now, to make the sum of `terms` smaller.

    Attributes:
        net: key in `Method.nets` and in the recipe's optimizers.
        terms: the weighted losses by name; each is logged, as `loss/<net>/<name>`.
        scalars: values that are logged by these names and nothing else, means over the batch.
    """

    net: str
    terms: dict[str, Tensor | MaskedSum]
    scalars: dict[str, Tensor] = field(default_factory=dict)


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
    ema_forward: Callable[[Tensor], Tensor] | None


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
        """Return the count of every term that is a `MaskedSum`, known from the batch before any forward pass."""
        ...

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps besides networks and optimizers: tensors and plain values."""
        ...

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up what a checkpoint kept."""
        ...


class ObjectiveMethod:
    """A `Method` but for its `updates`: networks, counts and checkpoints of a generator with an objective.

    Args:
        nets: what is trained and saved, the generator under `g`.
        objective: the sum that the generator makes small.
    """

    def __init__(self, nets: Mapping[str, nn.Module], objective: Objective) -> None:
        self.nets = nn.ModuleDict(nets)
        self.objective = objective

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Return the number of masked pixels of each masked term."""
        return self.objective.counts(batch)

    def state(self) -> dict[str, Any]:
        """Return the weights of terms that are found in training."""
        return self.objective.state()

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up a checkpoint."""
        self.objective.load(state)
