"""Detect values that are not finite, and measure the speed of training."""

import contextlib
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from selfsr.runfolder.checkpoints import list_checkpoints
from selfsr.runfolder.log import stack_scalars


class Diverged(RuntimeError):
    """A loss or a gradient is not finite. Nothing is saved after it, so the last checkpoint is good.

    Args:
        message: what became not finite, the last checkpoint, and what to do.
        event: only what became not finite, and in which step.
    """

    def __init__(self, message: str, event: str = "") -> None:
        super().__init__(message)
        self.event: str = event or message


class FiniteGuard:
    """Detect values that are not finite, without waiting for the device before `check` is called."""

    def __init__(self) -> None:
        self._watched: list[tuple[str, Tensor]] = []
        self._first_bad_steps: dict[tuple[str, ...], Tensor] = {}  # vectors, by the names of their entries in order

    def watch(self, name: str, value: Tensor) -> None:
        """Watch the scalar `value` in this step; `name` is for the message of `Diverged`."""
        self._watched.append((name, value.detach()))

    def finish_step(self, step: int) -> None:
        """Record which values of this step are not finite, all in one vector; `step` is the number of the step."""
        if not self._watched:
            return
        names = tuple(name for name, _ in self._watched)
        values = stack_scalars([value for _, value in self._watched])
        bad_steps = torch.full_like(values, float(step)).masked_fill_(values.isfinite(), float("inf"))
        first = self._first_bad_steps.get(names)
        self._first_bad_steps[names] = bad_steps if first is None else torch.minimum(first, bad_steps)
        self._watched.clear()

    def check(self, accelerator: Accelerator, folder: Path) -> None:
        """Check all recorded values of all processes.

        Raises:
            Diverged: a value was not finite; the message names the first one, its step and the last checkpoint.
        """
        if not self._first_bad_steps:
            return
        of_processes = accelerator.gather(torch.cat(list(self._first_bad_steps.values()))[None])
        steps = torch.as_tensor(of_processes).amin(dim=0).tolist()
        first = min(steps)
        if first == float("inf"):
            return
        bad = [name for name, step in zip(itertools.chain(*self._first_bad_steps), steps, strict=True) if step == first]
        names = " and ".join(dict.fromkeys(bad))
        paths = list_checkpoints(folder)
        last_good = f"the last good checkpoint is {paths[-1]}" if paths else "no checkpoint was written before it"
        event = f"{names} became NaN or infinite at step {first:.0f}"
        raise Diverged(
            f"train: {event}; {last_good}. Lower the learning rate, set clip_norm, or set precision to float32; then "
            f"{'continue with --resume' if paths else 'start the run again'}.",
            event,
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
