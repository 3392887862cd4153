"""`selfsr data ...`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from selfsr.cli.messages import describe_left_out, print_left_out
from selfsr.cli.options import refuse_unused

if TYPE_CHECKING:
    from selfsr.data.check import CheckSummary
    from selfsr.data.prepare import PrepareSummary

app: typer.Typer = typer.Typer(no_args_is_help=True)

EPILOG = """[bold]Examples[/bold]

selfsr data check photos

selfsr data check photos --crop 192 --small skip

selfsr data check DIV2K/HR --lr DIV2K/LR/X4 --scale 4 --crop 192

selfsr data check DF2K/sub --masks DF2K/masks"""

PREPARE_EPILOG = """[bold]Examples[/bold]

selfsr data prepare DF2K/HR -o DF2K/sub

selfsr data prepare photos -o photos_sub --size 256 --own-size-only

selfsr data prepare DIV2K/HR -o DIV2K/sub    (the same command resumes after a stop)"""

SHEET_EPILOG = """[bold]Examples[/bold]

selfsr data sheet my.yaml -o sheet.png

selfsr data sheet my.yaml -o sheet.png --set data.augment.cutmix=0.5 --samples 24"""

_LISTED = 20


@app.command("check", epilog=EPILOG)
def check(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Folder of HR images, searched with its subfolders.")],
    lr: Annotated[
        Path | None,
        typer.Option(help="Folder of LR images with the names of the HR images, to check pairs. Needs --scale."),
    ] = None,
    scale: Annotated[
        int | None, typer.Option(min=1, help="How many times larger HR is than LR. Needed with --lr only.")
    ] = None,
    crop: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Side of the training crop in pixels of HR, crop_px of the recipe; smaller images are problems. "
            "Default: any size is fine.",
        ),
    ] = None,
    small: Annotated[
        Literal["error", "skip", "pad"],
        typer.Option(
            help="What training does with images smaller than the crop, data.small of the recipe. Needs --crop."
        ),
    ] = "error",
    masks: Annotated[
        Path | None,
        typer.Option(help="Folder of edge masks, .mat or .png with the names of the HR images, to check them as well."),
    ] = None,
) -> None:
    """Decode all images of a folder and print those that training could not use; exit status 1 if there are any."""
    from selfsr.data.check import check_folder
    from selfsr.errors import InputError

    if (lr is None) != (scale is None):
        raise InputError(
            "data check: expected --lr and --scale together, got one of them; give both to check pairs, or neither."
        )
    if crop is None:
        refuse_unused(context, "small", reason="without --crop")
    summary = check_folder(folder, lr, scale or 1, crop, masks=masks, small=small)
    _show(summary)
    print_left_out(describe_left_out([folder] if lr is None else [folder, lr]), summary.further_frames)
    if summary.problems:
        raise typer.Exit(1)


@app.command("prepare", epilog=PREPARE_EPILOG)
def prepare(
    folder: Annotated[Path, typer.Argument(help="Folder of large images, searched with its subfolders.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the sub-images.")],
    size: Annotated[
        int,
        typer.Option(
            min=1, help="Side of a sub-image in pixels, at least the training crop; a larger one loads slower."
        ),
    ] = 512,
    step: Annotated[
        int | None,
        typer.Option(
            min=1, help="Pixels from one sub-image to the next; default: half the size. More gives fewer sub-images."
        ),
    ] = None,
    factor: Annotated[
        list[float] | None,
        typer.Option(
            help="Further, smaller size of each image, as a factor between 0 and 1; default: 0.75, 0.6 and 1/3. "
            "Repeatable."
        ),
    ] = None,
    shortest: Annotated[
        int | None,
        typer.Option(min=1, help="One more size, by its shorter side in pixels; default: the size of a sub-image."),
    ] = None,
    own_size_only: Annotated[
        bool,
        typer.Option(
            "--own-size-only", help="Cut the images in their own size only; faster, and needs less disk space."
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Images at a time; default: one for each core. Lower it if memory is short."),
    ] = None,
) -> None:
    """Cut large images into overlapping sub-images, which load faster, in several sizes, which train better.

    The sizes are those of Real-ESRGAN and SSL: the image's own, 3/4, 3/5 and 1/3 of it where they are not smaller than
    a sub-image, and one by its shorter side. Edge masks are not needed on disk: the training step computes them.
    """
    from selfsr.data.prepare import SubImageSettings, prepare_folder
    from selfsr.errors import InputError

    if own_size_only and (factor or shortest):
        raise InputError(
            "data prepare: expected --own-size-only without --factor and --shortest, got both; leave out "
            "--own-size-only or the others."
        )
    factors = () if own_size_only else tuple(factor) if factor else SubImageSettings().factors
    settings = SubImageSettings(
        size_px=size,
        step_px=step or max(1, size // 2),
        factors=factors,
        shortest_px=None if own_size_only else shortest or size,
    )
    left_out = describe_left_out([folder])
    _report(prepare_folder(folder, output, settings, workers), output, left_out)


@app.command("sheet", epilog=SHEET_EPILOG)
def sheet(
    recipe: Annotated[Path, typer.Argument(help="Recipe file (YAML), or name of a shipped recipe.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Image file to write, such as sheet.png.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change the recipe, as for selfsr train. Repeatable.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Number of samples; they begin a batch.")] = 12,
    step: Annotated[int, typer.Option(min=1, help="First step whose samples are shown.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Draw what a recipe trains on: input and ground truth of its first samples, exactly as the run sees them."""
    from selfsr.data.sheet import write_sheet
    from selfsr.errors import InputError
    from selfsr.images.files import check_format
    from selfsr.recipe import load_recipe, shipped_recipes

    check_format(output, height=1, width=1, bits=8, alpha=False)
    if output.exists() and not overwrite:
        raise InputError(f"data sheet: expected a new file, got {output}, which exists; add --overwrite.")
    loaded = load_recipe(shipped_recipes().get(str(recipe), recipe), settings or ())
    count = write_sheet(
        output,
        loaded.data.build_each(loaded.crops_px),
        augment=loaded.data.augment,
        batch=loaded.batch,
        seed=loaded.seed,
        first_step=step,
        samples=samples,
    )
    typer.echo(f"{count:,} samples from step {step} on, input and ground truth: {output}")


def _report(summary: "PrepareSummary", output: Path, left_out: list[str]) -> None:
    from selfsr.console import print_line

    skipped = f", {summary.skipped:,} of them finished before" if summary.skipped else ""
    typer.echo(f"{summary.written:,} sub-images written to {output} from {summary.images:,} images{skipped}.")
    if summary.too_small:
        first = summary.too_small[0]
        typer.echo(f"Note: {len(summary.too_small):,} images are smaller than a sub-image, the first is {first}.")
    print_left_out(left_out, summary.further_frames)
    for sentence in summary.failures[:_LISTED]:
        print_line(f"selfsr: {sentence}")
    if summary.failures:
        print_line(f"selfsr: {len(summary.failures):,} of {summary.images:,} images failed.")
        raise typer.Exit(1)


def _show(summary: "CheckSummary") -> None:
    from rich.table import Table

    from selfsr.console import print_table

    table = Table("Format", "Layout", "Bits", "Files", box=None, pad_edge=False)
    for (kind, mode, bits), count in summary.layouts.items():
        table.add_row(kind, mode, str(bits), f"{count:,}")
    print_table(table)
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
