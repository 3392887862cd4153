"""Score tables: every image of every set, each run against bicubic, with the difference in words and sign."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from selfsr.evaluation.metrics import METRICS
from selfsr.runfolder.read import Run


@dataclass(frozen=True)
class Cell:
    """One score of one run.

    Attributes:
        value: the score as evaluated, None if there is none.
        gain: score minus bicubic's, None where either is missing.
        decimals: how many the metric is told with.
        better: whether a higher or a lower value is the better one.
    """

    value: float | None
    gain: float | None
    decimals: int
    better: Literal["higher", "lower"] = "higher"

    @property
    def text(self) -> str:
        """The score, rounded."""
        return "-" if self.value is None else f"{self.value:.{self.decimals}f}"

    @property
    def gain_text(self) -> str:
        """The gain with its sign, rounded; empty where there is none."""
        return "" if self.gain is None else f"{round(self.gain, self.decimals) + 0.0:+.{self.decimals}f}"

    @property
    def direction(self) -> str:
        """Whether the score is better than bicubic's, "up", worse, "down", or by its decimals the same, "level"."""
        rounded = 0.0 if self.gain is None else round(self.gain, self.decimals)
        rounded = -rounded if self.better == "lower" else rounded
        return "up" if rounded > 0 else "down" if rounded < 0 else "level"


@dataclass(frozen=True)
class Row:
    """One image's scores, or the mean of the set.

    Attributes:
        image: the image's name, "mean" for the set.
        bicubic: bicubic's score.
        runs: each run's score, in the order of the runs.
    """

    image: str
    bicubic: Cell
    runs: list[Cell]


@dataclass(frozen=True)
class Table:
    """All images of one set by one metric.

    Attributes:
        set_name: the evaluation set.
        metric: key of the metric in `eval.jsonl`.
        which: "best" or "last".
        steps: the step of each run's evaluation, None where the run has none.
        rows: one per image.
        mean: the set's mean.
        best: index of the run with the best mean, None where a winner would say nothing.
        mixed: whether the runs have different baselines, as runs of different scales do.
    """

    set_name: str
    metric: str
    which: str
    steps: list[int | None]
    rows: list[Row]
    mean: Row
    best: int | None
    mixed: bool


def tables(runs: list[Run]) -> list[Table]:
    """Return the tables of the runs' best and last evaluations; the last ones only where they differ."""
    best = [run.best() for run in runs]
    last = [run.evaluations[-1] if run.evaluations else None for run in runs]
    found = _tables("best", runs, best)
    if [_step(e) for e in best] != [_step(e) for e in last]:
        found += _tables("last", runs, last)
    return found


def _step(evaluation: dict[str, Any] | None) -> int | None:
    return None if evaluation is None else evaluation["step"]


def _tables(which: str, runs: list[Run], evaluations: list[dict[str, Any] | None]) -> list[Table]:
    names = dict.fromkeys(name for e in evaluations if e for name in e["sets"])
    found = []
    for name in names:
        scores = [e["sets"].get(name, {}) if e else {} for e in evaluations]
        baselines = [run.bicubic.get(name, {}) for run in runs]
        images = dict.fromkeys(image for s in (*scores, *baselines) for image in s.get("images", {}))
        for metric in METRICS:
            mean = _row("mean", metric, [b.get("mean", {}) for b in baselines], [s.get("mean", {}) for s in scores])
            if all(cell.value is None for cell in mean.runs):
                continue
            rows = [_row(image, metric, _image(baselines, image), _image(scores, image)) for image in images]
            levels = {_told(b.get("mean", {}), metric) for b in baselines} - {None}
            steps = [_step(e) for e in evaluations]
            found.append(
                Table(
                    name, metric, which, steps, rows, mean, _winner(mean.runs, METRICS[metric].better), len(levels) > 1
                )
            )
    return found


def _image(scores: list[dict[str, Any]], image: str) -> list[dict[str, Any]]:
    return [s.get("images", {}).get(image, {}) for s in scores]


def _told(scores: dict[str, Any], metric: str) -> str | None:
    """Return the score as the table tells it, by which two baselines are the same or not."""
    value = finite(scores.get(metric))
    return None if value is None else f"{value:.{METRICS[metric].decimals}f}"


def _row(image: str, metric: str, baselines: list[dict[str, Any]], runs: list[dict[str, Any]]) -> Row:
    """Return a row; each run's gain is over its own baseline, and the first baseline is shown."""
    decimals, better = METRICS[metric].decimals, METRICS[metric].better
    levels = [finite(baseline.get(metric)) for baseline in baselines]
    cells = []
    for scores, level in zip(runs, levels, strict=True):
        value = finite(scores.get(metric))
        gain = None if value is None or level is None else value - level
        cells.append(Cell(value, gain, decimals, better))
    shown = next((level for level in levels if level is not None), None)
    return Row(image, Cell(shown, None, decimals, better), cells)


def _winner(cells: list[Cell], better: Literal["higher", "lower"]) -> int | None:
    values = [cell.value for cell in cells]
    scored = [value for value in values if value is not None]
    return values.index((max if better == "higher" else min)(scored)) if len(scored) > 1 else None


def finite(value: Any) -> float | None:
    """Return the value as a finite float, None for anything else."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
