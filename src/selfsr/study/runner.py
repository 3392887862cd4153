"""Train the runs of a study, each in its own process, several at once, resuming from checkpoints."""

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

from selfsr.console import console, print_line
from selfsr.fileio import write_atomic
from selfsr.machine.interruption import Interruption
from selfsr.recipe import dump_recipe
from selfsr.runfolder.checkpoints import list_checkpoints
from selfsr.study.devices import DeviceSlot
from selfsr.study.folder import get_run_folder, is_finished, read_last_step, read_step
from selfsr.study.plan import PlannedRun
from selfsr.study.progress import StudyProgress

_POLL_S = 0.25
_GRACE_S = 10.0


@dataclass
class StudyOutcome:
    """The failed and interrupted runs of a study.

    Attributes:
        failed: the reason for each failed run, by its name.
        interrupted: whether Ctrl-C stopped the study before its end.
    """

    failed: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False


def run_all(
    runs: Sequence[PlannedRun],
    folder: Path,
    slots: Sequence[DeviceSlot],
    *,
    lock: int | None,
    reports: bool,
    on_finished: Callable[[PlannedRun], None],
) -> StudyOutcome:
    """Train every unfinished run; a failed run does not stop the others.

    Ctrl-C lets all active runs finish their step and save a checkpoint. A second Ctrl-C stops them immediately.

    Args:
        runs: all runs of the study, including finished ones.
        folder: the study folder.
        slots: devices to train on, one run each.
        lock: file descriptor of the folder's lock, which the runs inherit.
        reports: write a report for each run at its end.
        on_finished: called after each finished run.
    """
    waiting = deque(run for run in runs if not is_finished(folder, run))
    outcome, free, active = StudyOutcome(), deque(slots), []
    steps = {run.name: read_step(folder, run) for run in runs}
    with Interruption() as interruption, StudyProgress(runs, steps, len(slots)) as display:
        try:
            while active or (waiting and not interruption.stop_requested):
                while waiting and free and not interruption.stop_requested:
                    active.append(_Job(waiting.popleft(), folder, free.popleft(), lock, reports))
                    if not console.is_terminal:  # a file has no bar that names the active runs
                        print_line(f"{active[-1].run.name}: started (log: {active[-1].log})")
                time.sleep(_POLL_S)
                for job in list(active):
                    if interruption.stop_requested:
                        job.request_stop()
                    if job.is_running():
                        steps[job.run.name] = max(steps[job.run.name], job.read_step())
                        continue
                    active.remove(job)
                    free.append(job.slot)
                    steps[job.run.name] = read_step(folder, job.run)
                    reason = job.find_failure()
                    if reason is None:
                        on_finished(job.run)
                        display.print(f"{job.run.name}: finished{job.describe_late_error()}", steps)
                    elif not (interruption.stop_requested and job.stopped):
                        outcome.failed[job.run.name] = reason
                        display.print(f"{job.run.name}: FAILED: {reason} (log: {job.log})", steps)
                display.show(steps, [job.run for job in active])
        finally:
            for job in active:
                job.stop_now()
        outcome.interrupted = interruption.stop_requested and any(steps[run.name] < run.recipe.steps for run in runs)
    return outcome


class _Job:
    """A run in training, in a process of its own."""

    def __init__(self, run: PlannedRun, folder: Path, slot: DeviceSlot, lock: int | None, reports: bool) -> None:
        self.run, self.folder, self.slot = run, folder, slot
        self.run_folder = get_run_folder(folder, run)
        self.stopped = False
        recipe = folder / "recipes" / f"{run.name}.yaml"
        self.log = folder / "logs" / f"{run.name}.log"
        for path in (recipe, self.log):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(recipe, dump_recipe(run.recipe))
        command = [sys.executable, "-m", "selfsr", "train", str(recipe), "--runs", str(folder / "runs")]
        command += ["--device", slot.device]
        command += ["--resume"] if list_checkpoints(self.run_folder) else []
        command += [] if reports else ["--no-report"]
        self._output: IO[bytes] = self.log.open("wb")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "COLUMNS": "200", **slot.environment},
            pass_fds=() if lock is None else (lock,),
            # Ctrl-C in the terminal reaches only the study, which forwards it once.
            start_new_session=True,
        )

    def is_running(self) -> bool:
        return self._process.poll() is None

    def read_step(self) -> int:
        return read_last_step(self.run_folder / "metrics.jsonl")

    def request_stop(self) -> None:
        """Let the run finish its step, save a checkpoint and end."""
        if not self.stopped and self.is_running():
            self._process.send_signal(signal.SIGINT)
            self.stopped = True

    def stop_now(self) -> None:
        """End the run immediately; its earlier checkpoints stay complete."""
        if self.is_running():
            self._process.terminate()
            try:
                self._process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._output.close()

    def find_failure(self) -> str | None:
        """Return the reason why an ended run did not finish; None if it finished."""
        self._output.close()
        code = self._process.returncode
        if is_finished(self.folder, self.run):
            return None
        if code < 0:
            with contextlib.suppress(ValueError):
                name = signal.Signals(-code).name
                hint = ", possibly out of memory" if name == "SIGKILL" else ""
                return f"ended by {name}{hint}"
        if code == 130:
            return "interrupted; its checkpoint is saved"
        return _read_last_message(self.log) or f"ended with exit status {code} and no message"

    def describe_late_error(self) -> str:
        """Return the error after the last step of a finished run, such as one of its report; empty without one."""
        return f", but then: {_read_last_message(self.log)} (log: {self.log})" if self._process.returncode else ""


def _read_last_message(log: Path) -> str:
    """Return the last message of selfsr in a log, or the last line of a traceback."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    starts = [index for index, line in enumerate(lines) if line.startswith("selfsr: ")]
    if starts:
        return " ".join(lines[starts[-1] :]).removeprefix("selfsr: ")
    return lines[-1] if lines else ""


def print_resume_command(folder: Path) -> None:
    """Print the command that resumes the study in `folder`."""
    console.print(
        f"Stopped and saved; resume with: selfsr study {folder}", markup=False, highlight=False, soft_wrap=True
    )
