"""Run a study: train recipes x arms x seeds, and compare runs of the same seed."""

from collections.abc import Sequence
from pathlib import Path

from selfsr.errors import InputError
from selfsr.fileio import write_atomic
from selfsr.study.devices import choose_slots
from selfsr.study.folder import (
    check_folder,
    check_run,
    lock_study,
    match_folder,
    read_plan,
    read_step,
    write_definition,
)
from selfsr.study.page import render_study
from selfsr.study.plan import PlannedRun, StudyPlan, check_inputs, resolve_study
from selfsr.study.results import StudyResults, read_results, to_json
from selfsr.study.runner import StudyOutcome, run_all
from selfsr.study.spec import load_study, split_settings
from selfsr.study.tables import to_markdown

DEFAULT_FOLDER = Path("studies")


def open_study(
    path: Path, settings: Sequence[str] = (), out: Path | None = None, *, any_version: bool = False
) -> tuple[StudyPlan, Path]:
    """Read a study file or a study folder; return the plan and the study folder.

    Args:
        path: a study file, or the folder of a study that was started.
        settings: changes to the file, each `path=value`; see `split_settings`.
        out: the study folder; None means `studies/` and the study's name.
        any_version: also accept a folder of another selfsr version, to read its results.

    Raises:
        InputError: the file has a mistake, or `settings` or `out` come with a folder.
    """
    if not path.is_dir():
        of_study, of_recipes = split_settings(settings)
        plan = resolve_study(load_study(path, of_study), str(path), of_recipes)
        return plan, out or DEFAULT_FOLDER / plan.name
    if settings or out is not None:
        raise InputError(f"study: --set and --out need a study file, got the study folder {path}; leave them out.")
    return read_plan(path, any_version=any_version), path


def run_study(
    plan: StudyPlan,
    folder: Path,
    *,
    device: str = "auto",
    jobs: int | None = None,
    reports: bool = True,
    extend: bool = False,
) -> tuple[StudyResults, StudyOutcome]:
    """Train the unfinished runs of a study, and write its results after each run.

    Args:
        plan: the study.
        folder: the study folder.
        device: "auto" and "cuda" distribute the runs over all visible GPUs.
        jobs: number of runs at once; None means one for each GPU, or one on another device.
        reports: write a report for each run.
        extend: see `write_definition`.

    Returns:
        The results, and the failed or interrupted runs.

    Raises:
        InputError: the folder has another study, another process uses it, or an input file is missing.
    """
    slots = choose_slots(device, jobs)
    check_inputs(plan)
    check_folder(folder)
    with lock_study(folder) as lock:
        plan = write_definition(plan, folder, extend=extend)
        for run in plan.runs():
            check_run(folder, run)

        def finished(run: PlannedRun) -> None:  # noqa: ARG001 - the results need all runs
            write_results(plan, folder)

        outcome = run_all(plan.runs(), folder, slots, lock=lock, reports=reports, on_finished=finished)
        return write_results(plan, folder, outcome.failed), outcome


def dry_run_study(plan: StudyPlan, folder: Path, *, extend: bool = False) -> list[tuple[PlannedRun, int]]:
    """Check a study as `run_study` does, and write nothing; return each run with its last saved step.

    Raises:
        InputError: as `run_study`, except for a folder in use.
    """
    check_inputs(plan)
    plan, _ = match_folder(plan, folder, extend=extend)
    for run in plan.runs():
        check_run(folder, run)
    return [(run, read_step(folder, run)) for run in plan.runs()]


def summarize(plan: StudyPlan, folder: Path) -> StudyResults:
    """Compute the results of the existing runs again; train nothing.

    Raises:
        InputError: the folder has no study, or another one.
    """
    if not folder.is_dir():
        raise InputError(f"study: {folder} does not exist; run the study first, without --summary.")
    read_plan(folder, any_version=True)
    return write_results(write_definition(plan, folder, any_version=True), folder)


def write_results(plan: StudyPlan, folder: Path, failed: dict[str, str] | None = None) -> StudyResults:
    """Write `results.json`, `results.md` and `study.html` into the study folder; return the results."""
    results = read_results(plan, folder, failed)
    write_atomic(folder / "results.json", to_json(results))
    write_atomic(folder / "results.md", to_markdown(results))
    write_atomic(folder / "study.html", render_study(results))
    return results
