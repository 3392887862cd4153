"""The losses of a generator: the terms of a recipe, built, weighted and named."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from selfsr.errors import InputError, RangeCheck
from selfsr.step import GENERATOR, Batch, Clock, MaskedSum, Outputs, Update
from selfsr.terms import Term
from selfsr.terms.base import BuiltTerm, WeightedMean
from selfsr.terms.edge import EdgeTermSpec
from selfsr.terms.loss_weights import LossWeights


class Objective:
    """The weighted losses of a generator.

    Args:
        specs: the terms of the recipe by name.
        device: device for the networks inside terms.
        ema_forward: maps an input with the EMA generator, without a gradient; None if the run keeps no EMA.
        extra_weights: weights of the losses that a method adds to its terms, by name.

    Raises:
        InputError: the weights of a term's network are not available; the message begins with the key of the term.

    Attributes:
        normalized: names of the terms whose pixel weights are normalized over the complete batch.
        parts: number of micro-batches in the batch, over all processes.
        log_sums: `WeightedMean.log_sum` of each of these terms over the complete batch; unused if `parts` is 1.
    """

    def __init__(
        self,
        specs: Mapping[str, Term],
        device: torch.device,
        ema_forward: Callable[[Tensor], Tensor] | None = None,
        extra_weights: Mapping[str, float] | None = None,
    ) -> None:
        self.check_range: RangeCheck = RangeCheck("train")
        self.specs: Mapping[str, Term] = specs
        self.terms = {name: _build_term(name, spec, device) for name, spec in specs.items()}
        self.ema_forward = ema_forward if any(spec.needs_ema for spec in specs.values()) else None
        self.normalized: list[str] = [name for name, spec in specs.items() if spec.normalizes]
        self.parts = 1
        self.log_sums: dict[str, Tensor] = {}
        weights = {name: spec.weight for name, spec in specs.items()}
        self.loss_weights: LossWeights = LossWeights({**weights, **(extra_weights or {})}, device)

    def updates(
        self,
        outputs: Outputs,
        batch: Batch,
        clock: Clock,
        extra_losses: Mapping[str, Tensor] | None = None,
        *,
        anchor: Tensor | None = None,
        complete: Batch | None = None,
        scalars: Mapping[str, Tensor | MaskedSum] | None = None,
    ) -> Iterator[Update]:
        """Yield the generator's update; then finish it, once every micro-batch has passed.

        Args:
            outputs: outputs of the generator for `batch`, with a gradient.
            batch: images of this micro-batch.
            clock: time of the step.
            extra_losses: losses that the method adds to its terms, one for each of `extra_weights`, not yet weighted.
            anchor: the tensor through which every loss reaches the generator, where matched weights measure gradients;
                None is the output.
            complete: the micro-batch of which `batch` has some images, possibly none; the others have no terms. None if
                `batch` has all.
            scalars: further values to log.
        """
        losses = self.weighted_losses(outputs, batch, clock, extra_losses, anchor=anchor, complete=complete)
        yield Update(GENERATOR, losses, {**self.loss_weights.logged_scalars(), **(scalars or {})})
        self.loss_weights.finish_update()

    def weighted_losses(
        self,
        outputs: Outputs,
        batch: Batch,
        clock: Clock,
        extra_losses: Mapping[str, Tensor] | None = None,
        *,
        anchor: Tensor | None = None,
        complete: Batch | None = None,
    ) -> dict[str, Tensor | MaskedSum]:
        """Return every weighted loss by name, computed in float32 for any precision of the network."""
        if self.ema_forward is not None:
            outputs = replace(outputs, ema_sr=self.ema_forward(batch.lr))
        with torch.autocast(outputs.sr.device.type, enabled=False):
            outputs = outputs.float()
            anchor = outputs.sr if anchor is None else anchor
            if len(batch.hr):
                self.check_range(outputs.sr, batch.hr)
                losses = {name: self._share(name, term(outputs, batch, clock)) for name, term in self.terms.items()}
            else:
                losses = {name: anchor.sum() * 0 for name in self.terms}
            if complete is not None:
                losses = {name: self._over_complete(name, loss, batch, complete) for name, loss in losses.items()}
            return self.loss_weights({**losses, **(extra_losses or {})}, anchor)

    def _over_complete(self, name: str, loss: Tensor | MaskedSum, batch: Batch, complete: Batch) -> Tensor | MaskedSum:
        """Return the loss of some images as that of the micro-batch, in which the others have a loss of 0."""
        count = self.terms[name].count(complete)
        if count is not None:
            return MaskedSum(loss.total if isinstance(loss, MaskedSum) else loss, count)
        assert isinstance(loss, Tensor)
        return loss * (len(batch.hr) / len(complete.hr))

    def _share(self, name: str, loss: Tensor | MaskedSum | WeightedMean) -> Tensor | MaskedSum:
        """Return a loss as a mean or a `MaskedSum`: a `WeightedMean` gets its share of the batch (eq. 17)."""
        if not isinstance(loss, WeightedMean):
            return loss
        if self.parts == 1:
            return loss.mean
        return loss.mean * (self.parts * (loss.log_sum - self.log_sums[name]).exp()).to(loss.mean.dtype)

    def measure_log_sums(self, outputs: Outputs, batch: Batch, clock: Clock) -> Tensor:
        """Return `WeightedMean.log_sum` of each term of `normalized` for one micro-batch, `[terms]`."""
        with torch.no_grad(), torch.autocast(outputs.sr.device.type, enabled=False):
            losses = [self.terms[name](outputs.float(), batch, clock) for name in self.normalized]
        return torch.stack([loss.log_sum for loss in losses if isinstance(loss, WeightedMean)])

    def find_mask(self, batch: Batch) -> Tensor | None:
        """Return the edge mask of the first term that has one, bool `[N, 1, H, W]`; None if no term has."""
        masked = [term for term in self.specs.values() if isinstance(term, EdgeTermSpec)]
        return masked[0].mask(batch) if masked else batch.mask

    def count_edges(self, batch: Batch) -> None:
        """Start counting the edges of a batch, so that they are counted when its loss is computed."""
        for spec in self.specs.values():
            if isinstance(spec, EdgeTermSpec):
                spec.edges(batch)

    def count_masked_pixels(self, batch: Batch) -> dict[str, Tensor]:
        """Return the number of masked pixels of each term that is a `MaskedSum`, by name."""
        counts = {name: term.count(batch) for name, term in self.terms.items()}
        return {name: count for name, count in counts.items() if count is not None}

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return self.loss_weights.state()

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.loss_weights.load(state)


def _build_term(name: str, spec: Term, device: torch.device) -> BuiltTerm:
    try:
        return spec.build(device)
    except InputError as error:
        raise InputError(f"method.terms.{name}: {error}") from error
