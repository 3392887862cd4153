"""Print messages and show the progress bar, both on stderr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

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
from rich.table import Column, Table
from rich.text import Text

# Without markup and emoji codes: `[bold]x.png` and `:cat:.png` are names of files.
console: Console = Console(stderr=True, markup=False, emoji=False)

_UNLIMITED = 100_000  # columns
_NARROWEST_BAR = 10  # columns
_GAPS = 4  # columns between title, bar, numbers and note


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

    In a narrow terminal, title and note are shortened and the bar stays. In a file or a pipe there is no bar, only one
    line at the end of the block.

    Args:
        title: the work, in a few words.
        total: number of steps.
        done: number of steps that are done already, as in a resumed run.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),  # the only column that gives way
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        TextColumn("left"),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
    )
    is_terminal = console.is_terminal
    last_note = ""
    with Progress(*columns, console=console, disable=not is_terminal) as progress:
        task = progress.add_task(fit_texts(title, "", total)[0], total=total, completed=done, note="")

        def advance(steps: int = 1, note: str | None = None) -> None:
            nonlocal last_note
            progress.advance(task, steps)
            if note is not None:
                last_note = note
                shown_title, shown_note = fit_texts(title, note, total)
                progress.update(task, description=shown_title, note=shown_note)

        try:
            yield advance
        finally:
            if not is_terminal:
                completed, elapsed = progress.tasks[task].completed, progress.tasks[task].elapsed
                time = timedelta(seconds=int(elapsed or 0))
                print_line(f"{title} {completed:.0f}/{total} in {time} {last_note}".rstrip())


def fit_texts(title: str, note: str, total: int) -> tuple[str, str]:
    """Shorten title and note of a progress bar to the terminal, so that `_NARROWEST_BAR` columns stay for the bar.

    Args:
        title: at the left of the bar; it is shortened if the note needs the space, to half of what both have.
        note: at the right of the bar.
        total: number of steps.

    Returns:
        The title and the note.
    """
    numbers = len(f"{total}/{total} 0:00:00 left 0:00:00")
    room = max(0, console.width - _NARROWEST_BAR - numbers - _GAPS)
    title = _cut(title, room - min(cell_len(note), room // 2))
    return title, _cut(note, room - cell_len(title))


def _cut(text: str, width: int) -> str:
    cut = Text(text)
    cut.truncate(width, overflow="ellipsis")
    return cut.plain if width > 0 else ""
