"""The sum that a generator is trained by: the terms of a recipe, built, weighted and named."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from selfsr.step import Batch, Clock, MaskedSum, Outputs
from selfsr.terms import Term
from selfsr.terms.loss_weights import Weights


class Objective:
    """The terms of a recipe, ready to be called.

    Args:
        specs: the terms by name.
        device: where the networks inside terms go.
        averaged: takes an input to what the averaged generator makes of it; None where no term asks for it.
        others: weights of the losses that a method adds to its terms, by name.
    """

    def __init__(
        self,
        specs: Mapping[str, Term],
        device: torch.device,
        ema_forward: Callable[[Tensor], Tensor] | None = None,
        others: Mapping[str, float] | None = None,
    ) -> None:
        self.losses = {name: spec.build(device) for name, spec in specs.items()}
        self.ema_forward = ema_forward if any(spec.needs_ema for spec in specs.values()) else None
        self.weights = Weights({**{name: spec.weight for name, spec in specs.items()}, **(others or {})}, device)

    def __call__(
        self, outputs: Outputs, batch: Batch, clock: Clock, others: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor | MaskedSum]:
        """Return every weighted loss by name, computed in float32 whatever the network ran in."""
        if self.ema_forward is not None:
            outputs = replace(outputs, ema_sr=self.ema_forward(batch.lr))
        with torch.autocast(outputs.sr.device.type, enabled=False):
            outputs = outputs.float()
            losses = {name: loss(outputs, batch, clock) for name, loss in self.losses.items()}
            return self.weights({**losses, **(others or {})}, outputs.sr)

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Return the count of every masked term by name."""
        counted = {name: loss.count(batch) for name, loss in self.losses.items()}
        return {name: count for name, count in counted.items() if count is not None}

    def logged_scalars(self) -> dict[str, Tensor]:
        """Return the weights that are found in training, by the names that they have in logs."""
        return self.weights.logged_scalars()

    def finish_update(self) -> None:
        """Close an update, once every micro-batch has been through it."""
        self.weights.finish_update()

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return self.weights.state()

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up a checkpoint."""
        self.weights.load(state)
