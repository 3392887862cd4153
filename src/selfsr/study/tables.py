"""The tables of a study as texts, and results.md."""

from dataclasses import dataclass

from selfsr import __version__
from selfsr.study.compare import Comparison
from selfsr.study.plan import StudyPlan
from selfsr.study.results import SetupResult, StudyResults
from selfsr.study.trade_off import ArmAtEqualScore, TradeOff
from selfsr.study.wording import (
    AT_START,
    PLUS_MINUS,
    ScoreFormat,
    describe_changes,
    describe_convergence,
    describe_higher,
    describe_steps_to_reach,
    describe_verdict,
)

HOW_TO_READ = (
    f"Values are mean {PLUS_MINUS} sample standard deviation over the seeds (n - 1). Differences are between runs of "
    "the same seed. These start from the same weights and see the same data in the same order, unless the arms change "
    'that. "Best" is the best score of all evaluations. It is chosen on the evaluation set itself, so it is '
    "optimistic for every arm. Steps to the baseline's final mean: the step at which the curve first reaches the "
    "baseline's mean final score, interpolated linearly between evaluations. Mean difference over training: the area "
    "between an arm's curve and the baseline's of the same seed, divided by the number of steps."
)
HOW_EQUAL = (
    "Each run is interpolated linearly where it first crosses the score, so arms are compared at different steps. A "
    "crossing before the first evaluation uses the common start and understates differences. Differences are between "
    "runs of the same seed."
)


@dataclass(frozen=True)
class TextTable:
    """A table of texts.

    Attributes:
        headings: headings of the columns.
        rows: the cells of each row.
        text_columns: number of columns with words, from the left; the others have numbers.
    """

    headings: list[str]
    rows: list[list[str]]
    text_columns: int = 1

    def to_markdown(self) -> str:
        """Return the table in Markdown, with numbers aligned to the right."""
        rule = ["---" if column < self.text_columns else "---:" for column in range(len(self.headings))]
        return "\n".join("| " + " | ".join(_escape(row)) + " |" for row in (self.headings, rule, *self.rows)) + "\n"


def _escape(row: list[str]) -> list[str]:
    return [cell.replace("|", "\\|") for cell in row]


def make_main_table(comparison: Comparison, numbers: ScoreFormat, steps: int) -> TextTable:
    """Return a table with one row for each arm: scores, difference, steps to reach the baseline, area."""
    baseline = comparison.baseline
    headings = [
        "Arm",
        f"Final {numbers.heading}",
        "Range",
        "Best",
        f"Difference to {baseline}",
        "Range",
        "Seeds higher",
        f"Steps to {baseline}'s final mean",
        "Mean difference over training",
    ]
    rows = []
    for name, arm in comparison.arms.items():
        row = [name, numbers.format_spread(arm.final), numbers.format_range(arm.final), numbers.format_spread(arm.best)]
        if name == baseline:
            row += ["baseline", "", "", describe_steps_to_reach(arm, steps), ""]
        else:
            row += [
                numbers.format_spread(arm.difference, change=True),
                numbers.format_range(arm.difference, change=True),
            ]
            row += [
                describe_higher(arm),
                describe_steps_to_reach(arm, steps),
                numbers.format_spread(arm.mean_difference, change=True),
            ]
        rows.append(row)
    return TextTable(headings, rows)


def make_seed_table(comparison: Comparison, numbers: ScoreFormat) -> TextTable:
    """Return a table with one row for each run, compared to the baseline's run of the same seed."""
    baseline = comparison.baseline
    headings = [
        "Seed",
        "Arm",
        f"Final {numbers.heading}",
        "Best (step)",
        f"Difference to {baseline}",
        f"Steps to {baseline}'s final mean",
        "To its final score of this seed",
        "Mean difference over training",
    ]
    rows = []
    for seed in comparison.seeds:
        for name, arm in comparison.arms.items():
            run = arm.seeds[seed]
            row = [
                str(seed),
                name,
                numbers.format_score(run.final),
                f"{numbers.format_score(run.best)} ({run.best_step:,})",
            ]
            own = name == baseline
            row += ["" if own else numbers.format_change(run.difference)]
            row += [_format_steps(run.steps_to_reach), "" if own else _format_steps(run.steps_to_reach_same_seed)]
            row.append("" if own else numbers.format_change(run.mean_difference))
            rows.append(row)
    return TextTable(headings, rows, text_columns=2)


def _format_steps(value: float | None) -> str:
    return "never" if value is None else AT_START if value == 0 else f"{value:,.0f}"


def make_other_scores_table(setup: SetupResult) -> TextTable | None:
    """Return a table of the final scores by the other metrics and sets; None without any."""
    if not setup.others:
        return None
    rows = []
    for (set_name, metric), comparison in setup.others.items():
        numbers = ScoreFormat(metric)
        for name, arm in comparison.arms.items():
            own = name == comparison.baseline
            row = [f"{set_name}, {numbers.ranked_heading}", name, numbers.format_spread(arm.final)]
            row += (
                ["baseline", ""] if own else [numbers.format_spread(arm.difference, change=True), describe_higher(arm)]
            )
            rows.append(row)
    baseline = next(iter(setup.others.values())).baseline
    headings = ["Set and metric", "Arm", "Final", f"Difference to {baseline}", "Seeds higher"]
    return TextTable(headings, rows, text_columns=2)


