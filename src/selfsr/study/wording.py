"""Write results in words and rounded numbers; sentences over few seeds claim less."""

from typing import Any

from selfsr.evaluation.metrics import METRICS, PLUS_MINUS
from selfsr.study.compare import ArmResult, Comparison, ScoreSpread

# Below this number, sentences give a range and no deviation, since that of three values is unreliable.
FEW_SEEDS = 5
# How much the samples differ is neither good nor bad: a perfect sampler has a spread, and a network for PSNR has none.
_UNRANKED = ("seed_spread",)
# Instead of 0 steps, where an arm reaches a score before training.
AT_START = "at the start"


class ScoreFormat:
    """Formats the scores of one metric.

    Args:
        metric: key of the metric, such as "psnr_y".
    """

    def __init__(self, metric: str) -> None:
        shown = METRICS[metric]
        self._is_unranked = metric in _UNRANKED
        self.name, self.unit, decimals, self.better = shown.title, shown.unit, shown.decimals, shown.better
        # One decimal more than usual, since arms differ less than the methods of a paper.
        self.decimals: int = decimals + 1

    @property
    def heading(self) -> str:
        """The title of the metric with its unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    @property
    def ranked_heading(self) -> str:
        """The heading, and which values are better, unless the metric ranks nothing."""
        return self.heading if self._is_unranked else f"{self.heading}, {self.better} is better"

    def format_score(self, value: float | None) -> str:
        """Format a score; "-" for None."""
        return "-" if value is None else f"{value:.{self.decimals}f}"

    def format_change(self, value: float) -> str:
        """Format a difference, with its sign."""
        return f"{round(value, self.decimals) + 0.0:+.{self.decimals}f}"

    def format_spread(self, spread: ScoreSpread, change: bool = False) -> str:
        """Format mean and standard deviation, with a sign if they are of differences (`change`)."""
        mean = self.format_change(spread.mean) if change else self.format_score(spread.mean)
        return mean if spread.sd is None else f"{mean} {PLUS_MINUS} {spread.sd:.{self.decimals}f}"

    def format_range(self, spread: ScoreSpread, change: bool = False) -> str:
        """Format the smallest and the largest value, with a sign if they are differences (`change`)."""
        low, high = (self.format_change(v) if change else self.format_score(v) for v in (spread.low, spread.high))
        return f"{low} to {high}"

    def format_size(self, value: float) -> str:
        """Format the size of a difference, with its unit."""
        return f"{abs(value):.{self.decimals}f} {self.unit}".strip()


def describe_higher(arm: ArmResult) -> str:
    """Return the number of seeds in which the arm ends above the baseline, such as "2 of 3"."""
    return f"{arm.higher} of {len(arm.seeds)}"


def describe_steps_to_reach(arm: ArmResult, steps: int) -> str:
    """Return the mean number of steps to reach the baseline's mean final score, or the number of seeds that do.

    The mean is over all seeds only if none is there at the start, where it would count 0 steps.
    """
    seeds, at_start = len(arm.seeds), arm.reached_at_start
    if at_start == seeds:
        return AT_START
    if at_start:
        later = f", {arm.reached - at_start} later" if arm.reached > at_start else ""
        return f"{at_start} of {seeds} seeds {AT_START}{later}"
    if arm.steps_to_reach is not None:
        mean = arm.steps_to_reach.mean
        return f"{mean:,.0f} ({100 * mean / steps:.0f} %)"
    return "never" if arm.reached == 0 else f"{arm.reached} of {seeds} seeds"


def describe_verdict(name: str, comparison: Comparison, numbers: ScoreFormat) -> str:
    """Return a sentence that compares the final scores of an arm and the baseline."""
    arm, baseline = comparison.arms[name], comparison.baseline
    seeds, mean = len(comparison.seeds), arm.difference.mean
    side = "above" if mean > 0 else "below"
    if arm.higher == arm.lower == 0:
        return f"{name} and {baseline} end equal on {_describe_all(seeds)}."
    if seeds == 1:
        return (
            f"On the one seed compared, {name} ends {numbers.format_size(mean)} {side} {baseline}. "
            "One seed cannot separate a difference from chance; another seed may show the opposite."
        )
    sizes = sorted(abs(value) for value in (arm.difference.low, arm.difference.high))
    if arm.agree == seeds:
        sentence = (
            f"{name} ends {side} {baseline} on {_describe_all(seeds)}, by {numbers.format_score(sizes[0])} to "
            f"{numbers.format_size(sizes[1])}, on average {numbers.format_size(mean)}. "
        )
        return sentence + _describe_certainty(seeds, arm.difference, numbers)
    equal = seeds - arm.higher - arm.lower
    return (
        f"The seeds disagree: {name} ends above {baseline} on {arm.higher} of {seeds}, below on {arm.lower}"
        f"{f', equal on {equal}' if equal else ''} ({numbers.format_range(arm.difference, change=True)}, on average "
        f"{numbers.format_change(mean)}). These {seeds} seeds show no difference in one direction."
    )


def _describe_certainty(seeds: int, difference: ScoreSpread, numbers: ScoreFormat) -> str:
    if seeds < FEW_SEEDS:
        return f"{_spell(seeds)} pairs show a direction but not its certainty; more seeds would."
    assert difference.sd is not None
    sentence = f"The standard deviation between seeds is {numbers.format_size(difference.sd)}"
    return f"{sentence}, larger than the mean." if difference.sd > abs(difference.mean) else f"{sentence}."


def describe_convergence(name: str, comparison: Comparison, numbers: ScoreFormat, steps: int) -> str:
    """Return a sentence about an arm's curve: when it reaches the baseline's final score, and the area between them."""
    arm, baseline = comparison.arms[name], comparison.baseline
    seeds = len(comparison.seeds)
    target = f"{baseline}'s final mean ({numbers.format_score(comparison.target)} {numbers.unit}".strip() + ")"
    if arm.reached_at_start:
        others = "" if arm.reached_at_start == seeds else f" on {arm.reached_at_start} of {seeds} seeds"
        sentence = f"It has reached {target} {AT_START}, before training{others}"
    elif arm.steps_to_reach is not None:
        mean = arm.steps_to_reach.mean
        sentence = f"It first reaches {target} after {mean:,.0f} of {steps:,} steps{' on average' if seeds > 1 else ''}"
    elif arm.reached:
        sentence = f"It reaches {target} on {arm.reached} of {seeds} seeds"
    else:
        sentence = f"It never reaches {target}"
    height = arm.mean_difference
    side = "above" if height.mean > 0 else "below"
    if round(height.mean, numbers.decimals) == 0:
        return f"{sentence}; over the training it equals {baseline} on average."
    return f"{sentence}; over the training it lies {numbers.format_size(height.mean)} {side} on average."


def describe_changes(changes: dict[str, Any]) -> str:
    """Return the changes of an arm as `path: value`, separated by semicolons."""
    return "; ".join(f"{path}: {_format_yaml(value)}" for path, value in changes.items()) or "none"


def _format_yaml(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_format_yaml(entry)}" for key, entry in value.items()) + "}"
    return str(value)


def _describe_all(seeds: int) -> str:
    return "the one seed" if seeds == 1 else "both seeds" if seeds == 2 else f"all {seeds} seeds"


def _spell(count: int) -> str:
    return {2: "Two", 3: "Three", 4: "Four"}[count]
