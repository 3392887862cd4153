"""The one progress display of a study: how many steps of all its runs are done, and how long it will take still."""

import time
from collections.abc import Mapping, Sequence

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from selfsr.console import console, print_line
from selfsr.study.plan import PlannedRun


class TimeLeft:
    """Foretells when a study ends. Recipes differ in what a step costs, so each has a speed of its own.

    Args:
        runs: all runs of the study.
        slots: how many run at once.
    """

    def __init__(self, runs: Sequence[PlannedRun], slots: int) -> None:
        self._runs, self._slots = runs, slots
        self._seconds: dict[str, float] = {}
        self._steps: dict[str, int] = {}

    def spent(self, setup: str, seconds: float, steps: int) -> None:
        """Note that runs of a recipe took `steps` steps in `seconds` of their time."""
        self._seconds[setup] = self._seconds.get(setup, 0.0) + seconds
        self._steps[setup] = self._steps.get(setup, 0) + steps

    def seconds(self, done: Mapping[str, int]) -> float | None:
        """Return the time left with `done` steps by run, None as long as nothing is known."""
        total = sum(self._steps.values())
        if not total:
            return None
        common = sum(self._seconds.values()) / total
        costs = {s: self._seconds[s] / self._steps[s] for s in self._steps if self._steps[s]}
        left = [(run.recipe.steps - done[run.name]) * costs.get(run.setup, common) for run in self._runs]
        unfinished = [seconds for seconds in left if seconds > 0]
        # No run is shared out: the longest one is what the last process is busy with.
        return max(sum(unfinished) / self._slots, max(unfinished, default=0.0))


class Display:
    """A progress bar over all runs. Use as a context; call `show` often."""

    def __init__(self, runs: Sequence[PlannedRun], done: Mapping[str, int], slots: int) -> None:
        self._runs = runs
        self._left = TimeLeft(runs, slots)
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

    def __enter__(self) -> "Display":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, done: Mapping[str, int], active: Sequence[PlannedRun]) -> None:
        """Show how far the runs are; `active` are those being trained."""
        now = time.monotonic()
        for run in active:
            self._left.spent(run.setup, now - self._time, max(0, done[run.name] - self._seen[run.name]))
        self._seen, self._time = dict(done), now
        finished, left = self._so_far(done)
        self._progress.update(
            self._task,
            completed=sum(done.values()),
            description=finished,
            left=left,
            note="  ".join(f"{run.name} {done[run.name]:,}/{run.recipe.steps:,}" for run in active),
        )

    def say(self, sentence: str, done: Mapping[str, int]) -> None:
        """Print a line above the bar, with how far all is: output that goes to a file shows no bar."""
        so_far = "; ".join(filter(None, self._so_far(done)))
        print_line(f"{sentence} [{so_far}]")

    def _so_far(self, done: Mapping[str, int]) -> tuple[str, str]:
        """Return how many runs are finished, and the time left or nothing, in words."""
        finished = sum(done[run.name] >= run.recipe.steps for run in self._runs)
        left = self._left.seconds(done)
        return f"{finished} of {len(self._runs)} runs", f"about {duration(left)} left" if left else ""


def duration(seconds: float) -> str:
    """Return a time in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"
