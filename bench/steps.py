"""Training steps per second, and what each loss costs in a step, as ratios in one process.

    python bench/steps.py [--json results.json] [--seconds 8]

Baseline: the plain loop that BasicSR runs: float32, contiguous tensors, mean L1, Adam, one forward and one backward,
`.item()` on the loss at every step for its log. Ours: the recipe's own step (`selfsr.train.take_step`), with what
`precision: auto` and `memory_format: auto` choose on this device. Same network, same weights, same batch.
The two are timed in turns, so that a busy machine slows both; the ratio is of their medians.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from selfsr.assemble import Run, assemble
from selfsr.data.pictures import Picture, write_picture
from selfsr.methods import Clock
from selfsr.recipe import parse_recipe
from selfsr.runlog import Meter
from selfsr.train import take_step
from selfsr.watch import Guard

# The published crops and batch of EDSR; ESRGAN's crop, with a batch that a laptop can step in about a second.
CASES = {
    "EDSR-baseline x2": {"network": {"kind": "edsr"}, "scale": 2, "crop_px": 96, "batch": 16},
    "small RRDB x4 (5 blocks)": {"network": {"kind": "rrdb", "blocks": 5}, "scale": 4, "crop_px": 128, "batch": 8},
}
PLAIN = {"pixel": {"kind": "l1"}}
LOSSES = {
    "self-paced": {"pixel": {"kind": "l1", "pace": {}}},
    "self-similarity, stride 3": {**PLAIN, "similarity": {"kind": "self_similarity", "stride": 3}},
    "self-similarity, stride 1": {**PLAIN, "similarity": {"kind": "self_similarity", "stride": 1}},
}


def photos(folder: Path) -> Path:
    """Write the photo that crops are cut from."""
    from skimage import data

    write_picture(folder / "astronaut.png", Picture(np.ascontiguousarray(data.astronaut())))
    return folder


def ours(case: dict, terms: dict, folder: Path, **changes) -> Callable[[], float]:
    """Return a function that takes one of our steps and returns its seconds."""
    document = {
        "name": "bench",
        "steps": 1_000_000,
        "data": {"kind": "folder", "hr": str(folder)},
        "method": {"kind": "regression", "terms": terms},
        "optimisers": {"g": {"kind": "adam", "lr": 1e-5}},
        "schedule": {"kind": "constant"},
        "ema_decay": 0.999,
        "workers": 0,
        **case,
        **changes,
    }
    run = assemble(parse_recipe(document, "bench"), folder / "run", device="auto", resume=False)
    raw = next(run.loader)
    batches = run.loader.prepare(raw, run.accelerator.device, run.memory_format, 1)
    meter, guard, steps = Meter(), Guard(), itertools.count(1)

    def step() -> float:
        start = time.perf_counter()
        take_step(run, batches, Clock(next(steps) + 5000, 1000), meter, guard)
        _wait(run)
        return time.perf_counter() - start

    return step


def plain_loop(case: dict, folder: Path) -> Callable[[], float]:
    """Return a function that takes one step of the plain float32 loop and returns its seconds."""
    document = {**case, "precision": "float32", "memory_format": "contiguous"}
    document |= {"name": "plain", "steps": 1, "data": {"kind": "folder", "hr": str(folder)}, "workers": 0}
    document |= {"method": {"kind": "regression", "terms": PLAIN}, "schedule": {"kind": "constant"}}
    document |= {"optimisers": {"g": {"kind": "adam", "lr": 1e-5}}}
    run = assemble(parse_recipe(document, "plain"), folder / "run", device="auto", resume=False)
    (batch,) = run.loader.prepare(next(run.loader), run.accelerator.device, torch.contiguous_format, 1)
    net = run.accelerator.unwrap_model(run.method.nets["g"])
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-5, foreach=False)
    average = {name: weight.detach().clone() for name, weight in net.named_parameters()}

    def step() -> float:
        start = time.perf_counter()
        optimiser.zero_grad()
        loss = torch.nn.functional.l1_loss(net(batch.lr), batch.hr)
        loss.backward()
        optimiser.step()
        loss.item()
        for name, weight in net.named_parameters():
            average[name].mul_(0.999).add_(weight.data, alpha=0.001)
        _wait(run)
        return time.perf_counter() - start

    return step


def _wait(run: Run) -> None:
    if run.accelerator.device.type == "cuda":
        torch.cuda.synchronize()


def in_turns(steps: dict[str, Callable[[], float]], seconds: float) -> dict[str, list[float]]:
    """Time the steps in turns, for `seconds` each or three times at least."""
    for step in steps.values():
        step(), step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    while len(next(iter(times.values()))) < 3 or sum(map(sum, times.values())) < seconds * len(steps):
        for name, step in steps.items():
            times[name].append(step())
    return times


def measure(name: str, case: dict, folder: Path, seconds: float) -> list[dict]:
    """Measure one network: our step against the plain loop, and each loss against our step."""
    steps = {"plain float32 loop": plain_loop(case, folder), "ours": ours(case, PLAIN, folder)}
    steps["ours, float32"] = ours(case, PLAIN, folder, precision="float32")
    steps |= {f"ours + {loss}": ours(case, terms, folder) for loss, terms in LOSSES.items()}
    times = in_turns(steps, seconds)
    medians = {label: statistics.median(taken) for label, taken in times.items()}
    rows = []
    for label, taken in times.items():
        low, _, high = statistics.quantiles(taken, n=4)
        # Shares are of neighbours in time: each step of a loss against the step of ours in the same turn.
        share = statistics.median((a - b) / b for a, b in zip(taken, times["ours"], strict=True))
        rows.append(
            {
                "network": name,
                "step": label,
                "median_s": medians[label],
                "quartiles_s": [low, high],
                "turns": len(taken),
                "speed_vs_plain": medians["plain float32 loop"] / medians[label],
                "share_of_ours": share if label.startswith("ours +") else None,
            }
        )
    return rows


def main() -> None:
    """Measure, print a table, write JSON if asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the results here, too")
    parser.add_argument("--seconds", type=float, default=8.0, help="time for each kind of step (default 8)")
    options = parser.parse_args()
    table = Table("network", "step", "median", "steps/s over plain", "added to our step", box=None)
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = photos(Path(place))
        for name, case in CASES.items():
            rows += measure(name, case, folder, options.seconds)
    for row in rows:
        share = row["share_of_ours"]
        table.add_row(
            row["network"],
            row["step"],
            f"{1000 * row['median_s']:.0f} ms",
            f"{row['speed_vs_plain']:.2f}x",
            "" if share is None else f"{100 * share:+.1f} %",
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    if options.json:
        options.json.write_text(
            json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads(), "rows": rows})
        )


if __name__ == "__main__":
    main()
