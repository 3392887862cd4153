"""The losses of a generator: the terms of a recipe, built, weighted and named."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from selfsr.errors import RangeCheck
from selfsr.step import GENERATOR, Batch, Clock, MaskedSum, Outputs, Update
from selfsr.terms import Term
from selfsr.terms.loss_weights import LossWeights


class Objective:
    """The weighted losses of a generator.

    Args:
        specs: the terms of the recipe by name.
        device: device for the networks inside terms.
        ema_forward: maps an input with the EMA generator, without a gradient; None if the run keeps no EMA.
        extra_weights: weights of the losses that a method adds to its terms, by name.
    """

    def __init__(
        self,
        specs: Mapping[str, Term],
        device: torch.device,
        ema_forward: Callable[[Tensor], Tensor] | None = None,
        extra_weights: Mapping[str, float] | None = None,
    ) -> None:
        self.check_range: RangeCheck = RangeCheck("train")
        self.terms = {name: spec.build(device) for name, spec in specs.items()}
        self.ema_forward = ema_forward if any(spec.needs_ema for spec in specs.values()) else None
        weights = {name: spec.weight for name, spec in specs.items()}
        self.loss_weights: LossWeights = LossWeights({**weights, **(extra_weights or {})}, device)

    def updates(
        self, outputs: Outputs, batch: Batch, clock: Clock, extra_losses: Mapping[str, Tensor] | None = None
    ) -> Iterator[Update]:
        """Yield the generator's update; then finish it, once every micro-batch has passed.

        Args:
            outputs: outputs of the generator for `batch`, with a gradient.
            batch: images of this micro-batch.
            clock: time of the step.
            extra_losses: losses that the method adds to its terms, one for each of `extra_weights`, not yet weighted.
        """
        losses = self.weighted_losses(outputs, batch, clock, extra_losses)
        yield Update(GENERATOR, losses, self.loss_weights.logged_scalars())
        self.loss_weights.finish_update()

    def weighted_losses(
        self, outputs: Outputs, batch: Batch, clock: Clock, extra_losses: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor | MaskedSum]:
        """Return every weighted loss by name, computed in float32 for any precision of the network."""
        if self.ema_forward is not None:
            outputs = replace(outputs, ema_sr=self.ema_forward(batch.lr))
        with torch.autocast(outputs.sr.device.type, enabled=False):
            outputs = outputs.float()
            self.check_range(outputs.sr, batch.hr)
            losses = {name: term(outputs, batch, clock) for name, term in self.terms.items()}
            return self.loss_weights({**losses, **(extra_losses or {})}, outputs.sr)

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Return the number of masked pixels of each term that is a `MaskedSum`, by name."""
        counts = {name: term.count(batch) for name, term in self.terms.items()}
        return {name: count for name, count in counts.items() if count is not None}

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return self.loss_weights.state()

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.loss_weights.load(state)
