"""The weights of an objective: numbers, or found by matching the gradient of the largest other loss (docs/gan.md)."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Discriminator, Field, PositiveFloat, PositiveInt, Tag
from torch import Tensor

from selfsr.machine.distributed import sum_over_processes
from selfsr.spec import Spec
from selfsr.step import MaskedSum


class MatchLargest(Spec):
    """Find the weight in training: bring the loss to the size of the largest other one, then keep it.

    The size of a loss is the norm of its gradient with respect to the output, over the whole batch, and the mean of
    that over the first `calibrate_steps` updates of the generator (docs/gan.md, eq. 7). Until then an update takes the
    estimate of the updates before it, and the first one, which has none, leaves the loss out.
    """

    match: Literal["largest"] = Field(description="to what: the largest of the losses whose weight is a number")
    calibrate_steps: PositiveInt = Field(description="updates of the generator that are measured")
    factor: PositiveFloat = Field(1.0, description="how many times the largest other loss")


def _form(value: Any) -> str:
    return "match" if isinstance(value, Mapping | MatchLargest) else "number"


Weight = Annotated[
    Annotated[PositiveFloat, Tag("number")] | Annotated[MatchLargest, Tag("match")],
    Discriminator(_form),
]


def check_matches(weights: Mapping[str, float | MatchLargest]) -> None:
    """Check that there is something to match.

    Raises:
        ValueError: every weight is to be found.
    """
    matched = [name for name, weight in weights.items() if isinstance(weight, MatchLargest)]
    if matched and len(matched) == len(weights):
        raise ValueError(
            f"the weight of {matched[0]} is to match the largest other loss, expected a loss whose weight is a number, "
            "got none; add one, or give this weight as a number"
        )


class Weights:
    """Multiplies losses by their weights, and finds those that are to be matched.

    A weight is a function of the batches before, over all micro-batches and processes, and of nothing else: squared
    gradients and counts are summed before the root is taken, as far as `finish_update`.

    Args:
        weights: by the name of the loss.
        device: where the losses are.
    """

    def __init__(self, weights: Mapping[str, float | MatchLargest], device: torch.device) -> None:
        check_matches(weights)
        self.weights = weights
        self.matches = {name: weight for name, weight in weights.items() if isinstance(weight, MatchLargest)}
        self.calibrate_steps = max((match.calibrate_steps for match in self.matches.values()), default=0)
        self.measured = 0  # updates so far, at most calibrate_steps
        self.found = {name: torch.zeros((), device=device) for name in self.matches}
        self._sums = torch.zeros(len(weights), device=device)  # of gradient norms over updates, in the weights' order
        fixed = [1.0 if isinstance(weight, MatchLargest) else weight for weight in weights.values()]
        self._fixed = torch.tensor(fixed, device=device)
        self._others = torch.tensor([name not in self.matches for name in weights], device=device)
        self._pending: list[Tensor] = []  # of the update under way, [2, losses] for each micro-batch

    def __call__(self, losses: Mapping[str, Tensor | MaskedSum], sr: Tensor) -> dict[str, Tensor | MaskedSum]:
        """Return the weighted losses of a micro-batch.

        Args:
            losses: one for each weight, by the same names, of a graph that leads through `sr`.
            sr: the output `[N, C, H, W]`.
        """
        assert losses.keys() == self.weights.keys()
        if self.measured < self.calibrate_steps:
            self._pending.append(_sizes([losses[name] for name in self.weights], sr))
        return {name: _times(self._weight(name), loss) for name, loss in losses.items()}

    def logged_scalars(self) -> dict[str, Tensor]:
        """Return the weights that are found, as they are now, by the names that they have in logs."""
        return {f"weight/{name}": weight for name, weight in self.found.items()}

    def finish_update(self) -> None:
        """Take up what the update measured; once every micro-batch has been through it."""
        if not self._pending:
            return
        squares, counts = sum_over_processes(torch.stack(self._pending).sum(dim=0))
        self._pending.clear()
        self._sums = self._sums + squares.sqrt() / counts.clamp(min=1) * self._fixed
        self.measured += 1
        largest = torch.where(self._others, self._sums, 0).max()
        for index, name in enumerate(self.weights):
            if name in self.matches and self.measured <= self.matches[name].calibrate_steps:
                own = self._sums[index]
                # A loss that nothing was seen of, such as one whose mask was empty each time, has no weight yet.
                self.found[name] = torch.where(own > 0, self.matches[name].factor * largest / own, 0.0)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"measured": self.measured, "sums": self._sums, "found": dict(self.found)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up a checkpoint."""
        device = self._sums.device
        self.measured = state["measured"]
        self._sums = state["sums"].to(device)
        self.found = {name: weight.to(device) for name, weight in state["found"].items()}

    def _weight(self, name: str) -> float | Tensor:
        weight = self.weights[name]
        return self.found[name] if isinstance(weight, MatchLargest) else weight


def _sizes(losses: list[Tensor | MaskedSum], sr: Tensor) -> Tensor:
    """Return the squared gradient norm at `sr` of each loss before its division, and what it will be divided by."""
    squares, counts = [], []
    for loss in losses:
        total = loss.total if isinstance(loss, MaskedSum) else loss
        (gradient,) = torch.autograd.grad(total, sr, retain_graph=True, allow_unused=True)
        squares.append(sr.new_zeros(()) if gradient is None else gradient.square().sum())
        counts.append(loss.count.to(sr) if isinstance(loss, MaskedSum) else sr.new_ones(()))
    return torch.stack([torch.stack(squares), torch.stack(counts)])


def _times(weight: float | Tensor, loss: Tensor | MaskedSum) -> Tensor | MaskedSum:
    return MaskedSum(weight * loss.total, loss.count) if isinstance(loss, MaskedSum) else weight * loss
