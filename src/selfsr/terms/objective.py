"""The sum that a generator is trained by: the terms of a recipe, built, weighted and named."""

import torch
from torch import Tensor

from selfsr.data.batch import Batch
from selfsr.methods import Clock, Outputs, Ratio
from selfsr.terms import Term


class Objective:
    """The terms of a recipe, ready to be called.

    Args:
        specs: the terms by name.
        device: where the networks inside terms go.
    """

    def __init__(self, specs: dict[str, Term], device: torch.device) -> None:
        self.specs = specs
        self.losses = {name: spec.build(device) for name, spec in specs.items()}

    def __call__(self, made: Outputs, batch: Batch, clock: Clock) -> dict[str, Tensor | Ratio]:
        """Return every term's weighted loss by name, computed in float32 whatever the network ran in."""
        with torch.autocast(made.sr.device.type, enabled=False):
            made = made.float()
            return {
                name: _times(self.specs[name].weight, loss(made, batch, clock)) for name, loss in self.losses.items()
            }

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Return the count of every masked term by name."""
        counted = {name: loss.count(batch) for name, loss in self.losses.items()}
        return {name: count for name, count in counted.items() if count is not None}


def _times(weight: float, loss: Tensor | Ratio) -> Tensor | Ratio:
    return Ratio(weight * loss.total, loss.count) if isinstance(loss, Ratio) else weight * loss
