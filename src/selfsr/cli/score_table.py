"""The score table of `selfsr evaluate`, in as many blocks as the terminal's width needs: no name is cut."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from selfsr.console import pipe_width
from selfsr.evaluation.metrics import METRICS, PLUS_MINUS, describe_better

if TYPE_CHECKING:
    from selfsr.evaluation.benchmark import SetScores
    from selfsr.runfolder.read import RunFolder

_GAP = "  "
_INDENT = "    "
# Fewer scores than this next to the names are not worth repeating the names: these then have lines of their own.
_LEAST_COLUMNS = 3


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        names: the cells at the left: the set or image, the upscaler and the number of images.
        scores: the scores as texts, one for each column; "-" where there is none.
        is_dim: whether it is shown with less contrast, as a detail.
    """

    names: tuple[str, str, str]
    scores: Sequence[str]
    is_dim: bool = False


@dataclass(frozen=True)
class ScoreTable:
    """A table of scores.

    Attributes:
        names: headings of the names.
        titles: headings of the scores.
        rows: the rows.
        caption: a sentence below the table.
    """

    names: tuple[str, str, str]
    titles: Sequence[str]
    rows: Sequence[Row]
    caption: str = ""

    def to_lines(self, width: int | None = None) -> list[tuple[str, bool]]:
        """Return the lines, and whether each is dim.

        Args:
            width: columns of the terminal. Headings wrap between words, and scores that do not fit go to further
                blocks; names are never cut, so that a line with names may be longer. None is unlimited.
        """
        columns = [_ScoreColumn(title, index, self.rows, width is None) for index, title in enumerate(self.titles)]
        sides = [max(cell_len(names[k]) for names in (self.names, *(row.names for row in self.rows))) for k in range(3)]
        left = sum(sides) + len(_GAP) * 2
        lines: list[tuple[str, bool]] = []
        if width is None or left + sum(column.width + len(_GAP) for column in columns) <= width:
            blocks = [columns]
        else:
            blocks = _fill(columns, width - left)
            if any(len(block) < min(_LEAST_COLUMNS, len(columns)) for block in blocks[:1]):
                return self._to_lines_below_names(_fill(columns, width - len(_INDENT)), width)
        for number, block in enumerate(blocks):
            if number:
                lines.append(("", False))
            lines += _add_header(lambda names: _align_names(names, sides), self.names, block)
            lines += [(_align_names(row.names, sides) + _join(block, row), row.is_dim) for row in self.rows]
        return lines + [(line, False) for line in self._wrap_caption(width)]

    def _to_lines_below_names(self, blocks: "list[list[_ScoreColumn]]", width: int) -> list[tuple[str, bool]]:
        """Return the lines with the names of each row above its scores."""
        lines: list[tuple[str, bool]] = [(_GAP.join(self.names), False)]
        for row in self.rows:
            lines.append((_GAP.join(name for name in row.names if name), row.is_dim))
            for block in blocks:
                lines += _add_header(lambda _: _INDENT[: -len(_GAP)], self.names, block)
                lines.append((_INDENT[: -len(_GAP)] + _join(block, row), row.is_dim))
        return lines + [(line, False) for line in self._wrap_caption(width)]

    def _wrap_caption(self, width: int | None) -> list[str]:
        if not self.caption:
            return []
        return [self.caption] if width is None else wrap(self.caption, width, break_on_hyphens=False)


class _ScoreColumn:
    """A column of scores: its heading by lines, its place in a row, its width."""

    def __init__(self, title: str, index: int, rows: Sequence[Row], in_one_line: bool) -> None:
        self.index: int = index
        cells = max((cell_len(row.scores[index]) for row in rows), default=0)
        words = [title] if in_one_line else title.split()
        self.width: int = max(cells, *(cell_len(word) for word in words))
        self.heading: list[str] = [title] if in_one_line else wrap(title, self.width, break_on_hyphens=False)


def _fill(columns: list[_ScoreColumn], width: int) -> list[list[_ScoreColumn]]:
    """Return the columns in blocks that are at most as wide, each of at least one column."""
    blocks: list[list[_ScoreColumn]] = [[]]
    used = 0
    for column in columns:
        used += column.width + len(_GAP)
        if blocks[-1] and used > width:
            blocks.append([])
            used = column.width + len(_GAP)
        blocks[-1].append(column)
    return blocks


def _add_header(
    align: Callable[[tuple[str, str, str]], str], names: tuple[str, str, str], block: list[_ScoreColumn]
) -> list[tuple[str, bool]]:
    """Return the lines of the headings, which end in the same line."""
    height = max(len(column.heading) for column in block)
    lines = []
    for line in range(height):
        texts = []
        for column in block:
            above = height - len(column.heading)
            texts.append("" if line < above else column.heading[line - above])
        start = align(names if line == height - 1 else ("", "", ""))
        lines.append((start + _join_texts(block, texts), False))
    return lines


