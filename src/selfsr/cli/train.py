"""The command `selfsr train`."""

from pathlib import Path
from typing import Annotated

import typer

from selfsr.cli.options import refuse_unused

EPILOG = """[bold]Examples[/bold]

selfsr recipes copy small_edsr_x2 my.yaml

selfsr train my.yaml --set data.hr=photos --dry-run

selfsr train my.yaml --set data.hr=photos --set steps=20000

selfsr train my_gan.yaml --set method.terms.perceptual=null

selfsr train runs/my --resume

torchrun --nproc-per-node 4 -m selfsr train my.yaml"""


def train(
    context: typer.Context,
    recipe: Annotated[
        Path, typer.Argument(help="Recipe file (YAML), name of a shipped recipe, or with --resume a run folder.")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Change the recipe: key=value, such as steps=1000; null removes an entry. Repeatable."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the newest checkpoint of the run.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Check recipe and data, train a few steps, evaluate and save in a temporary folder; print the "
            "estimated time, memory and disk space of the run.",
        ),
    ] = False,
    runs: Annotated[Path, typer.Option(help="Folder in which the run folder is created.")] = Path("runs"),
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    no_report: Annotated[bool, typer.Option("--no-report", help="Do not write report.html at the end.")] = False,
) -> None:
    """Train a model from a recipe. Ctrl-C saves and stops; --resume continues bit for bit on a CPU."""
    from selfsr.console import print_line
    from selfsr.errors import InputError
    from selfsr.recipe import load_recipe, shipped_recipes
    from selfsr.training import dryrun
    from selfsr.training.guard import Diverged
    from selfsr.training.loop import fit

    if dry_run:
        refuse_unused(context, "resume", "runs", "no_report", reason="with --dry-run")
    if recipe.is_dir():
        refuse_unused(context, "runs", reason="with a run folder")
        if not resume:
            raise InputError(
                f"train: expected a recipe, got the folder {recipe}; add --resume to continue the run in it."
            )
        folder, loaded = recipe, load_recipe(recipe / "recipe.yaml", settings or ())
    elif resume and not recipe.is_file() and str(recipe) not in shipped_recipes():
        raise InputError(
            f"train: expected a run folder or a recipe to resume, got {recipe}, which does not exist; "
            f"{_suggest_run(recipe)}"
        )
    else:
        loaded = load_recipe(shipped_recipes().get(str(recipe), recipe), settings or ())
        folder = runs / loaded.name
    if dry_run:
        dryrun.dry_run(loaded, device=device)
        return
    try:
        finished = fit(loaded, folder, device=device, resume=resume)
    except Diverged as error:
        print_line(f"selfsr: {error}")
        raise typer.Exit(4) from error
    if not finished:
        print_line(f"Stopped and saved. Continue with: selfsr train {folder} --resume")
        raise typer.Exit(130)
    if not no_report and _is_main_process():
        try:
            from selfsr.report import write_report

            print_line(f"Report: {write_report([folder], folder / 'report.html')}")
        except KeyboardInterrupt:
            print_line(f"The training is finished and saved, without a report. Write it with: selfsr report {folder}")
            raise typer.Exit(130) from None
        finally:
            print_line(f"Weights: {folder / 'weights'}")


def _suggest_run(path: Path) -> str:
    from selfsr.errors import find_similar

    folders = [entry.name for entry in path.parent.iterdir() if entry.is_dir()] if path.parent.is_dir() else []
    similar = find_similar(path.name, sorted(folders))
    return f"did you mean {path.parent / similar}?" if similar else "name a run folder, such as runs/NAME."


def _is_main_process() -> bool:
    from accelerate import PartialState

    return PartialState().is_main_process
