"""Compute the score by which a run chooses its best weights: one metric, or several with weights."""

import math
from collections.abc import Mapping
from typing import Any

from selfsr.errors import InputError
from selfsr.evaluation.metrics import METRICS


def combine_changes(means: Mapping[str, Any], start: Mapping[str, Any], weights: Mapping[str, float]) -> float | None:
    """Return the weighted mean of the relative improvements of several scores over their start values.

    With the score m, its start value m_0 and the weight w of each metric, and d = 1 where higher is better and d = -1
    where lower is better:

        sum of w d (m - m_0) / |m_0|  /  sum of w

    So 0.1 means that the scores are better than at the start by 10 % in the weighted mean. Higher is better.

    Args:
        means: the scores by metric.
        start: the scores of step 0 by metric.
        weights: the weights by metric, above 0.

    Returns:
        The combined score; None if one of `means` is missing or not finite.

    Raises:
        InputError: a start value is missing, not finite or 0, so that the relative change is undefined.

    Example:
        >>> start, means = {"lpips": 0.5, "psnr_y": 25.0}, {"lpips": 0.4, "psnr_y": 24.0}
        >>> round(combine_changes(means, start, {"lpips": 3, "psnr_y": 1}), 6)
        0.14
    """
    changes = []
    for metric, weight in weights.items():
        first, value = finite_or_none(start.get(metric)), finite_or_none(means.get(metric))
        if not first:
            raise InputError(
                f"evaluate.best_by: {metric} must have a finite value other than 0 at step 0, to which its change is "
                f"relative, got {'none' if first is None else first}; remove it from best_by."
            )
        if value is None:
            return None
        sign = 1 if METRICS[metric].better == "higher" else -1
        changes.append(weight * sign * (value - first) / abs(first))
    return math.fsum(changes) / math.fsum(weights.values())


def average_over_scales(sets: Mapping[str, Any], scales: int) -> dict[str, float | None]:
    """Return the mean scores of the first set, each averaged over the scales.

    Args:
        sets: the sets of a record of `eval.jsonl`; the first `scales` ones are the first set at each scale.
        scales: number of scales.

    Returns:
        By metric; None if a scale has no finite value.
    """
    means = [scores.get("mean", {}) for scores in list(sets.values())[:scales]]
    values = {metric: [finite_or_none(mean.get(metric)) for mean in means] for metric in means[0]} if means else {}
    return {
        metric: None if None in of else math.fsum(v for v in of if v is not None) / len(of)
        for metric, of in values.items()
    }


def finite_or_none(value: Any) -> float | None:
    """Return a finite number as a float; None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None
