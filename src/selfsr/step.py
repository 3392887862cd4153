"""What a training step gets: the images of one batch, on the device."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Images of one step.

    Attributes:
        hr: ground truth `[N, C, H, W]`, float in [0, 1].
        lr: input `[N, C, H/s, W/s]`, float in [0, 1].
        mask: edges of `hr`, bool `[N, 1, H, W]`, where the data bring their own.
    """

    hr: Tensor
    lr: Tensor
    mask: Tensor | None = None

    @property
    def scale(self) -> int:
        """How many times larger `hr` is than `lr`; the same for all images of a step."""
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
    """The time of training, on which schedules and curricula depend and nothing else does.

    Attributes:
        step: number of the optimizer step being taken, counted from 1.
        steps_per_epoch: how many steps the recipe calls an epoch.
        steps: of the whole run; None where there is no run, as for a loss that is called by itself.
    """

    step: int
    steps_per_epoch: int
    steps: int | None = None

    @property
    def epoch(self) -> float:
        """Fractional epochs, `step / steps_per_epoch`: the age of the self-paced paper, never 0 in a step."""
        return self.step / self.steps_per_epoch

    @property
    def progress(self) -> float:
        """Share of the run that is done with this step, `step / steps`, 1 in the last one."""
        assert self.steps is not None, "a clock outside a run has no share of it"
        return self.step / self.steps


@dataclass(frozen=True)
class MaskedSum:
    """A masked loss, not yet divided: the loop divides by the count over all processes and micro-batches.

    Attributes:
        total: the sum over the counted pixels, a scalar with a gradient.
        count: how many pixels were counted in this batch, a scalar without one.
    """

    total: Tensor
    count: Tensor


@dataclass(frozen=True)
class Outputs:
    """What the generator made of a batch, as the terms see it.

    Attributes:
        sr: the output `[N, C, H, W]`.
        branch: a second output of generators that have one, such as SPSR's gradient map, `[N, C, H, W]`.
        average: what the averaged generator makes of the same input, without a gradient, where a term asks for it.
    """

    sr: Tensor
    branch: Tensor | None = None
    ema_sr: Tensor | None = None

    @classmethod
    def from_network(cls, output: "Tensor | tuple[Tensor, Tensor]") -> "Outputs":
        """Take what a generator in training returns: the output, or the output and its branch."""
        return cls(output) if isinstance(output, Tensor) else cls(*output)

    def float(self) -> "Outputs":
        """Return the same in float32."""
        branch, ema_sr = (None if image is None else image.float() for image in (self.branch, self.ema_sr))
        return Outputs(self.sr.float(), branch, ema_sr)
