"""Put a claim about a loss, or about anything in a recipe, to the test: recipes x arms x seeds, paired by seed."""

from collections.abc import Sequence
from pathlib import Path

from selfsr.errors import InputError
from selfsr.fileio import write_whole
from selfsr.study.folder import agree, check_run, in_use, read_plan, refuse_foreign, settle, step_reached
from selfsr.study.machines import slots
from selfsr.study.page import render
from selfsr.study.plan import Plan, PlannedRun, check_inputs, resolve
from selfsr.study.results import Results, read_results, to_json
from selfsr.study.runner import Outcome, run_all
from selfsr.study.spec import load_study
from selfsr.study.tables import markdown

DEFAULT_FOLDER = Path("studies")


def open_study(
    path: Path, settings: Sequence[str] = (), out: Path | None = None, *, any_version: bool = False
) -> tuple[Plan, Path]:
    """Return the plan of a study file, or of a study folder, and the folder that it goes to.

    Args:
        path: a study file, or the folder of a study that was begun.
        settings: changes to the file, path=value.
        out: the folder; without it, `studies/` and the study's name.
        any_version: take a folder that another version of the program wrote, too: to read its results.

    Raises:
        InputError: something in the file is wrong, or options do not fit a folder.
    """
    if not path.is_dir():
        plan = resolve(load_study(path, settings), str(path))
        return plan, out or DEFAULT_FOLDER / plan.name
    if settings or out is not None:
        raise InputError(f"study: {path} is a study folder, which has its settings; --set and --out need a study file.")
    return read_plan(path, any_version=any_version), path


def run_study(
    plan: Plan,
    folder: Path,
    *,
    device: str = "auto",
    jobs: int | None = None,
    reports: bool = True,
    extend: bool = False,
) -> tuple[Results, Outcome]:
    """Train what is missing of a study, and write its results after each run.

    Args:
        plan: the study.
        folder: the study folder.
        device: "auto" and "cuda" spread the runs over all visible GPUs.
        jobs: runs at once; None is one for each GPU, or one.
        reports: write each run's own report.
        extend: see `settle`.

    Returns:
        The results, and how the runs went.

    Raises:
        InputError: the folder holds another study, another process works in it, or a file is missing.
    """
    places = slots(device, jobs)
    check_inputs(plan)
    refuse_foreign(folder)
    with in_use(folder) as lock:
        plan = settle(plan, folder, extend=extend)
        for run in plan.runs():
            check_run(folder, run)

        def finished(run: PlannedRun) -> None:  # noqa: ARG001 - the results are of all runs
            write_results(plan, folder)

        outcome = run_all(plan.runs(), folder, places, lock=lock, reports=reports, on_finished=finished)
        return write_results(plan, folder, outcome.failed), outcome


def rehearse(plan: Plan, folder: Path, *, extend: bool = False) -> list[tuple[PlannedRun, int]]:
    """Check all that `run_study` would refuse, and write nothing; return each run with the step it has reached.

    Raises:
        InputError: as `run_study`, but for a folder that another process works in.
    """
    check_inputs(plan)
    plan, _ = agree(plan, folder, extend=extend)
    for run in plan.runs():
        check_run(folder, run)
    return [(run, step_reached(folder, run)) for run in plan.runs()]


def summarize(plan: Plan, folder: Path) -> Results:
    """Compute the results again from the runs that are there; nothing is trained.

    Raises:
        InputError: the folder holds no study, or another one.
    """
    if not folder.is_dir():
        raise InputError(f"study: {folder} does not exist; run the study first, without --summary.")
    read_plan(folder, any_version=True)
    return write_results(settle(plan, folder, any_version=True), folder)


def write_results(plan: Plan, folder: Path, failed: dict[str, str] | None = None) -> Results:
    """Write `results.json`, `results.md` and `study.html` into the study folder, and return what they tell."""
    results = read_results(plan, folder, failed)
    write_whole(folder / "results.json", to_json(results))
    write_whole(folder / "results.md", markdown(results))
    write_whole(folder / "study.html", render(results))
    return results
