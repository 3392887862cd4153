"""Training steps per second, and what each loss costs in a step, as ratios in one process.

    python bench/steps.py [--case edsr --case esrgan] [--json results.json] [--seconds 8] [--device cuda]

Baseline: the plain loop that BasicSR runs: float32, contiguous tensors, mean L1, Adam, one forward and one backward,
`.item()` on the loss at every step for its log. Ours: the recipe's own step (`selfsr.training.loop.take_step`), with
what `precision: auto` and `memory_format: auto` choose on this device. Same network, same weights, same batch.
The steps are timed in turns, so that a busy machine slows all; ratios are of their medians, and what a loss adds is the
median over the turns. Where steps differ by more than that from turn to turn, the last column tells more: what the loss
and its gradient towards the network's output take by themselves, less the pixel loss whose place they take, and the
share of our step that this is.

EDSR's self-paced step stands beside one weighted by five depthwise convolutions (bench/ssim_naive.py) with autograd.
The ESRGAN step has no plain loop beside it: ours is the whole step, of the generator by L1, perceptual and relativistic
loss and of the discriminator, to which the self-similarity loss is added. The perceptual loss has VGG19's layers with random
weights, which cost as much as trained ones.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import ssim_naive
from selfsr.images.files import Picture, write_picture
from selfsr.recipe import parse_recipe
from selfsr.runfolder.log import Meter
from selfsr.step import Clock, MaskedSum, Outputs
from selfsr.terms.base import NetworkTerm
from selfsr.training.assemble import Run, assemble
from selfsr.training.guard import FiniteGuard
from selfsr.training.loop import take_step

# Where the clock of every step stands: the self-paced schedule is at sigma 5, where all pixels weigh something.
EPOCH = 5
STEPS_PER_EPOCH = 1000
VGG_FILE = "vgg19_random.pth"


@dataclass(frozen=True)
class Case:
    """A network, the step that losses are added to, and the losses.

    Attributes:
        title: the line of the table.
        settings: what the recipe says of the network, the scale, the crop and the batch.
        method: of the step, without what is added.
        added: changes to the terms, by the name of the step.
        naive: also time the pixel loss weighted by five depthwise convolutions.
        plain: also time the plain loop.
        optimizers: the networks that are stepped on.
    """

    title: str
    settings: dict[str, Any]
    method: dict[str, Any]
    added: dict[str, dict[str, Any]]
    naive: bool = False
    plain: bool = True
    optimizers: tuple[str, ...] = ("g",)


L1 = {"pixel": {"kind": "l1"}}
REGRESSION = {"kind": "regression", "terms": L1}
# As published, with the weights of ESRGAN's stage of adversarial training.
ESRGAN = {
    "kind": "gan",
    "terms": {
        "pixel": {"kind": "l1", "weight": 0.01},
        "perceptual": {"kind": "perceptual", "layers": {"conv5_4": 1.0}, "weights": VGG_FILE},
    },
    "discriminators": {"d": {"network": {"kind": "vgg"}, "form": "relativistic", "weight": 0.005}},
}
PACED = {"self-paced": {"pixel": {"kind": "l1", "pace": {}}}}
SIMILARITY = {
    f"self-similarity, stride {stride}": {"similarity": {"kind": "self_similarity", "stride": stride}}
    for stride in (3, 1)
}
# The published crops and batch of EDSR; ESRGAN's crop, with batches that a laptop can step in seconds.
CASES = {
    "edsr": Case(
        "EDSR-baseline x2, crop 96, batch 16",
        {"network": {"kind": "edsr"}, "scale": 2, "crop_px": 96, "batch": 16},
        REGRESSION,
        PACED | SIMILARITY,
        naive=True,
    ),
    "rrdb": Case(
        "RRDB x4 of 5 blocks, crop 128, batch 8",
        {"network": {"kind": "rrdb", "blocks": 5}, "scale": 4, "crop_px": 128, "batch": 8},
        REGRESSION,
        PACED | SIMILARITY,
    ),
    "esrgan": Case(
        "ESRGAN x4 (RRDB of 23 blocks, VGG discriminator), crop 128, batch 2",
        {"network": {"kind": "rrdb", "blocks": 23}, "scale": 4, "crop_px": 128, "batch": 2},
        ESRGAN,
        SIMILARITY,
        plain=False,
        optimizers=("g", "d"),
    ),
}


def photos(folder: Path) -> Path:
    """Write the photo that crops are cut from."""
    from skimage import data

    write_picture(folder / "astronaut.png", Picture(np.ascontiguousarray(data.astronaut())))
    return folder


def random_vgg(folder: Path) -> Path:
    """Write VGG19's convolutions as torchvision names them, with random weights that keep the scale of features."""
    from torchvision.models import vgg

    layers = vgg.make_layers(vgg.cfgs["E"])
    generator = torch.Generator().manual_seed(0)
    for layer in layers:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
    torch.save({f"features.{name}": tensor for name, tensor in layers.state_dict().items()}, folder / VGG_FILE)
    return folder / VGG_FILE