def make_equal_score_table(setup: SetupResult, plan: StudyPlan) -> TextTable | None:
    """Return a table of the other metrics at equal score; None if the study names no score, or has no such metric."""
    if plan.equal_score is None or not setup.trade_offs:
        return None
    own = ScoreFormat(plan.metric)
    rows = []
    for trade in setup.trade_offs:
        numbers = ScoreFormat(trade.metric)
        for arm, result in (trade.equal_score or {}).items():
            rows.append(
                [numbers.ranked_heading, arm, *_format_equal_score(result, numbers, is_baseline=arm == plan.baseline)]
            )
    at = f"At {own.name} {own.format_score(plan.equal_score)} {own.unit}".rstrip()
    return TextTable(["Metric", "Arm", at, f"Difference to {plan.baseline}", "Seeds lower"], rows, text_columns=2)


def _format_equal_score(result: ArmAtEqualScore, numbers: ScoreFormat, *, is_baseline: bool) -> list[str]:
    reached = sum(value is not None for value in result.seeds.values())
    if result.value is None:
        return ["never crosses it" if reached == 0 else f"{reached} of {len(result.seeds)} seeds cross it", "", ""]
    value = numbers.format_spread(result.value)
    if is_baseline or result.difference is None:
        return [value, "baseline" if is_baseline else "", ""]
    return [value, numbers.format_spread(result.difference, change=True), f"{result.lower} of {reached}"]


def make_path_table(setup: SetupResult, score: str) -> TextTable | None:
    """Return a table of every evaluation of each arm, by the study's metric and those of the trade-offs."""
    trades: list[TradeOff] = setup.trade_offs
    if not trades:
        return None
    numbers = [ScoreFormat(metric) for metric in (score, *(trade.metric for trade in trades))]
    rows = []
    for arm, path in trades[0].paths.items():
        others = [{point.step: point.value for point in trade.paths[arm]} for trade in trades]
        for point in path:
            values = [point.score, *(values.get(point.step) for values in others)]
            texts = [form.format_score(value) for form, value in zip(numbers, values, strict=True)]
            rows.append([arm, f"{point.step:,}", *texts])
    return TextTable(["Arm", "Step", *(form.heading for form in numbers)], rows)


def make_arms_table(results: StudyResults) -> TextTable:
    """Return a table of the arms and their changes."""
    plan = results.plan
    rows = []
    for arm, changes in plan.changes.items():
        name = f"{arm} (baseline)" if arm == plan.baseline else arm
        rows.append([name, describe_changes(changes), plan.notes.get(arm, "")])
    with_notes = any(row[2] for row in rows)
    headings = ["Arm", "Changes", *(["Note"] if with_notes else [])]
    return TextTable(headings, [row[: len(headings)] for row in rows], text_columns=len(headings))


def describe_results(setup: SetupResult, numbers: ScoreFormat) -> list[str]:
    """Return one paragraph about each arm but the baseline."""
    comparison = setup.comparison
    if comparison is None:
        return ["No comparison yet: no seed is finished in every arm."]
    return [
        f"{describe_verdict(name, comparison, numbers)} {describe_convergence(name, comparison, numbers, setup.steps)}"
        for name in comparison.arms
        if name != comparison.baseline
    ]


def to_markdown(results: StudyResults) -> str:
    """Return the results as a Markdown document, with tables for a paper's appendix."""
    plan, numbers = results.plan, ScoreFormat(results.plan.metric)
    paragraphs = [f"# {plan.name}\n", make_arms_table(results).to_markdown()]
    if results.notes:
        paragraphs.append("\n".join(f"* {note}" for note in results.notes) + "\n")
    for setup in results.setups.values():
        bicubic = "" if setup.bicubic is None else f" Bicubic: {numbers.format_score(setup.bicubic)}."
        paragraphs.append(f"## {setup.name}\n")
        paragraphs.append(
            f"{setup.steps:,} steps, {numbers.heading} on {setup.evaluation_set}; {numbers.better} is better.{bicubic} "
            f"{_describe_seeds(setup)}\n"
        )
        paragraphs += [f"{sentence}\n" for sentence in describe_results(setup, numbers)]
        if setup.comparison:
            paragraphs.append(make_main_table(setup.comparison, numbers, setup.steps).to_markdown())
            paragraphs += ["Every seed:\n", make_seed_table(setup.comparison, numbers).to_markdown()]
        if other := make_other_scores_table(setup):
            paragraphs += ["Other sets and metrics:\n", other.to_markdown()]
        if equal := make_equal_score_table(setup, plan):
            paragraphs += [f"At equal score. {HOW_EQUAL}\n", equal.to_markdown()]
        if path := make_path_table(setup, plan.metric):
            paragraphs += ["Every evaluation, means over the compared seeds:\n", path.to_markdown()]
    paragraphs.append(f"{HOW_TO_READ}\n\nMade by selfsr {__version__}.\n")
    return "\n".join(paragraphs)


def _describe_seeds(setup: SetupResult) -> str:
    seeds = setup.comparison.seeds if setup.comparison else []
    if not seeds:
        return "No common seed yet."
    return f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''} compared: {', '.join(map(str, seeds))}."
