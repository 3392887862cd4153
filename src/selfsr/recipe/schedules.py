"""Learning-rate schedules of a recipe. All but the plateau depend only on the step and have no state."""

import math
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from selfsr.spec import Spec


class _ScheduleSpec(Spec):
    warmup_steps: int = Field(
        0,
        ge=0,
        description="steps over which the learning rate rises linearly to its full value; useful for transformers",
    )

    def factor(self, step: int, steps: int) -> float:
        """Return the factor of the learning rate in `step`, counted from 1, of `steps`."""
        raise NotImplementedError

    def _warmup(self, step: int) -> float:
        return min(1.0, step / self.warmup_steps) if self.warmup_steps else 1.0


class ConstantSpec(_ScheduleSpec):
    """A constant learning rate."""

    kind: Literal["constant"] = "constant"

    def factor(self, step: int, steps: int) -> float:  # noqa: ARG002 - schedules share one signature
        """Return the factor of the learning rate in `step`, counted from 1."""
        return self._warmup(step)


class MultiStepSpec(_ScheduleSpec):
    """A learning rate that is multiplied by `gamma` after each of `at_steps`."""

    kind: Literal["multistep"] = "multistep"
    at_steps: tuple[PositiveInt, ...] = Field(
        description="milestones: steps after which the learning rate drops, in increasing order"
    )
    gamma: float = Field(0.5, gt=0, description="factor of the learning rate at each drop")

    @model_validator(mode="after")
    def _check_order(self) -> "MultiStepSpec":
        if list(self.at_steps) != sorted(set(self.at_steps)):
            raise ValueError(f"at_steps must increase, got {list(self.at_steps)}")
        return self

    def factor(self, step: int, steps: int) -> float:  # noqa: ARG002 - schedules share one signature
        """Return the factor of the learning rate in `step`, counted from 1."""
        return self._warmup(step) * self.gamma ** sum(step > at for at in self.at_steps)


class CosineSpec(_ScheduleSpec):
    """Half a cosine from the full learning rate to `floor` times it (Loshchilov and Hutter, ICLR 2017)."""

    kind: Literal["cosine"] = "cosine"
    floor: float = Field(0.0, ge=0, le=1, description="fraction of the learning rate in the last step, 0 to 1")

    def factor(self, step: int, steps: int) -> float:
        """Return the factor of the learning rate in `step`, counted from 1, of `steps`."""
        if step <= self.warmup_steps:
            return self._warmup(step)
        # Progress is 0 in the first step at the full learning rate, and 1 in the last step.
        progress = (step - 1 - self.warmup_steps) / max(1, steps - 1 - self.warmup_steps)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class CosineRestartsSpec(_ScheduleSpec):
    """Half cosines one after another, each from the full learning rate (SGDR, Loshchilov and Hutter, ICLR 2017).

    Use it to have good weights at the end of each period of a long run; with restarts the best score often comes before
    the last step.
    """

    kind: Literal["cosine_restarts"] = "cosine_restarts"
    period_steps: PositiveInt = Field(description="steps of the first period, without the warmup")
    period_factor: PositiveInt = Field(1, description="how many times longer each period is than the one before")
    peak_factor: float = Field(
        1.0, gt=0, le=1, description="fraction of the learning rate that is left at each restart; 1 restarts in full"
    )
    floor: float = Field(0.0, ge=0, le=1, description="fraction of the learning rate at the end of a period, 0 to 1")

    def factor(self, step: int, steps: int) -> float:  # noqa: ARG002 - schedules share one signature
        """Return the factor of the learning rate in `step`, counted from 1."""
        if step <= self.warmup_steps:
            return self._warmup(step)
        position, period, peak = step - 1 - self.warmup_steps, self.period_steps, 1.0
        while position >= period:
            position, period, peak = position - period, period * self.period_factor, peak * self.peak_factor
        low = min(self.floor, peak)
        return low + (peak - low) * 0.5 * (1 + math.cos(math.pi * position / period))


class WsdSpec(_ScheduleSpec):
    """Warmup, a stable rate, and a decay at the end (Hu et al., "MiniCPM", 2024).

    Use it for runs that may be made longer: before the decay, the rate does not depend on the number of steps.
    """

    kind: Literal["wsd"] = "wsd"
    decay_share: float = Field(0.2, gt=0, le=1, description="share of the steps of the run over which the rate falls")
    shape: Literal["linear", "sqrt"] = Field(
        "sqrt",
        description="fall over the share x of the decay: 1 - x, or 1 - sqrt(x), which falls faster at first and gave "
        "lower losses (Haegele et al., NeurIPS 2024)",
    )
    floor: float = Field(0.0, ge=0, le=1, description="fraction of the learning rate in the last step, 0 to 1")

    def factor(self, step: int, steps: int) -> float:
        """Return the factor of the learning rate in `step`, counted from 1, of `steps`."""
        decay_steps = max(1, round(self.decay_share * steps))
        done = max(0, step - (steps - decay_steps)) / decay_steps
        fall = 1 - (done if self.shape == "linear" else math.sqrt(done))
        return self._warmup(step) * (self.floor + (1 - self.floor) * fall)


class PlateauSpec(_ScheduleSpec):
    """A learning rate that falls when the score `evaluate.best_by` no longer improves.

    Use it if neither the length of the run nor the milestones are known. It needs `evaluate`.
    """

    kind: Literal["plateau"] = "plateau"
    gamma: float = Field(0.5, gt=0, lt=1, description="factor of the learning rate at each drop")
    patience: PositiveInt = Field(
        5, description="evaluations without a better score after which the rate drops; raise it if scores are noisy"
    )
    floor: float = Field(
        0.0, ge=0, le=1, description="fraction of the learning rate below which it never falls, 0 to 1"
    )

    def factor(self, step: int, steps: int) -> float:  # noqa: ARG002 - schedules share one signature
        """Return the factor of the learning rate in `step`, counted from 1, before any drop."""
        return self._warmup(step)


class Plateau:
    """The state of a plateau schedule: the drops so far, and the evaluations since the best score.

    Args:
        spec: its options.

    Attributes:
        factor: the factor of the learning rate by the drops so far.

    Example:
        >>> plateau = Plateau(PlateauSpec(patience=2))
        >>> for score in (30.0, 29.0, 30.0, 31.0):  # two evaluations that are not better than 30, then a better one
        ...     plateau.observe(score)
        >>> plateau.factor
        0.5
    """

    def __init__(self, spec: PlateauSpec) -> None:
        self._spec = spec
        self.factor: float = 1.0
        self._best = -math.inf
        self._waited = 0

    def observe(self, score: float) -> None:
        """Take note of the score of an evaluation; higher is better."""
        if score > self._best:
            self._best, self._waited = score, 0
            return
        self._waited += 1
        if self._waited == self._spec.patience:
            self.factor = max(self.factor * self._spec.gamma, self._spec.floor)
            self._waited = 0

    def state(self) -> dict[str, float]:
        """Return the state for a checkpoint."""
        return {"factor": self.factor, "best": self._best, "waited": self._waited}

    def load(self, state: dict[str, float]) -> None:
        """Restore the state from a checkpoint."""
        self.factor, self._best, self._waited = state["factor"], state["best"], int(state["waited"])


Schedule = Annotated[
    ConstantSpec | MultiStepSpec | CosineSpec | CosineRestartsSpec | WsdSpec | PlateauSpec,
    Field(discriminator="kind"),
]
