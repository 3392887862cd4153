"""The line that each evaluation leaves in the terminal: scores, change, and whether it is the best."""

from collections.abc import Mapping, Sequence
from typing import Any

from selfsr.console import print_event, print_line
from selfsr.evaluation.metrics import METRICS
from selfsr.recipe.evaluate import Evaluate

_SEPARATOR = "  "


class ScoreLines:
    """Print the scores of each evaluation, compared with the one before.

    Args:
        evaluate: the recipe's section, which chooses the metrics: `best_by`, PSNR-Y and the additional ones.
        previous: the last record of `eval.jsonl` of a resumed run; None for a new run.
    """

    def __init__(self, evaluate: Evaluate, previous: Mapping[str, Any] | None = None) -> None:
        chosen = [evaluate.best_by] if isinstance(evaluate.best_by, str) else list(evaluate.best_by)
        self._metrics: list[str] = list(dict.fromkeys([*chosen, "psnr_y", *evaluate.metrics]))
        self._previous = previous

    def show(self, record: Mapping[str, Any], *, is_best: bool) -> None:
        """Print the lines of a record of `eval.jsonl`, one for each set.

        Args:
            record: the scores.
            is_best: whether they are the best so far, so that `weights/best` has this step.
        """
        for line in describe_evaluation(record, self._previous, self._metrics, is_best=is_best):
            print_line(line)
        print_event("evaluation", {**record, "is_best": is_best})
        self._previous = record


def describe_evaluation(
    record: Mapping[str, Any], previous: Mapping[str, Any] | None, metrics: Sequence[str], *, is_best: bool
) -> list[str]:
    r"""Return a line for each set with its mean scores and their change.

    Args:
        record: a record of `eval.jsonl`.
        previous: the record before; None for the first one, which has the scores of bicubic upscaling instead.
        metrics: names of metrics. Those that a set does not have are left out.
        is_best: whether the record is the best so far.

    Example:
        >>> before = {"step": 0, "sets": {"Set5": {"mean": {"psnr_y": 29.21, "lpips": 0.41}}}}
        >>> record = {"step": 50, "sets": {"Set5": {"mean": {"psnr_y": 29.33, "lpips": 0.427}}}}
        >>> print(*describe_evaluation(record, before, ["psnr_y", "lpips"], is_best=True), sep="\n")
        Step 50  Set5  PSNR-Y 29.33 dB (+0.12 better)  LPIPS 0.4270 (+0.0170 worse)  best so far
    """
    lines = []
    step = f"Step {record['step']:,}"
    for number, (name, scores) in enumerate(record["sets"].items()):
        before = _find_means(None if previous is None else previous["sets"], name)
        bicubic = _find_means(record.get("bicubic"), name)
        parts = [
            _describe_score(metric, value, before.get(metric), bicubic.get(metric))
            for metric in metrics
            if (value := scores["mean"].get(metric)) is not None
        ]
        best = ["best so far"] if is_best and number == 0 else []
        lines.append(_SEPARATOR.join([step, name, *parts, *best]))
    return lines


def _find_means(sets: Mapping[str, Any] | None, name: str) -> Mapping[str, float | None]:
    return {} if sets is None or name not in sets else sets[name]["mean"]


def _describe_score(metric: str, value: float, before: float | None, bicubic: float | None) -> str:
    shown = METRICS[metric]
    text = f"{shown.title} {shown.format_score(value)}{' ' * bool(shown.unit)}{shown.unit}"
    if before is not None:
        change = f"{value - before:+.{shown.decimals}f}"
        if float(change) == 0:
            return f"{text} (unchanged)"
        is_better = (value > before) == (shown.better == "higher")
        return f"{text} ({change} {'better' if is_better else 'worse'})"
    return text if bicubic is None else f"{text} (bicubic {shown.format_score(bicubic)})"
