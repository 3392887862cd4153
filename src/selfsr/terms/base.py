"""The contract of a term: its weight, its needs, and its call in a step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from pydantic import Field
from torch import Tensor

from selfsr.spec import Spec
from selfsr.step import Batch, Clock, MaskedSum, Outputs
from selfsr.terms.loss_weights import Weight


@dataclass(frozen=True)
class WeightedMean:
    """A mean with pixel weights that sum to a constant over the complete batch (docs/pacing.md, eq. 17).

    Attributes:
        mean: mean over this micro-batch, with weights whose mean over it is 1; a scalar with a gradient.
        log_sum: logarithm of the sum of the weights before they were normalized, a scalar without a gradient.
    """

    mean: Tensor
    log_sum: Tensor


class BuiltTerm(Protocol):
    """A loss that is ready to be called: the spec itself, or an object with a network of its own."""

    def count(self, batch: Batch) -> Tensor | None:
        """Return the number of masked pixels in `batch`; None if the loss is a plain mean."""
        ...

    def __call__(self, outputs: Outputs, batch: Batch, clock: Clock) -> Tensor | MaskedSum | WeightedMean:
        """Return the loss before its weight.

        It is a mean over the batch, a `MaskedSum` if it has a mask, or a `WeightedMean` if it normalizes.
        """
        ...


@dataclass(frozen=True)
class NetworkTerm:
    """A term with a network of its own; a plain mean.

    Attributes:
        loss: maps the generator's outputs and the batch to a scalar.
    """

    loss: Callable[[Outputs, Batch], Tensor]

    def count(self, batch: Batch) -> Tensor | None:
        """Return None: the loss is a plain mean."""
        return None

    def __call__(self, outputs: Outputs, batch: Batch, clock: Clock) -> Tensor:
        """Return the loss as a mean over the batch."""
        return self.loss(outputs, batch)


class TermSpec(Spec):
    """The options of a term in a recipe. A subclass adds `kind`, its options, and `__call__`.

    Attributes:
        needs_ema: needs `Outputs.ema_sr`, the output of the EMA generator.
        needs_branch: needs `Outputs.branch`, the second output of the generator.
        takes_masks: uses `Batch.mask` if the data have masks.
        smallest_scale: the smallest scale at which the loss is defined.
    """

    needs_ema: ClassVar[bool] = False
    needs_branch: ClassVar[bool] = False
    takes_masks: ClassVar[bool] = False
    smallest_scale: ClassVar[int] = 1

    weight: Weight = Field(1.0, description="factor of the loss, or how to calibrate it in training")

    @property
    def normalizes(self) -> bool:
        """Whether the loss is a `WeightedMean`, whose weights depend on the complete batch."""
        return False

    @property
    def minimum_px(self) -> int:
        """Smallest side of a ground-truth crop on which the loss is defined, in pixels."""
        return 1

    def build(self, device: torch.device) -> BuiltTerm:
        """Return the loss on `device`; a term without a network returns itself.

        Raises:
            InputError: the weights of the term's network are not available.
        """
        return self

    def count(self, batch: Batch) -> Tensor | None:
        """Return None: the loss is a plain mean."""
        return None

    def __call__(self, outputs: Outputs, batch: Batch, clock: Clock) -> Tensor | MaskedSum | WeightedMean:
        """Return the loss before its weight."""
        raise NotImplementedError