def _join(block: list[_ScoreColumn], row: Row) -> str:
    return _join_texts(block, [row.scores[column.index] for column in block])


def _join_texts(block: list[_ScoreColumn], texts: Sequence[str]) -> str:
    return "".join(
        _GAP + " " * (column.width - cell_len(text)) + text for column, text in zip(block, texts, strict=True)
    )


def _align_names(names: tuple[str, str, str], sides: Sequence[int]) -> str:
    name, upscaler, count = ((" " * (side - cell_len(text)), text) for text, side in zip(names, sides, strict=True))
    return f"{name[1]}{name[0]}{_GAP}{upscaler[1]}{upscaler[0]}{_GAP}{count[0]}{count[1]}"


def print_score_table(table: ScoreTable) -> None:
    """Print a table on stdout: in a terminal in its width, in a file or a pipe in one block or in COLUMNS."""
    output = Console(highlight=False, markup=False, emoji=False)
    for line, is_dim in table.to_lines(output.width if output.is_terminal else pipe_width()):
        output.print(Text(line, style="dim" if is_dim else ""), soft_wrap=True)


def tabulate_scores(results: "Mapping[str, Mapping[str, SetScores]]", scale: int, *, per_image: bool) -> ScoreTable:
    """Return the table of all sets and upscalers.

    Args:
        results: the scores by upscaler and set.
        scale: the upscaling factor.
        per_image: whether each image has a row.
    """
    means = [scores.mean for of_sets in results.values() for scores in of_sets.values()]
    metrics = tuple(max(means, key=len))  # a set whose images failed has none
    file_names = [Path(upscaler).name for upscaler in results]
    titles_of = dict(zip(results, results if len(set(file_names)) < len(file_names) else file_names, strict=True))
    rows: list[Row] = []
    for name in next(iter(results.values())):
        for upscaler, of_sets in results.items():
            if name not in of_sets:  # after an interruption
                continue
            scores, title = of_sets[name], titles_of[upscaler]
            if per_image:
                rows += [
                    Row((f"{name}/{image}", title, ""), _format_scores(values, metrics), is_dim=True)
                    for image, values in scores.images.items()
                ]
            rows.append(
                Row((name, title, str(len(scores.images))), _format_scores(scores.mean, metrics, scores.spread))
            )
    titles = [METRICS[metric].title for metric in metrics]
    caption = " ".join(filter(None, (describe_better(metrics), _describe_seeds(results))))
    return ScoreTable((f"x{scale}", "upscaler", "images"), titles, rows, caption)


def tabulate_run(run: "RunFolder") -> ScoreTable | None:
    """Return the table of a run's scores: bicubic upscaling, start, best and last step of each set.

    Args:
        run: the run, as read from its folder.

    Returns:
        The table; None if the run has no evaluation after its start.
    """
    best, last = run.best_evaluation(), run.evaluations[-1] if run.evaluations else None
    if best is None or last is None or last["step"] == 0:
        return None
    start = next((line for line in run.evaluations if line["step"] == 0), None)
    lines: list[tuple[str, Mapping[str, Any]]] = [("bicubic", run.bicubic)]
    lines += [] if start is None else [("start", start["sets"])]
    lines += [(f"best, step {best['step']:,}", best["sets"]), (f"last, step {last['step']:,}", last["sets"])]
    found = {metric: None for _, sets in lines for scores in sets.values() for metric in scores["mean"]}
    metrics = [metric for metric in METRICS if metric in found]
    rows: list[Row] = []
    for name in last["sets"]:
        for title, sets in lines:
            if name in sets:
                means = {key: math.nan if value is None else value for key, value in sets[name]["mean"].items()}
                count = str(len(sets[name].get("images", ())))
                rows.append(Row((name, title, count), _format_scores(means, metrics)))
    titles = [METRICS[metric].title for metric in metrics]
    return ScoreTable(("set", "weights", "images"), titles, rows, describe_better(metrics))


def _format_scores(
    values: Mapping[str, float], metrics: Sequence[str], spread: Mapping[str, float] | None = None
) -> list[str]:
    """Return the scores as texts, with their spread over the seeds; "-" for one that is missing or undefined."""
    spread = spread or {}
    return [
        METRICS[metric].format_score(values.get(metric, math.nan), spread.get(metric, math.nan)) for metric in metrics
    ]


def _describe_seeds(results: "Mapping[str, Mapping[str, SetScores]]") -> str:
    """Return a sentence about the scores of several seeds; empty without any."""
    seeds = next((of_set.by_seed for of_sets in results.values() for of_set in of_sets.values() if of_set.by_seed), {})
    listed = ", ".join(map(str, seeds))
    return f"Means over the seeds {listed}; {PLUS_MINUS} is the standard deviation over the seeds." if seeds else ""
