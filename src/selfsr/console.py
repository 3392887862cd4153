"""Print messages and show the progress bar, both on stderr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

# Without markup and emoji codes: `[bold]x.png` and `:cat:.png` are names of files.
console: Console = Console(stderr=True, markup=False, emoji=False)

_UNLIMITED = 100_000  # columns


def print_line(text: str) -> None:
    """Print one message on stderr, without markup, highlighting or line breaks inside paths."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def print_table(table: Table) -> None:
    """Print a table on stdout, without markup in its cells and titles.

    In a file or a pipe, no cell is broken. In a terminal, cells wrap between words, and those of columns with `no_wrap`
    not at all: a table that is too wide gets narrow gaps, and is then wider than the terminal.
    """
    for column in table.columns:
        if column.no_wrap:
            column.min_width = max(cell_len(str(cell)) for cell in (column.header, *column.cells))
    output = Console(highlight=False, markup=False, emoji=False)
    if output.is_terminal:
        width = output.width
        if _measure(table).minimum > width:
            table.padding = (0, 1, 0, 0)
            width = max(width, _measure(table).minimum)
    else:
        width = max(output.width, _measure(table).maximum)
    Console(highlight=False, markup=False, emoji=False, width=width).print(table)


def _measure(table: Table) -> Measurement:
    """Return the width of a table with all words in one line each, and with all cells in one line each."""
    wide = Console(markup=False, emoji=False, width=_UNLIMITED)
    return Measurement.get(wide, wide.options, table)


@contextmanager
def progress_bar(title: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
    """Show a progress bar on stderr; yield `advance(steps=1, note="")`, which moves it.

    Args:
        title: the work, in a few words.
        total: number of steps.
        done: number of steps that are done already, as in a resumed run.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=total, completed=done, note="")

        def advance(steps: int = 1, note: str | None = None) -> None:
            progress.advance(task, steps)
            if note is not None:
                progress.update(task, note=note)

        yield advance
