"""`selfsr evaluate`."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from selfsr.cli.evaluate_models import EvaluatedUpscaler, OpenedUpscaler, find_models
from selfsr.cli.evaluate_options import (
    BicubicOption,
    BorderOption,
    DataOption,
    DegradeSeedOption,
    EvaluateDegradeOption,
    EvaluateScaleOption,
    EvaluateTileOption,
    LrOption,
    MetricOption,
    ModelsArgument,
    OutOption,
    PerImageOption,
    SaveImagesOption,
)
from selfsr.cli.messages import describe_left_out, print_left_out
from selfsr.cli.options import DeviceOption, SelfEnsembleOption, refuse_unused
from selfsr.cli.sampling import ColorFixOption, StepsOption
from selfsr.cli.seeds import SeedsOption, choose_seeds
from selfsr.evaluation.metrics import list_extra_metrics, list_standard_metrics

if TYPE_CHECKING:
    import torch

    from selfsr.evaluation.benchmark import SetScores
    from selfsr.evaluation.degraded import DegradedInputs
    from selfsr.evaluation.files import SavedImages
    from selfsr.evaluation.kinds import ImageMetric, SetMetric
    from selfsr.evaluation.seeds import Sampler
    from selfsr.evaluation.sets import ImageSet
    from selfsr.nets.weights.model import Model

EPILOG = """[bold]Examples[/bold]

selfsr evaluate best.safetensors --data Set5 --data Set14

selfsr evaluate photo_x4 --data Set5 --metric lpips

selfsr evaluate 4xModel.pth --bicubic --data benchmark --out results.json --save-images out --per-image

selfsr evaluate gan.safetensors --data Set14 --metric self_similarity --metric lpips --metric dists

selfsr evaluate old.pth new.pth --data Set14 --out both.json

selfsr evaluate --bicubic --data mine=photos/test --scale 2

selfsr evaluate best.safetensors --data DIV2K=DIV2K_valid_HR --lr DIV2K_valid_LR_bicubic/X4

selfsr evaluate photo_x4 --data Set14 --degrade real_esrgan --seed 1

[bold]Protocol[/bold]

