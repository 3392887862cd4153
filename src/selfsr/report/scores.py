"""Score tables: every image of every evaluation set, at start, best and last step, next to bicubic."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from selfsr.evaluation.combined import finite_or_none
from selfsr.evaluation.metrics import METRICS, PLUS_MINUS
from selfsr.report.set_groups import SetGroup, group_sets
from selfsr.runfolder.read import RunFolder

_Scores = dict[str, Any]


@dataclass(frozen=True)
class ScoreCell:
    """One score.

    Attributes:
        value: the score; None if it is missing.
        gain: the score minus the score of the reference, bicubic or the start; None if one of them is missing.
        decimals: number of decimals to show.
        better: whether higher or lower values are better.
        spread: standard deviation over the seeds of a network that samples; None without several seeds.
    """

    value: float | None
    gain: float | None
    decimals: int
    better: Literal["higher", "lower"] = "higher"
    spread: float | None = None

    @property
    def text(self) -> str:
        """The rounded score, with its spread over the seeds if there is one; "-" for None."""
        if self.value is None:
            return "-"
        spread = "" if self.spread is None else f" {PLUS_MINUS} {self.spread:.{self.decimals}f}"
        return f"{self.value:.{self.decimals}f}{spread}"

    @property
    def gain_text(self) -> str:
        """The rounded gain with its sign; empty for None."""
        return "" if self.gain is None else f"{round(self.gain, self.decimals) + 0.0:+.{self.decimals}f}"

    @property
    def direction(self) -> str:
        """The sign of the gain after rounding: "up" is better than the reference, "down" worse, "level" equal."""
        rounded = 0.0 if self.gain is None else round(self.gain, self.decimals)
        rounded = -rounded if self.better == "lower" else rounded
        return "up" if rounded > 0 else "down" if rounded < 0 else "level"


@dataclass(frozen=True)
class ScoreColumn:
    """A column of a table.

    Attributes:
        kind: "bicubic", or the evaluation of a run: "start" (step 0), "best", "last", or "best and last" if these are
            one.
        run: index of the run; None for bicubic.
        step: step of the evaluation; None for bicubic, and for a run without one.
    """

    kind: str
    run: int | None = None
    step: int | None = None


@dataclass(frozen=True)
class ScoreRow:
    """The scores of one image, or the means of the set, in the order of the table's columns."""

    image: str
    cells: list[ScoreCell]


@dataclass(frozen=True)
class ScoreTable:
    """The scores of all images of one set by one metric.

    Attributes:
        set_name: title of the evaluation set.
        metric: key of the metric in `eval.jsonl`.
        which: "best" or "last" evaluation of several runs; "all" for one run.
        columns: the columns after the name of the image.
        rows: one for each image.
        mean: mean over the set.
        best: index of the column with the best mean of several runs; None for fewer than two scores.
        inputs: how the inputs were made; empty if the runs have not recorded it.
        reference: name of the scores that the differences are to.
    """

    set_name: str
    metric: str
    which: str
    columns: list[ScoreColumn]
    rows: list[ScoreRow]
    mean: ScoreRow
    best: int | None
    inputs: str
    reference: str


def build_score_tables(runs: list[RunFolder], groups: list[SetGroup] | None = None) -> list[ScoreTable]:
    """Return the tables of all sets and metrics.

    Each group of equal sets has tables of its own, those of `best_by` first. A single run has the columns bicubic,
    start, best and last. Several runs have tables of their best evaluations, and of their last ones if these are
    others; a run that started from a weights file then also has a column of its start.
    """
    groups = group_sets(runs) if groups is None else groups
    if len(runs) == 1:
        return [table for group in groups for table in _build_tables("all", runs, group, [_list_all(0, runs[0])])]
    tables = []
    outcomes = [(_get_best_step(run), run.evaluations[-1]["step"] if run.evaluations else None) for run in runs]
    for number, which in enumerate(("best", "last")):
        if which == "last" and all(best == last for best, last in outcomes):
            continue
        for group in groups:
            columns = []
            for index in group.runs:
                start = [ScoreColumn("start", index, 0)] if runs[index].is_fine_tune else []
                columns.append([*start, ScoreColumn(which, index, outcomes[index][number])])
            tables += _build_tables(which, runs, group, columns)
    return tables


def _get_best_step(run: RunFolder) -> int | None:
    best = run.best_evaluation()
    return None if best is None else best["step"]


def _list_all(index: int, run: RunFolder) -> list[ScoreColumn]:
    """Return start, best and last of a run; a run that is not trained yet has its start only."""
    best, last = _get_best_step(run), run.evaluations[-1]["step"]
    columns = [] if run.start_evaluation() is None else [ScoreColumn("start", index, 0)]
    if last == 0:
        return columns
    if best == last:
        return [*columns, ScoreColumn("best and last", index, last)]
    return [*columns, ScoreColumn("best", index, best), ScoreColumn("last", index, last)]


