"""Training steps per second, and what each loss costs in a step, as ratios in one process.

    python bench/steps.py [--case edsr --case esrgan] [--json results.json] [--seconds 8] [--device cuda]

Baseline: the plain loop of BasicSR: float32, contiguous tensors, mean L1, Adam, one forward and one backward pass, and
`.item()` on the loss at every step for the log. Ours: the step of the recipe (`selfsr.training.loop.take_step`), with
the choices of `precision: auto` and `memory_format: auto` on this device. Network, weights and batch are the same.

Steps are timed in turns, so that a busy machine slows all. Ratios are of medians; the cost of a loss is the median over
the turns. Where turns vary by more than that, use the last column: the time of the loss and its gradient by the
network's output only, minus the pixel loss that it replaces, and its share of our step.

EDSR's self-paced step is compared with one weighted by five depthwise convolutions (bench/ssim_naive.py) with autograd.
The ESRGAN step has no plain loop. Ours is the complete step with the updates of the generator (L1, perceptual and
relativistic loss) and the discriminator; the self-similarity loss is added to it. The perceptual loss has VGG19's
layers with random weights, which cost as much as trained ones.

The ResShift step is the denoising step. The self-similarity loss is added for all samples, or for those at low
noise, which are half of them.
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
from selfsr.bench.timing import time_in_turns
from selfsr.images.files import DecodedImage, write_image
from selfsr.recipe import parse_recipe
from selfsr.runfolder.log import Meter
from selfsr.step import Batch, Clock, MaskedSum, Outputs
from selfsr.terms.base import NetworkTerm
from selfsr.training.assemble import TrainingRun, assemble
from selfsr.training.guard import FiniteGuard
from selfsr.training.loop import take_step

# The age of training in every step: the self-paced sigma is 5, where all pixels have a weight.
EPOCH = 5
STEPS_PER_EPOCH = 1000
VGG_FILE = "vgg19_random.pth"


@dataclass(frozen=True)
class Case:
    """A network, its step, and the losses that are added to the step.

    Attributes:
        title: name in the table.
        settings: network, scale, crop and batch of the recipe.
        method: method of the recipe without added losses.
        added: added or replaced terms, by the name of the step.
        naive: also time the pixel loss weighted by five depthwise convolutions.
        plain: also time the plain loop.
        losses_only: also time the added losses without the network.
        gate: options of `image_loss` with which the steps with added losses are timed once more.
        optimizers: names of the networks that have an optimizer.
    """

    title: str
    settings: dict[str, Any]
    method: dict[str, Any]
    added: dict[str, dict[str, Any]]
    naive: bool = False
    plain: bool = True
    losses_only: bool = True
    gate: dict[str, Any] | None = None
    optimizers: tuple[str, ...] = ("g",)


L1 = {"pixel": {"kind": "l1"}}
REGRESSION = {"kind": "regression", "terms": L1}
# As published for the adversarial stage of ESRGAN.
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
# EDSR has the published crops and batch; ESRGAN the published crop, with a batch that takes seconds on a laptop.
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
    "resshift": Case(
        "ResShift x4 in pixels (U-Net 24, 48, 64), crop 64, batch 8",
        {
            "network": {"kind": "residual_shifting", "unet": {"channels": [24, 48, 64]}},
            "scale": 4,
            "crop_px": 64,
            "batch": 8,
        },
        {"kind": "denoising", "terms": {}},
        SIMILARITY,
        plain=False,
        losses_only=False,
        gate={"max_noise": 0.6},
    ),
}


def write_photo(folder: Path) -> Path:
    """Write the training photo to a folder and return the folder."""
    from skimage import data

    write_image(folder / "astronaut.png", DecodedImage(np.ascontiguousarray(data.astronaut())))
    return folder


def write_random_vgg(folder: Path) -> Path:
    """Write VGG19's convolutions by torchvision's names, with random weights of a sensible scale."""
    from torchvision.models import vgg

    layers = vgg.make_layers(vgg.cfgs["E"])
    generator = torch.Generator().manual_seed(0)
    for layer in layers:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
    torch.save({f"features.{name}": tensor for name, tensor in layers.state_dict().items()}, folder / VGG_FILE)
    return folder / VGG_FILE


def make_recipe(case: Case, folder: Path, **changes: Any) -> dict[str, Any]:
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


def start_run(case: Case, folder: Path, device: str, **changes: Any) -> tuple[TrainingRun, list[Batch]]:
    """Return the run of a case and the micro-batches of its first step.

    Args:
        case: the network and the losses.
        folder: folder with images and weights.
        device: "auto", "cpu" or "cuda".
        changes: changes to the recipe.
    """
    recipe = parse_recipe(make_recipe(case, folder, **changes), "bench")
    run = assemble(recipe, folder / "run", device=device, resume=False)
    return run, run.loader.prepare(next(run.loader), run.accelerator.device, run.memory_format, 1)


def make_step(
    case: Case,
    folder: Path,
    device: str,
    added: dict[str, Any] | None = None,
    *,
    naive: bool = False,
    gate: dict[str, Any] | None = None,
    **changes: Any,
) -> Callable[[], float]:
    """Return a function that takes one of our steps and returns its seconds.

    Args:
        case: the network and the losses.
        folder: folder with images and weights.
        device: "auto", "cpu" or "cuda".
        added: terms to add or replace.
        naive: weight the pixel loss by the naive formulation.
        gate: options of `image_loss`.
        changes: changes to the recipe.
    """
    method = {**case.method, "terms": {**case.method["terms"], **(added or {})}}
    if gate is not None:
        method["image_loss"] = gate
    run, batches = start_run(case, folder, device, method=method, **changes)
    if naive:
        taps = ssim_naive.make_window(3, device=run.accelerator.device)
        run.method.objective.terms["pixel"] = NetworkTerm(
            lambda outputs, batch: ssim_naive.self_paced_l1(outputs.sr, batch.hr, EPOCH, taps)
        )
    meter, guard, steps = Meter(), FiniteGuard(), itertools.count(EPOCH * STEPS_PER_EPOCH)

    def step() -> float:
        start = time.perf_counter()
        take_step(run, batches, Clock(next(steps), STEPS_PER_EPOCH), meter, guard)
        _synchronize(run)
        return time.perf_counter() - start

    return step


def make_loss_step(case: Case, folder: Path, device: str, terms: dict[str, Any]) -> Callable[[], float]:
    """Return a function that times losses and their gradient by the output, without the network.

    Args:
        case: the network that computes the output, and its batch.
        folder: folder with images and weights.
        device: "auto", "cpu" or "cuda".
        terms: terms of a recipe, by name.
    """
    method = {"kind": "regression", "terms": terms}
    run, (batch,) = start_run(replace(case, optimizers=("g",)), folder, device, method=method)
    with torch.no_grad(), run.accelerator.autocast():
        sr = run.method.nets["g"](batch.lr).float()

    def step() -> float:
        leaf = sr.detach().requires_grad_()
        _synchronize(run)
        start = time.perf_counter()
        losses = run.method.objective.weighted_losses(
            Outputs.from_network(leaf), batch, Clock(EPOCH * STEPS_PER_EPOCH, STEPS_PER_EPOCH)
        )
        for loss in losses.values():
            (loss.total / loss.count if isinstance(loss, MaskedSum) else loss).backward()
        _synchronize(run)
        return time.perf_counter() - start

    return step


def measure_loss_cost(case: Case, folder: Path, device: str, added: dict[str, Any]) -> float:
    """Return the seconds that added terms take by themselves, minus those of the terms that they replace."""
    replaced = {name: term for name, term in case.method["terms"].items() if name in added}
    both = {"added": added, "replaced": replaced}
    steps = {name: make_loss_step(case, folder, device, terms) for name, terms in both.items() if terms}
    times = time_steps(steps, 2.0)
    return statistics.median(times["added"]) - statistics.median(times.get("replaced", [0.0]))


def make_plain_step(case: Case, folder: Path, device: str) -> Callable[[], float]:
    """Return a function that takes one step of the plain float32 loop and returns its seconds."""
    run, (batch,) = start_run(case, folder, device, precision="float32", memory_format="contiguous")
    net = run.accelerator.unwrap_model(run.method.nets["g"])
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-5, foreach=False)
    ema = {name: weight.detach().clone() for name, weight in net.named_parameters()}

    def step() -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = torch.nn.functional.l1_loss(net(batch.lr), batch.hr)
        loss.backward()
        optimizer.step()
        loss.item()
        for name, weight in net.named_parameters():
            ema[name].mul_(0.999).add_(weight.data, alpha=0.001)
        _synchronize(run)
        return time.perf_counter() - start

    return step


def _synchronize(run: TrainingRun) -> None:
    if run.accelerator.device.type == "cuda":
        torch.cuda.synchronize()


def time_steps(steps: dict[str, Callable[[], float]], seconds: float) -> dict[str, list[float]]:
    """Time the steps in turns, after two steps for warming up, for `seconds` each or three times at least."""
    for step in steps.values():
        step(), step()
    return time_in_turns(steps, seconds * len(steps), min_turns=3)


def make_steps(case: Case, folder: Path, device: str) -> dict[str, Callable[[], float]]:
    """Return all steps of a case by name; those with an added loss begin with "ours +"."""
    steps = {"plain float32 loop": make_plain_step(case, folder, device)} if case.plain else {}
    steps["ours"] = make_step(case, folder, device)
    if case.plain:
        steps["ours, float32"] = make_step(case, folder, device, precision="float32")
    steps |= {f"ours + {name}": make_step(case, folder, device, added) for name, added in case.added.items()}
    if case.gate is not None:
        for name, added in case.added.items():
            steps[f"ours + {name}, at low noise"] = make_step(case, folder, device, added, gate=case.gate)
    if case.naive:
        steps["ours + self-paced by five convolutions"] = make_step(case, folder, device, naive=True)
    return steps


def measure(case: Case, folder: Path, device: str, seconds: float) -> list[dict[str, Any]]:
    """Compare our step with the plain loop, and the step with each added loss with our step."""
    times = time_steps(make_steps(case, folder, device), seconds)
    medians = {label: statistics.median(step_times) for label, step_times in times.items()}
    added = case.added if case.losses_only else {}
    alone = {f"ours + {name}": measure_loss_cost(case, folder, device, terms) for name, terms in added.items()}
    rows = []
    for label, step_times in times.items():
        low, _, high = statistics.quantiles(step_times, n=4)
        # Each step with a loss is compared with our step of the same turn.
        share = statistics.median((a - b) / b for a, b in zip(step_times, times["ours"], strict=True))
        rows.append(
            {
                "network": case.title,
                "step": label,
                "median_s": medians[label],
                "quartiles_s": [low, high],
                "turns": len(step_times),
                "speed_vs_plain": medians["plain float32 loop"] / medians[label] if case.plain else None,
                "share_of_ours": share if label.startswith("ours +") else None,
                "loss_alone_s": alone.get(label),
                "loss_alone_share": alone[label] / medians["ours"] if label in alone else None,
            }
        )
    return rows


def main() -> None:
    """Measure, print a table, and write JSON on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=CASES, help="case to measure; repeatable (default: all)")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--seconds", type=float, default=8.0, help="seconds for each kind of step (default 8)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default auto)")
    options = parser.parse_args()
    table = Table("network", "step", "median", "steps/s over plain", "added to our step", "loss only", box=None)
    rows = []
    with tempfile.TemporaryDirectory() as path:
        folder = write_photo(Path(path))
        write_random_vgg(folder)
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
