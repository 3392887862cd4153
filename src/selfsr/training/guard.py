"""Detect values that are not finite, and measure the speed of training."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from selfsr.runfolder.checkpoints import list_checkpoints


class Diverged(RuntimeError):
    """A loss or a gradient is not finite. Nothing is saved after it, so the last checkpoint is good."""


class FiniteGuard:
    """Detect values that are not finite, without waiting for the device before `check` is called."""

    def __init__(self) -> None:
        self._first_bad_step: dict[str, Tensor] = {}

    def watch(self, name: str, value: Tensor, step: int) -> None:
        """Record the first step at which the scalar `value` is not finite.

        Args:
            name: for the message of `Diverged`.
            value: any scalar tensor.
            step: number of the step.
        """
        never = torch.full_like(value, float("inf"), dtype=torch.float64)
        bad = torch.where(value.detach().isfinite(), never, float(step))
        self._first_bad_step[name] = torch.minimum(self._first_bad_step.get(name, never), bad)

    def check(self, accelerator: Accelerator, folder: Path) -> None:
        """Check all recorded values of all processes.

        Raises:
            Diverged: a value was not finite; the message names the first one, its step and the last checkpoint.
        """
        if not self._first_bad_step:
            return
        of_processes = accelerator.gather(torch.stack(list(self._first_bad_step.values()))[None])
        first_steps = torch.as_tensor(of_processes).amin(dim=0)
        steps = dict(zip(self._first_bad_step, first_steps.tolist(), strict=True))
        first = min(steps.values())
        if first == float("inf"):
            return
        names = " and ".join(name for name, step in steps.items() if step == first)
        paths = list_checkpoints(folder)
        last_good = f"the last good checkpoint is {paths[-1]}" if paths else "no checkpoint was written before it"
        raise Diverged(
            f"train: {names} became NaN or infinite at step {first:.0f}; {last_good}. "
            "Lower the learning rate, set clip_norm, or set precision to float32; then "
            f"{'continue with --resume' if paths else 'start the run again'}."
        )


class Stopwatch:
    """Measure steps per second and the fraction of time spent waiting for data, since the last reading."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Start a new measurement."""
        self._start, self._waited_s, self._steps = time.perf_counter(), 0.0, 0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside the context as waiting for the data of one step."""
        start = time.perf_counter()
        yield
        self._waited_s += time.perf_counter() - start
        self._steps += 1

    def read(self) -> dict[str, float]:
        """Return the measurement and start a new one."""
        elapsed_s = max(time.perf_counter() - self._start, 1e-9)
        speed = {"steps_per_s": self._steps / elapsed_s, "data_wait_share": self._waited_s / elapsed_s}
        self.restart()
        return speed
