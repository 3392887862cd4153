"""The other metrics of a study against its own: each arm over its evaluations, and values at equal score."""

from collections.abc import Mapping
from dataclasses import dataclass

from selfsr.evaluation.metrics import list_extra_metrics
from selfsr.study.compare import Comparison, Curve, ScoreSpread, compute_band, summarize_scores

# The metrics that are shown against the study's own.
METRICS_AGAINST_SCORE = (*list_extra_metrics(), "seed_spread")


@dataclass(frozen=True)
class EvaluationPoint:
    """One evaluation of an arm: means over the compared seeds.

    Attributes:
        step: the step.
        score: the metric of the study.
        value: the other metric.
    """

    step: int
    score: float
    value: float


@dataclass(frozen=True)
class ArmAtEqualScore:
    """Another metric of one arm at the score at which the arms are compared.

    Attributes:
        seeds: the value of each compared seed; None for a run that never crosses the score.
        value: statistics over the seeds; None unless all have a value.
        difference: statistics of the differences to the baseline's run of the same seed; None unless both arms have a
            value for every seed.
        lower: number of seeds whose value is below the baseline's.
    """

    seeds: dict[int, float | None]
    value: ScoreSpread | None
    difference: ScoreSpread | None
    lower: int


@dataclass(frozen=True)
class TradeOff:
    """Another metric against the metric of the study.

    Attributes:
        metric: key of the other metric.
        paths: the evaluations of each arm, in the order of their steps.
        equal_score: the values at equal score, by arm; None if the study names no score.
    """

    metric: str
    paths: dict[str, list[EvaluationPoint]]
    equal_score: dict[str, ArmAtEqualScore] | None


def list_trade_offs(
    scores: Mapping[str, Mapping[int, Curve]],
    values: Mapping[str, Mapping[str, Mapping[int, Curve]]],
    comparison: Comparison | None,
    equal_score: float | None,
) -> list[TradeOff]:
    """Return the other metrics against the study's own, over the compared seeds.

    Args:
        scores: the curves of the study's metric, by arm and seed.
        values: the curves of the other metrics, by metric, arm and seed.
        comparison: the comparison by the study's metric; None if there is none yet.
        equal_score: score at which the arms are compared.

    Returns:
        One for each metric that every compared run has.
    """
    if comparison is None:
        return []
    trades = []
    runs = [(arm, seed) for arm in comparison.arms for seed in comparison.seeds]
    for metric, by_arm in values.items():
        if not all(by_arm.get(arm, {}).get(seed) for arm, seed in runs):
            continue
        paths = {
            arm: _average(*([curves[arm][seed] for seed in comparison.seeds] for curves in (scores, by_arm)))
            for arm in comparison.arms
        }
        compared = None if equal_score is None else _interpolate_arms(scores, by_arm, comparison, equal_score)
        trades.append(TradeOff(metric, paths, compared))
    return trades


def _interpolate_arms(
    scores: Mapping[str, Mapping[int, Curve]],
    values: Mapping[str, Mapping[int, Curve]],
    comparison: Comparison,
    equal_score: float,
) -> dict[str, ArmAtEqualScore]:
    read = {
        arm: {
            seed: interpolate_at_score(scores[arm][seed], values[arm][seed], equal_score) for seed in comparison.seeds
        }
        for arm in comparison.arms
    }
    return {arm: _compare(by_seed, read[comparison.baseline]) for arm, by_seed in read.items()}


def interpolate_at_score(scores: Curve, values: Curve, score: float) -> float | None:
    """Return the value of another metric where a run first crosses a score.

    Both metrics are interpolated linearly between two evaluations. A run may have the score at its start, and cross
    it upwards or downwards.

    Args:
        scores: the metric of the study over the steps.
        values: the other metric.
        score: the score.

    Returns:
        The value; None if the run never crosses the score.

    Example:
        >>> from selfsr.study.trade_off import interpolate_at_score
        >>> interpolate_at_score([(0, 32.0), (10, 30.0)], [(0, 0.18), (10, 0.12)], 31.0)
        0.15
    """
    before: EvaluationPoint | None = None
    for point in _pair(scores, values):
        if point.score == score:
            return point.value
        if before is not None and (before.score - score) * (point.score - score) < 0:
            fraction = (score - before.score) / (point.score - before.score)
            return before.value + fraction * (point.value - before.value)
        before = point
    return None


def _pair(scores: Curve, values: Curve) -> list[EvaluationPoint]:
    by_step = dict(values)
    return [EvaluationPoint(step, score, by_step[step]) for step, score in scores if step in by_step]


def _average(scores: list[Curve], values: list[Curve]) -> list[EvaluationPoint]:
    """Return the means over runs at the steps that all of them have."""
    means = {step: mean for step, mean, *_ in compute_band(values)}
    return [EvaluationPoint(step, mean, means[step]) for step, mean, *_ in compute_band(scores) if step in means]


def _compare(values: dict[int, float | None], baseline: dict[int, float | None]) -> ArmAtEqualScore:
    found = [value for value in values.values() if value is not None]
    differences = [
        value - other
        for value, other in ((value, baseline[seed]) for seed, value in values.items())
        if value is not None and other is not None
    ]
    return ArmAtEqualScore(
        values,
        summarize_scores(found) if len(found) == len(values) else None,
        summarize_scores(differences) if len(differences) == len(values) else None,
        sum(difference < 0 for difference in differences),
    )
