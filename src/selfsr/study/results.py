"""What the runs of a study add up to, read from their folders alone."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfsr import __version__
from selfsr.evaluation.metrics import METRICS
from selfsr.report.scores import finite
from selfsr.runfolder.read import Run, read_runs
from selfsr.study.compare import Comparison, Curve, compare
from selfsr.study.folder import FORMAT, is_finished, run_folder, step_reached
from selfsr.study.plan import Plan, PlannedRun, Setup


@dataclass(frozen=True)
class RunState:
    """How far one run is.

    Attributes:
        name, setup, arm, seed: which one.
        step, steps: how far, and how far it should come.
        finished: whether it took every step.
        seconds: time spent in its steps, None if its log does not tell.
        report: its own page, relative to the study folder; None if there is none.
    """

    name: str
    setup: str
    arm: str
    seed: int
    step: int
    steps: int
    finished: bool
    seconds: float | None
    report: str | None


@dataclass(frozen=True)
class SetupResult:
    """The results of one recipe.

    Attributes:
        name: of the recipe in the study.
        judged_on: the set that decides.
        steps: of the baseline.
        bicubic: the score of bicubic on that set, None if no run tells it.
        curves: of the finished runs, by arm and seed, by the score that decides.
        comparison: by that score on that set, None as long as no seed is shared.
        others: the same by every other score and set, keyed by (set, score).
        left_out: arms without a finished run.
    """

    name: str
    judged_on: str
    steps: int
    bicubic: float | None
    curves: dict[str, dict[int, Curve]]
    comparison: Comparison | None
    others: dict[tuple[str, str], Comparison]
    left_out: list[str]


@dataclass(frozen=True)
class Results:
    """Everything that is told of a study.

    Attributes:
        plan: what was to be done.
        setups: the results by recipe.
        runs: every run, in the order of the plan.
        notes: what a reader must know: what is missing, unequal, failed, or was added later.
    """

    plan: Plan
    setups: dict[str, SetupResult]
    runs: list[RunState]
    notes: list[str]


def read_results(plan: Plan, folder: Path, failed: dict[str, str] | None = None) -> Results:
    """Read what there is of a study.

    Args:
        plan: the study.
        folder: its folder.
        failed: why runs failed in this session, by name.
    """
    found: dict[str, Run] = {}
    states = []
    for run in plan.runs():
        finished = is_finished(folder, run)
        if finished:
            found[run.name] = read_runs([run_folder(folder, run)])[0]
        states.append(_state(run, folder, finished, found.get(run.name)))
    setups = {setup.name: _setup(plan, setup, found) for setup in plan.setups.values()}
    return Results(plan, setups, states, _notes(plan, setups, states, failed or {}))


def _state(run: PlannedRun, folder: Path, finished: bool, read: Run | None) -> RunState:
    place = run_folder(folder, run)
    report = place / "report.html"
    return RunState(
        run.name,
        run.setup,
        run.arm,
        run.seed,
        step_reached(folder, run),
        run.recipe.steps,
        finished,
        read.seconds if read else None,
        report.relative_to(folder).as_posix() if report.exists() else None,
    )


def _setup(plan: Plan, setup: Setup, found: dict[str, Run]) -> SetupResult:
    of_setup = [run for run in plan.runs() if run.setup == setup.name and run.name in found]

    def curves(set_name: str, metric: str) -> dict[str, dict[int, Curve]]:
        by_arm: dict[str, dict[int, Curve]] = {arm: {} for arm in setup.arms}
        for run in of_setup:
            curve = _curve(found[run.name], set_name, metric)
            if curve and curve[-1][0] == run.recipe.steps:
                by_arm[run.arm][run.seed] = curve
        return by_arm

    deciding = curves(setup.judged_on, plan.score)
    others = {}
    for set_name in setup.arms[plan.baseline].evaluation_sets:
        for metric in METRICS:
            if (set_name, metric) != (setup.judged_on, plan.score):
                comparison = compare(curves(set_name, metric), plan.baseline, METRICS[metric].better)
                if comparison:
                    others[(set_name, metric)] = comparison
    levels = [found[run.name].bicubic.get(setup.judged_on, {}).get("mean", {}).get(plan.score) for run in of_setup]
    return SetupResult(
        setup.name,
        setup.judged_on,
        setup.arms[plan.baseline].steps,
        next((level for level in map(finite, levels) if level is not None), None),
        deciding,
        compare(deciding, plan.baseline),
        others,
        [arm for arm, by_seed in deciding.items() if not by_seed],
    )


def _curve(run: Run, set_name: str, metric: str) -> Curve:
    means = [(line["step"], line["sets"].get(set_name, {}).get("mean", {})) for line in run.evaluations]
    points = [(step, finite(mean.get(metric))) for step, mean in means]
    return [(step, score) for step, score in points if score is not None]


def _notes(plan: Plan, setups: dict[str, SetupResult], states: list[RunState], failed: dict[str, str]) -> list[str]:
    notes = [f"{name} failed: {reason}" for name, reason in failed.items()]
    open_runs = [state for state in states if not state.finished and state.name not in failed]
    if open_runs:
        shown = ", ".join(f"{state.name} (step {state.step:,} of {state.steps:,})" for state in open_runs[:6])
        rest = f" and {len(open_runs) - 6} more" if len(open_runs) > 6 else ""
        notes.append(f"Not finished, and not in the results: {shown}{rest}.")
    for setup in setups.values():
        finished = any(setup.curves.values())
        if finished and setup.left_out:
            notes.append(f"{setup.name}: {', '.join(setup.left_out)} has no finished run and is left out.")
        dropped = _dropped(setup)
        if dropped:
            notes.append(
                f"{setup.name}: only seeds that all arms have finished are compared; left out: {', '.join(dropped)}."
            )
    if plan.unequal:
        notes.append(
            f"The arms differ in {', '.join(plan.unequal)}, too, as the study declares: that alone can matter."
        )
    return [*notes, *plan.history]


def _dropped(setup: SetupResult) -> list[str]:
    """Return the finished runs that are not compared for want of a partner."""
    compared = setup.comparison.seeds if setup.comparison else []
    return [f"{arm} seed {s}" for arm, by_seed in setup.curves.items() for s in by_seed if s not in compared]


def to_json(results: Results) -> str:
    """Return the results as JSON; a step that was never reached is null."""
    plan = results.plan
    document: dict[str, Any] = {
        "format": FORMAT,
        "selfsr": __version__,
        "study": plan.name,
        "baseline": plan.baseline,
        "score": plan.score,
        "seeds": list(plan.seeds),
        "changes": plan.changes,
        "notes": results.notes,
        "recipes": {
            setup.name: {
                "judged_on": setup.judged_on,
                "steps": setup.steps,
                "bicubic": setup.bicubic,
                "comparison": setup.comparison and dataclasses.asdict(setup.comparison),
                "curves": setup.curves,
                "others": [
                    {"set": set_name, "score": metric, **dataclasses.asdict(comparison)}
                    for (set_name, metric), comparison in setup.others.items()
                ],
            }
            for setup in results.setups.values()
        },
        "runs": [dataclasses.asdict(state) for state in results.runs],
    }
    return json.dumps(document, indent=1, allow_nan=False, default=str) + "\n"
