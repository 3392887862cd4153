"""Compare arms, paired by seed, over the seeds that every arm has finished."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

# (step, score), in the order of steps.
Curve = Sequence[tuple[int, float]]
Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class ScoreSpread:
    """Mean, deviation and range of scores over the seeds.

    Attributes:
        mean: arithmetic mean.
        sd: sample standard deviation (divided by n - 1); None for a single value.
        low: smallest value.
        high: largest value.
    """

    mean: float
    sd: float | None
    low: float
    high: float


@dataclass(frozen=True)
class SeedResult:
    """One run, compared to the baseline's run of the same seed.

    Attributes:
        final: score of the last evaluation.
        final_step: step of the last evaluation.
        best: best score of all evaluations after step 0.
        best_step: first step with the best score.
        steps_to_reach: step at which the curve first reaches the baseline's mean final score; 0 if it is there before
            training, None if never.
        steps_to_reach_same_seed: the same for the final score of the baseline's run of this seed.
        difference: final score minus the baseline's.
        best_difference: best score minus the baseline's.
        mean_difference: area between the two curves, divided by the number of steps that both cover.
    """

    final: float
    final_step: int
    best: float
    best_step: int
    steps_to_reach: float | None
    steps_to_reach_same_seed: float | None
    difference: float
    best_difference: float
    mean_difference: float


@dataclass(frozen=True)
class ArmResult:
    """One arm over all compared seeds.

    Attributes:
        seeds: the result of each seed.
        final, best, difference, best_difference, mean_difference: statistics over the seeds.
        higher: number of seeds that end above the baseline.
        lower: number of seeds that end below the baseline.
        agree: number of seeds whose difference has the sign of the mean difference.
        reached: number of seeds that reach the baseline's mean final score.
        steps_to_reach: statistics over the seeds; None unless all seeds reach it.
    """

    seeds: dict[int, SeedResult]
    final: ScoreSpread
    best: ScoreSpread
    difference: ScoreSpread
    best_difference: ScoreSpread
    mean_difference: ScoreSpread
    higher: int
    lower: int
    agree: int
    reached: int
    steps_to_reach: ScoreSpread | None

    @property
    def reached_at_start(self) -> int:
        """Number of seeds that are at the baseline's mean final score, or better, before training."""
        return sum(result.steps_to_reach == 0 for result in self.seeds.values())


@dataclass(frozen=True)
class Comparison:
    """All arms of one recipe, compared by one metric.

    Attributes:
        baseline: name of the arm to compare with.
        seeds: the seeds that every compared arm has finished.
        target: the baseline's mean final score over these seeds.
        arms: the compared arms, including the baseline.
    """

    baseline: str
    seeds: list[int]
    target: float
    arms: dict[str, ArmResult]


def compare(curves: Mapping[str, Mapping[int, Curve]], baseline: str, better: Better = "higher") -> Comparison | None:
    """Compare all arms to the baseline over their common seeds.

    An arm without a finished seed is left out, since it would leave no common seed.

    Args:
        curves: the curve of each finished run, by arm and seed.
        baseline: one of the arms.
        better: whether higher or lower scores are better.

    Returns:
        The comparison; None without a common seed, or if the baseline has no finished seed.
    """
    trained = {arm: by_seed for arm, by_seed in curves.items() if by_seed}
    if baseline not in trained:
        return None
    common = set.intersection(*(set(by_seed) for by_seed in trained.values()))
    seeds = [seed for seed in trained[baseline] if seed in common]
    if not seeds:
        return None
    target = statistics.fmean(trained[baseline][seed][-1][1] for seed in seeds)
    arms = {
        arm: _compare_arm({s: by_seed[s] for s in seeds}, trained[baseline], target, better)
        for arm, by_seed in trained.items()
    }
    return Comparison(baseline, seeds, target, arms)


