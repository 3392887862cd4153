"""`selfsr data ...`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from selfsr.data.check import CheckSummary

app = typer.Typer(no_args_is_help=True)

EPILOG = """[bold]Examples[/bold]

selfsr data check photos

selfsr data check photos --crop 192

selfsr data check DIV2K/HR --lr DIV2K/LR/X4 --scale 4 --crop 192

selfsr data check DF2K/sub --masks DF2K/masks"""

PREPARE_EPILOG = """[bold]Examples[/bold]

selfsr data prepare DF2K/HR -o DF2K/sub

selfsr data prepare photos -o photos_sub --crop 256 --own-size-only

selfsr data prepare DIV2K/HR -o DIV2K/sub    (again, after it was stopped: goes on)"""

_LISTED = 20


@app.command("check", epilog=EPILOG)
def check(
    folder: Annotated[Path, typer.Argument(help="Folder of HR pictures, searched with its subfolders.")],
    lr: Annotated[Path | None, typer.Option(help="Folder of LR pictures, matched by name. Needs --scale.")] = None,
    scale: Annotated[int | None, typer.Option(min=1, help="How many times larger HR is than LR.")] = None,
    crop: Annotated[
        int | None, typer.Option(min=1, help="Side in pixels of the training crop that each picture must hold.")
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Folder of the pictures' edge masks, .mat or .png of the same name.")
    ] = None,
) -> None:
    """Decode every picture of a folder and name those that training could not use; exit status 1 if there are any."""
    from selfsr.data.check import check_folder
    from selfsr.errors import InputError

    if (lr is None) != (scale is None):
        raise InputError("data check: --lr and --scale go together; give both to check pairs, or neither.")
    summary = check_folder(folder, lr, scale or 1, crop, masks=masks)
    _show(summary)
    if summary.problems:
        raise typer.Exit(1)


@app.command("prepare", epilog=PREPARE_EPILOG)
def prepare(
    folder: Annotated[Path, typer.Argument(help="Folder of large pictures, searched with its subfolders.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the sub-images.")],
    crop: Annotated[int, typer.Option(min=1, help="Side of a sub-image in pixels.")] = 512,
    step: Annotated[
        int | None, typer.Option(min=1, help="Pixels from one window to the next; half the crop if not given.")
    ] = None,
    factor: Annotated[
        list[float] | None,
        typer.Option(help="A further, smaller size of each picture, as a share of it; may be given several times."),
    ] = None,
    shortest: Annotated[
        int | None, typer.Option(min=1, help="One more size, by its shorter side in pixels; the crop if not given.")
    ] = None,
    own_size_only: Annotated[
        bool, typer.Option("--own-size-only", help="Cut the pictures as they are, in no further size.")
    ] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Pictures at a time; one per core if not given.")] = None,
) -> None:
    """Cut large pictures into overlapping sub-images, which load faster, in several sizes, which train better.

    The sizes are those of Real-ESRGAN and SSL: the picture's own, 3/4, 3/5 and 1/3 of it where they still hold the
    crop, and one by its shorter side. Edge masks are never needed on disk: they are made in the training step.
    """
    from selfsr.data.prepare import Cutting
    from selfsr.data.prepare import prepare as prepare_folder
    from selfsr.errors import InputError

    if own_size_only and (factor or shortest):
        raise InputError("data prepare: --own-size-only excludes --factor and --shortest; leave one side out.")
    published = Cutting()
    factors = () if own_size_only else tuple(factor) if factor else published.factors
    cutting = Cutting(crop, step or max(1, crop // 2), factors, None if own_size_only else shortest or crop)
    outcome = prepare_folder(folder, output, cutting, workers)
    skipped = f", {outcome.skipped:,} of them finished before" if outcome.skipped else ""
    typer.echo(f"{outcome.written:,} sub-images written to {output} from {outcome.pictures:,} pictures{skipped}.")
    if outcome.too_small:
        first = outcome.too_small[0]
        typer.echo(f"Note: {len(outcome.too_small):,} pictures are smaller than the crop, the first is {first}.")
    for sentence in outcome.failures[:_LISTED]:
        typer.echo(f"selfsr: {sentence}", err=True)
    if outcome.failures:
        typer.echo(f"selfsr: {len(outcome.failures):,} of {outcome.pictures:,} pictures failed.", err=True)
        raise typer.Exit(1)


def _show(summary: "CheckSummary") -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table("Format", "Layout", "Bits", "Files", box=None, pad_edge=False)
    for (kind, mode, bits), count in summary.layouts.items():
        table.add_row(kind, mode, str(bits), f"{count:,}")
    console.print(table)
    if summary.sizes:
        smallest, middle, largest = (summary.sizes[i] for i in (0, len(summary.sizes) // 2, -1))
        sizes = ", ".join(f"{h} x {w}" for h, w in (smallest, middle, largest))
        typer.echo(f"Height x width, smallest, median, largest: {sizes}")
        typer.echo(f"Decoded: {summary.decoded_bytes / 2**30:.2f} GB")
    for note, count in summary.notes.items():
        typer.echo(f"Note: {count:,} {note}")
    for problem in summary.problems[:_LISTED]:
        typer.echo(f"{typer.style(problem.kind, fg='red')} {problem}")
    if len(summary.problems) > _LISTED:
        typer.echo(f"... and {len(summary.problems) - _LISTED:,} more")
    good = summary.files - len(summary.problems)
    typer.echo(f"{good:,} of {summary.files:,} files are usable.")
