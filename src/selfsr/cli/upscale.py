"""`selfsr upscale`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selfsr.cli.messages import describe_left_out, print_left_out
from selfsr.cli.options import DeviceOption, LogOption, SelfEnsembleOption, refuse_unused
from selfsr.cli.sampling import ColorFixOption, SamplesOption, SeedOption, StepsOption, choose_sampling
from selfsr.upscaling.options import OutputFormat, RequestedPrecision

EPILOG = """[bold]Examples[/bold]

selfsr upscale photo.jpg

selfsr upscale photo.jpg -m photo_x4 -o large.png

selfsr upscale scans -m 4xModel.pth -o scans_x4 --format keep --self-ensemble

selfsr upscale a.png b.png more/ -m best.safetensors -o out --skip-existing"""

if TYPE_CHECKING:
    from selfsr.images.files import DecodedImage
    from selfsr.upscaling.files import UpscaleJob
    from selfsr.upscaling.upscaler import Upscaler

    OnImageTile = Callable[[str, int, int], None]

InputsArgument = Annotated[
    list[Path], typer.Argument(metavar="IN...", help="Images, and folders with their subfolders.")
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="Name from `selfsr models list`, or a weights file: .safetensors, .pth, .pt or .ckpt, of any network that "
        "spandrel supports. Default: the shipped model with the highest PSNR for --scale, or for x2.",
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="File to write, for one image and with an image suffix; else a folder. Default, for one input: next to "
        "it, with the scale in its name, such as photo_x2.png.",
    ),
]
UpscaleScaleOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Upscaling factor; default: the scale of the model. Selects a scale of a network with several. With a "
        "factor that the model does not have, bicubic interpolation resizes its output.",
    ),
]
UpscaleTileOption = Annotated[
    str,
    typer.Option(
        help="Largest tile in pixels of the input, auto (measured from free memory) or off. "
        "Change it when memory runs out."
    ),
]
OverlapOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Pixels of the input that neighboring tiles share, at most half a tile; default: 64. "
        "Raise it if seams are visible.",
    ),
]
PrecisionOption = Annotated[
    RequestedPrecision,
    typer.Option(help="Precision of the network; auto: half precision if it is supported and invisible at 8 bits."),
]
FormatOption = Annotated[
    OutputFormat | None,
    typer.Option(help="Format of the images in a folder; default: png. keep uses the format of the input."),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace images that exist.")]
SkipExistingOption = Annotated[
    bool, typer.Option("--skip-existing", "--skip", help="Keep images that exist, to resume an interrupted job.")
]


# Without a model and without --scale.
_DEFAULT_SCALE = 2


def upscale(
    context: typer.Context,
    inputs: InputsArgument,
    model: ModelOption = None,
    output: OutputOption = None,
    scale: UpscaleScaleOption = None,
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
    overwrite: OverwriteOption = False,
    skip_existing: SkipExistingOption = False,
    log: LogOption = "auto",
) -> None:
    """Upscale images with a model.

    Alpha, gray, 16-bit depth, ICC profile, EXIF and XMP data, dpi and orientation are kept if the format stores them.
    After an interruption, the same command continues a large image at its next tile.
    """
    from selfsr.console import print_event, print_line, set_log_style
    from selfsr.errors import InputError
    from selfsr.machine.device import choose_device
    from selfsr.nets.weights.load import load_model
    from selfsr.upscaling.files import name_output, plan_jobs, upscale_files
    from selfsr.upscaling.tile_size import parse_tile
    from selfsr.upscaling.upscaler import Upscaler

    set_log_style(log)
    if overwrite and skip_existing:
        raise InputError("upscale: expected --overwrite or --skip-existing, got both; give one of them.")
    if tile == "off":
        refuse_unused(context, "overlap", reason="with --tile off")
    existing = "overwrite" if overwrite else "skip" if skip_existing else "refuse"
    path = _find_model(model, scale)
    loaded = None
    if output is None:
        loaded = load_model(path, scale)
        output = name_output(inputs, scale or loaded.scale, format)
    jobs, skipped = plan_jobs(inputs, output, format, existing, samples)
    left_out = describe_left_out(inputs)
    loaded = loaded or load_model(path, scale)
    sampling = choose_sampling(context, loaded, seed=seed, steps=steps, color_fix=color_fix)
    upscaler = Upscaler(
        loaded,
        device=choose_device(device),
        precision=precision,
        tile=parse_tile(tile),
        ensemble=self_ensemble,
        sampling=sampling,
        overlap_px=overlap,
    )
    model_scale = upscaler.model.scale
    wanted_scale = scale or model_scale
    print_line(
        f"{upscaler.model.architecture} x{model_scale} on {upscaler.device} in {upscaler.describe_precision()}; "
        f"output: {_describe_targets(jobs, output)}"
    )
    if wanted_scale != model_scale:
        print_line(
            f"The model upscales x{model_scale}; bicubic interpolation then resizes its output to x{wanted_scale}."
        )
    with _progress(len(jobs)) as (advance, on_tile), _advice_on_interruption(len(jobs)):
        summary = upscale_files(
            jobs,
            partial(_upscale_image, upscaler, wanted_scale, sampling.get("seed", 0), on_tile),
            scale=wanted_scale,
            advance=advance,
            on_failure=lambda sentence: print_line(f"selfsr: {sentence}"),
        )
    note = f", {skipped} skipped" if skipped else ""
    place = f" to {_describe_targets(jobs, output)}" if summary.written or not jobs else ""
    print_event("end", {"written": summary.written, "images": len(jobs), "skipped": skipped})
    if log != "json":
        typer.echo(f"{summary.written} of {len(jobs)} images written{place}{note}.")
    print_left_out(left_out, summary.further_frames)
    if summary.failures:
        print_line(f"selfsr: {len(summary.failures)} of {len(jobs)} images failed.")
        raise typer.Exit(1)


def _describe_targets(jobs: Sequence["UpscaleJob"], output: Path) -> str:
    """Return the folder of the results, or the names of the files if they have other names than the output."""
    targets = [job.target for job in jobs]
    if not targets or output in targets or output in targets[0].parents:
        return str(output)
    return f"{targets[0]} to {targets[-1].name}" if len(targets) > 1 else str(targets[0])


def _find_model(model: str | None, scale: int | None) -> Path:
    """Return the weights file of the model; without a model, the shipped one for the scale, whose name is printed."""
    from selfsr.console import print_line
    from selfsr.models import choose_model, find_model

    if model is not None:
        return find_model(model)
    card = choose_model(scale or _DEFAULT_SCALE)
    print_line(f"Model: {card.name}; choose another with -m. List them with: selfsr models list")
    return card.path


def _upscale_image(
    upscaler: "Upscaler", scale: int, seed: int, on_tile: "OnImageTile", image: "DecodedImage", job: "UpscaleJob"
) -> "DecodedImage":
    """Upscale an image by the model, and resize the result if `scale` is not the model's."""
    from selfsr.upscaling.resize_output import resize_output

    scratch = job.target.parent
    image = upscaler.choose_seed(seed + job.sample, image)
    upscaled = upscaler.upscale_image(
        image, scratch=scratch, on_tile=partial(on_tile, job.source.name), target=job.target
    )
    return resize_output(upscaled, model_scale=upscaler.model.scale, scale=scale, scratch=scratch)


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
