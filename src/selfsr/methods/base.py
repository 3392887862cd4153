"""What methods share that train a generator by an objective."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from selfsr.data.batch import Batch
from selfsr.terms.objective import Objective


class ByObjective:
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
