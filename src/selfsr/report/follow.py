"""Follow running trainings: rewrite the report when something new is logged, and let the page reload itself."""

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

from selfsr.console import print_line
from selfsr.errors import InputError
from selfsr.fileio import write_atomic
from selfsr.report.live import LiveState, State
from selfsr.report.page import ImageParts, collect_image_parts, render_report
from selfsr.report.write import check_target, resolve_folders
from selfsr.runfolder.lock import is_in_use
from selfsr.runfolder.read import EXPECTED_ENTRIES, RunFolder, read_run_folders

CHECK_S = 2.0
# The page is rewritten at most once in the first time, and takes less than a tenth of a core up to the second.
LEAST_PAUSE_S, LARGEST_PAUSE_S = 4.0, 30.0
_PAUSE_PER_RENDERING = 9.0
# A run of another machine cannot be asked whether it works. It has ended if it is at its last step for so long.
QUIET_S = 60.0
_USUAL_PAUSES = 5
_LOGS = ("recipe.yaml", "metrics.jsonl", "eval.jsonl", "environment.json")


# Names, sizes and times of change.
_Stamps = tuple[tuple[str, int, int], ...]


def follow_runs(
    runs: Sequence[Path],
    out: Path,
    *,
    against: Path | None = None,
    on_first_page: Callable[[], None] | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> Path:
    """Write the report of running trainings again whenever they log, evaluate or save samples, until all have ended.

    The page reads a small script next to it, `NAME.live.js`, and reloads itself after each rewriting. At the end, and
    if interrupted, the page is written once more without this script, and the script is removed.

    Args:
        runs: run folders; one that does not exist yet is waited for.
        out: the HTML file to write.
        against: a run folder for the column "without the loss", as in `write_report`.
        on_first_page: called after the page is written for the first time.
        pause: waits this number of seconds between two checks.

    Returns:
        `out`.

    Raises:
        InputError: `runs` is empty, a folder is a file, or `out` cannot be a file.
        OSError: the page cannot be written.
        KeyboardInterrupt: the user has stopped following; the page is complete.
    """
    if not runs:
        raise InputError("report: expected at least one run folder, got none; pass a folder made by selfsr train.")
    check_target(out)
    folders, index = resolve_folders(runs, against)
    for folder in folders:
        _check_folder(folder)
    follower = _Follower(folders, index, out)
    print_line(f"Following {', '.join(map(str, runs))}: open {out}, which reloads itself. Ctrl-C stops.")
    try:
        while not follower.check():
            if on_first_page is not None and follower.stamp:
                on_first_page()
                on_first_page = None
            pause(CHECK_S)
        print_line(f"{follower.describe_end()}; {out} is complete.")
    except KeyboardInterrupt:
        print_line(f"Stopped following{follower.describe_place()}. The training is not affected.")
        raise
    finally:
        follower.close()
    return out


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(
            f"report: expected a run folder, got {folder}, which is a file; pass a folder of selfsr train."
        )


@dataclass
class _Follower:
    """What is known of the runs between two checks."""

    folders: list[Path]
    against: int | None
    out: Path
    runs: list[RunFolder] = field(default_factory=list)
    parts: ImageParts | None = None
    seen: _Stamps = ()
    seen_samples: _Stamps = ()
    stamp: str = ""
    state: State = "waiting"
    text: str = ""
    next_rendering: float = 0.0
    said: str = ""

    @property
    def script(self) -> Path:
        """The script next to the page."""
        return self.out.with_name(f"{self.out.stem}.live.js")

    def check(self) -> bool:
        """Rewrite the page if a run has changed; return whether all runs have ended."""
        missing = [folder for folder in self.folders if not _is_run_folder(folder)]
        if missing:
            self._say(f"Waiting for {missing[0]}: no training has begun there.")
            return False
        logs = _list_stamps(folder / name for folder in self.folders for name in _LOGS)
        samples = _list_stamps(path for folder in self.folders for path in sorted((folder / "samples").rglob("*.png")))
        if (*logs, *samples) != self.seen:
            is_quick = time.monotonic() < self.next_rendering
            if is_quick and any(is_in_use(folder) for folder in self.folders):
                self._write_script()
                return False
            begin = time.process_time()
            self._read(samples)
            self.seen = (*logs, *samples)
            self.stamp = f"{time.time():.3f}"
            if all(_has_ended(run) for run in self.runs):
                return True
            self.state, self.text = self._describe()
            write_atomic(self.out, self._render(self._make_live()))
            pause_s = _PAUSE_PER_RENDERING * (time.process_time() - begin)
            self.next_rendering = time.monotonic() + min(max(pause_s, LEAST_PAUSE_S), LARGEST_PAUSE_S)
        self.state, self.text = self._describe()
        self._write_script()
        return all(_has_ended(run) for run in self.runs)

    def close(self) -> None:
        """Write the page without its script, if it was written at all, and remove the script."""
        if self.stamp:
            write_atomic(self.out, self._render(None))
        with suppress(FileNotFoundError):
            self.script.unlink()

    def describe_end(self) -> str:
        """Return the end of all runs in words."""
        return "; ".join(f"{run.name} has ended at step {run.step:,}" for run in self.runs)

    def describe_place(self) -> str:
        """Return the last steps in words; empty without a page."""
        if not self.stamp:
            return f"; no training has begun, and {self.out} is not written"
        return f" at {', '.join(f'step {run.step:,} of {run.name}' for run in self.runs)}; {self.out} is complete"

    def _read(self, samples: _Stamps) -> None:
        self.runs = read_run_folders(self.folders)
        # Reading and comparing images takes most of the time, and most changes are lines of the log.
        recipes = _list_stamps(folder / "recipe.yaml" for folder in self.folders)
        if self.parts is None or (*recipes, *samples) != self.seen_samples:
            self.parts = _collect_on_one_thread(self.runs, self.against)
            self.seen_samples = (*recipes, *samples)

    def _render(self, live: LiveState | None) -> str:
        assert self.parts is not None
        return render_report(self.runs, self.parts, live)

    def _make_live(self) -> LiveState:
        return LiveState(self.script.name, self.stamp, self.state, self.text)

    def _write_script(self) -> None:
        news = {"stamp": self.stamp, "checked": round(time.time(), 1), "state": self.state, "text": self.text}
        write_atomic(self.script, f"receiveNews({json.dumps(news)});\n")

    def _describe(self) -> tuple[State, str]:
        states = [_describe_run(run) for run in self.runs]
        found = {state for state, _ in states}
        state: State = "silent" if "silent" in found else "waiting" if "waiting" in found else "running"
        names = [f"{run.name}: " if len(states) > 1 else "" for run in self.runs]
        text = " ".join(name + text for name, (_, text) in zip(names, states, strict=True))
        if state != "running":
            self._say(text)
        return state, text

    def _say(self, text: str) -> None:
        """Print a sentence, but not the same one twice in a row."""
        if text != self.said:
            self.said = text
            print_line(text)


def _collect_on_one_thread(runs: list[RunFolder], against: int | None) -> ImageParts:
    """Collect the image sections without taking the cores from the training."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return collect_image_parts(runs, against, lambda **_: None)
    finally:
        torch.set_num_threads(threads)


def _is_run_folder(folder: Path) -> bool:
    return any((folder / entry).exists() for entry in EXPECTED_ENTRIES)


def _list_stamps(paths: Iterable[Path]) -> _Stamps:
    stamps = []
    for path in paths:
        with suppress(OSError):
            status = path.stat()
            stamps.append((str(path), status.st_size, status.st_mtime_ns))
    return tuple(stamps)


def _has_ended(run: RunFolder) -> bool:
    """Return whether a run has reached its last step and its process has ended, as far as this machine can tell."""
    if not run.finished:
        return False
    in_use = is_in_use(run.folder)
    return not in_use if in_use is not None else time.time() - _find_last_change(run) > QUIET_S


def _find_last_change(run: RunFolder) -> float:
    """Return the time of the newest line of the logs, in seconds since 1970."""
    times = [os.stat(path).st_mtime for name in _LOGS[1:3] if (path := run.folder / name).exists()]
    return max(times, default=time.time())


def _describe_run(run: RunFolder) -> tuple[State, str]:
    """Return the state of a run, and a sentence about it."""
    in_use = is_in_use(run.folder)
    if not run.log and not run.evaluations:
        if in_use is False:
            return "waiting", "No step yet, and no process is training in this folder."
        return "waiting", "Waiting for the first step."
    planned = "" if run.steps_planned is None else f" of {run.steps_planned:,}"
    place = f"Step {run.step:,}{planned}."
    if run.finished:
        return "running", place
    last = _find_last_change(run)
    since = f"No new step since {time.strftime('%H:%M:%S', time.localtime(last))}"
    if in_use is False:
        return "silent", f"{place} {since}, and no process is training: it was stopped or killed."
    if time.time() - last > max(QUIET_S, _USUAL_PAUSES * _measure_usual_pause(run)):
        return "silent", f"{place} {since}."
    return "running", place


def _measure_usual_pause(run: RunFolder) -> float:
    """Return the seconds between the last two lines of the log, by the logged speed; 0 without two lines."""
    if len(run.log) < 2:
        return 0.0
    points = run.elapsed_times()
    return points[-1][1] - points[-2][1] if len(points) > 1 else 0.0
