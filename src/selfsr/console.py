"""Print messages and show progress on stderr: a bar in a terminal, else a line every so often; or as JSON."""

import json
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column, Table
from rich.text import Text

# Without markup and emoji codes: `[bold]x.png` and `:cat:.png` are names of files.
console: Console = Console(stderr=True, markup=False, emoji=False)

_UNLIMITED = 100_000  # columns
_NARROWEST_BAR = 10  # columns
_GAPS = 5  # columns between title, bar, numbers and note, and one at the end
_MORE = "…"

# In a file or a pipe: seconds until the first line of progress, and between two lines.
_FIRST_LINE_S = 5.0
_LINE_S = 30.0
# Speed is that of the last steps over this time.
_SPEED_WINDOW_S = 60.0

LogStyle = Literal["auto", "plain", "json"]
_log_style: LogStyle = "auto"


def set_log_style(style: LogStyle) -> None:
    """Choose how progress is shown in this process.

    Args:
        style: auto, a bar in a terminal and plain lines elsewhere; plain, lines everywhere; json, one JSON object a
            line on stdout.
    """
    global _log_style
    _log_style = style


def print_event(event: str, fields: Mapping[str, Any]) -> None:
    """Print a JSON object in one line on stdout if the log style is json.

    Args:
        event: the kind of object, its first field.
        fields: the others.
    """
    if _log_style == "json":
        sys.stdout.write(json.dumps(_without_nan({"event": event, **fields}), allow_nan=False) + "\n")
        sys.stdout.flush()


def _without_nan(value: Any) -> Any:
    """Return a value with null for NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_line(text: str) -> None:
    """Print one message on stderr, without markup, highlighting or line breaks inside paths."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def print_lines(texts: Iterable[str]) -> None:
    """Print each message with `print_line`."""
    for text in texts:
        print_line(text)


def print_table(table: Table) -> None:
    """Print a table on stdout, without markup in its cells and titles.

    In a terminal, cells wrap between words, and those of columns with `no_wrap` not at all: a table that is too wide
    gets narrow gaps, and is then wider than the terminal. In a file or a pipe, no cell is broken, unless the
    environment variable COLUMNS has a width.
    """
    for column in table.columns:
        if column.no_wrap:
            column.min_width = max(cell_len(str(cell)) for cell in (column.header, *column.cells))
    output = Console(highlight=False, markup=False, emoji=False)
    if output.is_terminal or pipe_width() is not None:
        width = output.width
        if _measure(table).minimum > width:
            table.padding = (0, 1, 0, 0)
            width = max(width, _measure(table).minimum)
    else:
        width = max(output.width, _measure(table).maximum)
    Console(highlight=False, markup=False, emoji=False, width=width).print(table)


def pipe_width() -> int | None:
    """Return the width that the environment variable COLUMNS sets for files and pipes; None without one."""
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() and int(columns) > 0 else None


def _measure(table: Table) -> Measurement:
    """Return the width of a table with all words in one line each, and with all cells in one line each."""
    wide = Console(markup=False, emoji=False, width=_UNLIMITED)
    return Measurement.get(wide, wide.options, table)


@contextmanager
def progress_bar(title: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
    """Show progress on stderr; yield `advance(steps=1, note=None, pause_s=0.0, further_s=None)`, which moves it.

    `pause_s` is the time since the last call that was no step, such as an evaluation; the speed leaves it out.
    `further_s` is the time of such work that is still to come, which the time left includes.

    In a terminal it is a bar with the steps, the steps per second and the time left, which always stay; title and note
    are shortened to the width. In a file or a pipe it is a line every 30 seconds, the first one after 5, and one at the
    end. With the log style json these lines are objects on stdout.

    Args:
        title: the work, in a few words.
        total: number of steps.
        done: number of steps that are done already, as in a resumed run.
    """
    with_bar = console.is_terminal and _log_style == "auto"
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),  # the only column that gives way
        TextColumn("{task.fields[numbers]}", markup=False, table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[note]}", style="dim", markup=False, table_column=Column(no_wrap=True)),
    )
    speed = _Speed(title, total, done)
    with Progress(*columns, console=console, disable=not with_bar, expand=True) as progress:
        numbers = speed.describe()
        task = progress.add_task(
            fit_texts(title, "", numbers)[0], total=total, completed=done, note="", numbers=numbers
        )

        def advance(
            steps: int = 1, note: str | None = None, *, pause_s: float = 0.0, further_s: float | None = None
        ) -> None:
            speed.advance(steps, note, pause_s, further_s)
            if with_bar:
                numbers = speed.describe()
                shown_title, shown_note = fit_texts(title, speed.note, numbers)
                progress.update(task, advance=steps, description=shown_title, note=shown_note, numbers=numbers)
            elif speed.is_line_due():
                speed.print_line()

        try:
            yield advance
        finally:
            if not with_bar:
                speed.print_end()


