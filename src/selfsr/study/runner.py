"""Train the runs of a study: each a `selfsr train` of its own, several at once, resumed where they stopped."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from selfsr.console import console
from selfsr.machine.interruption import Interruption
from selfsr.recipe import dump_recipe
from selfsr.runfolder.checkpoints import checkpoints
from selfsr.study.display import Display
from selfsr.study.folder import is_finished, last_step, run_folder, step_reached
from selfsr.study.machines import Slot
from selfsr.study.plan import PlannedRun

_POLL_S = 0.25
_GRACE_S = 10.0


@dataclass
class Outcome:
    """How it went.

    Attributes:
        failed: why each failed run failed, by its name.
        interrupted: whether it was stopped from outside before the end.
    """

    failed: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False


def run_all(
    runs: Sequence[PlannedRun],
    folder: Path,
    slots: Sequence[Slot],
    *,
    lock: int | None,
    reports: bool,
    on_finished: Callable[[PlannedRun], None],
) -> Outcome:
    """Train every run that is not finished; a failed one does not stop the others.

    Ctrl-C stops all after their step, saved; a second one stops them at once.

    Args:
        runs: all of the study, the finished ones too.
        folder: the study folder.
        slots: where to train.
        lock: the descriptor that keeps others out of the folder; the runs hold it open.
        reports: write each run's own report at its end.
        on_finished: called when a run has finished.
    """
    waiting = deque(run for run in runs if not is_finished(folder, run))
    outcome, free, active = Outcome(), deque(slots), []
    steps = {run.name: step_reached(folder, run) for run in runs}
    with Interruption() as interruption, Display(runs, steps, len(slots)) as display:
        try:
            while active or (waiting and not interruption.asked_for):
                while waiting and free and not interruption.asked_for:
                    active.append(_Job(waiting.popleft(), folder, free.popleft(), lock, reports))
                time.sleep(_POLL_S)
                for job in list(active):
                    if interruption.asked_for:
                        job.ask_to_stop()
                    if job.running():
                        steps[job.run.name] = max(steps[job.run.name], job.step())
                        continue
                    active.remove(job)
                    free.append(job.slot)
                    steps[job.run.name] = step_reached(folder, job.run)
                    reason = job.why_unfinished()
                    if reason is None:
                        on_finished(job.run)
                        display.say(f"{job.run.name}: finished{job.afterwards()}", steps)
                    elif not (interruption.asked_for and job.stopped):
                        outcome.failed[job.run.name] = reason
                        display.say(f"{job.run.name}: FAILED: {reason} (all of it: {job.log})", steps)
                display.show(steps, [job.run for job in active])
        finally:
            for job in active:
                job.stop_now()
        outcome.interrupted = interruption.asked_for and any(steps[run.name] < run.recipe.steps for run in runs)
    return outcome


class _Job:
    """A run that is being trained, in a process of its own."""

    def __init__(self, run: PlannedRun, folder: Path, slot: Slot, lock: int | None, reports: bool) -> None:
        self.run, self.folder, self.slot = run, folder, slot
        self.place = run_folder(folder, run)
        self.stopped = False
        recipe = folder / "recipes" / f"{run.name}.yaml"
        self.log = folder / "logs" / f"{run.name}.log"
        for path in (recipe, self.log):
            path.parent.mkdir(parents=True, exist_ok=True)
        recipe.write_text(dump_recipe(run.recipe), encoding="utf-8")
        command = [sys.executable, "-m", "selfsr", "train", str(recipe), "--runs", str(folder / "runs")]
        command += ["--device", slot.device]
        command += ["--resume"] if checkpoints(self.place) else []
        command += [] if reports else ["--no-report"]
        self._output: IO[bytes] = self.log.open("wb")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "COLUMNS": "200", **slot.environment},
            pass_fds=() if lock is None else (lock,),
            # Out of the terminal's reach: Ctrl-C comes to the study, which passes it on once.
            start_new_session=True,
        )

    def running(self) -> bool:
        return self._process.poll() is None

    def step(self) -> int:
        return last_step(self.place / "metrics.jsonl")

    def ask_to_stop(self) -> None:
        """Let the run finish its step, save and end."""
        if not self.stopped and self.running():
            self._process.send_signal(signal.SIGINT)
            self.stopped = True

    def stop_now(self) -> None:
        """End the run wherever it is; what it saved before is whole."""
        if self.running():
            self._process.terminate()
            try:
                self._process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._output.close()

    def why_unfinished(self) -> str | None:
        """Return why the run that has ended is not finished, None if it is."""
        self._output.close()
        code = self._process.returncode
        if is_finished(self.folder, self.run):
            return None
        if code < 0:
            with contextlib.suppress(ValueError):
                name = signal.Signals(-code).name
                hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
                return f"ended by {name}{hint}"
        if code == 130:
            return "stopped from outside, and saved"
        return _last_words(self.log) or f"ended with status {code} and no message"

    def afterwards(self) -> str:
        """Return what went wrong after the last step of a finished run, such as with its report."""
        return f", but then: {_last_words(self.log)} (all of it: {self.log})" if self._process.returncode else ""


def _last_words(log: Path) -> str:
    """Return a run's own sentence about its end, or the last line of its traceback."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    starts = [index for index, line in enumerate(lines) if line.startswith("selfsr: ")]
    if starts:
        return " ".join(lines[starts[-1] :]).removeprefix("selfsr: ")
    return lines[-1] if lines else ""


def say_how_to_go_on(folder: Path) -> None:
    """Print the command that goes on with the study in `folder`."""
    console.print(
        f"Stopped and saved; go on with: selfsr study {folder}", markup=False, highlight=False, soft_wrap=True
    )
