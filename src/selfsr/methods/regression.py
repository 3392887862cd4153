"""Regression: train one network with any losses, for a high PSNR or as the start of a GAN."""

from collections.abc import Iterator
from typing import Literal

from torch import nn

from selfsr.methods.contract import Method, MethodSetup, MethodSpec
from selfsr.step import GENERATOR, Batch, Clock, Outputs, Update
from selfsr.terms.objective import Objective


class RegressionSpec(MethodSpec):
    """Minimize the weighted sum of the terms."""

    kind: Literal["regression"] = "regression"

    def build(self, setup: MethodSetup) -> "Regression":
        """Return the method around the generator."""
        return Regression(setup.generator, self.build_objective(setup))


class Regression(Method):
    """Train a generator with the weighted sum of its terms.

    Args:
        generator: maps `[N, C, h, w]` to `[N, C, s*h, s*w]`.
        objective: losses of the generator.
    """

    def __init__(self, generator: nn.Module, objective: Objective) -> None:
        super().__init__({GENERATOR: generator}, objective)

    def updates(self, batch: Batch, clock: Clock) -> Iterator[Update]:
        """Yield the one update of a step."""
        outputs = Outputs.from_network(self.nets[GENERATOR](batch.lr))
        yield from self.objective.updates(outputs, batch, clock)