def _compare_arm(
    curves: Mapping[int, Curve], baseline: Mapping[int, Curve], target: float, better: Better
) -> ArmResult:
    seeds = {seed: _compare_seed(curve, baseline[seed], target, better) for seed, curve in curves.items()}
    every = list(seeds.values())
    differences = [result.difference for result in every]
    direction = math.copysign(1.0, statistics.fmean(differences))
    reached = [result.steps_to_reach for result in every if result.steps_to_reach is not None]
    return ArmResult(
        seeds,
        final=summarize_scores([result.final for result in every]),
        best=summarize_scores([result.best for result in every]),
        difference=summarize_scores(differences),
        best_difference=summarize_scores([result.best_difference for result in every]),
        mean_difference=summarize_scores([result.mean_difference for result in every]),
        higher=sum(difference > 0 for difference in differences),
        lower=sum(difference < 0 for difference in differences),
        agree=sum(difference * direction > 0 for difference in differences),
        reached=len(reached),
        steps_to_reach=summarize_scores(reached) if len(reached) == len(every) else None,
    )


def _compare_seed(curve: Curve, baseline: Curve, target: float, better: Better) -> SeedResult:
    final_step, final = curve[-1]
    best_step, best = _find_best(curve, better)
    first, last = max(curve[0][0], baseline[0][0]), min(curve[-1][0], baseline[-1][0])
    return SeedResult(
        final,
        final_step,
        best,
        best_step,
        find_steps_to_reach(curve, target, better),
        find_steps_to_reach(curve, baseline[-1][1], better),
        final - baseline[-1][1],
        best - _find_best(baseline, better)[1],
        compute_mean_height(curve, first, last) - compute_mean_height(baseline, first, last),
    )


def _find_best(curve: Curve, better: Better) -> tuple[int, float]:
    trained = [point for point in curve if point[0] > 0] or list(curve)
    return (max if better == "higher" else min)(trained, key=lambda point: point[1])


def summarize_scores(values: Sequence[float]) -> ScoreSpread:
    """Return mean, standard deviation and range of at least one value."""
    sd = statistics.stdev(values) if len(values) > 1 else None
    return ScoreSpread(statistics.fmean(values), sd, min(values), max(values))


def find_steps_to_reach(curve: Curve, target: float, better: Better = "higher") -> float | None:
    """Return the step at which the curve first reaches `target`, interpolated linearly between evaluations.

    Returns:
        The step; None if no evaluation reaches the target.
    """
    before: tuple[int, float] | None = None
    for step, score in curve:
        if score >= target if better == "higher" else score <= target:
            if before is None:
                return float(step)
            return before[0] + (target - before[1]) / (score - before[1]) * (step - before[0])
        before = (step, score)
    return None


def compute_mean_height(curve: Curve, first: int, last: int) -> float:
    """Return the mean of the curve between two steps, by the trapezoidal rule.

    Args:
        curve: covers both steps.
        first: first step.
        last: last step. If it is the first step, the mean is the score at this step.
    """
    if first >= last:
        return _interpolate(curve, first)
    inner = [(float(step), score) for step, score in curve if first < step < last]
    points = [(float(first), _interpolate(curve, first)), *inner, (float(last), _interpolate(curve, last))]
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))
    return area / (last - first)


def _interpolate(curve: Curve, at: float) -> float:
    before = curve[0]
    for step, score in curve:
        if step == at:
            return score
        if step > at:
            return before[1] + (at - before[0]) / (step - before[0]) * (score - before[1])
        before = (step, score)
    return before[1]


def compute_band(curves: Sequence[Curve]) -> list[tuple[int, float, float, float]]:
    """Return `(step, mean, smallest, largest)` at every step that all curves have."""
    by_step = [dict(curve) for curve in curves]
    points = []
    for step in [step for step, _ in curves[0] if all(step in scores for scores in by_step)]:
        values = [scores[step] for scores in by_step]
        points.append((step, statistics.fmean(values), min(values), max(values)))
    return points


def subtract_curves(curve: Curve, baseline: Curve) -> list[tuple[int, float]]:
    """Return the curve minus the baseline, at their common steps."""
    baseline_scores = dict(baseline)
    return [(step, score - baseline_scores[step]) for step, score in curve if step in baseline_scores]
