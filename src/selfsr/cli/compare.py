"""`selfsr compare`."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfsr.cli.evaluate_options import DegradeSeedOption, EvaluateDegradeOption
from selfsr.cli.messages import print_last_weights
from selfsr.cli.options import DeviceOption
from selfsr.evaluation.metrics import list_extra_metrics, list_metrics_without_hr, list_standard_metrics
from selfsr.upscaling.options import RequestedPrecision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from selfsr.comparison.candidates import Candidate
    from selfsr.comparison.inputs import ComparedSet
    from selfsr.comparison.outputs import KeptOutputs
    from selfsr.comparison.run import ComparisonTask, Result

EPILOG = """[bold]Examples[/bold]

selfsr compare old.pth new.safetensors photo_x4 --data Set5 -o compare.html

selfsr compare runs/a runs/b --names plain,similarity --data Set14 --metric lpips --metric dists

selfsr compare a.pth b.pth --data DIV2K_valid_HR --degrade real_esrgan --seed 1

selfsr compare a.pth b.pth outputs_of_another_program --lr photos -o compare.html

[bold]What is compared[/bold]

A model is a weights file, a run folder (its best weights) or a name from selfsr models list. A folder of finished
images has one output for each image, with the same name or with an ending such as _x4.

With --data, outputs are scored against HR images, as by selfsr evaluate. Without it, --lr names photos, and the
outputs are scored by NIQE or another metric that needs no HR.

