"""Read the results of a study from its run folders."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfsr import __version__
from selfsr.evaluation.combined import finite_or_none
from selfsr.evaluation.metrics import METRICS
from selfsr.runfolder.read import RunFolder, read_run_folders
from selfsr.study.compare import Comparison, Curve, compare
from selfsr.study.folder import FORMAT, get_run_folder, is_finished, read_step
from selfsr.study.plan import PlannedRun, StudyPlan, StudySetup
from selfsr.study.trade_off import METRICS_AGAINST_SCORE, TradeOff, list_trade_offs


@dataclass(frozen=True)
class RunState:
    """The progress of one run.

    Attributes:
        name: name of the run.
        setup: name of its recipe in the study.
        arm: name of its arm.
        seed: its seed.
        step: last saved step.
        steps: number of steps of the recipe.
        finished: whether it has reached the last step.
        seconds: training time in its log; None if the log has none.
        report: its report, relative to the study folder; None if it does not exist.
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
        name: name of the recipe in the study.
        evaluation_set: the evaluation set of the comparison.
        steps: number of steps of the baseline.
        bicubic: the score of bicubic interpolation on this set; None if no run has it.
        curves: the score over the steps of each finished run, by arm and seed.
        comparison: the comparison by the study's metric; None without a common seed.
        others: comparisons by the other metrics and sets, by (set, metric).
        left_out: arms without a finished run.
        trade_offs: the metrics that are computed on request, and the seed spread, against the study's own.
    """

    name: str
    evaluation_set: str
    steps: int
    bicubic: float | None
    curves: dict[str, dict[int, Curve]]
    comparison: Comparison | None
    others: dict[tuple[str, str], Comparison]
    left_out: list[str]
    trade_offs: list[TradeOff]


@dataclass(frozen=True)
class StudyResults:
    """The results of a study.

    Attributes:
        plan: the study.
        setups: the results by recipe.
        runs: all runs, in the order of the plan.
        notes: sentences about missing or failed runs, allowed differences and later extensions.
    """

    plan: StudyPlan
    setups: dict[str, SetupResult]
    runs: list[RunState]
    notes: list[str]


def read_results(plan: StudyPlan, folder: Path, failed: dict[str, str] | None = None) -> StudyResults:
    """Read the results of a study, complete or not.

    Args:
        plan: the study.
        folder: the study folder.
        failed: the reasons of failed runs, by run name.
    """
    run_folders: dict[str, RunFolder] = {}
    states = []
    for run in plan.runs():
        finished = is_finished(folder, run)
        if finished:
            run_folders[run.name] = read_run_folders([get_run_folder(folder, run)])[0]
        states.append(_read_state(run, folder, finished, run_folders.get(run.name)))
    setups = {setup.name: _summarize_setup(plan, setup, run_folders) for setup in plan.setups.values()}
    return StudyResults(plan, setups, states, _write_notes(plan, setups, states, failed or {}))


def _read_state(run: PlannedRun, folder: Path, finished: bool, run_folder: RunFolder | None) -> RunState:
    report = get_run_folder(folder, run) / "report.html"
    return RunState(
        run.name,
        run.setup,
        run.arm,
        run.seed,
        read_step(folder, run),
        run.recipe.steps,
        finished,
        run_folder.seconds if run_folder else None,
        report.relative_to(folder).as_posix() if report.exists() else None,
    )


def _summarize_setup(plan: StudyPlan, setup: StudySetup, run_folders: dict[str, RunFolder]) -> SetupResult:
    of_setup = [run for run in plan.runs() if run.setup == setup.name and run.name in run_folders]

    def read_curves(set_name: str, metric: str) -> dict[str, dict[int, Curve]]:
        by_arm: dict[str, dict[int, Curve]] = {arm: {} for arm in setup.arms}
        for run in of_setup:
            curve = _read_curve(run_folders[run.name], set_name, metric)
            if curve and curve[-1][0] == run.recipe.steps:
                by_arm[run.arm][run.seed] = curve
        return by_arm

    main_curves = read_curves(setup.evaluation_set, plan.metric)
    others = {}
    for set_name in setup.arms[plan.baseline].evaluation_sets:
        for metric in METRICS:
            if (set_name, metric) != (setup.evaluation_set, plan.metric):
                comparison = compare(read_curves(set_name, metric), plan.baseline, METRICS[metric].better)
                if comparison:
                    others[(set_name, metric)] = comparison
    bicubic = [run_folders[run.name].bicubic.get(setup.evaluation_set, {}).get("mean", {}) for run in of_setup]
    bicubic_scores = [finite_or_none(mean.get(plan.metric)) for mean in bicubic]
    comparison = compare(main_curves, plan.baseline)
    traded = {metric: read_curves(setup.evaluation_set, metric) for metric in METRICS_AGAINST_SCORE}
    return SetupResult(
        setup.name,
        setup.evaluation_set,
        setup.arms[plan.baseline].steps,
        next((score for score in bicubic_scores if score is not None), None),
        main_curves,
        comparison,
        others,
        [arm for arm, by_seed in main_curves.items() if not by_seed],
        list_trade_offs(main_curves, traded, comparison, plan.equal_score),
    )


def _read_curve(run: RunFolder, set_name: str, metric: str) -> Curve:
    means = [(line["step"], line["sets"].get(set_name, {}).get("mean", {})) for line in run.evaluations]
    points = [(step, finite_or_none(mean.get(metric))) for step, mean in means]
    return [(step, score) for step, score in points if score is not None]


def _write_notes(
    plan: StudyPlan, setups: dict[str, SetupResult], states: list[RunState], failed: dict[str, str]
) -> list[str]:
    notes = [f"{name} failed: {reason}" for name, reason in failed.items()]
    open_runs = [state for state in states if not state.finished and state.name not in failed]
    if open_runs:
        shown = ", ".join(f"{state.name} (step {state.step:,} of {state.steps:,})" for state in open_runs[:6])
        rest = f" and {len(open_runs) - 6} more" if len(open_runs) > 6 else ""
        notes.append(f"Unfinished runs are not in the results: {shown}{rest}.")
    for setup in setups.values():
        finished = any(setup.curves.values())
        if finished and setup.left_out:
            notes.append(f"{setup.name}: arms without a finished run are left out: {', '.join(setup.left_out)}.")
        dropped = _list_dropped(setup)
        if dropped:
            notes.append(
                f"{setup.name}: only seeds that all arms have finished are compared; left out: {', '.join(dropped)}."
            )
    if plan.allowed_differences:
        notes.append(
            f"The study allows the arms to differ also in {', '.join(plan.allowed_differences)}, "
            "which can explain a difference in scores."
        )
    return [*notes, *plan.history]


def _list_dropped(setup: SetupResult) -> list[str]:
    """Return the finished runs whose seed is not finished in every arm."""
    compared = setup.comparison.seeds if setup.comparison else []
    return [f"{arm} seed {s}" for arm, by_seed in setup.curves.items() for s in by_seed if s not in compared]


def to_json(results: StudyResults) -> str:
    """Return the results as JSON; steps to a score that was never reached are null."""
    plan = results.plan
    document: dict[str, Any] = {
        "format": FORMAT,
        "selfsr": __version__,
        "study": plan.name,
        "baseline": plan.baseline,
        "metric": plan.metric,
        "equal_score": plan.equal_score,
        "seeds": list(plan.seeds),
        "changes": plan.changes,
        "notes": results.notes,
        "recipes": {
            setup.name: {
                "evaluation_set": setup.evaluation_set,
                "steps": setup.steps,
                "bicubic": setup.bicubic,
                "comparison": setup.comparison and dataclasses.asdict(setup.comparison),
                "curves": setup.curves,
                "others": [
                    {"set": set_name, "metric": metric, **dataclasses.asdict(comparison)}
                    for (set_name, metric), comparison in setup.others.items()
                ],
                "trade_offs": [dataclasses.asdict(trade) for trade in setup.trade_offs],
            }
            for setup in results.setups.values()
        },
        "runs": [dataclasses.asdict(state) for state in results.runs],
    }
    return json.dumps(document, indent=1, allow_nan=False, default=str) + "\n"
