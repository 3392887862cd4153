"""A rehearsal of a run: everything that could go wrong in hour nine goes wrong now."""

import tempfile
import time
from pathlib import Path

from selfsr.console import print_line
from selfsr.data.check import check_folder
from selfsr.errors import InputError
from selfsr.machine.device import choose_device
from selfsr.machine.memory import memory_in_use_mb
from selfsr.methods.gan import GanSpec
from selfsr.recipe import Recipe
from selfsr.runfolder.log import Jsonl
from selfsr.training.loop import fit

_REHEARSED_STEPS = 4


def dry_run(recipe: Recipe, *, device: str = "auto") -> None:
    """Check the data, train a few steps, judge and save once in a temporary folder; print the cost of the run.

    Raises:
        InputError: the data are not usable, or the recipe does not fit them.
    """
    print_line(f"Recipe {recipe.name}: valid.")
    files = 0
    for scale, crop_px in recipe.crops_px.items():
        summary = check_folder(recipe.data.hr, recipe.data.lr_folder(scale), scale, crop_px, masks=recipe.data.masks)
        if summary.problems:
            raise InputError(
                f"dry run: {len(summary.problems)} of {summary.files} training files cannot be used; see them all "
                f"with: selfsr data check {_check_options(recipe, scale, crop_px)}; the first is {summary.problems[0]}"
            )
        files = max(files, summary.files)
    print_line(f"Data: {files} files, all usable.")
    steps = _REHEARSED_STEPS
    changes: dict = {"steps": steps, "log": recipe.log.model_copy(update={"every_steps": steps // 2})}
    if recipe.evaluate:
        changes["evaluate"] = recipe.evaluate.model_copy(update={"every_steps": steps})
    if isinstance(recipe.method, GanSpec):  # a step of all networks is what takes the memory and the time
        changes["method"] = recipe.method.model_copy(update={"warmup_steps": 0, "generator_every_steps": 1})
    rehearsal = recipe.model_copy(update=changes)
    with tempfile.TemporaryDirectory(prefix="selfsr-") as place:
        start = time.perf_counter()
        fit(rehearsal, Path(place), device=device)
        spent = time.perf_counter() - start
        lines = Jsonl(Path(place) / "metrics.jsonl", steps).read()
        size_mb = sum(f.stat().st_size for f in Path(place).rglob("*") if f.is_file()) / 2**20
    # The first steps warm up: caches, allocators, compiled kernels. The last reading is the honest one.
    rate = lines[-1]["steps_per_s"]
    training_s = recipe.steps / rate
    judging_s = max(0.0, spent - steps / rate) / 2  # the rehearsal judges at the start and at the end
    evaluations = recipe.steps // recipe.evaluate.every_steps if recipe.evaluate else 0
    print_line(
        f"{rate:.2f} steps/s: {recipe.steps:,} steps take about {_time(training_s)}, "
        f"{evaluations} evaluations at most {_time(evaluations * judging_s)} more.\n"
        f"Memory: {memory_in_use_mb(choose_device(device)):,.0f} MB at its peak. "
        f"Disk: about {size_mb * recipe.checkpoints.keep_last:,.0f} MB."
    )


def _check_options(recipe: Recipe, scale: int, crop_px: int) -> str:
    lr, masks = recipe.data.lr_folder(scale), recipe.data.masks
    options = f"{recipe.data.hr} --crop {crop_px}"
    options += "" if lr is None else f" --lr {lr} --scale {scale}"
    return options + ("" if masks is None else f" --masks {masks}")


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