The page of -o shows outputs side by side at any zoom, and has a blind test with votes."""

_LISTED = 20


def compare(
    context: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Weights files, run folders, shipped models or folders of finished images; at least two."),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]DIR", help="Folder of HR images, or folder of such folders. Repeatable."),
    ] = None,
    lr: Annotated[
        Path | None,
        typer.Option(
            help="Folder of LR images with the names of the HR images; without --data, a folder of photos or one "
            "photo. Default: made by bicubic from --data."
        ),
    ] = None,
    degrade: EvaluateDegradeOption = None,
    seed: DegradeSeedOption = 1,
    names: Annotated[str | None, typer.Option(metavar="A,B,...", help="A name for each model, in their order.")] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Metric in addition to PSNR and SSIM: {', '.join(list_extra_metrics())}. Without --data one that "
            f"needs no HR: {', '.join(list_metrics_without_hr())} (default: niqe); none computes no score. Repeatable."
        ),
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--out", "-o", help="HTML page to write, one file that works offline.")
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="JSON file to write, with all scores and the protocol."),
    ] = None,
    max_images: Annotated[
        int,
        typer.Option(
            min=1, help="Most images on the page, evenly spaced; all images are scored. More make the page larger."
        ),
    ] = 8,
    scale: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Upscaling factor; default: the scale of the models. Required if there are only finished images.",
        ),
    ] = None,
    device: DeviceOption = "auto",
    precision: Annotated[
        RequestedPrecision,
        typer.Option(help="Precision of the networks; precisions other than float32 change the scores."),
    ] = "float32",
    tile: Annotated[
        str | None,
        typer.Option(
            help="Largest tile in pixels of LR, auto (measured from free memory) or off. "
            "Default: off with --data, as in selfsr evaluate, and auto without."
        ),
    ] = None,
) -> None:
    """Compare models side by side: scores, speed, memory, and a page with the outputs."""
    from selfsr.cli.degradation import find_degradation
    from selfsr.comparison.candidates import find_candidates, read_facts
    from selfsr.comparison.inputs import find_inputs
    from selfsr.comparison.outputs import KeptOutputs, choose_shown
    from selfsr.comparison.page import render_page
    from selfsr.comparison.run import ComparisonTask
    from selfsr.console import print_line
    from selfsr.evaluation.metrics import load_metrics
    from selfsr.fileio import write_atomic
    from selfsr.machine.device import choose_device
    from selfsr.upscaling.tile_size import parse_tile

    candidates = find_candidates(models or [], None if names is None else names.split(","))
    for candidate in candidates:
        if candidate.weights is not None:
            print_last_weights(candidate.source, candidate.weights)
    chosen = _check_options(context, data or [], metric, [file for file in (page, json_file) if file is not None])
    parsed_tile = parse_tile(tile if tile is not None else "off" if data else "auto")
    chosen_device = choose_device(device)
    facts = read_facts(candidates, scale)
    chosen_scale = _choose_scale(scale, [fact.scale for fact in facts.values()])
    with tempfile.TemporaryDirectory(prefix="selfsr-compare-") as temporary:
        degradation = None if degrade is None else find_degradation("compare", degrade)
        sets = find_inputs(candidates, data or [], lr, chosen_scale, degradation, seed)
        metrics = dict(load_metrics(chosen, chosen_device, {name: len(one.names) for name, one in sets.items()}))
        task = ComparisonTask(chosen_scale, chosen_device, precision, parsed_tile, metrics)
        kept = None
        if page is not None:
            shown, total = choose_shown(sets, max_images)
            kept = KeptOutputs(Path(temporary) / "outputs", shown, total)
        degraded = next(iter(sets.values())).degraded
        origin = degraded.describe() if degraded is not None else None if lr is None else str(lr)
        results, failures = _run(candidates, facts, sets, task, kept, json_file, origin)
        if page is not None and kept is not None:
            write_atomic(page, render_page(results, list(sets), task, kept, origin))
            print_line(f"Page: {page} ({page.stat().st_size / 2**20:.1f} MB)")
    if failures:
        print_line(f"selfsr: {len(failures):,} images failed; the means are over the others.")
        raise typer.Exit(1)


def _check_options(context: typer.Context, data: list[str], metric: list[str] | None, targets: list[Path]) -> list[str]:
    """Check the options that do not fit together; return the names of the metrics to load."""
    from selfsr.cli.options import refuse_unused
    from selfsr.errors import InputError
    from selfsr.fileio import check_replaceable, check_writable

    if not data:
        refuse_unused(context, "degrade", "seed", reason="without --data")
    elif context.params["degrade"] is None:
        refuse_unused(context, "seed", reason="without --degrade")
    else:
        refuse_unused(context, "lr", reason="with --degrade, which makes the LR images")
    if context.params["page"] is None:
        refuse_unused(context, "max_images", reason="without a page (-o)")
    for target in targets:
        if target.is_dir():
            raise InputError(f"compare: expected a file to write, got {target}, which is a folder; name a new file.")
        if target == context.params["page"]:
            check_replaceable(target, (".html", ".htm"), "compare: -o")
        else:
            check_replaceable(target, (".json",), "compare: --json")
        check_writable(target)
    if metric == ["none"] and not data:
        return []
    for name in metric or ():
        if name in list_standard_metrics():
            raise InputError(
                f"compare: expected an additional metric for --metric, got {name}, which is computed with --data "
                "always; leave it out."
            )
        if not data and name in list_extra_metrics() and name not in list_metrics_without_hr():
            raise InputError(
                f"compare: expected HR images for --metric {name}, got none; name them with --data, or use a metric "
                f"that needs none: {', '.join(list_metrics_without_hr())}."
            )
    return list(metric) if metric else [] if data else ["niqe"]


def _choose_scale(scale: int | None, scales: list[int]) -> int:
    from selfsr.errors import InputError

    if scale is None and not scales:
        raise InputError("compare: expected --scale N for folders of finished images, got none; add --scale 2, 3 or 4.")
    return scale or scales[0]


def _run(
    candidates: "Sequence[Candidate]",
    facts: Any,
    sets: "dict[str, ComparedSet]",
    task: "ComparisonTask",
    kept: "KeptOutputs | None",
    json_file: Path | None,
    lr: str | None,
) -> "tuple[list[Result], list[str]]":
    """Compare, then print and write the scores, also after an interruption; return results and failures."""
    import json

    from selfsr.cli.comparison_table import tabulate_comparison
    from selfsr.cli.score_table import print_score_table
    from selfsr.comparison.columns import make_record
    from selfsr.comparison.run import compare as run_comparison
    from selfsr.comparison.run import count_runs
    from selfsr.console import print_line, progress_bar
    from selfsr.fileio import write_atomic

    results: list[Result] = []
    failures: list[str] = []
    finished = False

    def add_failure(sentence: str) -> None:
        if sentence not in failures:  # of another model before
            failures.append(sentence)
            if len(failures) <= _LISTED:
                print_line(f"selfsr: {sentence}")

    try:
        with progress_bar("Comparing", count_runs(candidates, sets)) as advance:
            run_comparison(
                candidates,
                facts,
                sets,
                task,
                results=results,
                kept=kept,
                advance=advance,
                on_failure=add_failure,
            )
        finished = True
    finally:  # what is scored is kept, also after Ctrl-C
        if not finished:
            print_line("compare: stopped early; the scores are over the images that were finished.")
        if any(one.images for result in results for one in result.sets.values()):
            print_score_table(tabulate_comparison(results, list(sets), task))
            if json_file is not None:
                record = make_record(results, task, lr, failures if finished else None)
                write_atomic(json_file, json.dumps(record, indent=2, allow_nan=False) + "\n")
                print_line(f"Scores: {json_file}")
    return results, failures
