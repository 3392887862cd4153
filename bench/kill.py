"""Kill a training run at random moments, resume it, and compare it bit for bit with an uninterrupted run.

    python bench/kill.py --kills 100

Half of the kills come from outside, SIGKILL after a random time. The other half come from inside, at the n-th write,
rename or fsync of the process, where n is random: it dies there immediately (`die`), or the call fails as on a full
disk and the process ends by itself (`fail`). After each kill the run is resumed. The final weights, the last
checkpoint and the log must equal those of the uninterrupted run.
"""

import argparse
import builtins
import errno
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors import safe_open

STEPS = 60
CALLS = ("write", "replace", "fsync")
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


def inject(injection: str) -> None:
    """Make the n-th call of a kind fail or end the process; `injection` is such as "replace:7:die"."""
    call, number, way = injection.split(":")
    seen = 0

    def count() -> None:
        nonlocal seen
        seen += 1
        if seen == int(number):
            if way == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            count()
            return function(*arguments, **options)

        return wrapper

    if call == "write":
        opened = builtins.open

        def open_and_count(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            if set(mode) & set("wax"):
                count()
            return opened(file, mode, *arguments, **options)

        builtins.open = open_and_count  # pyright: ignore[reportAttributeAccessIssue]
        import io

        io.open = open_and_count  # pathlib opens by this name  # pyright: ignore[reportAttributeAccessIssue]
    else:
        setattr(os, call, counted(getattr(os, call)))


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


def choose_injection(rng: random.Random) -> str:
    """Return no injection for a kill from outside, or the call, its number and the way."""
    if rng.random() < 0.5:
        return ""
    return f"{rng.choice(CALLS)}:{rng.randint(1, 120)}:{rng.choice(['die', 'fail'])}"


def run_until_finished(folder: Path, rng: random.Random, kills_left: int, straight_s: float) -> tuple[int, list[str]]:
    """Train in `folder`, killed again and again; return the number of kills and what went wrong."""
    kills, problems = 0, []
    while True:
        resume = bool(list((folder / "runs/killed/checkpoints").glob("step_*/state.pt")))
        options = ["runs/killed", "--resume"] if resume else ["recipe.yaml"]
        injection = choose_injection(rng) if kills < kills_left else ""
        process = train(folder, *options, injection=injection)
        outside = not injection and kills < kills_left
        try:
            _, text = process.communicate(timeout=rng.uniform(0.2, 0.8) * straight_s if outside else None)
        except subprocess.TimeoutExpired:
            process.kill()
            _, text = process.communicate()
        if process.returncode == 0:
            return kills, problems
        kills += 1
        if "Traceback" in text:
            problems.append(f"{injection or 'killed'}: a traceback: {text.strip().splitlines()[-1]}")
        elif process.returncode not in (-signal.SIGKILL, 1, 2, 3):
            problems.append(f"{injection or 'killed'}: exit status {process.returncode}: {text[-300:]}")
        if kills > kills_left + 50:
            return kills, [*problems, "the run does not finish"]


def kill_runs(root: Path, *, kills: int, kills_per_run: int, seed: int) -> Iterator[tuple[int, list[str]]]:
    """Kill runs until there were `kills` kills; yield the number of kills of each run, and its problems.

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
    start = time.perf_counter()
    process = train(folders[0], "recipe.yaml")
    _, output = process.communicate()
    assert process.returncode == 0, output
    straight_s = time.perf_counter() - start
    expected = results(folders[0] / "runs/killed")
    while kills > 0:
        folders.append(root / f"run{len(folders)}")
        folders[-1].mkdir()
        (folders[-1] / "recipe.yaml").write_text(text)
        count, problems = run_until_finished(folders[-1], rng, min(kills_per_run, kills), straight_s)
        kills -= count
        problems += [f"differs: {path}" for path in differences(expected, results(folders[-1] / "runs/killed"))]
        yield count, problems


def main() -> int:
    """Run the kills and print what was found; 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="number of kills in all")
    parser.add_argument("--kills-per-run", type=int, default=10, help="kills of one run before it may finish")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    options = parser.parse_args()
    done = failed = number = 0
    with tempfile.TemporaryDirectory(prefix="selfsr-kill-") as place:
        for kills, problems in kill_runs(Path(place), **vars(options)):
            number, done, failed = number + 1, done + kills, failed + bool(problems)
            print(f"Run {number}: {kills} kills, {problems or 'equal to the bit'}", flush=True)
    print(f"{done} kills in {number} runs: {failed} runs with a problem.")
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        injected, arguments = sys.argv[2], sys.argv[3:]
        import selfsr.cli  # loaded before calls are counted

        if injected:
            inject(injected)
        sys.argv = ["selfsr", *arguments]
        selfsr.cli.main()
    else:
        sys.exit(main())
