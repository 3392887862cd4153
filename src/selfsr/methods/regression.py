"""Regression: one network, one update, any terms. PSNR-oriented training, and the start of every GAN."""

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from selfsr import terms
from selfsr.data.batch import Batch
from selfsr.methods import Clock, Update
from selfsr.spec import Spec
from selfsr.terms import Term


class RegressionSpec(Spec):
    """Make the sum of the terms small."""

    kind: Literal["regression"] = "regression"
    terms: dict[str, Term] = Field(min_length=1, description="the losses by name; the names appear in logs")

    @property
    def trains(self) -> tuple[str, ...]:
        """The networks that want an optimiser."""
        return ("g",)

    def build(self, generator: nn.Module) -> "Regression":
        """Return the method around `generator`."""
        return Regression(generator, self.terms)


class Regression:
    """Train a generator by the sum of its terms.

    Args:
        generator: maps `[N, C, h, w]` to `[N, C, s*h, s*w]`.
        objective: the terms by name.
    """

    def __init__(self, generator: nn.Module, objective: dict[str, Term]) -> None:
        self.nets = nn.ModuleDict({"g": generator})
        self.objective = objective

    def updates(self, batch: Batch, clock: Clock) -> Iterator[Update]:
        """Yield the one update of a step."""
        sr = self.nets["g"](batch.lr)
        yield Update("g", terms.weigh(self.objective, sr, batch, clock))

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Return the number of masked pixels of each masked term."""
        return terms.counts(self.objective, batch)

    @torch.no_grad()
    def upscale(self, lr: Tensor) -> Tensor:
        """Upscale with the network that is trained."""
        return self.nets["g"](lr)
