"""Score tables: every image of every evaluation set, with each run's difference to bicubic."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from selfsr.evaluation.metrics import METRICS, PLUS_MINUS
from selfsr.runfolder.read import RunFolder


@dataclass(frozen=True)
class ScoreCell:
    """One score of one run.

    Attributes:
        value: the score; None if it is missing.
        gain: the score minus bicubic's; None if one of them is missing.
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
        """The sign of the gain after rounding: "up" is better than bicubic, "down" worse, "level" equal."""
        rounded = 0.0 if self.gain is None else round(self.gain, self.decimals)
        rounded = -rounded if self.better == "lower" else rounded
        return "up" if rounded > 0 else "down" if rounded < 0 else "level"


@dataclass(frozen=True)
class ScoreRow:
    """One image's scores, or the mean of the set.

    Attributes:
        image: name of the image, or "mean" for the set.
        bicubic: the score of bicubic.
        runs: the score of each run.
    """

    image: str
    bicubic: ScoreCell
    runs: list[ScoreCell]


@dataclass(frozen=True)
class ScoreTable:
    """The scores of all images of one set by one metric.

    Attributes:
        set_name: name of the evaluation set.
        metric: key of the metric in `eval.jsonl`.
        which: "best" or "last" evaluation.
        steps: step of each run's evaluation; None for a run without one.
        rows: one for each image.
        mean: mean over the set.
        best: index of the run with the best mean; None for fewer than two scores.
        mixed: whether the runs have different baselines, such as runs of different scales.
    """

    set_name: str
    metric: str
    which: str
    steps: list[int | None]
    rows: list[ScoreRow]
    mean: ScoreRow
    best: int | None
    mixed: bool


def build_score_tables(runs: list[RunFolder]) -> list[ScoreTable]:
    """Return the tables of the best evaluations, and of the last ones if these are others."""
    best = [run.best_evaluation() for run in runs]
    last = [run.evaluations[-1] if run.evaluations else None for run in runs]
    tables = _build_tables("best", runs, best)
    if [_get_step(e) for e in best] != [_get_step(e) for e in last]:
        tables += _build_tables("last", runs, last)
    return tables


def _get_step(evaluation: dict[str, Any] | None) -> int | None:
    return None if evaluation is None else evaluation["step"]


def _build_tables(which: str, runs: list[RunFolder], evaluations: list[dict[str, Any] | None]) -> list[ScoreTable]:
    names = dict.fromkeys(name for e in evaluations if e for name in e["sets"])
    tables = []
    for name in names:
        scores = [e["sets"].get(name, {}) if e else {} for e in evaluations]
        baselines = [run.bicubic.get(name, {}) for run in runs]
        images = dict.fromkeys(image for s in (*scores, *baselines) for image in s.get("images", {}))
        for metric in METRICS:
            means, spreads = [s.get("mean", {}) for s in scores], [read_spread(s, metric) for s in scores]
            mean = _build_row("mean", metric, [b.get("mean", {}) for b in baselines], means, spreads)
            if all(cell.value is None for cell in mean.runs):
                continue
            rows = [
                _build_row(image, metric, _get_image_scores(baselines, image), _get_image_scores(scores, image))
                for image in images
            ]
            baseline_texts = {_format_score(b.get("mean", {}), metric) for b in baselines} - {None}
            best = _find_best(mean.runs, METRICS[metric].better)
            steps = [_get_step(e) for e in evaluations]
            tables.append(ScoreTable(name, metric, which, steps, rows, mean, best, len(baseline_texts) > 1))
    return tables


def _get_image_scores(scores: list[dict[str, Any]], image: str) -> list[dict[str, Any]]:
    return [s.get("images", {}).get(image, {}) for s in scores]


def _format_score(scores: dict[str, Any], metric: str) -> str | None:
    """Return the score as the table shows it; None if it is missing."""
    value = finite_or_none(scores.get(metric))
    return None if value is None else f"{value:.{METRICS[metric].decimals}f}"


def read_spread(scores: dict[str, Any], metric: str) -> float | None:
    """Return the standard deviation of a set's mean over seeds; None if the set has none."""
    spread = scores.get("spread", {})
    return finite_or_none(spread.get(metric)) if isinstance(spread, dict) else None


def _build_row(
    image: str,
    metric: str,
    baselines: list[dict[str, Any]],
    runs: list[dict[str, Any]],
    spreads: Sequence[float | None] = (),
) -> ScoreRow:
    """Return a row with the first baseline; the gain of each run is over its own baseline."""
    decimals, better = METRICS[metric].decimals, METRICS[metric].better
    baseline_scores = [finite_or_none(baseline.get(metric)) for baseline in baselines]
    cells = []
    for scores, baseline, spread in zip(runs, baseline_scores, spreads or [None] * len(runs), strict=True):
        value = finite_or_none(scores.get(metric))
        gain = None if value is None or baseline is None else value - baseline
        cells.append(ScoreCell(value, gain, decimals, better, spread))
    first = next((score for score in baseline_scores if score is not None), None)
    return ScoreRow(image, ScoreCell(first, None, decimals, better), cells)


def _find_best(cells: list[ScoreCell], better: Literal["higher", "lower"]) -> int | None:
    values = [cell.value for cell in cells]
    scored = [value for value in values if value is not None]
    return values.index((max if better == "higher" else min)(scored)) if len(scored) > 1 else None


def finite_or_none(value: Any) -> float | None:
    """Return a finite number as a float; None for anything else."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
