"""`selfsr upscale`."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from selfsr.cli.messages import describe_left_out, print_left_out
from selfsr.cli.options import DeviceOption, LogOption, SelfEnsembleOption, refuse_unused
from selfsr.cli.sampling import ColorFixOption, SamplesOption, SeedOption, StepsOption, choose_sampling
from selfsr.cli.upscale_options import (
    FormatOption,
    InputsArgument,
    MaxSideOption,
    ModelOption,
    OutputOption,
    OutscaleOption,
    OverlapOption,
    OverwriteOption,
    PrecisionOption,
    QualityOption,
    SkipExistingOption,
    SuffixOption,
    UpscaleScaleOption,
    UpscaleTileOption,
)

EPILOG = """[bold]Examples[/bold]

selfsr upscale photo.jpg

selfsr upscale photo.jpg -m photo_x4 -o large.png

selfsr upscale scans -m 4xModel.pth -o scans_x4 --format keep --self-ensemble

selfsr upscale a.png b.png more/ -m best.safetensors -o out --skip-existing

selfsr upscale photos --outscale 2.5 --max-side 4096 --format jpg --quality 90

selfsr upscale photos -m first.safetensors -m second.safetensors -o compared"""

if TYPE_CHECKING:
    from selfsr.images.files import DecodedImage
    from selfsr.nets.weights.model import Model
    from selfsr.upscaling.files import UpscaleSummary
    from selfsr.upscaling.output_size import OutputSize
    from selfsr.upscaling.plan import UpscaleJob, UpscalePlan
    from selfsr.upscaling.upscaler import Upscaler

    OnImageTile = Callable[[str, int, int], None]


# Without a model, --scale and --outscale.
_DEFAULT_SCALE = 2


def upscale(
    context: typer.Context,
    inputs: InputsArgument,
    model: ModelOption = None,
    output: OutputOption = None,
    scale: UpscaleScaleOption = None,
    outscale: OutscaleOption = None,
    max_side: MaxSideOption = None,
    suffix: SuffixOption = None,
    tile: UpscaleTileOption = "auto",
    overlap: OverlapOption = None,
    self_ensemble: SelfEnsembleOption = False,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    seed: SeedOption = "0",
    steps: StepsOption = None,
    samples: SamplesOption = 1,
    color_fix: ColorFixOption = None,
    format: FormatOption = None,
    quality: QualityOption = None,
    overwrite: OverwriteOption = False,
    skip_existing: SkipExistingOption = False,
    log: LogOption = "auto",
) -> None:
    """Upscale images with a model, or with several.

    Alpha, gray, 16-bit depth, ICC profile, EXIF and XMP data, dpi and orientation are kept if the format stores them.
    After an interruption, the same command continues a large image at its next tile.
    """
    from selfsr.console import set_log_style
    from selfsr.machine.device import choose_device
    from selfsr.upscaling.files import UpscaleSummary
    from selfsr.upscaling.output_size import OutputSize
    from selfsr.upscaling.plan import name_output, plan_jobs
    from selfsr.upscaling.tile_size import parse_tile
    from selfsr.upscaling.upscaler import Upscaler

    set_log_style(log)
    _check_options(context, tile, overwrite and skip_existing, suffix, output)
    wanted = scale if outscale is None else outscale
    OutputSize(_DEFAULT_SCALE if wanted is None else wanted, max_side)  # refuses impossible ones before a model is read
    existing = "overwrite" if overwrite else "skip" if skip_existing else "refuse"
    paths = _find_models(model, wanted if scale is None else scale, output)
    loaded = []
    if output is None:
        loaded = [_load_model(paths[0], scale, outscale)]
        output = name_output(inputs, wanted or loaded[0].scale, format, suffix or "")
    names = [path.stem for path in paths] if len(paths) > 1 else []
    plan = plan_jobs(inputs, output, format, existing, samples, name_suffix=suffix or "", models=names)
    _check_quality(quality, plan.jobs)
    left_out = describe_left_out(inputs)
    loaded = loaded or [_load_model(path, scale, outscale) for path in paths]
    sampling = [choose_sampling(context, one, seed=seed, steps=steps, color_fix=color_fix) for one in loaded]
    summary = UpscaleSummary()
    for number, one in enumerate(loaded):
        upscaler = Upscaler(
            one,
            device=choose_device(device),
            precision=precision,
            tile=parse_tile(tile),
            ensemble=self_ensemble,
            sampling=sampling[number],
            overlap_px=overlap,
        )
        jobs = [job for job in plan.jobs if job.model == number]
        size = OutputSize(wanted or upscaler.model.scale, max_side)
        _run_model(summary, upscaler, jobs, output, size, sampling[number].get("seed", 0), quality)
    _print_summary(summary, plan, output, left_out, is_json=log == "json")
    if summary.failures:
        raise typer.Exit(1)


def _check_options(
    context: typer.Context, tile: str, is_contradiction: bool, suffix: str | None, output: Path | None
) -> None:
    """Refuse options that exclude each other or do nothing."""
    from selfsr.errors import InputError
    from selfsr.upscaling.plan import is_output_file

    if is_contradiction:
        raise InputError("upscale: expected --overwrite or --skip-existing, got both; give one of them.")
    if tile == "off":
        refuse_unused(context, "overlap", reason="with --tile off")
    if suffix is not None and (not suffix or set(suffix) & set("/\\\0")):
        raise InputError(
            f"upscale: expected a --suffix of letters that a file name may have, got {suffix!r}; pass one such as _hr."
        )
    if output is not None and is_output_file(output):
        refuse_unused(context, "suffix", reason="with a file as --output")


def _check_quality(quality: int | None, jobs: Sequence["UpscaleJob"]) -> None:
    """Refuse a quality if no image is written in a format that has one."""
    from selfsr.errors import InputError

    lossy = {".jpg", ".jpeg", ".webp"}
    if quality is not None and jobs and all(job.target.suffix.lower() not in lossy for job in jobs):
        raise InputError(
            f"upscale: expected --quality with JPEG or WebP, got it with {jobs[0].target.name}; add --format jpg, or "
            "leave --quality out."
        )


def _load_model(path: Path, scale: int | None, outscale: float | None) -> "Model":
    from selfsr.errors import InputError
    from selfsr.nets.weights.load import load_model

    loaded = load_model(path, scale)
    if scale is not None and outscale is not None and loaded.scale != scale:
        raise InputError(
            f"upscale: with --outscale, expected a --scale of the model, got {scale} for {path.name}, which has "
            f"x{loaded.scale}; leave --scale out."
        )
    return loaded


def _run_model(
    summary: "UpscaleSummary",
    upscaler: "Upscaler",
    jobs: Sequence["UpscaleJob"],
    output: Path,
    size: "OutputSize",
    seed: int,
    quality: int | None,
) -> None:
    """Upscale all images by one model, without those that could not be read for the model before it."""
    from selfsr.console import print_line
    from selfsr.upscaling.files import upscale_files

    jobs = [job for job in jobs if job.source not in summary.unreadable]
    scale = upscaler.model.scale
    print_line(
        f"{upscaler.model.architecture} x{scale} on {upscaler.device} in {upscaler.describe_precision()}; "
        f"output: {_describe_targets(jobs, output)}"
    )
    if size.factor != scale:
        print_line(f"The model upscales x{scale}; bicubic interpolation then resizes its output to x{size.factor:g}.")
    with _progress(len(jobs)) as (advance, on_tile), _advice_on_interruption(len(jobs)):
        summary.add(
            upscale_files(
                jobs,
                partial(_upscale_image, upscaler, size, seed, on_tile),
                output_size=size,
                advance=advance,
                on_failure=lambda sentence: print_line(f"selfsr: {sentence}"),
                quality=quality,
            )
        )


def _print_summary(
    summary: "UpscaleSummary", plan: "UpscalePlan", output: Path, left_out: list[str], *, is_json: bool
) -> None:
    """Print what was written, what was left out or renamed, and what failed."""
    from selfsr.console import print_event, print_line

    images, skipped = len(plan.jobs), plan.skipped
    note = f", {skipped} skipped because {'its output exists' if skipped == 1 else 'their outputs exist'}"
    place = f" to {_describe_targets(plan.jobs, output)}" if summary.written or not images else ""
    print_event(
        "end", {"written": summary.written, "images": images, "skipped": skipped, "failed": images - summary.written}
    )
    if not is_json:
        typer.echo(f"{summary.written} of {images} images written{place}{note if skipped else ''}.")
    renamed = plan.describe_renamed()
    print_left_out([*([renamed] if renamed else []), *left_out], summary.further_frames)
    if summary.failures:
        failed = images - summary.written
        print_line(f"selfsr: {failed} of {images} images failed, for the reasons above: {summary.describe_failed()}.")


def _describe_targets(jobs: Sequence["UpscaleJob"], output: Path) -> str:
    """Return the folder of the results, or the names of the files if they have other names than the output."""
    targets = [job.target for job in jobs]
    if not targets or output in targets or output in targets[0].parents:
        return str(output)
    return f"{targets[0]} to {targets[-1].name}" if len(targets) > 1 else str(targets[0])


def _find_models(models: list[str] | None, scale: float | None, output: Path | None) -> list[Path]:
    """Return the weights files of the models; without any, the shipped one for the scale, whose name is printed."""
    from selfsr.console import print_line
    from selfsr.errors import InputError
    from selfsr.models import choose_model, find_model

    if not models:
        card = choose_model(math.ceil(scale or _DEFAULT_SCALE))
        print_line(f"Model: {card.name}; choose another with -m. List them with: selfsr models list")
        return [card.path]
    paths = [find_model(model) for model in models]
    if len(paths) > 1 and output is None:
        raise InputError(
            f"upscale: expected an output folder for {len(paths)} models, got none; name one with --output."
        )
    counts = Counter(path.stem.casefold() for path in paths)
    for path in paths:
        if counts[path.stem.casefold()] > 1:
            raise InputError(
                f"upscale: expected models with different names, got {path.stem} twice; rename a file or leave it out."
            )
    return paths


def _upscale_image(
    upscaler: "Upscaler",
    size: "OutputSize",
    seed: int,
    on_tile: "OnImageTile",
    image: "DecodedImage",
    job: "UpscaleJob",
) -> "DecodedImage":
    """Upscale an image by the model, and resize the result if it should have another size."""
    from selfsr.upscaling.resize_output import resize_output

    scratch = job.target.parent
    height, width = size.compute(image.height, image.width)
    image = upscaler.choose_seed(seed + job.sample, image)
    upscaled = upscaler.upscale_image(
        image, scratch=scratch, on_tile=partial(on_tile, job.source.name), target=job.target
    )
    return resize_output(upscaled, (height, width), scratch=scratch)


@contextmanager
def _advice_on_interruption(images: int) -> Iterator[None]:
    """Print how to continue several images after Ctrl-C; for a large one, the upscaler prints it."""
    from selfsr.console import print_line

    try:
        yield
    except KeyboardInterrupt:
        if images > 1:
            print_line("Images that are finished stay; continue with the same command and --skip-existing.")
        raise


@contextmanager
def _progress(images: int) -> Iterator[tuple[Callable[[], None], Callable[[str, int, int], None]]]:
    """Show the progress in images, or in tiles if there is one image.

    Yields:
        A function to call after each image, and one to call after each tile with (name, tiles done, all tiles).
    """
    from selfsr.console import progress_bar

    with ExitStack() as stack:
        move_bar: Callable[..., None] | None = (
            stack.enter_context(progress_bar("Upscaling", images)) if images > 1 else None
        )
        shown = 0

        def advance() -> None:
            if images > 1 and move_bar is not None:
                move_bar()

        def on_tile(name: str, done: int, total: int) -> None:
            nonlocal move_bar, shown
            if images > 1 and move_bar is not None:
                move_bar(0, note=f"{name}: tile {done} of {total}" if total > 1 else name)
                return
            if move_bar is None:
                shown = done - 1  # not 0 where interrupted work continues
                move_bar = stack.enter_context(progress_bar(f"Upscaling {name}, tiles", total, shown))
            move_bar(done - shown)  # negative when smaller tiles start again
            shown = done

        yield advance, on_tile
