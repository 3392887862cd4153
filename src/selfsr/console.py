"""Print messages and show the progress bar, both on stderr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
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


def print_line(text: str) -> None:
    """Print one message on stderr, without markup, highlighting or line breaks inside paths."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def print_table(table: Table, title: str | None = None) -> None:
    """Print a table on stdout; names in its cells are shown as they are.

    Args:
        table: its cells are texts, without markup.
        title: shown above the table.
    """
    out = Console(highlight=False, markup=False, emoji=False)
    if title is not None:
        out.print(title, style="italic", soft_wrap=True)
    out.print(table)


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
