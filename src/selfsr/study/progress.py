"""The progress display of a study: one bar over the steps of all runs, with an estimate of the remaining time."""

import time
from collections.abc import Mapping, Sequence

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from selfsr.console import console, format_duration, print_line
from selfsr.study.plan import PlannedRun


class TimeEstimate:
    """Estimates the remaining time of a study.

    Each recipe has its own speed, since a step of one can cost many steps of another. A progress bar's own estimate
    knows only the overall speed.

    Args:
        runs: all runs of the study.
        slots: number of runs that train at once.
    """

    def __init__(self, runs: Sequence[PlannedRun], slots: int) -> None:
        self._runs, self._slots = runs, slots
        self._seconds: dict[str, float] = {}
        self._steps: dict[str, int] = {}

    def add(self, setup: str, seconds: float, steps: int) -> None:
        """Record that a run of a recipe took `steps` steps in `seconds`."""
        self._seconds[setup] = self._seconds.get(setup, 0.0) + seconds
        self._steps[setup] = self._steps.get(setup, 0) + steps

    def seconds_left(self, done: Mapping[str, int]) -> float | None:
        """Return the remaining time, given the finished steps of each run; None before the first measurement."""
        total = sum(self._steps.values())
        if not total:
            return None
        common = sum(self._seconds.values()) / total
        costs = {s: self._seconds[s] / self._steps[s] for s in self._steps if self._steps[s]}
        left = [(run.recipe.steps - done[run.name]) * costs.get(run.setup, common) for run in self._runs]
        return divide_time([seconds for seconds in left if seconds > 0], self._slots)


def divide_time(times_s: Sequence[float], slots: int) -> float:
    """Return the time of runs of which `slots` train at once, in seconds, from the time of each.

    A run cannot be divided between slots, so the longest one is a lower bound.
    """
    return max(sum(times_s) / slots, max(times_s, default=0.0))


class StudyProgress:
    """A progress bar over all runs; a context manager.

    Args:
        runs: all runs of the study.
        done: the finished steps of each run, by its name.
        slots: number of runs that train at once.
    """

    def __init__(self, runs: Sequence[PlannedRun], done: Mapping[str, int], slots: int) -> None:
        self._runs = runs
        self._left = TimeEstimate(runs, slots)
        self._seen, self._time = dict(done), time.monotonic()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[note]}", style="dim"),
        )
        self._progress = Progress(*columns, console=console)
        total = sum(run.recipe.steps for run in runs)
        self._task = self._progress.add_task("", total=total, completed=sum(done.values()), left="", note="")

    def __enter__(self) -> "StudyProgress":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, done: Mapping[str, int], active: Sequence[PlannedRun]) -> None:
        """Update the bar with the finished steps of each run; `active` runs are training now."""
        now = time.monotonic()
        for run in active:
            self._left.add(run.setup, now - self._time, max(0, done[run.name] - self._seen[run.name]))
        self._seen, self._time = dict(done), now
        finished, left = self._describe(done)
        self._progress.update(
            self._task,
            completed=sum(done.values()),
            description=finished,
            left=left,
            note="  ".join(f"{run.name} {done[run.name]:,}/{run.recipe.steps:,}" for run in active),
        )

    def print(self, sentence: str, done: Mapping[str, int]) -> None:
        """Print a line above the bar, with the overall progress, since a log file has no bar."""
        progress = "; ".join(filter(None, self._describe(done)))
        print_line(f"{sentence} [{progress}]")

    def _describe(self, done: Mapping[str, int]) -> tuple[str, str]:
        """Return the number of finished runs and the remaining time (empty if unknown), in words."""
        finished = sum(done[run.name] >= run.recipe.steps for run in self._runs)
        left = self._left.seconds_left(done)
        return f"{finished} of {len(self._runs)} runs", f"about {format_duration(left)} left" if left else ""