def document(case: Case, folder: Path, **changes: Any) -> dict[str, Any]:
    """Return the recipe of a case, with data and weights from `folder`."""
    method = changes.pop("method", case.method)
    terms = {name: dict(term) for name, term in method["terms"].items()}
    if "perceptual" in terms:
        terms["perceptual"]["weights"] = str(folder / VGG_FILE)
    return {
        "name": "bench",
        "steps": 1_000_000,
        "steps_per_epoch": STEPS_PER_EPOCH,
        "data": {"kind": "folder", "hr": str(folder)},
        "method": {**method, "terms": terms},
        "optimizers": {name: {"kind": "adam", "lr": 1e-5} for name in case.optimizers},
        "schedule": {"kind": "constant"},
        "ema_decay": 0.999,
        "workers": 0,
        **case.settings,
        **changes,
    }


def ours(
    case: Case, folder: Path, device: str, added: dict[str, Any] | None = None, *, naive: bool = False, **changes: Any
) -> Callable[[], float]:
    """Return a function that takes one of our steps and returns its seconds.

    Args:
        case: the network and the step.
        folder: where pictures and weights are.
        device: "auto", "cpu" or "cuda".
        added: changes to the terms.
        naive: weigh the pixel loss by the naive formulation.
        changes: to the recipe.
    """
    method = {**case.method, "terms": {**case.method["terms"], **(added or {})}}
    recipe = parse_recipe(document(case, folder, method=method, **changes), "bench")
    run = assemble(recipe, folder / "run", device=device, resume=False)
    if naive:
        taps = ssim_naive.window(3, device=run.accelerator.device)
        run.method.objective.losses["pixel"] = NetworkTerm(
            lambda made, batch: ssim_naive.self_paced_l1(made.sr, batch.hr, EPOCH, taps)
        )
    raw = next(run.loader)
    batches = run.loader.prepare(raw, run.accelerator.device, run.memory_format, 1)
    meter, guard, steps = Meter(), FiniteGuard(), itertools.count(EPOCH * STEPS_PER_EPOCH)

    def step() -> float:
        start = time.perf_counter()
        take_step(run, batches, Clock(next(steps), STEPS_PER_EPOCH), meter, guard)
        _wait(run)
        return time.perf_counter() - start

    return step


def loss_alone(case: Case, folder: Path, device: str, terms: dict[str, Any]) -> Callable[[], float]:
    """Return a function that computes terms and their gradient towards the output of a case, and returns the seconds.

    Args:
        case: whose network made the output, and from whose batch.
        folder: where pictures and weights are.
        device: "auto", "cpu" or "cuda".
        terms: of a recipe, by name.
    """
    method = {"kind": "regression", "terms": terms}
    recipe = parse_recipe(document(replace(case, optimizers=("g",)), folder, method=method), "bench")
    run = assemble(recipe, folder / "run", device=device, resume=False)
    (batch,) = run.loader.prepare(next(run.loader), run.accelerator.device, run.memory_format, 1)
    with torch.no_grad(), run.accelerator.autocast():
        sr = run.method.nets["g"](batch.lr).float()

    def step() -> float:
        leaf = sr.detach().requires_grad_()
        _wait(run)
        start = time.perf_counter()
        losses = run.method.objective(
            Outputs.from_network(leaf), batch, Clock(EPOCH * STEPS_PER_EPOCH, STEPS_PER_EPOCH)
        )
        for loss in losses.values():
            (loss.total / loss.count if isinstance(loss, MaskedSum) else loss).backward()
        _wait(run)
        return time.perf_counter() - start

    return step


