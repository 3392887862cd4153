"""The types of one training step: Batch, Edges, Clock, Outputs, MaskedSum and Update."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

# Key of the generator among the networks of every method, in `optimizers` of a recipe, in logs and in checkpoints.
GENERATOR = "g"


class Edges:
    """The masked pixels of a batch, and their numbers.

    On a GPU the numbers are on their way to the host as soon as this exists. A loss that reads them after the forward
    pass then does not wait for that pass.

    Args:
        mask: bool `[N, 1, H, W]`.

    Attributes:
        mask: bool `[N, 1, H, W]`.
        count: number of masked pixels, an integer scalar on the device of the mask.
    """

    def __init__(self, mask: Tensor) -> None:
        self.mask: Tensor = mask
        self._row_counts: Tensor = mask.sum((1, 3))
        self.count: Tensor = self._row_counts.sum()
        self._copied: torch.cuda.Event | None = None
        if mask.is_cuda:
            self._row_counts = self._row_counts.to("cpu", non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def row_counts(self) -> Tensor:
        """Return the number of masked pixels in each row of each image, int64 `[N, H]` on the CPU, once it is there."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._row_counts.cpu()


@dataclass(frozen=True)
class Batch:
    """Images of one step.

    Attributes:
        hr: ground truth `[N, C, H, W]`, float in [0, 1].
        lr: input `[N, C, H/s, W/s]`, float in [0, 1].
        mask: edge mask of `hr`, bool `[N, 1, H, W]`; None if the data have no masks of their own.
        first_slot: place of the first image in the batch over all processes and micro-batches. Random numbers of a
            sample depend on its place, so that they do not depend on how the batch is split.
        edges: filled in by terms at edges, by their options; a batch that is made from another one begins without.
    """

    hr: Tensor
    lr: Tensor
    mask: Tensor | None = None
    first_slot: int = 0
    edges: dict[tuple[float, int, bool], Edges] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def scale(self) -> int:
        """Size of `hr` over the size of `lr`, the same for all images of a step."""
        return self.hr.shape[-1] // self.lr.shape[-1]

    def to(self, device: torch.device, memory_format: torch.memory_format = torch.preserve_format) -> "Batch":
        """Return the batch on `device` (non-blocking)."""
        move = {"device": device, "non_blocking": True}
        return replace(
            self,
            hr=self.hr.to(**move, memory_format=memory_format),
            lr=self.lr.to(**move, memory_format=memory_format),
            mask=None if self.mask is None else self.mask.to(**move),
        )


@dataclass(frozen=True)
class Clock:
    """The time of training. Schedules and self-paced weighting depend on it and on nothing else.

    Attributes:
        step: number of the optimizer step, counted from 1.
        steps_per_epoch: optimizer steps in an epoch, as the recipe sets it.
        steps: optimizer steps of the complete run; None outside a run.
    """

    step: int
    steps_per_epoch: int
    steps: int | None = None

    @property
    def epoch(self) -> float:
        """Fractional epochs, `step / steps_per_epoch`; called "age" in the self-paced paper. Never 0 in a step."""
        return self.step / self.steps_per_epoch

    @property
    def progress(self) -> float:
        """Fraction of the run that is done after this step, `step / steps`; 1 in the last step."""
        assert self.steps is not None, "a clock without a number of steps has no progress"
        return self.step / self.steps


@dataclass(frozen=True)
class MaskedSum:
    """A masked loss before its division by the number of pixels.

    The loop divides by the count over all processes and micro-batches, so the loss does not depend on how the batch
    is split.

    Attributes:
        total: sum over the masked pixels, a scalar with a gradient.
        count: number of masked pixels in this batch, a scalar without a gradient.
    """

    total: Tensor
    count: Tensor


@dataclass(frozen=True)
class Outputs:
    """Outputs of the generator for one batch; the terms receive them.

    Attributes:
        sr: super-resolved images `[N, C, H, W]`.
        branch: second output of generators that have one, such as SPSR's gradient map, `[N, C, H, W]`.
        ema_sr: output of the EMA generator for the same input, without a gradient; None if no term needs it.
    """

    sr: Tensor
    branch: Tensor | None = None
    ema_sr: Tensor | None = None

    @classmethod
    def from_network(cls, output: "Tensor | tuple[Tensor, Tensor]") -> "Outputs":
        """Wrap the return value of a generator in training mode: an image, or an image and a branch."""
        return cls(output) if isinstance(output, Tensor) else cls(*output)

    def float(self) -> "Outputs":
        """Return the outputs in float32."""
        branch, ema_sr = (None if image is None else image.float() for image in (self.branch, self.ema_sr))
        return Outputs(self.sr.float(), branch, ema_sr)


@dataclass(frozen=True)
class Update:
    """One optimizer step of one network, which lowers the sum of `losses`.

    Attributes:
        net: key of the network in `Method.nets` and in the recipe's `optimizers`.
        losses: weighted losses by name; each is logged as `loss/<net>/<name>`.
        scalars: further values to log, by their full names: means over the batch, or over a part of it as a
            `MaskedSum`, which is logged as the mean over all parts, and not at all where they are empty.
    """

    net: str
    losses: dict[str, Tensor | MaskedSum]
    scalars: dict[str, Tensor | MaskedSum] = field(default_factory=dict)
