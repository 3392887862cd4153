"""`selfsr train`."""

from pathlib import Path
from typing import Annotated

import typer

EPILOG = """[bold]Examples[/bold]

selfsr recipes copy small_edsr_x2 my.yaml

selfsr train my.yaml --set data.hr=photos --dry-run

selfsr train my.yaml --set data.hr=photos --set steps=20000

selfsr train my_gan.yaml --set method.terms.perceptual=null

selfsr train runs/my --resume

torchrun --nproc-per-node 4 -m selfsr train my.yaml"""


def train(
    recipe: Annotated[
        Path, typer.Argument(help="A recipe (YAML), the name of a shipped one, or with --resume a run folder.")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change the recipe: path=value, such as steps=1000. May be given often."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint of the run.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Check recipe and data, take two steps, judge once, save once; say how long and how much memory.",
        ),
    ] = False,
    runs: Annotated[Path, typer.Option(help="Where run folders are made.")] = Path("runs"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    quiet_report: Annotated[bool, typer.Option("--no-report", help="Do not write report.html at the end.")] = False,
) -> None:
    """Train a model as a recipe says. Ctrl-C saves and stops; --resume goes on exactly where it was."""
    from selfsr.console import print_line
    from selfsr.errors import InputError
    from selfsr.recipe import load_recipe, shipped_recipes
    from selfsr.training.dryrun import dry_run as rehearse
    from selfsr.training.guard import Diverged
    from selfsr.training.loop import fit, start_folder

    if recipe.is_dir():
        if not resume:
            raise InputError(f"train: {recipe} is a folder; to go on with the run in it, add --resume.")
        folder, loaded = recipe, load_recipe(recipe / "recipe.yaml", settings or ())
    else:
        loaded = load_recipe(shipped_recipes().get(str(recipe), recipe), settings or ())
        folder = runs / loaded.name
    if dry_run:
        rehearse(loaded, device=device)
        return
    start_folder(folder, resume)
    try:
        finished = fit(loaded, folder, device=device, resume=resume)
    except Diverged as error:
        print_line(f"selfsr: {error}")
        raise typer.Exit(4) from error
    if not finished:
        print_line(f"Stopped and saved; go on with: selfsr train {folder} --resume")
        raise typer.Exit(130)
    if not quiet_report and _is_first_process():
        from selfsr.report import write_report

        print_line(f"Report: {write_report([folder], folder / 'report.html')}")
        print_line(f"Weights: {folder / 'weights'}")


def _is_first_process() -> bool:
    from accelerate import PartialState

    return PartialState().is_main_process
