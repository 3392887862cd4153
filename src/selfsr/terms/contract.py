"""What a term is given besides the batch, and what a masked one returns: Clock, Outputs, Ratio."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Clock:
    """The time of training, on which schedules and curricula depend and nothing else does.

    Attributes:
        step: number of the optimiser step being taken, counted from 1.
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
    def share(self) -> float:
        """Share of the run that is done with this step, `step / steps`, 1 in the last one."""
        assert self.steps is not None, "a clock outside a run has no share of it"
        return self.step / self.steps


@dataclass(frozen=True)
class Ratio:
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
    average: Tensor | None = None

    @classmethod
    def of(cls, output: "Tensor | tuple[Tensor, Tensor]") -> "Outputs":
        """Take what a generator in training returns: the output, or the output and its branch."""
        return cls(output) if isinstance(output, Tensor) else cls(*output)

    def float(self) -> "Outputs":
        """Return the same in float32."""
        branch, average = (None if image is None else image.float() for image in (self.branch, self.average))
        return Outputs(self.sr.float(), branch, average)