8-bit RGB. PSNR and SSIM on BT.601 studio-range luma (Y) and on RGB, with peak 255. They leave out a border as wide as
the scale. LR is made by antialiased bicubic and rounded to 8 bits, unless --lr provides it or --degrade makes it. A
network with one channel is evaluated by its own Y; its colors come from bicubic."""

_LISTED = 20


@dataclass(frozen=True)
class _Task:
    """The sets, the inputs and the metrics of one call.

    Attributes:
        sets: the sets by name.
        scale: the upscaling factor.
        lr: the folder of LR images, or None.
        degraded: makes the inputs of each set by its name; empty if they are read, or bicubic.
        border_px: pixels at each side that the scores leave out, or None for the scale.
        extra: further metrics by name.
        device: the device of the networks.
    """

    sets: "dict[str, ImageSet]"
    scale: int
    lr: Path | None
    degraded: "dict[str, DegradedInputs]"
    border_px: int | None
    extra: "dict[str, ImageMetric | SetMetric]"
    device: "torch.device"


def evaluate(
    context: typer.Context,
    models: ModelsArgument = None,
    data: DataOption = None,
    scale: EvaluateScaleOption = None,
    bicubic: BicubicOption = False,
    lr: LrOption = None,
    degrade: EvaluateDegradeOption = None,
    seed: DegradeSeedOption = 1,
    border: BorderOption = None,
    out: OutOption = None,
    save_images: SaveImagesOption = None,
    metric: MetricOption = None,
    per_image: PerImageOption = False,
    device: DeviceOption = "auto",
    tile: EvaluateTileOption = "off",
    self_ensemble: SelfEnsembleOption = False,
    seeds: SeedsOption = "0",
    steps: StepsOption = None,
    color_fix: ColorFixOption = None,
) -> None:
    """Score models, or bicubic, on sets of images by the protocol of the literature (in float32)."""
    from selfsr.evaluation.benchmark import make_bicubic_upscaler
    from selfsr.evaluation.files import plan_saved_images
    from selfsr.evaluation.metrics import load_metrics
    from selfsr.evaluation.sets import find_sets
    from selfsr.machine.device import choose_device

    sets = find_sets(_check_options(context, data, out))
    chosen_device = choose_device(device)

    def sample(model: "Model", several: bool) -> "tuple[Sampler | None, dict[str, Any]]":
        return choose_seeds(context, model, seeds=seeds, steps=steps, color_fix=color_fix, several=several)

    options = {"tile": tile, "self_ensemble": self_ensemble}
    candidates, scale = find_models(context, models or [], scale, chosen_device, options, sample)
    assert scale is not None, "without a model, it is checked"
    if bicubic:
        candidates.insert(0, EvaluatedUpscaler("bicubic", lambda: OpenedUpscaler(make_bicubic_upscaler(scale))))
    task = _Task(
        sets=sets,
        scale=scale,
        lr=lr,
        degraded={} if degrade is None else _choose_inputs(degrade, seed, sets),
        border_px=border,
        extra=dict(load_metrics(metric or (), chosen_device, {name: len(one.paths) for name, one in sets.items()})),
        device=chosen_device,
    )
    saved = None
    if save_images is not None:
        roots = [image_set.root for image_set in sets.values()] + ([] if lr is None else [lr])
        saved = plan_saved_images(save_images, sets, roots, scale)
    _run(candidates, task, saved, out, per_image)


def _check_options(context: typer.Context, data: list[str] | None, out: Path | None) -> list[str]:
    """Check that the options fit together; return the values of `--data`."""
    from selfsr.errors import InputError
    from selfsr.fileio import check_replaceable, check_writable

    models, bicubic = context.params["models"] or [], context.params["bicubic"]
    if not models and not bicubic:
        raise InputError(
            "evaluate: expected a model, --bicubic or both, got neither; name a weights file or a shipped model."
        )
    if not data:
        raise InputError("evaluate: expected a folder of images, got none; name one or more with --data.")
    if not models and context.params["scale"] is None:
        raise InputError("evaluate: expected --scale N with --bicubic, got none; add --scale 2, 3 or 4.")
    for name in context.params["metric"] or ():
        if name in list_standard_metrics():
            raise InputError(
                f"evaluate: expected an additional metric for --metric ({', '.join(list_extra_metrics())}), "
                f"got {name}, which is always computed; leave it out."
            )
    if context.params["degrade"] is None:
        refuse_unused(context, "seed", reason="without --degrade")
    else:
        refuse_unused(context, "lr", reason="with --degrade")
    if not models:
        unused = ("tile", "self_ensemble", "seeds", "steps", "color_fix")
        refuse_unused(context, *unused, reason="without a model")
    if len(models) > 1 and context.params["save_images"] is not None:
        raise InputError(
            f"evaluate: expected one model with --save-images, got {len(models)}; name one, or see the outputs side by "
            "side with selfsr compare -o."
        )
    if out is not None and (out.is_dir() or os.path.realpath(out) in map(os.path.realpath, models)):
        raise InputError(
            f"evaluate: expected a JSON file to write for --out, got {out}, which is not; name a new file."
        )
    if out is not None:
        check_replaceable(out, (".json",), "evaluate: --out")
    for target in (out, context.params["save_images"] and context.params["save_images"] / "image.png"):
        if target is not None:
            check_writable(target)  # not after an hour of evaluation
    return data


def _choose_inputs(name: str, seed: int, sets: "dict[str, ImageSet]") -> "dict[str, DegradedInputs]":
    """Return what makes the inputs of each set, for `--degrade`."""
    from selfsr.cli.degradation import find_degradation
    from selfsr.evaluation.degraded import DegradedInputs

    degradation = find_degradation("evaluate", name)
    return {set_name: DegradedInputs(degradation, image_set.folder, seed) for set_name, image_set in sets.items()}


def _run(
    candidates: list[EvaluatedUpscaler], task: _Task, saved: "SavedImages | None", out: Path | None, per_image: bool
) -> None:
    """Score the upscalers, then print and write the scores; exit with 1 if an image failed."""
    from selfsr.cli.score_table import print_score_table, tabulate_scores
    from selfsr.console import print_line

    lr_paths, further_frames = _check_inputs(task)
    left_out = describe_left_out(image_set.root for image_set in task.sets.values())
    results: dict[str, dict[str, SetScores]] = {}
    failures: list[str] | None = None
    try:
        failures = _score(candidates, task, lr_paths, saved, results)
    finally:  # what is scored is kept, also after Ctrl-C and on a full disk
        if failures is None:
            print_line("evaluate: stopped early; the scores are over the images that were finished.")
        if any(scores.images for of_sets in results.values() for scores in of_sets.values()):
            print_score_table(tabulate_scores(results, task.scale, per_image=per_image))
            if task.degraded:
                print_line(f"LR: {_describe_lr(task)}.")
            if out is not None:
                _write(out, results, candidates, task, failures)
    print_left_out(left_out, further_frames)
    if failures:
        print_line(f"selfsr: {len(failures):,} images failed; the means are over the others.")
        raise typer.Exit(1)


def _score(
    candidates: list[EvaluatedUpscaler],
    task: _Task,
    lr_paths: "dict[str, list[Path] | None]",
    saved: "SavedImages | None",
    results: "dict[str, dict[str, SetScores]]",
) -> list[str]:
    """Score each upscaler on each set; save the images of the last upscaler, which is the model if there is one.

    Args:
        candidates: the upscalers.
        task: the sets and options.
        lr_paths: the LR images of each set, or None.
        saved: where the images go, or None.
        results: receives the scores as soon as they are known.

    Returns:
        A sentence for each image that could not be scored.
    """
    from selfsr.console import print_line, progress_bar
    from selfsr.evaluation.benchmark import SetScores, evaluate_set

    failures: list[str] = []

    def add_failure(sentence: str) -> None:
        if sentence in failures:  # of another upscaler before
            return
        failures.append(sentence)
        if len(failures) <= _LISTED:
            print_line(f"selfsr: {sentence}")

    images = len(candidates) * sum(len(image_set.paths) for image_set in task.sets.values())
    with progress_bar("Evaluating", images) as advance:
        for candidate in candidates:
            saves = saved if candidate is candidates[-1] else None
            results[candidate.title] = {}
            opened = candidate.open()
            for name, image_set in task.sets.items():
                scores = results[candidate.title][name] = SetScores(name, {})
                evaluate_set(
                    opened.upscale,
                    name,
                    image_set.paths,
                    scale=task.scale,
                    lr_paths=lr_paths[name],
                    degraded=task.degraded.get(name),
                    device=task.device,
                    border_px=task.border_px,
                    extra=task.extra,
                    luma_only=opened.luma_only,
                    sampler=opened.sampler,
                    on_image=saves and partial(saves.write, name),
                    advance=advance,
                    scores=scores,
                    on_failure=add_failure,
                )
    return failures


def _check_inputs(task: _Task) -> "tuple[dict[str, list[Path] | None], int]":
    """Return the LR images of each set, or None, and the number of further frames, from the headers of all images."""
    from selfsr.evaluation.files import check_headers
    from selfsr.images.pairing import pair_lr

    lr_paths: dict[str, list[Path] | None] = {}
    further_frames = 0
    for name, image_set in task.sets.items():
        lr_folder = _choose_lr_folder(task, name)
        lr_paths[name] = lr_folder and pair_lr(image_set.folder, image_set.paths, lr_folder, task.scale)
        if name in task.degraded:
            task.degraded[name].check(image_set.paths, task.scale)
        further_frames += check_headers(image_set.paths, lr_paths[name], scale=task.scale, border_px=task.border_px)
    return lr_paths, further_frames


def _choose_lr_folder(task: _Task, name: str) -> Path | None:
    """Return the LR folder of a set: the subfolder with its name, or for a single set `--lr` itself."""
    if task.lr is None:
        return None
    for subfolder in (task.lr / name, task.lr / task.sets[name].folder.name):
        if subfolder.is_dir():
            return subfolder
    return task.lr if len(task.sets) == 1 else task.lr / name


def _describe_lr(task: _Task) -> str | None:
    """Return where the inputs come from, for the protocol; None for bicubic."""
    degraded = next(iter(task.degraded.values()), None)
    return degraded.describe() if degraded is not None else None if task.lr is None else str(task.lr)


def _write(
    path: Path,
    results: "dict[str, dict[str, SetScores]]",
    candidates: list[EvaluatedUpscaler],
    task: _Task,
    failures: list[str] | None,
) -> None:
    """Write the scores; `failures` is None if the evaluation was interrupted."""
    import json

    from selfsr import __version__
    from selfsr.console import print_line
    from selfsr.evaluation.benchmark import describe_protocol
    from selfsr.fileio import write_atomic

    several = sum(bool(candidate.options) for candidate in candidates) > 1
    record = {
        "selfsr": __version__,
        "protocol": describe_protocol(
            task.scale,
            task.border_px,
            _describe_lr(task),
            tuple(task.extra),
            next((candidate.sampling for candidate in candidates if candidate.sampling), None),
        ),
        "results": [
            {
                "upscaler": candidate.title,
                **candidate.options,
                **({"sampling": candidate.sampling} if several and candidate.sampling else {}),
                "sets": {name: scores.as_json() for name, scores in results[candidate.title].items()},
            }
            for candidate in candidates
            if candidate.title in results
        ],
    }
    if failures is None:
        record["complete"] = False
    elif failures:
        record["failures"] = failures
    write_atomic(path, json.dumps(record, indent=2, allow_nan=False) + "\n")
    print_line(f"Scores: {path}")
