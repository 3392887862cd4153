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

selfsr data check DIV2K/HR --lr DIV2K/LR/X4 --scale 4 --crop 192"""

_LISTED = 20


@app.command("check", epilog=EPILOG)
def check(
    folder: Annotated[Path, typer.Argument(help="Folder of HR pictures, searched with its subfolders.")],
    lr: Annotated[Path | None, typer.Option(help="Folder of LR pictures, matched by name. Needs --scale.")] = None,
    scale: Annotated[int | None, typer.Option(min=1, help="How many times larger HR is than LR.")] = None,
    crop: Annotated[
        int | None, typer.Option(min=1, help="Side in pixels of the training crop that each picture must hold.")
    ] = None,
) -> None:
    """Decode every picture of a folder and name those that training could not use; exit status 1 if there are any."""
    from selfsr._checks import InputError
    from selfsr.data.check import check_folder

    if (lr is None) != (scale is None):
        raise InputError("data check: --lr and --scale go together; give both to check pairs, or neither.")
    summary = check_folder(folder, lr, scale or 1, crop)
    _show(summary)
    if summary.problems:
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
        console.print(f"Height x width, smallest, median, largest: {sizes}")
        console.print(f"Decoded: {summary.decoded_bytes / 2**30:.2f} GB")
    for note, count in summary.notes.items():
        console.print(f"Note: {count:,} {note}")
    for problem in summary.problems[:_LISTED]:
        console.print(f"[red]{problem.kind}[/red] ", end="")
        console.print(str(problem), markup=False, soft_wrap=True)
    if len(summary.problems) > _LISTED:
        console.print(f"... and {len(summary.problems) - _LISTED:,} more")
    good = summary.files - len(summary.problems)
    console.print(f"{good:,} of {summary.files:,} files are usable.")
