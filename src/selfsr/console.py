"""Messages and the one progress bar, both on stderr."""

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

console = Console(stderr=True)


def print_line(text: str) -> None:
    """Print one message on stderr as it is: no markup, no highlighting, and no line breaks inside paths."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def bar(what: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
    """Show a progress bar on stderr; yield `advance(steps=1, note="")`, which moves it.

    Args:
        what: what is happening, in a few words.
        total: how many steps there are.
        done: how many are done already (a resumed run).
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=total, completed=done, note="")

        def advance(steps: int = 1, note: str | None = None) -> None:
            progress.advance(task, steps)
            if note is not None:
                progress.update(task, note=note)

        yield advance
