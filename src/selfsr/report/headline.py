"""The scores at the top of a run's card: first `best_by`, which chose the best weights, then the others."""

from typing import Any

from selfsr.evaluation.combined import finite_or_none
from selfsr.evaluation.metrics import METRICS
from selfsr.report.scores import ScoreCell, make_cell, read_spread
from selfsr.runfolder.read import RunFolder

ARROWS = {"higher": "\u2191", "lower": "\u2193"}
_TO = " \u2192 "
_LEFT_OUT = ("psnr_rgb", "ssim_rgb")  # similar to the scores on luma


def make_headline(run: RunFolder) -> dict[str, Any] | None:
    """Return the score of `best_by` at the best step, with start and bicubic; None without such a score."""
    best, start = run.best_evaluation(), run.start_evaluation()
    if best is None:
        return None
    set_name = next(iter(best["sets"]))
    if run.has_combined_best_by:
        return _make_combined(run, best, set_name)
    metric = next(iter(run.best_by))
    cell, against = _compare(run, best, set_name, metric)
    if cell.value is None:
        metric = next((name for name in METRICS if finite_or_none(_means(best, set_name).get(name)) is not None), "")
        if not metric:
            return None
        cell, against = _compare(run, best, set_name, metric)
    shown = METRICS[metric]
    start_cell = make_cell(metric, _means(start, set_name), {})
    bicubic = make_cell(metric, run.bicubic.get(set_name, {}).get("mean", {}), {})
    path = [f"start {start_cell.text}"] if start_cell.value is not None and best["step"] > 0 else []
    path += [f"best {cell.text}"] if path else []
    return {
        "value": cell.text,
        "unit": shown.unit,
        "gain": _describe_gain(cell, shown.unit),
        "over": _describe_direction(cell, against),
        "direction": cell.direction,
        "subject": f"{shown.title} on {set_name}, {shown.better} is better",
        "step": best["step"],
        "path": _TO.join(path),
        "bicubic": "" if bicubic.value is None else f"bicubic {bicubic.text}",
        "metric": metric,
        "set_name": set_name,
    }


def list_other_scores(run: RunFolder) -> list[dict[str, Any]]:
    """Return the mean scores of all sets at the best step, except for the headline."""
    best, headline = run.best_evaluation(), make_headline(run)
    if best is None or headline is None:
        return []
    shown = (headline["metric"], headline["set_name"])
    return [
        score
        for set_name in best["sets"]
        for score in list_mean_scores(run, best, set_name)
        if (score["key"], score["set_name"]) != shown
    ]


def list_mean_scores(run: RunFolder, evaluation: dict[str, Any], set_name: str) -> list[dict[str, Any]]:
    """Return the mean scores of a set, except RGB scores, with their differences to the start or to bicubic."""
    mean_scores = []
    for key, metric in METRICS.items():
        cell, against = _compare(run, evaluation, set_name, key)
        if key in _LEFT_OUT or cell.value is None:
            continue
        mean_scores.append(
            {
                "key": key,
                "metric": f"{metric.title} {ARROWS[metric.better]}",
                "set_name": set_name,
                "value": cell.text,
                "unit": metric.unit,
                "gain": f"{cell.gain_text} {metric.unit}".strip() if cell.gain_text else "",
                "against": against,
                "direction": cell.direction,
            }
        )
    return mean_scores


def _means(evaluation: dict[str, Any] | None, set_name: str) -> dict[str, Any]:
    return {} if evaluation is None else evaluation["sets"].get(set_name, {}).get("mean", {})


def _compare(run: RunFolder, evaluation: dict[str, Any], set_name: str, metric: str) -> tuple[ScoreCell, str]:
    """Return a mean score with its difference to the start of a fine-tune, else to bicubic; and the reference."""
    against = "the start" if run.is_fine_tune else "bicubic"
    reference = (
        _means(run.start_evaluation(), set_name) if run.is_fine_tune else run.bicubic.get(set_name, {}).get("mean", {})
    )
    spread = read_spread(evaluation["sets"].get(set_name, {}), metric)
    return make_cell(metric, _means(evaluation, set_name), reference, spread), against


def _describe_gain(cell: ScoreCell, unit: str) -> str:
    return f"{cell.gain_text.lstrip('+-')} {unit}".strip() if cell.gain_text else ""


def _describe_direction(cell: ScoreCell, against: str) -> str:
    if cell.direction == "level":
        return f"of difference to {against}"
    higher = cell.gain_text.startswith("+")
    better = "better" if cell.direction == "up" else "worse"
    return f"{'higher' if higher else 'lower'} than {against}, {better}"


def _make_combined(run: RunFolder, best: dict[str, Any], set_name: str) -> dict[str, Any] | None:
    score = finite_or_none(best.get("score"))
    if score is None:
        return None
    start, rounded = run.start_evaluation(), round(100 * score, 1)
    direction = "up" if rounded > 0 else "down" if rounded < 0 else "level"
    paths = []
    for metric in run.best_by:
        cells = [make_cell(metric, _means(line, set_name), {}) for line in (start, best)]
        paths.append(METRICS[metric].title + " " + _TO.join(cell.text for cell in cells))
    weights = ", ".join(
        f"{METRICS[metric].title} {ARROWS[METRICS[metric].better]} (weight {weight:g})"
        for metric, weight in run.best_by.items()
    )
    return {
        "value": f"{abs(rounded):.1f}",
        "unit": "%",
        "gain": {"up": "better", "down": "worse", "level": "equal"}[direction],
        "over": "than the start in the weighted mean" if direction != "level" else "to the start",
        "direction": direction,
        "subject": f"{weights} on {set_name}",
        "step": best["step"],
        "path": ", ".join(paths),
        "bicubic": "",
        "metric": "",
        "set_name": set_name,
    }