def _build_tables(
    which: str, runs: list[RunFolder], group: SetGroup, by_run: list[list[ScoreColumn]]
) -> list[ScoreTable]:
    columns = [ScoreColumn("bicubic"), *(column for of_run in by_run for column in of_run)]
    scores = [_read_scores(runs, group, column) for column in columns]
    references = [_find_reference(runs, group, column, scores[0]) for column in columns]
    images = dict.fromkeys(image for of_column in scores for image in of_column.get("images", {}))
    inputs = next((of_column["lr"] for of_column in scores if isinstance(of_column.get("lr"), str)), "")
    tables = []
    for metric in dict.fromkeys([*(name for run in runs for name in run.best_by), *METRICS]):
        mean = _build_row("mean", metric, _get_means(scores), _get_means(references))
        spreads = [read_spread(of_column, metric) for of_column in scores]
        cells = [
            ScoreCell(cell.value, cell.gain, cell.decimals, cell.better, spread)
            for cell, spread in zip(mean.cells, spreads, strict=True)
        ]
        if all(cell.value is None for cell in cells[1:]):
            continue
        rows = [_build_row(image, metric, _get_image(scores, image), _get_image(references, image)) for image in images]
        best = _find_best(columns, cells, METRICS[metric].better) if len(by_run) > 1 else None
        reference = _describe_reference(runs, group)
        tables.append(
            ScoreTable(group.title, metric, which, columns, rows, ScoreRow("mean", cells), best, inputs, reference)
        )
    return tables


def _read_scores(runs: list[RunFolder], group: SetGroup, column: ScoreColumn) -> _Scores:
    if column.run is None:  # equal for all runs of a group
        return next((scores for index in group.runs if (scores := runs[index].bicubic.get(group.name))), {})
    line = next((line for line in runs[column.run].evaluations if line["step"] == column.step), None)
    return line["sets"].get(group.name, {}) if line else {}


def _find_reference(runs: list[RunFolder], group: SetGroup, column: ScoreColumn, bicubic: _Scores) -> _Scores:
    """Return the reference scores of a column; {} if it shows no differences."""
    if column.run is None:
        return {}
    run = runs[column.run]
    if not run.is_fine_tune:
        return run.bicubic.get(group.name) or bicubic
    start = run.start_evaluation()
    return {} if column.kind == "start" or start is None else start["sets"].get(group.name, {})


def _describe_reference(runs: list[RunFolder], group: SetGroup) -> str:
    fine_tunes = [index for index in group.runs if runs[index].is_fine_tune]
    if not fine_tunes:
        return "bicubic"
    if len(fine_tunes) == len(group.runs):
        return "the start"
    return f"the start for {', '.join(runs[index].name for index in fine_tunes)}, and to bicubic for the others"


def _get_means(scores: Sequence[_Scores]) -> list[_Scores]:
    return [of_column.get("mean", {}) for of_column in scores]


def _get_image(scores: Sequence[_Scores], image: str) -> list[_Scores]:
    return [of_column.get("images", {}).get(image, {}) for of_column in scores]


def read_spread(scores: _Scores, metric: str) -> float | None:
    """Return the standard deviation of a set's mean over seeds; None if the set has none."""
    spread = scores.get("spread", {})
    return finite_or_none(spread.get(metric)) if isinstance(spread, dict) else None


def make_cell(metric: str, scores: _Scores, reference: _Scores, spread: float | None = None) -> ScoreCell:
    """Return the cell of one metric, from the scores and the reference scores by metric."""
    value, baseline = finite_or_none(scores.get(metric)), finite_or_none(reference.get(metric))
    gain = None if value is None or baseline is None else value - baseline
    return ScoreCell(value, gain, METRICS[metric].decimals, METRICS[metric].better, spread)


def _build_row(image: str, metric: str, scores: list[_Scores], references: list[_Scores]) -> ScoreRow:
    return ScoreRow(image, [make_cell(metric, *pair) for pair in zip(scores, references, strict=True)])


def _find_best(columns: list[ScoreColumn], cells: list[ScoreCell], better: str) -> int | None:
    """Return the column with the best score among the trained runs."""
    scored = [
        (cell.value, index)
        for index, (column, cell) in enumerate(zip(columns, cells, strict=True))
        if column.kind not in ("bicubic", "start") and cell.value is not None
    ]
    if len(scored) < 2:
        return None
    wanted = (max if better == "higher" else min)(value for value, _ in scored)
    return next(index for value, index in scored if value == wanted)
