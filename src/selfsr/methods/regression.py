"""Regression: one network, one update, any terms. PSNR-oriented training, and the start of every GAN."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator
from torch import nn

from selfsr.methods import Setup, Update
from selfsr.methods.contract import ObjectiveMethod
from selfsr.spec import NullLeavesOut, Spec
from selfsr.step import Batch, Clock, Outputs
from selfsr.terms import Term
from selfsr.terms.loss_weights import check_matches
from selfsr.terms.objective import Objective


class RegressionSpec(Spec):
    """Make the sum of the terms small."""

    kind: Literal["regression"] = "regression"
    terms: Annotated[dict[str, Term], NullLeavesOut] = Field(
        min_length=1, description="the losses by name, which appears in logs; null leaves one out"
    )

    @model_validator(mode="after")
    def _has_something_to_match(self) -> "RegressionSpec":
        check_matches({name: term.weight for name, term in self.terms.items()})
        return self

    @property
    def trained_nets(self) -> tuple[str, ...]:
        """The networks that want an optimizer."""
        return ("g",)

    @property
    def pretrained(self) -> dict[str, Path]:
        """The weights files that networks besides the generator start from."""
        return {}

    def generator_updates(self, steps: int) -> int:
        """Return how many of so many steps have an update of the generator: all of them."""
        return steps

    def build(self, setup: Setup) -> "Regression":
        """Return the method around the generator."""
        return Regression(setup.generator, Objective(self.terms, setup.device, setup.ema_forward))


class Regression(ObjectiveMethod):
    """Train a generator by the sum of its terms.

    Args:
        generator: maps `[N, C, h, w]` to `[N, C, s*h, s*w]`.
        objective: the sum to make small.
    """

    def __init__(self, generator: nn.Module, objective: Objective) -> None:
        super().__init__({"g": generator}, objective)

    def updates(self, batch: Batch, clock: Clock) -> Iterator[Update]:
        """Yield the one update of a step."""
        outputs = Outputs.from_network(self.nets["g"](batch.lr))
        yield Update("g", self.objective(outputs, batch, clock), self.objective.logged_scalars())
        self.objective.finish_update()