def cost_alone(case: Case, folder: Path, device: str, added: dict[str, Any]) -> float:
    """Return the seconds that the added terms take by themselves, less those of the terms whose place they take."""
    replaced = {name: term for name, term in case.method["terms"].items() if name in added}
    both = {"added": added, "replaced": replaced}
    times = in_turns({name: loss_alone(case, folder, device, terms) for name, terms in both.items() if terms}, 2.0)
    return statistics.median(times["added"]) - statistics.median(times.get("replaced", [0.0]))


def plain_loop(case: Case, folder: Path, device: str) -> Callable[[], float]:
    """Return a function that takes one step of the plain float32 loop and returns its seconds."""
    recipe = parse_recipe(document(case, folder, precision="float32", memory_format="contiguous"), "plain")
    run = assemble(recipe, folder / "run", device=device, resume=False)
    (batch,) = run.loader.prepare(next(run.loader), run.accelerator.device, torch.contiguous_format, 1)
    net = run.accelerator.unwrap_model(run.method.nets["g"])
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-5, foreach=False)
    average = {name: weight.detach().clone() for name, weight in net.named_parameters()}

    def step() -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = torch.nn.functional.l1_loss(net(batch.lr), batch.hr)
        loss.backward()
        optimizer.step()
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


def steps_of(case: Case, folder: Path, device: str) -> dict[str, Callable[[], float]]:
    """Return every kind of step of a case by name; what is added to ours begins with "ours +"."""
    steps = {"plain float32 loop": plain_loop(case, folder, device)} if case.plain else {}
    steps["ours"] = ours(case, folder, device)
    if case.plain:
        steps["ours, float32"] = ours(case, folder, device, precision="float32")
    steps |= {f"ours + {name}": ours(case, folder, device, added) for name, added in case.added.items()}
    if case.naive:
        steps["ours + self-paced by five convolutions"] = ours(case, folder, device, naive=True)
    return steps


def measure(case: Case, folder: Path, device: str, seconds: float) -> list[dict[str, Any]]:
    """Measure one case: our step against the plain loop, and each loss against our step."""
    times = in_turns(steps_of(case, folder, device), seconds)
    medians = {label: statistics.median(taken) for label, taken in times.items()}
    alone = {f"ours + {name}": cost_alone(case, folder, device, added) for name, added in case.added.items()}
    rows = []
    for label, taken in times.items():
        low, _, high = statistics.quantiles(taken, n=4)
        # Shares are of neighbors in time: each step of a loss against the step of ours in the same turn.
        share = statistics.median((a - b) / b for a, b in zip(taken, times["ours"], strict=True))
        rows.append(
            {
                "network": case.title,
                "step": label,
                "median_s": medians[label],
                "quartiles_s": [low, high],
                "turns": len(taken),
                "speed_vs_plain": medians["plain float32 loop"] / medians[label] if case.plain else None,
                "share_of_ours": share if label.startswith("ours +") else None,
                "loss_alone_s": alone.get(label),
                "loss_alone_share": alone[label] / medians["ours"] if label in alone else None,
            }
        )
    return rows


def main() -> None:
    """Measure, print a table, write JSON if asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--case", action="append", choices=CASES, help="measure this one; may be repeated (default: all)"
    )
    parser.add_argument("--json", type=Path, help="write the results here, too")
    parser.add_argument("--seconds", type=float, default=8.0, help="time for each kind of step (default 8)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default auto)")
    options = parser.parse_args()
    table = Table("network", "step", "median", "steps/s over plain", "added to our step", "the loss alone", box=None)
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = photos(Path(place))
        random_vgg(folder)
        for name in options.case or CASES:
            rows += measure(CASES[name], folder, options.device, options.seconds)
    for row in rows:
        speed, share, alone_s = row["speed_vs_plain"], row["share_of_ours"], row["loss_alone_s"]
        table.add_row(
            row["network"],
            row["step"],
            f"{1000 * row['median_s']:.0f} ms",
            "" if speed is None else f"{speed:.2f}x",
            "" if share is None else f"{100 * share:+.1f} %",
            "" if alone_s is None else f"{1000 * alone_s:.1f} ms, {100 * row['loss_alone_share']:.2f} %",
        )
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    if options.json:
        options.json.write_text(
            json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads(), "rows": rows})
        )


if __name__ == "__main__":
    main()
