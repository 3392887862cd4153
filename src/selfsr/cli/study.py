"""`selfsr study`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from selfsr.study.plan import Plan, PlannedRun
    from selfsr.study.results import Results

EPILOG = """[bold]Examples[/bold]

selfsr study study.yaml --dry-run

selfsr study study.yaml --jobs 2

selfsr study studies/self_paced          (go on where it was stopped)

selfsr study study.yaml --set base.steps=200 --out studies/trial

selfsr study studies/self_paced --summary"""


def study(
    study: Annotated[Path, typer.Argument(help="A study (YAML), or the folder of one that was begun, to go on.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The study folder; studies/NAME without it.")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at once; without it one for each GPU, or one on a CPU.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda (spread over all GPUs), cuda:1 or mps.")] = "auto",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Change every recipe (base.steps=1000) or the study (seeds=[1,2]). May be given often."
        ),
    ] = None,
    summary: Annotated[
        bool, typer.Option("--summary", help="Train nothing; compute the results again from what is there.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and say what would run.")] = False,
    extend: Annotated[
        bool, typer.Option("--extend", help="Add seeds, arms or recipes to a study that was begun; the results say so.")
    ] = False,
    quiet_reports: Annotated[
        bool, typer.Option("--no-reports", help="Do not write a report.html in each run folder.")
    ] = False,
) -> None:
    """Compare the arms of a study over recipes and seeds. Ctrl-C saves and stops; the same command goes on."""
    from selfsr.errors import InputError
    from selfsr.study import open_study, rehearse, run_study, summarize
    from selfsr.study.runner import say_how_to_go_on

    if summary and (dry_run or extend):
        raise InputError("study: --summary trains nothing; leave out --dry-run and --extend.")
    plan, folder = open_study(study, settings or (), out, any_version=summary)
    if summary:
        _tell(summarize(plan, folder), folder)
        return
    _announce(plan, folder)
    if dry_run:
        _foretell(rehearse(plan, folder, extend=extend))
        return
    results, outcome = run_study(plan, folder, device=device, jobs=jobs, reports=not quiet_reports, extend=extend)
    _tell(results, folder)
    if outcome.interrupted:
        say_how_to_go_on(folder)
        raise typer.Exit(130)
    if outcome.failed:
        raise typer.Exit(1)


def _announce(plan: "Plan", folder: Path) -> None:
    """Print what will be compared."""
    from selfsr.console import print_line
    from selfsr.study.wording import told_changes

    runs = plan.runs()
    steps = sum(run.recipe.steps for run in runs)
    print_line(
        f"Study {plan.name}: {len(plan.setups)} recipe(s) x {len(plan.changes)} arms x {len(plan.seeds)} seed(s) = "
        f"{len(runs)} runs, {steps:,} steps, in {folder}"
    )
    for arm, changes in plan.changes.items():
        baseline = " (baseline)" if arm == plan.baseline else ""
        print_line(f"  {arm}{baseline}: {told_changes(changes)}")


def _foretell(reached: "list[tuple[PlannedRun, int]]") -> None:
    """Print what is left to train."""
    from selfsr.console import print_line

    finished = sum(step == run.recipe.steps for run, step in reached)
    begun = sum(0 < step < run.recipe.steps for run, step in reached)
    left = sum(run.recipe.steps - step for run, step in reached)
    told = f"Finished: {finished} of {len(reached)} runs; begun: {begun}; {left:,} steps are left."
    print_line(told)


def _tell(results: "Results", folder: Path) -> None:
    """Print the final scores and where the rest is."""
    from rich.console import Console
    from rich.table import Table

    from selfsr.console import print_line
    from selfsr.study.tables import main_table, sentences
    from selfsr.study.wording import Numbers

    numbers = Numbers(results.plan.score)
    for setup in results.setups.values():
        if setup.comparison:
            told = main_table(setup.comparison, numbers, setup.steps)
            shown = (0, 1, 4, 6, 7)  # what a terminal has room for; the page and results.md have all
            table = Table(box=None, title=f"{setup.name}: {len(setup.comparison.seeds)} seed(s), {setup.judged_on}")
            for index in shown:
                table.add_column(told.headings[index], justify="right" if index else "left")
            for row in told.rows:
                table.add_row(*(row[index] for index in shown))
            Console().print(table)
        for sentence in sentences(setup, numbers):
            print_line(sentence)
    for note in results.notes:
        print_line(f"Note: {note}")
    print_line(f"Page: {folder / 'study.html'}  Tables: {folder / 'results.md'}")
