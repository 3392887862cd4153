"""What the loop keeps an eye on: values that are not finite, the clock on the wall, and Ctrl-C."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from selfsr.runfolder.checkpoints import checkpoints


class Diverged(RuntimeError):
    """A loss or a gradient is not finite. Nothing is saved after it; the last checkpoint is good."""


class FiniteGuard:
    """Notices a value that is not finite, without waiting for the device until `check` is called."""

    def __init__(self) -> None:
        self._first_bad: dict[str, Tensor] = {}

    def watch(self, name: str, value: Tensor, step: int) -> None:
        """Remember the first step at which `value` is not finite."""
        never = torch.full_like(value, float("inf"), dtype=torch.float64)
        bad = torch.where(value.detach().isfinite(), never, float(step))
        self._first_bad[name] = torch.minimum(self._first_bad.get(name, never), bad)

    def check(self, accelerator: Accelerator, folder: Path) -> None:
        """Raise `Diverged` if anything was not finite, and name what was so first."""
        if not self._first_bad:
            return
        everywhere = accelerator.gather(torch.stack(list(self._first_bad.values()))[None])
        firsts = torch.as_tensor(everywhere).amin(dim=0)
        steps = dict(zip(self._first_bad, firsts.tolist(), strict=True))
        first = min(steps.values())
        if first == float("inf"):
            return
        culprits = " and ".join(name for name, step in steps.items() if step == first)
        kept = checkpoints(folder)
        good = f"the last good checkpoint is {kept[-1]}" if kept else "no checkpoint was written before it"
        raise Diverged(
            f"train: {culprits} became NaN or infinite at step {first:.0f}; {good}. "
            "Lower the learning rate, set clip_norm, or try precision: float32; then go on with --resume."
        )


class Stopwatch:
    """Steps per second, and the share of time spent waiting for data, since the last reading."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Start afresh."""
        self._start, self._waited, self._steps = time.perf_counter(), 0.0, 0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting for the data of one step."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start
        self._steps += 1

    def read(self) -> dict[str, float]:
        """Return the figures and start afresh."""
        spent = max(time.perf_counter() - self._start, 1e-9)
        figures = {"steps_per_s": self._steps / spent, "data_wait_share": self._waited / spent}
        self.restart()
        return figures