class _Speed:
    """The steps that are done, their speed over the last minute without pauses, and the time left.

    Args:
        title: the work.
        total: number of steps.
        done: number of steps that are done already.
    """

    def __init__(self, title: str, total: int, done: int) -> None:
        self.title, self.total, self.done, self.note = title, total, done, ""
        self._further_s = 0.0
        self._start = time.monotonic()
        self._next_line = self._start + _FIRST_LINE_S
        self._times: deque[tuple[float, int]] = deque([(self._start, done)])

    def advance(self, steps: int, note: str | None, pause_s: float, further_s: float | None) -> None:
        self.done += steps
        if note is not None:
            self.note = note
        if further_s is not None:
            self._further_s = further_s
        if pause_s:
            self._times = deque((time_s + pause_s, done) for time_s, done in self._times)
        if steps < 0:  # the work starts again in smaller parts
            self._times.clear()
        if steps:
            self._times.append((time.monotonic(), self.done))
        while len(self._times) > 2 and self._times[-1][0] - self._times[1][0] > _SPEED_WINDOW_S:
            self._times.popleft()

    @property
    def per_s(self) -> float:
        """Steps per second; 0 before the first one."""
        (first, done), (last, all_done) = self._times[0], self._times[-1]
        return (all_done - done) / (last - first) if last > first else 0.0

    @property
    def left_s(self) -> float | None:
        return (self.total - self.done) / self.per_s + self._further_s if self.per_s > 0 else None

    def describe(self) -> str:
        """Return steps, speed and time left, in a width that changes little."""
        left = "-:--:--" if self.left_s is None else str(timedelta(seconds=round(self.left_s)))
        return f"{self.done}/{self.total} {format_speed(self.per_s)} left {left}"

    def is_line_due(self) -> bool:
        return time.monotonic() >= self._next_line and self.done < self.total

    def print_line(self) -> None:
        self._next_line = time.monotonic() + _LINE_S
        if _log_style == "json":
            print_event("progress", self._fields() | {"left_s": None if self.left_s is None else round(self.left_s, 1)})
        else:
            print_line(f"{self.title} {self.describe()}  {self.note}".rstrip())

    def print_end(self) -> None:
        elapsed_s = time.monotonic() - self._start
        if _log_style == "json":
            print_event("progress", self._fields() | {"elapsed_s": round(elapsed_s, 1)})
        else:
            elapsed = timedelta(seconds=int(elapsed_s))
            print_line(f"{self.title} {self.done}/{self.total} in {elapsed}  {self.note}".rstrip())

    def _fields(self) -> dict[str, Any]:
        return {"title": self.title, "done": self.done, "total": self.total, "per_s": float(f"{self.per_s:.4g}")}


def format_speed(per_s: float) -> str:
    """Return steps per second as text with three digits; slow ones as seconds per step.

    Example:
        >>> format_speed(8.36), format_speed(123.4), format_speed(0.05), format_speed(0)
        ('8.36/s', '123/s', '20 s each', '-/s')
    """
    if per_s <= 0:
        return "-/s"
    if per_s < 0.1:
        return f"{1 / per_s:.0f} s each"
    return f"{per_s:.0f}/s" if per_s >= 100 else f"{per_s:.3g}/s"


def format_duration(seconds: float) -> str:
    """Return a duration in words.

    Example:
        >>> [format_duration(seconds) for seconds in (5, 600, 9000, 400_000)]
        ['5 s', '10 min', '2.5 h', '4.6 days']
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def fit_texts(title: str, note: str, numbers: str) -> tuple[str, str]:
    """Shorten title and note of a progress bar to the terminal, so that numbers and `_NARROWEST_BAR` columns stay.

    Args:
        title: at the left of the bar; it is shortened if the note needs the space, to half of what both have.
        note: at the right of the bar, in parts that two spaces separate. Parts that do not fit are left out.
        numbers: steps, speed and time, which are never shortened.

    Returns:
        The title and the note.
    """
    room = max(0, console.width - _NARROWEST_BAR - cell_len(numbers) - _GAPS)
    title = _cut(title, room - min(cell_len(note), room // 2))
    return title, _leave_out(note, room - cell_len(title))


def _leave_out(note: str, width: int) -> str:
    """Return as many parts of a note as fit; only the first one may be cut."""
    if cell_len(note) <= width:
        return note
    parts = note.split("  ")
    kept = parts[:1]
    for part in parts[1:]:
        if cell_len("  ".join([*kept, part, _MORE])) > width:
            break
        kept.append(part)
    text = "  ".join([*kept, _MORE])
    return text if cell_len(text) <= width else _cut(parts[0], width)


def _cut(text: str, width: int) -> str:
    cut = Text(text)
    cut.truncate(width, overflow="ellipsis")
    return cut.plain if width > 0 else ""
