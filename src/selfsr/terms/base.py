"""What a term of the objective is: its weight, what it needs, and how it is called in a step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from pydantic import Field
from torch import Tensor

from selfsr.spec import Spec
from selfsr.step import Batch, Clock, MaskedSum, Outputs
from selfsr.terms.loss_weights import Weight


class BuiltTerm(Protocol):
    """A loss, ready to be called: the spec itself, or what it built around a network of its own."""

    def count(self, batch: Batch) -> Tensor | None:
        """Return how many pixels a masked loss counts in `batch`, None for a plain mean."""
        ...

    def __call__(self, outputs: Outputs, batch: Batch, clock: Clock) -> Tensor | MaskedSum:
        """Return the loss before its weight: a mean over the batch, or a `MaskedSum` where a mask chooses the pixels."""
        ...


@dataclass(frozen=True)
class NetworkTerm:
    """A term that was built around a network: a plain mean.

    Attributes:
        loss: takes what the generator made, and the batch.
    """

    loss: Callable[[Outputs, Batch], Tensor]

    def count(self, batch: Batch) -> Tensor | None:
        """Return None: the loss is a plain mean."""
        return None

    def __call__(self, outputs: Outputs, batch: Batch, clock: Clock) -> Tensor:
        """Return the mean over the batch."""
        return self.loss(outputs, batch)


class TermSpec(Spec):
    """A term as a recipe spells it out; subclasses add `kind`, the options and the loss.

    Attributes:
        needs_ema: `Outputs.ema_sr`, what the averaged generator makes of the batch, must be there.
        needs_branch: `Outputs.branch`, the generator's second output, must be there.
        takes_masks: `Batch.mask` is looked at where the data bring one.
    """

    needs_ema: ClassVar[bool] = False
    needs_branch: ClassVar[bool] = False
    takes_masks: ClassVar[bool] = False

    weight: Weight = Field(1.0, description="what the loss is multiplied by, or how to find that in training")

    @property
    def minimum_px(self) -> int:
        """The smallest side of a ground-truth crop that the loss can be taken on, in pixels."""
        return 1

    def build(self, device: torch.device) -> BuiltTerm:
        """Return the loss on `device`; a term without a network of its own is its own loss.

        Raises:
            InputError: weights that the term needs cannot be had.
        """
        return self

    def count(self, batch: Batch) -> Tensor | None:
        """Return None: the loss is a plain mean."""
        return None

    def __call__(self, outputs: Outputs, batch: Batch, clock: Clock) -> Tensor | MaskedSum:
        """Return the loss before its weight."""
        raise NotImplementedError
