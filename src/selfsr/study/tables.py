"""The tables of a study, each cell a text, and the Markdown that is made of them."""

from dataclasses import dataclass

from selfsr import __version__
from selfsr.study.compare import Comparison
from selfsr.study.results import Results, SetupResult
from selfsr.study.wording import PLUS_MINUS, Numbers, convergence, reaching, signs, told_changes, verdict

HOW_TO_READ = (
    f"Mean {PLUS_MINUS} standard deviation over the seeds (n - 1). Differences are between runs of the same seed, "
    "which start from the same weights and see the same data in the same order wherever the arms allow it. "
    '"Best" is the highest score of any evaluation, chosen on the judged set itself: it flatters every arm. '
    "Steps to the baseline's final mean: where the curve first comes to the baseline's mean final score, between "
    "evaluations on a straight line. Mean over training: the area between an arm's curve and the baseline's of the "
    "same seed, divided by the steps."
)


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        headings: of the columns.
        rows: the cells.
        text_columns: how many columns from the left are words; the others are numbers.
    """

    headings: list[str]
    rows: list[list[str]]
    text_columns: int = 1

    def markdown(self) -> str:
        """Return the table for a Markdown file, numbers to the right."""
        rule = ["---" if column < self.text_columns else "---:" for column in range(len(self.headings))]
        return "\n".join("| " + " | ".join(_escaped(row)) + " |" for row in (self.headings, rule, *self.rows)) + "\n"


def _escaped(row: list[str]) -> list[str]:
    return [cell.replace("|", "\\|") for cell in row]


def main_table(comparison: Comparison, numbers: Numbers, steps: int) -> Table:
    """Return one row for each arm: final and best score, difference, steps needed, area."""
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
        "Mean over training",
    ]
    rows = []
    for name, arm in comparison.arms.items():
        row = [name, numbers.spread(arm.final), numbers.range(arm.final), numbers.spread(arm.best)]
        if name == baseline:
            row += ["baseline", "", "", reaching(arm, steps), ""]
        else:
            row += [numbers.spread(arm.difference, change=True), numbers.range(arm.difference, change=True)]
            row += [signs(arm), reaching(arm, steps), numbers.spread(arm.mean_difference, change=True)]
        rows.append(row)
    return Table(headings, rows)


def seed_table(comparison: Comparison, numbers: Numbers) -> Table:
    """Return one row for each run: its scores beside the baseline's run of the same seed."""
    baseline = comparison.baseline
    headings = [
        "Seed",
        "Arm",
        f"Final {numbers.heading}",
        "Best (step)",
        f"Difference to {baseline}",
        f"Steps to {baseline}'s final mean",
        "To its final of this seed",
        "Mean over training",
    ]
    rows = []
    for seed in comparison.seeds:
        for name, arm in comparison.arms.items():
            run = arm.seeds[seed]
            row = [str(seed), name, numbers.value(run.final), f"{numbers.value(run.best)} ({run.best_step:,})"]
            own = name == baseline
            row += ["" if own else numbers.change(run.difference)]
            row += [_steps(run.steps_to_reach), "" if own else _steps(run.steps_to_reach_same_seed)]
            row.append("" if own else numbers.change(run.mean_difference))
            rows.append(row)
    return Table(headings, rows, text_columns=2)


def _steps(value: float | None) -> str:
    return "never" if value is None else f"{value:,.0f}"


def others_table(setup: SetupResult) -> Table | None:
    """Return the final scores by every other score and set, None where there is none."""
    if not setup.others:
        return None
    rows = []
    for (set_name, metric), comparison in setup.others.items():
        numbers = Numbers(metric)
        for name, arm in comparison.arms.items():
            own = name == comparison.baseline
            row = [f"{set_name}, {numbers.heading}", name, numbers.spread(arm.final)]
            row += ["baseline", ""] if own else [numbers.spread(arm.difference, change=True), signs(arm)]
            rows.append(row)
    baseline = next(iter(setup.others.values())).baseline
    headings = ["Set and score", "Arm", "Final", f"Difference to {baseline}", "Seeds higher"]
    return Table(headings, rows, text_columns=2)


def arms_table(results: Results) -> Table:
    """Return what each arm is."""
    plan = results.plan
    rows = []
    for arm, changes in plan.changes.items():
        name = f"{arm} (baseline)" if arm == plan.baseline else arm
        rows.append([name, told_changes(changes), plan.notes.get(arm, "")])
    with_notes = any(row[2] for row in rows)
    headings = ["Arm", "What it changes", *(["What it is"] if with_notes else [])]
    return Table(headings, [row[: len(headings)] for row in rows], text_columns=len(headings))


def sentences(setup: SetupResult, numbers: Numbers) -> list[str]:
    """Return what the comparison says of each arm, in words."""
    comparison = setup.comparison
    if comparison is None:
        return ["No seed is finished in every arm yet: there is nothing to compare."]
    return [
        f"{verdict(name, comparison, numbers)} {convergence(name, comparison, numbers, setup.steps)}"
        for name in comparison.arms
        if name != comparison.baseline
    ]


def markdown(results: Results) -> str:
    """Return the results as a Markdown document, its tables ready for a paper's appendix."""
    plan, numbers = results.plan, Numbers(results.plan.score)
    parts = [f"# {plan.name}\n", arms_table(results).markdown()]
    if results.notes:
        parts.append("\n".join(f"* {note}" for note in results.notes) + "\n")
    for setup in results.setups.values():
        bicubic = "" if setup.bicubic is None else f" Bicubic has {numbers.value(setup.bicubic)}."
        parts.append(f"## {setup.name}\n")
        parts.append(
            f"{setup.steps:,} steps, judged by {numbers.heading} on {setup.judged_on}.{bicubic} {_seeds(setup)}\n"
        )
        parts += [f"{sentence}\n" for sentence in sentences(setup, numbers)]
        if setup.comparison:
            parts.append(main_table(setup.comparison, numbers, setup.steps).markdown())
            parts += ["Every seed:\n", seed_table(setup.comparison, numbers).markdown()]
        if other := others_table(setup):
            parts += ["Other sets and scores:\n", other.markdown()]
    parts.append(f"{HOW_TO_READ}\n\nMade by selfsr {__version__}.\n")
    return "\n".join(parts)


def _seeds(setup: SetupResult) -> str:
    seeds = setup.comparison.seeds if setup.comparison else []
    if not seeds:
        return "No seed is compared yet."
    return f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''} compared: {', '.join(map(str, seeds))}."
