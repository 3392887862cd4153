"""Kill a training run at random moments, resume it, and compare it bit for bit with an uninterrupted run.

    python bench/kill.py --kills 100

Half of the kills come from outside, SIGKILL after a random time. The other half come from inside, at the n-th write,
rename or fsync of the process, where n is random: it dies there immediately (`die`), or the call fails as on a full
disk and the process ends by itself (`fail`). A write stops after half of its bytes. After each kill the run is
resumed. The final weights, the last checkpoint and the log must equal those of the uninterrupted run.

The uninterrupted run is timed and its calls are counted. The kills of a run are uniform over this time and over these
calls: of the k kills that are left, the next one comes at the smallest of k uniform fractions of what is left.
"""

import argparse
import atexit
import builtins
import errno
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors import safe_open

STEPS = 60
CALLS = ("write", "replace", "fsync")
FILE_ERROR = 3  # the exit status of selfsr for a file that cannot be written
# What a log line says of the machine and the clock.
CLOCKS = ("steps_per_s", "data_wait_share", "memory_mb")


def recipe(photos: Path) -> dict[str, Any]:
    """Return a small GAN recipe that saves and evaluates often, so that most kills meet a write."""
    network = {"kind": "vgg", "features": 4}
    return {
        "name": "killed",
        "scale": 2,
        "steps": STEPS,
        "steps_per_epoch": 10,
        "batch": 2,
        "crop_px": 32,
        "network": {"kind": "edsr", "features": 8, "blocks": 1},
        "data": {"kind": "folder", "hr": str(photos)},
        "method": {
            "kind": "gan",
            "terms": {
                "pixel": {"kind": "l1", "pace": {}},
                "similarity": {"kind": "self_similarity", "weight": {"match": "largest", "calibrate_steps": 5}},
            },
            "discriminators": {"d": {"network": network, "weight": 0.1, "r1_weight": 1.0, "r1_every_steps": 3}},
        },
        "optimizers": {"g": {"kind": "adam", "lr": 1e-3}, "d": {"kind": "adam", "lr": 1e-3}},
        "schedule": {"kind": "cosine"},
        "ema_decay": 0.9,
        "precision": "float32",
        "workers": 0,
        "evaluate": {"every_steps": 5, "sets": {"test": str(photos)}, "samples": 1},
        "checkpoints": {"every_steps": 2, "keep_last": 2},
        "log": {"every_steps": 1},
    }


def write_photos(folder: Path) -> None:
    """Write four images of waves and noise, 48 px a side."""
    from PIL import Image

    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :48]
    for index in range(4):
        waves = 128 + 60 * np.sin(0.3 * (index + 1) * x + 0.2 * y)[..., None] + rng.normal(0, 12, (48, 48, 3))
        Image.fromarray(waves.clip(0, 255).astype(np.uint8)).save(folder / f"{index}.png")


def train(folder: Path, *options: str, injection: str = "") -> subprocess.Popen:
    """Start the training in `folder` as a process of its own."""
    command = [sys.executable, __file__, "--child", injection, "train", *options]
    quiet = subprocess.DEVNULL
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=quiet, stderr=subprocess.PIPE, text=True)


