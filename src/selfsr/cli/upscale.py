"""`selfsr upscale`."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selfsr.cli.messages import describe_left_out, print_left_out
from selfsr.cli.options import DeviceOption, SelfEnsembleOption, refuse_unused
from selfsr.upscaling.options import OutputFormat, RequestedPrecision

EPILOG = """[bold]Examples[/bold]

selfsr upscale photo.jpg -m best.safetensors -o photo_x4.png

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
    Path,
    typer.Option(
        "--model",
        "-m",
        help="Weights file: .safetensors, .pth, .pt or .ckpt, of any network that spandrel supports.",
    ),
]
OutputOption = Annotated[
    Path,
    typer.Option("--output", "-o", help="File to write, for one image and with an image suffix; else a folder."),
]
UpscaleScaleOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Upscaling factor; default: that of the model. Selects one of a network with several scales. With another "
        "factor than the model's, the model runs at its own and bicubic interpolation resizes the result.",
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
    typer.Option(help="Precision of the network; auto: half precision where supported and invisible at 8 bits."),
]
FormatOption = Annotated[
    OutputFormat | None,
    typer.Option(help="Format of images in a folder; default: png; keep is the format of the input."),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace images that exist.")]
SkipExistingOption = Annotated[
    bool, typer.Option("--skip-existing", "--skip", help="Keep images that exist, to resume an interrupted job.")
]


def upscale(
    context: typer.Context,
    inputs: InputsArgument,
    model: ModelOption,
    output: OutputOption,
    scale: UpscaleScaleOption = None,
    tile: UpscaleTileOption = "auto",
    overlap: OverlapOption = None,
    self_ensemble: SelfEnsembleOption = False,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    format: FormatOption = None,
    overwrite: OverwriteOption = False,
    skip_existing: SkipExistingOption = False,
) -> None:
    """Upscale images with a model; alpha, gray, 16-bit depth, ICC profile and orientation are kept."""
    from selfsr.console import print_line
    from selfsr.errors import InputError
    from selfsr.machine.device import choose_device
    from selfsr.nets.weights.load import load_model
    from selfsr.upscaling.files import plan_jobs, upscale_files
    from selfsr.upscaling.upscaler import Upscaler, parse_tile

    if overwrite and skip_existing:
        raise InputError("upscale: expected --overwrite or --skip-existing, got both; give one of them.")
    if tile == "off":
        refuse_unused(context, "overlap", reason="with --tile off")
    existing = "overwrite" if overwrite else "skip" if skip_existing else "refuse"
    jobs, skipped = plan_jobs(inputs, output, format, existing)
    left_out = describe_left_out(inputs)
    upscaler = Upscaler(
        load_model(model, scale),
        device=choose_device(device),
        precision=precision,
        tile=parse_tile(tile),
        ensemble=self_ensemble,
        overlap_px=overlap,
    )
    model_scale = upscaler.model.scale
    wanted_scale = scale or model_scale
    print_line(f"{upscaler.model.architecture} x{model_scale} on {upscaler.device} in {upscaler.describe_precision()}")
    if wanted_scale != model_scale:
        print_line(
            f"The model upscales x{model_scale}; bicubic interpolation then resizes its output to x{wanted_scale}."
        )
    with _progress(len(jobs)) as (advance, on_tile):
        summary = upscale_files(
            jobs,
            partial(_upscale_image, upscaler, wanted_scale, on_tile),
            scale=wanted_scale,
            advance=advance,
            on_failure=lambda sentence: print_line(f"selfsr: {sentence}"),
        )
    note = f", {skipped} skipped" if skipped else ""
    typer.echo(f"{summary.written} of {len(jobs)} images written to {output}{note}.")
    print_left_out(left_out, summary.further_frames)
    if summary.failures:
        print_line(f"selfsr: {len(summary.failures)} of {len(jobs)} images failed.")
        raise typer.Exit(1)


def _upscale_image(
    upscaler: "Upscaler", scale: int, on_tile: "OnImageTile", image: "DecodedImage", job: "UpscaleJob"
) -> "DecodedImage":
    """Upscale an image by the model, and resize the result if `scale` is not the model's."""
    from selfsr.upscaling.resize_output import resize_output

    scratch = job.target.parent
    upscaled = upscaler.upscale_image(image, scratch=scratch, on_tile=partial(on_tile, job.source.name))
    return resize_output(upscaled, model_scale=upscaler.model.scale, scale=scale, scratch=scratch)


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
                move_bar = stack.enter_context(progress_bar(f"Upscaling {name}, tiles", total))
            move_bar(done - shown)  # negative when smaller tiles start again
            shown = done

        yield advance, on_tile
