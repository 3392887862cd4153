"""Regression: one network, one update, any terms. PSNR-oriented training, and the start of every GAN."""

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from selfsr.data.batch import Batch
from selfsr.methods import Clock, Outputs, Update
from selfsr.spec import Spec
from selfsr.terms import Term
from selfsr.terms.objective import Objective


class RegressionSpec(Spec):
    """Make the sum of the terms small."""

    kind: Literal["regression"] = "regression"
    terms: dict[str, Term] = Field(min_length=1, description="the losses by name; the names appear in logs")

    @property
    def trains(self) -> tuple[str, ...]:
        """The networks that want an optimiser."""
        return ("g",)

    def build(self, generator: nn.Module, device: torch.device) -> "Regression":
        """Return the method around `generator`."""
        return Regression(generator, Objective(self.terms, device))


class Regression:
    """Train a generator by the sum of its terms.

    Args:
        generator: maps `[N, C, h, w]` to `[N, C, s*h, s*w]`.
        objective: the sum to make small.
    """

    def __init__(self, generator: nn.Module, objective: Objective) -> None:
        self.nets = nn.ModuleDict({"g": generator})
        self.objective = objective

    def updates(self, batch: Batch, clock: Clock) -> Iterator[Update]:
        """Yield the one update of a step."""
        made = Outputs.of(self.nets["g"](batch.lr))
        yield Update("g", self.objective(made, batch, clock))

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Return the number of masked pixels of each masked term."""
        return self.objective.counts(batch)

    @torch.no_grad()
    def upscale(self, lr: Tensor) -> Tensor:
        """Upscale with the network that is trained."""
        return self.nets["g"](lr)
