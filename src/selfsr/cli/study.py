"""`selfsr study`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selfsr.cli.messages import explain_stopped_dry_run
from selfsr.cli.options import refuse_unused

if TYPE_CHECKING:
    from selfsr.study.devices import DeviceSlot
    from selfsr.study.plan import PlannedRun, StudyPlan
    from selfsr.study.results import StudyResults

EPILOG = """[bold]Examples[/bold]

selfsr study study.yaml --dry-run

selfsr study study.yaml --jobs 2

selfsr study studies/self_paced          (resume)

selfsr study study.yaml --set base.steps=200 --out studies/trial

selfsr study studies/self_paced --summary"""


def study(
    context: typer.Context,
    study: Annotated[Path, typer.Argument(help="A study file (YAML), or a study folder to resume.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Study folder; studies/NAME by default.")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Number of runs at once; by default one for each GPU, or one on a CPU.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda (all GPUs), cuda:1 or mps; --summary needs none.")
    ] = "auto",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change all recipes (base.steps=1000) or the study (seeds=[1,2]); repeatable."),
    ] = None,
    summary: Annotated[
        bool, typer.Option("--summary", help="Only compute the results of the existing runs again.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Check the study, try each arm for a few steps, and print the remaining runs and their time.",
        ),
    ] = False,
    extend: Annotated[
        bool,
        typer.Option(
            "--extend", help="Accept additional seeds, arms or recipes in an existing study; the results mention them."
        ),
    ] = False,
    no_reports: Annotated[
        bool, typer.Option("--no-reports", help="Do not write a report.html into each run folder.")
    ] = False,
) -> None:
    """Compare training variants over recipes and seeds. Ctrl-C saves and stops; the same command resumes."""
    from selfsr.errors import InputError
    from selfsr.study import dry_run_study, open_study, run_study, summarize
    from selfsr.study.devices import choose_slots
    from selfsr.study.runner import print_resume_command

    if summary and (dry_run or extend):
        raise InputError(
            "study: --summary was given with --dry-run or --extend; leave these out, since it trains nothing."
        )
    if summary:
        refuse_unused(context, "jobs", "no_reports", reason="with --summary")
    if dry_run:
        refuse_unused(context, "no_reports", reason="with --dry-run")
    slots = choose_slots(device, jobs) if dry_run else []  # refuses a device that this machine does not have
    plan, folder = open_study(study, settings or (), out, any_version=summary)
    if summary:
        _print_results(summarize(plan, folder), folder)
        return
    _print_plan(plan, folder)
    if dry_run:
        with explain_stopped_dry_run():
            _try_arms(dry_run_study(plan, folder, extend=extend), slots)
        return
    results, outcome = run_study(plan, folder, device=device, jobs=jobs, reports=not no_reports, extend=extend)
    _print_results(results, folder)
    if outcome.interrupted:
        print_resume_command(folder)
        raise typer.Exit(130)
    if outcome.failed:
        raise typer.Exit(1)


def _print_plan(plan: "StudyPlan", folder: Path) -> None:
    """Print the arms and the number of runs."""
    from selfsr.console import print_line
    from selfsr.study.wording import describe_changes

    runs = plan.runs()
    steps = sum(run.recipe.steps for run in runs)
    print_line(
        f"Study {plan.name}: {len(plan.setups)} recipe(s) x {len(plan.changes)} arms x {len(plan.seeds)} seed(s) = "
        f"{len(runs)} runs, {steps:,} steps, in {folder}"
    )
    for place, changes in plan.common.items():
        if changes:
            print_line(f"  {place}: {describe_changes(changes)}")
    for arm, changes in plan.changes.items():
        baseline = " (baseline)" if arm == plan.baseline else ""
        print_line(f"  {arm}{baseline}: {describe_changes(changes)}")


def _try_arms(runs: "list[tuple[PlannedRun, int]]", slots: "list[DeviceSlot]") -> None:
    """Try each arm; print its cost, and the remaining runs, steps and time."""
    from selfsr.console import format_duration, print_line
    from selfsr.study.trial import describe_cost, estimate_time_s, try_arms

    costs = try_arms(runs, slots, lambda run: print_line(f"Trying arm {run.arm} of recipe {run.setup}"))
    for (setup, arm), cost in costs.items():
        run = next(run for run, _ in runs if (run.setup, run.arm) == (setup, arm))
        print_line(f"  {arm} of {setup}: {describe_cost(run.recipe, cost)}")
    finished = sum(step == run.recipe.steps for run, step in runs)
    started = sum(0 < step < run.recipe.steps for run, step in runs)
    remaining = sum(run.recipe.steps - step for run, step in runs)
    line = f"Finished: {finished} of {len(runs)} runs; started: {started}; {remaining:,} steps remain"
    if costs:
        devices = len({slot.label for slot in slots})
        duration = format_duration(estimate_time_s(runs, costs, devices))
        line += f", about {duration}" + (f" on {devices} devices" if devices > 1 else "")
    print_line(f"{line}.")


def _print_results(results: "StudyResults", folder: Path) -> None:
    """Print the final scores and the paths of the complete results."""
    from rich.table import Table

    from selfsr.console import print_line, print_table
    from selfsr.study.tables import describe_results, make_main_table
    from selfsr.study.wording import ScoreFormat

    numbers = ScoreFormat(results.plan.metric)
    for setup in results.setups.values():
        if setup.comparison:
            complete = make_main_table(setup.comparison, numbers, setup.steps)
            columns = (0, 1, 4, 6, 7)  # as many as fit into a terminal; the page and results.md have all
            table = Table(
                box=None, title=f"{setup.name}: {len(setup.comparison.seeds)} seed(s), {setup.evaluation_set}"
            )
            for index in columns:
                table.add_column(complete.headings[index], justify="right" if index else "left")
            for row in complete.rows:
                table.add_row(*(row[index] for index in columns))
            print_table(table)
        for sentence in describe_results(setup, numbers):
            print_line(sentence)
    for note in results.notes:
        print_line(f"Note: {note}")
    print_line(f"Page: {folder / 'study.html'}  Tables: {folder / 'results.md'}")
