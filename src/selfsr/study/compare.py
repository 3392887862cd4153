"""The arithmetic of a comparison: paired by seed, over the seeds that every arm has finished."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

# Scores by rising step: (step, score).
Curve = Sequence[tuple[int, float]]
Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Spread:
    """How values lie.

    Attributes:
        mean: arithmetic mean.
        sd: standard deviation of a sample (divided by n - 1); None for a single value.
        low, high: smallest and largest value.
    """

    mean: float
    sd: float | None
    low: float
    high: float


@dataclass(frozen=True)
class SeedResult:
    """One run, beside the baseline's run of the same seed.

    Attributes:
        final, final_step: the score of the last evaluation.
        best, best_step: the best score of an evaluation after step 0, and the first step that has it.
        steps_to_reach: where the curve first comes to the baseline's mean final score; None if it never does.
        steps_to_reach_same_seed: the same for the final score of the baseline's run of this seed.
        difference: final score minus the baseline's.
        best_difference: best score minus the baseline's.
        mean_difference: area between the two curves, divided by the steps that both cover.
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
        seeds: each seed's result.
        final, best, difference, best_difference, mean_difference: over the seeds.
        higher, lower: how many seeds end above the baseline, and below.
        agree: how many seeds differ in the direction of the mean difference.
        reached: how many seeds reach the baseline's mean final score.
        steps_to_reach: over the seeds; None unless all reach it.
    """

    seeds: dict[int, SeedResult]
    final: Spread
    best: Spread
    difference: Spread
    best_difference: Spread
    mean_difference: Spread
    higher: int
    lower: int
    agree: int
    reached: int
    steps_to_reach: Spread | None


@dataclass(frozen=True)
class Comparison:
    """All arms of one recipe by one score.

    Attributes:
        baseline: name of the arm that the others are compared to.
        seeds: those that every compared arm has finished.
        target: the baseline's mean final score over those seeds.
        arms: the compared arms, the baseline among them.
    """

    baseline: str
    seeds: list[int]
    target: float
    arms: dict[str, ArmResult]


def compare(curves: Mapping[str, Mapping[int, Curve]], baseline: str, better: Better = "higher") -> Comparison | None:
    """Compare all arms to the baseline over the seeds that they share.

    An arm without any finished seed is left out; it would leave nothing to compare.

    Args:
        curves: the curve of each finished run, by arm and seed.
        baseline: one of the arms.
        better: whether higher or lower scores are the better ones.

    Returns:
        The comparison, None if the baseline has no finished seed or no seed is shared.
    """
    begun = {arm: by_seed for arm, by_seed in curves.items() if by_seed}
    if baseline not in begun:
        return None
    shared = set.intersection(*(set(by_seed) for by_seed in begun.values()))
    seeds = [seed for seed in begun[baseline] if seed in shared]
    if not seeds:
        return None
    target = statistics.fmean(begun[baseline][seed][-1][1] for seed in seeds)
    arms = {
        arm: _arm({s: by_seed[s] for s in seeds}, begun[baseline], target, better) for arm, by_seed in begun.items()
    }
    return Comparison(baseline, seeds, target, arms)


def _arm(curves: Mapping[int, Curve], baseline: Mapping[int, Curve], target: float, better: Better) -> ArmResult:
    seeds = {seed: _seed(curve, baseline[seed], target, better) for seed, curve in curves.items()}
    every = list(seeds.values())
    differences = [result.difference for result in every]
    direction = math.copysign(1.0, statistics.fmean(differences))
    reached = [result.steps_to_reach for result in every if result.steps_to_reach is not None]
    return ArmResult(
        seeds,
        final=spread([result.final for result in every]),
        best=spread([result.best for result in every]),
        difference=spread(differences),
        best_difference=spread([result.best_difference for result in every]),
        mean_difference=spread([result.mean_difference for result in every]),
        higher=sum(difference > 0 for difference in differences),
        lower=sum(difference < 0 for difference in differences),
        agree=sum(difference * direction > 0 for difference in differences),
        reached=len(reached),
        steps_to_reach=spread(reached) if len(reached) == len(every) else None,
    )


def _seed(curve: Curve, baseline: Curve, target: float, better: Better) -> SeedResult:
    final_step, final = curve[-1]
    best_step, best = _best(curve, better)
    first, last = max(curve[0][0], baseline[0][0]), min(curve[-1][0], baseline[-1][0])
    return SeedResult(
        final,
        final_step,
        best,
        best_step,
        steps_to_reach(curve, target, better),
        steps_to_reach(curve, baseline[-1][1], better),
        final - baseline[-1][1],
        best - _best(baseline, better)[1],
        mean_height(curve, first, last) - mean_height(baseline, first, last),
    )


def _best(curve: Curve, better: Better) -> tuple[int, float]:
    trained = [point for point in curve if point[0] > 0] or list(curve)
    return (max if better == "higher" else min)(trained, key=lambda point: point[1])


def spread(values: Sequence[float]) -> Spread:
    """Return how at least one value lies."""
    sd = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), sd, min(values), max(values))


def steps_to_reach(curve: Curve, target: float, better: Better = "higher") -> float | None:
    """Return the step at which the curve first comes to `target`, between evaluations on a straight line.

    Returns:
        The step, the first one of the curve if it starts there; None if no evaluation reaches the target.
    """
    before: tuple[int, float] | None = None
    for step, score in curve:
        if score >= target if better == "higher" else score <= target:
            if before is None:
                return float(step)
            return before[0] + (target - before[1]) / (score - before[1]) * (step - before[0])
        before = (step, score)
    return None


def mean_height(curve: Curve, first: int, last: int) -> float:
    """Return the area under the curve from step `first` to `last`, divided by the steps between (trapezoids).

    Args:
        curve: covers both steps.
        first: where the area begins.
        last: where it ends; the score there if both are one.
    """
    if first >= last:
        return _height(curve, first)
    inner = [(float(step), score) for step, score in curve if first < step < last]
    points = [(float(first), _height(curve, first)), *inner, (float(last), _height(curve, last))]
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))
    return area / (last - first)


def _height(curve: Curve, at: float) -> float:
    before = curve[0]
    for step, score in curve:
        if step == at:
            return score
        if step > at:
            return before[1] + (at - before[0]) / (step - before[0]) * (score - before[1])
        before = (step, score)
    return before[1]


def band(curves: Sequence[Curve]) -> list[tuple[int, float, float, float]]:
    """Return (step, mean, smallest, largest) at every step that all curves have."""
    by_step = [dict(curve) for curve in curves]
    common = [step for step, _ in curves[0] if all(step in scores for scores in by_step)]
    found = []
    for step in common:
        values = [scores[step] for scores in by_step]
        found.append((step, statistics.fmean(values), min(values), max(values)))
    return found


def difference(curve: Curve, baseline: Curve) -> list[tuple[int, float]]:
    """Return the curve minus the baseline at the steps that both have."""
    levels = dict(baseline)
    return [(step, score - levels[step]) for step, score in curve if step in levels]
