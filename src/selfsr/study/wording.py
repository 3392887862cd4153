"""The results in words and rounded numbers: no more is said than the number of seeds allows."""

from typing import Any

from selfsr.evaluation.metrics import METRICS
from selfsr.study.compare import ArmResult, Comparison, Spread

PLUS_MINUS = "\u00b1"
# Below this many pairs the spread is told as a range alone in sentences: a deviation of three values says little.
FEW_SEEDS = 5


class Numbers:
    """Writes the numbers of one score.

    Args:
        metric: its key, such as "psnr_y".
    """

    def __init__(self, metric: str) -> None:
        self.name, self.unit, decimals, self.better = METRICS[metric]
        # Arms lie closer together than methods in a paper: one decimal more than usual.
        self.decimals = decimals + 1

    @property
    def heading(self) -> str:
        """The score with its unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def value(self, value: float | None) -> str:
        """A score."""
        return "-" if value is None else f"{value:.{self.decimals}f}"

    def change(self, value: float) -> str:
        """A difference, with its sign."""
        return f"{round(value, self.decimals) + 0.0:+.{self.decimals}f}"

    def spread(self, spread: Spread, change: bool = False) -> str:
        """Mean and standard deviation."""
        mean = self.change(spread.mean) if change else self.value(spread.mean)
        return mean if spread.sd is None else f"{mean} {PLUS_MINUS} {spread.sd:.{self.decimals}f}"

    def range(self, spread: Spread, change: bool = False) -> str:
        """Smallest and largest value."""
        low, high = (self.change(v) if change else self.value(v) for v in (spread.low, spread.high))
        return f"{low} to {high}"

    def size(self, value: float) -> str:
        """How large a difference is, with its unit."""
        return f"{abs(value):.{self.decimals}f} {self.unit}".strip()


def signs(arm: ArmResult) -> str:
    """Return in how many seeds the arm ends above the baseline."""
    return f"{arm.higher} of {len(arm.seeds)}"


def reaching(arm: ArmResult, steps: int) -> str:
    """Return the steps that the arm needs to reach the baseline's mean final score, over its seeds."""
    if arm.steps_to_reach is not None:
        mean = arm.steps_to_reach.mean
        return f"{mean:,.0f} ({100 * mean / steps:.0f} %)"
    return "never" if arm.reached == 0 else f"{arm.reached} of {len(arm.seeds)} seeds"


def verdict(name: str, comparison: Comparison, numbers: Numbers) -> str:
    """Return what the final scores say of an arm against the baseline."""
    arm, baseline = comparison.arms[name], comparison.baseline
    seeds, mean = len(comparison.seeds), arm.difference.mean
    side = "above" if mean > 0 else "below"
    if arm.higher == arm.lower == 0:
        return f"{name} and {baseline} end equal on {_all(seeds)}."
    if seeds == 1:
        return (
            f"On the one seed compared, {name} ends {numbers.size(mean)} {side} {baseline}. "
            "One seed cannot tell a difference from chance: another may say the opposite."
        )
    sizes = sorted(abs(value) for value in (arm.difference.low, arm.difference.high))
    if arm.agree == seeds:
        told = (
            f"{name} ends {side} {baseline} on {_all(seeds)}, by {numbers.value(sizes[0])} to "
            f"{numbers.size(sizes[1])}, on average {numbers.size(mean)}. "
        )
        return told + _how_sure(seeds, arm.difference, numbers)
    equal = seeds - arm.higher - arm.lower
    return (
        f"The seeds disagree: {name} ends above {baseline} on {arm.higher} of {seeds}, below on {arm.lower}"
        f"{f', equal on {equal}' if equal else ''} ({numbers.range(arm.difference, change=True)}, on average "
        f"{numbers.change(mean)}). These {seeds} seeds show no difference in one direction."
    )


def _how_sure(seeds: int, difference: Spread, numbers: Numbers) -> str:
    if seeds < FEW_SEEDS:
        return f"{_word(seeds)} pairs show a direction, not how sure it is; more seeds would."
    assert difference.sd is not None
    told = f"The standard deviation between seeds is {numbers.size(difference.sd)}"
    return f"{told}, larger than that." if difference.sd > abs(difference.mean) else f"{told}."


def convergence(name: str, comparison: Comparison, numbers: Numbers, steps: int) -> str:
    """Return what the curves say of an arm: when it has what the baseline ends with, and the area between them."""
    arm, baseline = comparison.arms[name], comparison.baseline
    seeds = len(comparison.seeds)
    target = f"{baseline}'s final mean ({numbers.value(comparison.target)} {numbers.unit}".strip() + ")"
    if arm.steps_to_reach is not None:
        mean = arm.steps_to_reach.mean
        told = f"It first reaches {target} after {mean:,.0f} of {steps:,} steps{' on average' if seeds > 1 else ''}"
    elif arm.reached:
        told = f"It reaches {target} on {arm.reached} of {seeds} seeds"
    else:
        told = f"It never reaches {target}"
    height = arm.mean_difference
    side = "above" if height.mean > 0 else "below"
    if round(height.mean, numbers.decimals) == 0:
        return f"{told}; over the whole training it is level with {baseline}."
    return f"{told}; over the whole training it lies {numbers.size(height.mean)} {side} on average."


def told_changes(changes: dict[str, Any]) -> str:
    """Return what an arm changes, as `path: value` separated by semicolons."""
    return "; ".join(f"{path}: {_yaml_value(value)}" for path, value in changes.items()) or "the recipe as it is"


def _yaml_value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml_value(entry)}" for key, entry in value.items()) + "}"
    return str(value)


def _all(seeds: int) -> str:
    return "the one seed" if seeds == 1 else "both seeds" if seeds == 2 else f"all {seeds} seeds"


def _word(count: int) -> str:
    return {2: "Two", 3: "Three", 4: "Four"}[count]
