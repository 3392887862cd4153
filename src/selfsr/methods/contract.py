"""The contract between a training method, its recipe and the loop: MethodSpec, MethodSetup and Method.

To add a method, write a `MethodSpec` and a `Method` in one file, and add the spec to `methods/union.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from selfsr.nets.base import NetworkSpec
from selfsr.spec import DropNulls, EntryName, Spec
from selfsr.step import GENERATOR, Batch, Clock, Update
from selfsr.terms import Term
from selfsr.terms.loss_weights import check_matches
from selfsr.terms.objective import Objective


@dataclass(frozen=True)
class MethodSetup:
    """The inputs of `MethodSpec.build`, in addition to the method's own options.

    Attributes:
        generator: maps `[N, C, h, w]` to `[N, C, s*h, s*w]`; already on `device`.
        device: device of the run.
        channels: channels of the images, 1 or 3.
        crop_px: side of the largest ground-truth crop, in pixels.
        ema_forward: maps the same input with the EMA generator, without a gradient; None if the run keeps no EMA.
        seed: seed of the run, for methods that draw random numbers.
    """

    generator: nn.Module
    device: torch.device
    channels: int
    crop_px: int
    ema_forward: Callable[[Tensor], Tensor] | None
    seed: int = 0


class RunOptions(Protocol):
    """The options of a recipe that `MethodSpec.check` may read."""

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        ...

    @property
    def precision(self) -> str:
        """Precision of the networks."""
        ...

    @property
    def crops_px(self) -> dict[int, int]:
        """Side of the ground-truth crop at each scale, in pixels."""
        ...

    @property
    def network(self) -> NetworkSpec:
        """Options of the generator."""
        ...


class MethodSpec(Spec):
    """The options of a method in a recipe.

    A subclass adds `kind: Literal["<its name>"]`, its own options, and `build`. It overrides a default below only
    where its training differs from "one generator, updated once in each step".

    Attributes:
        trains_sampled: trains networks that sample their output, and no others.
    """

    trains_sampled: ClassVar[bool] = False

    terms: Annotated[dict[EntryName, Term], DropNulls] = Field(
        min_length=1,
        description="losses of the generator by name; the names appear in logs. null removes one",
    )

    @classmethod
    def trains(cls, network: NetworkSpec) -> bool:
        """Return whether the method trains networks of this kind."""
        return network.is_sampled == cls.trains_sampled

    @property
    def trained_nets(self) -> tuple[str, ...]:
        """Names of the networks that are trained; the recipe has an optimizer for each."""
        return (GENERATOR,)

    @property
    def reusable_nets(self) -> tuple[str, ...]:
        """Names of the networks, without the generator, of which a run saves weights files to start from."""
        return ()

    @property
    def other_starts(self) -> dict[str, Path]:
        """Weights files from which networks other than the generator start, by network."""
        return {}

    @property
    def generator_start(self) -> Path | None:
        """Weights file from which the generator starts if the recipe has no `start_from`; None is random weights."""
        return None

    @property
    def extra_loss_weights(self) -> dict[str, float]:
        """Weights of the generator's losses that the method adds to `terms`, by name of the loss."""
        return {}

    def count_generator_updates(self, steps: int) -> int:
        """Return how many of the first `steps` steps update the generator."""
        return steps

    def check(self, run: RunOptions) -> None:
        """Check that the method fits the rest of its recipe.

        Raises:
            ValueError: an option of the recipe does not fit; the message has its key, the value and the advice.
        """

    def with_costliest_step(self) -> Self:
        """Return the method for a dry run: each step must cost as much as the most expensive step of the run."""
        return self

    @abstractmethod
    def build(self, setup: MethodSetup) -> "Method":
        """Return the method around the generator.

        Raises:
            InputError: a network does not fit the crop, or the weights of a term are not available.
        """

    def build_objective(self, setup: MethodSetup) -> Objective:
        """Return the generator's losses, weighted, on the device of the run."""
        return Objective(self.terms, setup.device, setup.ema_forward, self.extra_loss_weights)

    @model_validator(mode="after")
    def _check_losses(self) -> Self:
        for name in self.extra_loss_weights:
            if name in self.terms:
                raise ValueError(
                    f"terms must not contain {name}, the name of a loss that the method adds; rename the term"
                )
        check_matches({name: term.weight for name, term in self.terms.items()} | self.extra_loss_weights)
        return self


class Method(ABC):
    """A way of training: which networks are updated, in which order, with which losses.

    The networks in `nets` may be wrapped for several processes after the method is built. Call a network through
    `nets` when an update needs the gradient of its weights. Call the unwrapped network otherwise.

    Args:
        nets: networks that are trained and saved; the generator is under `GENERATOR`.
        objective: losses of the generator.
    """

    def __init__(self, nets: Mapping[str, nn.Module], objective: Objective) -> None:
        assert GENERATOR in nets
        self.nets: nn.ModuleDict = nn.ModuleDict(nets)
        self.objective = objective

    @abstractmethod
    def updates(self, batch: Batch, clock: Clock) -> Iterator[Update]:
        """Yield the updates of one step; the loop takes each before it resumes the method.

        For the generator: `yield from self.objective.updates(outputs, batch, clock)`.
        """

    def count_masked_pixels(self, batch: Batch) -> dict[str, Tensor]:
        """Return the number of masked pixels of each loss that is a `MaskedSum`, before any forward pass."""
        return self.objective.count_masked_pixels(batch)

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint, without networks and optimizers: tensors and plain values."""
        return self.objective.state()

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.objective.load(state)
