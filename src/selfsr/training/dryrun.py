"""The dry run: a few steps, one evaluation and a checkpoint, to find mistakes and to estimate the cost of a run."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from selfsr.console import format_duration, print_line, print_lines
from selfsr.data.check import check_folder
from selfsr.data.spec import FolderSpec, PairsSpec
from selfsr.errors import InputError
from selfsr.machine.device import choose_device
from selfsr.machine.memory import measure_free_bytes, measure_memory_mb
from selfsr.recipe import Recipe
from selfsr.runfolder.log import Jsonl
from selfsr.training.evaluation import describe_inputs
from selfsr.training.loop import fit
from selfsr.training.memory import estimate_step_bytes
from selfsr.training.pacing_notes import describe_paces
from selfsr.training.run_evaluation import DryRunEvaluation

# The first steps are slow: caches, allocators and compiled kernels warm up.
WARMUP_STEPS = 2
STEPS = 6
_IMAGES_PER_SET = 2


def dry_run(recipe: Recipe, *, device: str = "auto") -> None:
    """Check the data, train `STEPS` steps, evaluate a few images and save in a temporary folder; print the cost.

    The memory of a step is estimated before, so that a step for a larger GPU is not started.

    The speed is that of the steps after `WARMUP_STEPS`. The evaluation is one, of the first images of each set.

    Args:
        recipe: the recipe of the run.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".

    Raises:
        InputError: a data file cannot be used, something that the recipe names is missing or does not fit, or a step
            needs more memory than is free.
        Diverged: a loss or a gradient became NaN or infinite.
    """
    print_line(f"Recipe {recipe.name}: valid.")
    print_lines([*describe_paces(recipe), *describe_inputs(recipe)])
    print_line(f"Data: {check_data(recipe)} files, all usable.")
    step_bytes = estimate_step_bytes(recipe, device=device)
    print_line(_describe_estimate(step_bytes))
    check_memory(step_bytes, device)
    cost = measure_cost(recipe, device=device)
    print_lines(
        [
            _describe_cost(recipe, cost),
            f"Memory: {cost.memory_mb:,.0f} MB at its peak. Disk: about {cost.disk_mb:,.0f} MB.",
            _describe_measurement(cost.evaluation),
        ]
    )


def _describe_estimate(step_bytes: int | None) -> str:
    """Return the estimated memory of a step."""
    if step_bytes is None:
        return "Memory of a step: not estimated, because a loss computes sizes from values."
    return f"Memory of a step: about {step_bytes / 2**20:,.0f} MB of tensors in each process, estimated."


def check_memory(step_bytes: int | None, device: str, runs: int = 1) -> None:
    """Check that the tensors of a step fit into the free memory.

    Args:
        step_bytes: the estimated bytes of a step; None if they are not estimated.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        runs: number of such runs that share the device.

    Raises:
        InputError: they do not.
    """
    chosen = choose_device(device)
    free = measure_free_bytes(chosen) // runs
    if step_bytes is not None and step_bytes > free:
        each = " of each run" if runs > 1 else ""
        raise InputError(
            f"dry run: expected {step_bytes / 2**20:,.0f} MB of free memory on {chosen} for a step{each}, got "
            f"{free / 2**20:,.0f} MB, so no step was run; train on a larger GPU, or lower batch or crop_px, or raise "
            "accumulate."
        )


@dataclass(frozen=True)
class Cost:
    """What a run costs, estimated from a few steps.

    Attributes:
        steps_per_s: speed of the training.
        evaluation_s: time of one evaluation of all sets, in seconds; 0 without evaluation.
        memory_mb: memory at its peak, in MB of 2**20.
        disk_mb: the files of the run, in MB of 2**20.
        evaluation: what was evaluated.
    """

    steps_per_s: float
    evaluation_s: float
    memory_mb: float
    disk_mb: float
    evaluation: DryRunEvaluation

    def estimate_s(self, recipe: Recipe, after_step: int = 0) -> float:
        """Return the time of a run after a step, with its evaluations, in seconds."""
        training_s = (recipe.steps - after_step) / self.steps_per_s
        return training_s + count_evaluations(recipe, after_step) * self.evaluation_s


def count_evaluations(recipe: Recipe, after_step: int = 0) -> int:
    """Return the number of evaluations of a run after a step, each of all sets."""
    if recipe.evaluate is None:
        return 0
    # At its start a run evaluates the network and bicubic upscaling.
    return recipe.evaluate.count_evaluations(recipe.steps, after_step) + (2 if after_step == 0 else 0)


def measure_cost(recipe: Recipe, *, device: str = "auto") -> Cost:
    """Train `STEPS` steps, evaluate a few images and save in a temporary folder; return the estimated cost.

    Args:
        recipe: the recipe of the run.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".

    Raises:
        InputError: something that the recipe names is missing or does not fit.
        Diverged: a loss or a gradient became NaN or infinite.
        KeyboardInterrupt: Ctrl-C stopped the steps.
    """
    evaluation = DryRunEvaluation(_IMAGES_PER_SET)
    with tempfile.TemporaryDirectory(prefix="selfsr-") as name:
        folder = Path(name)
        if not fit(_shorten(recipe), folder, device=device, dry_run=evaluation):
            raise KeyboardInterrupt
        records = Jsonl(folder / "metrics.jsonl", STEPS).read()
        size_mb = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
    typical = [record["steps_per_s"] for record in records if record["step"] > WARMUP_STEPS]
    return Cost(
        steps_per_s=len(typical) / sum(1 / steps_per_s for steps_per_s in typical),
        evaluation_s=evaluation.evaluation_s / max(1, evaluation.evaluated_images) * evaluation.all_images,
        memory_mb=measure_memory_mb(choose_device(device)),
        disk_mb=size_mb * recipe.checkpoints.keep_last,
        evaluation=evaluation,
    )


def _describe_cost(recipe: Recipe, cost: Cost) -> str:
    """Return the estimated time of training and of all evaluations."""
    rate = cost.steps_per_s
    training = f"{rate:.3g} steps/s: {recipe.steps:,} steps take about {format_duration(recipe.steps / rate)}"
    if recipe.evaluate is None:
        return f"{training}."
    evaluations = count_evaluations(recipe)
    return f"{training}, and {evaluations:,} evaluations about {format_duration(evaluations * cost.evaluation_s)} more."


def _describe_measurement(evaluation: DryRunEvaluation) -> str:
    """Return what the estimates come from."""
    steps = f"Measured: {STEPS - WARMUP_STEPS} steps after {WARMUP_STEPS} for warm-up"
    if not evaluation.all_images:
        return f"{steps}."
    return (
        f"{steps}; one evaluation of {evaluation.evaluated_images} of {evaluation.all_images} images; one checkpoint, "
        "which was deleted."
    )


def check_data(recipe: Recipe) -> int:
    """Check all training files of all sources; return their number.

    Raises:
        InputError: one of them cannot be used.
    """
    return sum(_check_part(recipe, part) for part in recipe.data.parts.values())


def _check_part(recipe: Recipe, data: FolderSpec | PairsSpec) -> int:
    files = 0
    for scale, crop_px in recipe.crops_px.items():
        if data.small == "skip":  # all scales have the same images
            crop_px = max(recipe.crops_px.values())
        summary = check_folder(data.hr, data.lr_folder(scale), scale, crop_px, masks=data.masks, small=data.small)
        if summary.problems:
            raise InputError(
                f"dry run: all {summary.files} training files must be usable, got {len(summary.problems)} that are "
                f"not; list them with: selfsr data check {_check_options(data, scale, crop_px)}; "
                f"the first is {summary.problems[0]}"
            )
        files = max(files, summary.files)
    return files


def _shorten(recipe: Recipe) -> Recipe:
    """Return the recipe of the dry run."""
    changes: dict = {
        "steps": STEPS,
        "method": recipe.method.with_costliest_step(),
        "log": recipe.log.model_copy(update={"every_steps": WARMUP_STEPS}),
        "checkpoints": recipe.checkpoints.model_copy(update={"every_steps": STEPS}),
    }
    if recipe.evaluate:
        changes["evaluate"] = recipe.evaluate.model_copy(update={"every_steps": STEPS})
    return recipe.model_copy(update=changes)


def _check_options(data: FolderSpec | PairsSpec, scale: int, crop_px: int) -> str:
    lr = data.lr_folder(scale)
    options = f"{data.hr} --crop {crop_px}"
    options += "" if data.small == "error" else f" --small {data.small}"
    options += "" if lr is None else f" --lr {lr} --scale {scale}"
    return options + ("" if data.masks is None else f" --masks {data.masks}")
