"""The dry run: a few steps, evaluations and a checkpoint, to find mistakes early and to estimate the cost of a run."""

import tempfile
import time
from pathlib import Path

from selfsr.console import print_line
from selfsr.data.check import check_folder
from selfsr.errors import InputError
from selfsr.machine.device import choose_device
from selfsr.machine.memory import measure_memory_mb
from selfsr.recipe import Recipe
from selfsr.runfolder.log import Jsonl
from selfsr.training.loop import fit

STEPS = 4


def dry_run(recipe: Recipe, *, device: str = "auto") -> None:
    """Check the data, train `STEPS` steps, evaluate and save in a temporary folder; print the cost of the run.

    Args:
        recipe: the recipe of the run.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".

    Raises:
        InputError: a data file cannot be used, or something that the recipe names is missing or does not fit.
        Diverged: a loss or a gradient became NaN or infinite.
    """
    print_line(f"Recipe {recipe.name}: valid.")
    print_line(f"Data: {_check_data(recipe)} files, all usable.")
    with tempfile.TemporaryDirectory(prefix="selfsr-") as name:
        folder = Path(name)
        start = time.perf_counter()
        fit(_shorten(recipe), folder, device=device)
        elapsed_s = time.perf_counter() - start
        records = Jsonl(folder / "metrics.jsonl", STEPS).read()
        size_mb = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
    # The first steps are slow: caches, allocators and compiled kernels warm up. Only the last record is typical.
    rate = records[-1]["steps_per_s"]
    training_s = recipe.steps / rate
    evaluation_s = max(0.0, elapsed_s - STEPS / rate) / 2  # the dry run evaluates at the start and at the end
    evaluations = recipe.steps // recipe.evaluate.every_steps if recipe.evaluate else 0
    print_line(
        f"{rate:.2f} steps/s: {recipe.steps:,} steps take about {_format_time(training_s)}, "
        f"{evaluations} evaluations at most {_format_time(evaluations * evaluation_s)} more.\n"
        f"Memory: {measure_memory_mb(choose_device(device)):,.0f} MB at its peak. "
        f"Disk: about {size_mb * recipe.checkpoints.keep_last:,.0f} MB."
    )


def _check_data(recipe: Recipe) -> int:
    """Check all training files; return their number."""
    files, small = 0, recipe.data.small
    for scale, crop_px in recipe.crops_px.items():
        if small == "skip":  # all scales have the same images
            crop_px = max(recipe.crops_px.values())
        summary = check_folder(
            recipe.data.hr, recipe.data.lr_folder(scale), scale, crop_px, masks=recipe.data.masks, small=small
        )
        if summary.problems:
            raise InputError(
                f"dry run: all {summary.files} training files must be usable, got {len(summary.problems)} that are "
                f"not; list them with: selfsr data check {_check_options(recipe, scale, crop_px)}; "
                f"the first is {summary.problems[0]}"
            )
        files = max(files, summary.files)
    return files


def _shorten(recipe: Recipe) -> Recipe:
    """Return the recipe of the dry run."""
    changes: dict = {
        "steps": STEPS,
        "method": recipe.method.rehearsal(),
        "log": recipe.log.model_copy(update={"every_steps": STEPS // 2}),
    }
    if recipe.evaluate:
        changes["evaluate"] = recipe.evaluate.model_copy(update={"every_steps": STEPS})
    return recipe.model_copy(update=changes)


def _check_options(recipe: Recipe, scale: int, crop_px: int) -> str:
    lr, masks = recipe.data.lr_folder(scale), recipe.data.masks
    options = f"{recipe.data.hr} --crop {crop_px}"
    options += "" if recipe.data.small == "error" else f" --small {recipe.data.small}"
    options += "" if lr is None else f" --lr {lr} --scale {scale}"
    return options + ("" if masks is None else f" --masks {masks}")


def _format_time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
