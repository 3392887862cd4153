"""Weights of losses: numbers, or matched in training to the gradient of the largest other loss (docs/gan.md)."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Discriminator, Field, PositiveFloat, PositiveInt, Tag
from torch import Tensor

from selfsr.machine.distributed import sum_over_processes
from selfsr.spec import Spec
from selfsr.step import MaskedSum


class MatchLargest(Spec):
    """Calibrate the weight in training: bring the loss to the size of the largest other loss, then keep the weight.

    The size of a loss is the norm of its gradient with respect to the output, over the full batch, averaged over the
    first `calibrate_steps` updates of the generator (docs/gan.md, eq. 7). Until then an update uses the estimate from
    the updates before it. The first update has no estimate and leaves the loss out.
    """

    match: Literal["largest"] = Field(description="the loss to match: the largest of those whose weight is a number")
    calibrate_steps: PositiveInt = Field(
        description="updates of the generator over which sizes are measured; 100 is usual, more for small batches"
    )
    factor: PositiveFloat = Field(
        1.0, description="size of the loss relative to the largest other loss; below 1 makes it a smaller part"
    )


def _form(value: Any) -> str:
    return "match" if isinstance(value, Mapping | MatchLargest) else "number"


Weight = Annotated[
    Annotated[PositiveFloat, Tag("number")] | Annotated[MatchLargest, Tag("match")],
    Discriminator(_form),
]


def check_matches(weights: Mapping[str, float | MatchLargest]) -> None:
    """Check that a loss with a matched weight has another loss to match.

    Raises:
        ValueError: no weight is a number.
    """
    matched = [name for name, weight in weights.items() if isinstance(weight, MatchLargest)]
    if matched and len(matched) == len(weights):
        raise ValueError(
            f"the weight of {matched[0]} matches the largest other loss: expected a loss whose weight is a number, "
            "got none; add one, or give this weight as a number"
        )


class LossWeights:
    """Multiply losses by their weights, and find the weights that are matched.

    A matched weight depends only on the batches before, over all micro-batches and processes: `finish_update` sums
    squared gradients and counts before it takes the root.

    Args:
        weights: by the name of the loss.
        device: device of the losses.
    """

    def __init__(self, weights: Mapping[str, float | MatchLargest], device: torch.device) -> None:
        check_matches(weights)
        self.weights = weights
        self.matches: dict[str, MatchLargest] = {
            name: weight for name, weight in weights.items() if isinstance(weight, MatchLargest)
        }
        self.calibrate_steps: int = max((match.calibrate_steps for match in self.matches.values()), default=0)
        self.measured = 0  # updates so far, at most calibrate_steps
        self.matched: dict[str, Tensor] = {name: torch.zeros((), device=device) for name in self.matches}
        self._sums = torch.zeros(len(weights), device=device)  # of gradient norms over updates, in the weights' order
        fixed = [1.0 if isinstance(weight, MatchLargest) else weight for weight in weights.values()]
        self._fixed = torch.tensor(fixed, device=device)
        self._is_fixed = torch.tensor([name not in self.matches for name in weights], device=device)
        self._pending: list[Tensor] = []  # of the current update, [2, losses] for each micro-batch

    def __call__(self, losses: Mapping[str, Tensor | MaskedSum], sr: Tensor) -> dict[str, Tensor | MaskedSum]:
        """Return the weighted losses of a micro-batch.

        Args:
            losses: one for each weight, by the same names; their gradient must reach `sr`.
            sr: the output `[N, C, H, W]`.
        """
        assert losses.keys() == self.weights.keys()
        if self.measured < self.calibrate_steps:
            self._pending.append(_measure([losses[name] for name in self.weights], sr))
        return {name: _multiply(loss, self._weight(name)) for name, loss in losses.items()}

    def logged_scalars(self) -> dict[str, Tensor]:
        """Return the current matched weights, by their names in logs."""
        return {f"weight/{name}": weight for name, weight in self.matched.items()}

    def finish_update(self) -> None:
        """Estimate the matched weights from the update; call this once every micro-batch has passed."""
        if not self._pending:
            return
        squares, counts = sum_over_processes(torch.stack(self._pending).sum(dim=0))
        self._pending.clear()
        self._sums = self._sums + squares.sqrt() / counts.clamp(min=1) * self._fixed
        self.measured += 1
        largest = torch.where(self._is_fixed, self._sums, 0).max()
        for index, name in enumerate(self.weights):
            if name in self.matches and self.measured <= self.matches[name].calibrate_steps:
                own = self._sums[index]
                # A loss that was 0 in every update, for example because its mask was empty, has no weight yet.
                self.matched[name] = torch.where(own > 0, self.matches[name].factor * largest / own, 0.0)

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        sums = dict(zip(self.weights, self._sums, strict=True))
        return {"measured": self.measured, "sums": sums, "matched": dict(self.matched)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        device = self._sums.device
        self.measured: int = state["measured"]
        self._sums = torch.stack([state["sums"][name].to(device) for name in self.weights])
        self.matched = {name: weight.to(device) for name, weight in state["matched"].items()}

    def _weight(self, name: str) -> float | Tensor:
        weight = self.weights[name]
        return self.matched[name] if isinstance(weight, MatchLargest) else weight


def _measure(losses: list[Tensor | MaskedSum], sr: Tensor) -> Tensor:
    """Return `[2, losses]`: squared gradient norms at `sr` before the division by the count, and the counts."""
    squares, counts = [], []
    for loss in losses:
        total = loss.total if isinstance(loss, MaskedSum) else loss
        (gradient,) = torch.autograd.grad(total, sr, retain_graph=True, allow_unused=True)
        squares.append(sr.new_zeros(()) if gradient is None else gradient.square().sum())
        counts.append(loss.count.to(sr) if isinstance(loss, MaskedSum) else sr.new_ones(()))
    return torch.stack([torch.stack(squares), torch.stack(counts)])


def _multiply(loss: Tensor | MaskedSum, weight: float | Tensor) -> Tensor | MaskedSum:
    return MaskedSum(weight * loss.total, loss.count) if isinstance(loss, MaskedSum) else weight * loss
