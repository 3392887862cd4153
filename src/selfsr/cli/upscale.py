"""`selfsr upscale`."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

EPILOG = """[bold]Examples[/bold]

selfsr upscale photo.jpg -m best.safetensors -o photo_x4.png

selfsr upscale scans -m 4xModel.pth -o scans_x4 --format keep --self-ensemble

selfsr upscale a.png b.png more/ -m best.safetensors -o out --skip-existing"""


Format = Literal["png", "jpg", "webp", "tiff", "keep"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]


def upscale(
    inputs: Annotated[list[Path], typer.Argument(metavar="IN...", help="Pictures, and folders with their subfolders.")],
    model: Annotated[
        Path,
        typer.Option("--model", "-m", help="Weights: .safetensors, .pth, .pt or .ckpt, of any network spandrel knows."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="For one picture the file to write, if it has a picture's suffix; else a folder."
        ),
    ],
    scale: Annotated[
        int | None,
        typer.Option(min=1, help="For a network that does several scales, or whose file does not tell its own."),
    ] = None,
    tile: Annotated[
        str, typer.Option(help="auto (from free memory), off, or the largest tile in pixels of the input.")
    ] = "auto",
    overlap: Annotated[
        int | None, typer.Option(min=0, help="Pixels of the input that neighboring tiles share, half a tile at most.")
    ] = None,
    self_ensemble: Annotated[
        bool,
        typer.Option("--self-ensemble", help="Average over the 8 flips and rotations: a little better, slower by 8."),
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    precision: Annotated[
        Precision, typer.Option(help="auto: half where device and model have it and 8 bit do not show it.")
    ] = "auto",
    format: Annotated[
        Format | None, typer.Option(help="What to write into a folder: png if not given; keep is the input's format.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace pictures that are already there.")] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", "--skip", help="Leave pictures that are already there: go on with a job.")
    ] = False,
) -> None:
    """Upscale pictures with a model; alpha, gray, 16 bit, ICC profile and orientation are kept."""
    from selfsr.console import print_line
    from selfsr.errors import InputError
    from selfsr.machine.device import choose_device
    from selfsr.nets.weights.load import load_model
    from selfsr.upscaling.files import plan_jobs, upscale_files
    from selfsr.upscaling.upscaler import Upscaler, parse_tile

    if overwrite and skip_existing:
        raise InputError("upscale: --overwrite and --skip-existing exclude each other; give one of them.")
    existing = "overwrite" if overwrite else "skip" if skip_existing else "refuse"
    jobs, skipped = plan_jobs(inputs, output, format, existing)
    upscaler = Upscaler(
        load_model(model, scale),
        device=choose_device(device),
        precision=precision,
        tile=parse_tile(tile),
        ensemble=self_ensemble,
        overlap_px=overlap,
    )
    title = f"{upscaler.model.architecture} x{upscaler.model.scale} on {upscaler.device} in {upscaler.precision}"
    print_line(title)
    with _progress(len(jobs)) as (advance, on_tile):
        outcome = upscale_files(
            jobs,
            lambda picture, job: upscaler.picture(
                picture, scratch=job.target.parent, on_tile=partial(on_tile, job.source.name)
            ),
            scale=upscaler.model.scale,
            advance=advance,
            on_failure=lambda sentence: print_line(f"selfsr: {sentence}"),
        )
    note = f", {skipped} skipped" if skipped else ""
    typer.echo(f"{outcome.written} of {len(jobs)} pictures written to {output}{note}.")
    if outcome.failures:
        print_line(f"selfsr: {len(outcome.failures)} of {len(jobs)} pictures failed.")
        raise typer.Exit(1)


@contextmanager
def _progress(pictures: int) -> Iterator[tuple[Callable[[], None], Callable[[str, int, int], None]]]:
    """Show how far a job is: in pictures, or in tiles where there is but one.

    Yields:
        What to call after each picture, and with (name, tiles done, all tiles) after each tile.
    """
    from selfsr.console import bar

    with ExitStack() as stack:
        move: Callable[..., None] | None = stack.enter_context(bar("Upscaling", pictures)) if pictures > 1 else None
        shown = 0

        def advance() -> None:
            if pictures > 1 and move is not None:
                move()

        def on_tile(name: str, done: int, total: int) -> None:
            nonlocal move, shown
            if pictures > 1 and move is not None:
                move(0, note=f"{name}: tile {done} of {total}" if total > 1 else name)
                return
            if move is None:
                move = stack.enter_context(bar(f"Upscaling {name}, tiles", total))
            move(done - shown)  # less than 0 where smaller tiles begin anew
            shown = done

        yield advance, on_tile