class TornFile:
    """A file whose first write stops after half of the content.

    Args:
        file: a file open for writing.
        stop: called at that point, or at the end of a file that is never written; it does not return.
    """

    def __init__(self, file: Any, stop: Callable[[], None]) -> None:
        self._file, self._stop = file, stop

    def write(self, content: Any) -> None:
        """Write half of the content, then stop."""
        self._file.write(content[: len(content) // 2])
        self._file.flush()
        self._stop()

    def writelines(self, lines: Iterable[Any]) -> None:
        """Write half of the first piece, then stop."""
        for line in lines:
            self.write(line)

    def close(self) -> None:
        """Close the file; stop if it was never written."""
        was_open = not self._file.closed
        self._file.close()
        if was_open:
            self._stop()

    def __enter__(self) -> "TornFile":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self._file.close() if kind else self.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def stop_process(way: str) -> None:
    """End the process at once (`die`), or fail as on a full disk (`fail`)."""
    if way == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def watch_calls(on_call: Callable[[str, int], bool], stop: Callable[[], None]) -> dict[str, int]:
    """Count the files opened for writing, the renames and the fsyncs of this process.

    Args:
        on_call: gets the kind of a call and its number from 1; True stops the process there.
        stop: ends the process or raises.

    Returns:
        The number of calls of each kind so far; it grows with them.
    """
    counts: dict[str, int] = dict.fromkeys(CALLS, 0)
    opened = builtins.open

    def stops_at(call: str) -> bool:
        counts[call] += 1
        return on_call(call, counts[call])

    def open_and_count(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        stops = bool(set(mode) & set("wax")) and stops_at("write")
        result = opened(file, mode, *arguments, **options)
        return TornFile(result, stop) if stops else result

    def count(call: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call_and_count(*arguments: Any, **options: Any) -> Any:
            if stops_at(call):
                stop()
            return function(*arguments, **options)

        return call_and_count

    builtins.open = open_and_count  # pyright: ignore[reportAttributeAccessIssue]
    io.open = open_and_count  # pathlib opens by this name  # pyright: ignore[reportAttributeAccessIssue]
    for call in ("replace", "fsync"):
        setattr(os, call, count(call, getattr(os, call)))
    return counts


def inject(injection: str) -> None:
    """Prepare this process for `injection`.

    Args:
        injection: such as "replace:7:die" or "write:3:fail" to stop at a call; "count:PATH" to write the number of
            calls of each kind, and the time of the first, as JSON to PATH at the exit; empty for nothing.
    """
    call, _, rest = injection.partition(":")
    if call == "count":
        times: list[float] = []

        def note_first(*_: object) -> bool:
            times[:] = times or [time.time()]
            return False

        counts = watch_calls(note_first, lambda: None)
        atexit.register(lambda: Path(rest).write_text(json.dumps({"first_time": times[0], "calls": dict(counts)})))
    elif call:
        number, way = rest.split(":")
        watch_calls(lambda kind, count: (kind, count) == (call, int(number)), lambda: stop_process(way))


def results(run: Path) -> dict[str, Any]:
    """Return what must be equal: last checkpoint, tensors and metadata of weights files, and the log without clocks.

    The bytes of two safetensors files differ, since the library writes the metadata in no fixed order. Temporary
    files, which a kill leaves behind, are hidden.
    """
    newest = sorted((run / "checkpoints").glob("step_*"))[-1]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        "checkpoint": torch.load(newest / "state.pt", weights_only=True),
        "weights": {path.name: read_weights(path) for path in (run / "weights").iterdir() if path.name[0] != "."},
        "log": [{key: value for key, value in line.items() if key not in CLOCKS} for line in lines],
        "scores": (run / "eval.jsonl").read_text(),
    }


def read_weights(path: Path) -> dict[str, Any]:
    """Return the tensors and the metadata of a safetensors file."""
    with safe_open(path, "pt") as file:
        return {"metadata": file.metadata(), **{name: file.get_tensor(name) for name in file.keys()}}  # noqa: SIM118


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Return the paths at which two trees of results differ in a bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = {*one, *other}
        return [d for key in sorted(keys, key=str) for d in differences(one.get(key), other.get(key), f"{path}/{key}")]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return [d for i, (a, b) in enumerate(zip(one, other, strict=True)) for d in differences(a, b, f"{path}/{i}")]
    equal = (
        torch.equal(one, other) if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor) else one == other
    )
    return [] if equal else [path]


@dataclass(frozen=True)
class Straight:
    """What an uninterrupted run takes.

    Attributes:
        start_s: time until its first write.
        total_s: time until its end.
        calls: number of its calls of each kind.
    """

    start_s: float
    total_s: float
    calls: dict[str, int]


def draw_fraction(rng: random.Random, kills_left: int) -> float:
    """Return the smallest of `kills_left` uniform random numbers in [0, 1)."""
    return 1 - (1 - rng.random()) ** (1 / kills_left)


def choose_injection(rng: random.Random, straight: Straight, left: float, kills_left: int) -> str:
    """Return the next kill from inside, as a call, its number and the way.

    Args:
        rng: the random generator.
        straight: the number of calls of a complete run.
        left: the share of the steps that is left, in [0, 1].
        kills_left: the number of kills that are left.
    """
    call = rng.choice(CALLS)
    calls_left = max(1, round(straight.calls[call] * left))
    return f"{call}:{1 + int(calls_left * draw_fraction(rng, kills_left))}:{rng.choice(['die', 'fail'])}"


def choose_timeout_s(rng: random.Random, straight: Straight, left: float, kills_left: int) -> float:
    """Return the time until the next kill from outside; see `choose_injection` for the arguments."""
    return straight.start_s + (straight.total_s - straight.start_s) * left * draw_fraction(rng, kills_left)


def run_until_finished(
    folder: Path, rng: random.Random, wanted: int, straight: Straight
) -> tuple[list[str], list[str]]:
    """Train in `folder`, killed again and again; return the kind of each kill and what went wrong.

    A run that finishes before its first kill is deleted and begins again. One that ends by itself in another way than
    its injection asks for is a problem.
    """
    run = folder / "runs/killed"
    kills, problems = [], []
    while True:
        states = sorted((run / "checkpoints").glob("step_*/state.pt"))
        options = ["runs/killed", "--resume"] if states else ["recipe.yaml"]
        left = 1 - int(states[-1].parent.name.removeprefix("step_")) / STEPS if states else 1.0
        injection, timeout_s = "", None
        if len(kills) < wanted and rng.random() < 0.5:
            timeout_s = choose_timeout_s(rng, straight, left, wanted - len(kills))
        elif len(kills) < wanted:
            injection = choose_injection(rng, straight, left, wanted - len(kills))
        process = train(folder, *options, injection=injection)
        try:
            _, text = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            _, text = process.communicate()
        if process.returncode == 0 and wanted and not kills:
            shutil.rmtree(run)
            continue
        if process.returncode == 0:
            return kills, problems
        kind = injection or ("outside" if timeout_s is not None else "no kill")
        kills.append(kind.partition(":")[0])
        if "Traceback" in text:
            problems.append(f"{kind}: a traceback: {text.strip().splitlines()[-1]}")
        elif process.returncode != (FILE_ERROR if injection.endswith("fail") else -signal.SIGKILL):
            problems.append(f"{kind}: exit status {process.returncode}: {text.strip()[-300:]}")
        if kind == "no kill":
            return kills, [*problems, "the run does not finish"]


def train_straight(folder: Path) -> Straight:
    """Train in `folder` without interruption; return its time and its number of calls."""
    start = time.time()
    process = train(folder, "recipe.yaml", injection=f"count:{folder / 'calls.json'}")
    _, output = process.communicate()
    end = time.time()
    assert process.returncode == 0, output
    counted = json.loads((folder / "calls.json").read_text())
    return Straight(counted["first_time"] - start, end - start, counted["calls"])


def kill_runs(root: Path, *, kills: int, kills_per_run: int, seed: int) -> Iterator[tuple[list[str], list[str]]]:
    """Kill runs until there were `kills` kills; yield the kinds of the kills of each run, and its problems.

    Args:
        root: an empty folder.
        kills: kills of all runs together.
        kills_per_run: kills of one run before it may finish.
        seed: of the random moments.
    """
    rng = random.Random(seed)
    write_photos(root / "photos")
    text = yaml.safe_dump(recipe(root / "photos"))
    folders = [root / "straight"]
    folders[0].mkdir()
    (folders[0] / "recipe.yaml").write_text(text)
    straight = train_straight(folders[0])
    expected = results(folders[0] / "runs/killed")
    while kills > 0:
        folders.append(root / f"run{len(folders)}")
        folders[-1].mkdir()
        (folders[-1] / "recipe.yaml").write_text(text)
        done, problems = run_until_finished(folders[-1], rng, min(kills_per_run, kills), straight)
        kills -= len(done)
        if "no kill" not in done:  # it is finished
            problems += [f"differs: {path}" for path in differences(expected, results(folders[-1] / "runs/killed"))]
        yield done, problems


def main() -> int:
    """Run the kills and print what was found; 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="number of kills in all")
    parser.add_argument("--kills-per-run", type=int, default=10, help="kills of one run before it may finish")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    options = parser.parse_args()
    done, failed, number = Counter(), 0, 0
    with tempfile.TemporaryDirectory(prefix="selfsr-kill-") as place:
        for kills, problems in kill_runs(Path(place), **vars(options)):
            number, done, failed = number + 1, done + Counter(kills), failed + bool(problems)
            print(f"Run {number}: {describe(Counter(kills))}, {problems or 'equal to the bit'}", flush=True)
    print(f"{describe(done)} in {number} runs: {failed} runs with a problem.")
    return 1 if failed else 0


def describe(kills: Counter[str]) -> str:
    """Return the number of kills, in all and of each kind."""
    kinds = ", ".join(f"{kills[kind]} {kind}" for kind in ("outside", *CALLS, "no kill") if kills[kind])
    return f"{kills.total()} kills ({kinds})"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        injected, arguments = sys.argv[2], sys.argv[3:]
        import selfsr.cli  # loaded before calls are counted

        inject(injected)
        sys.argv = ["selfsr", *arguments]
        selfsr.cli.main()
    else:
        sys.exit(main())
