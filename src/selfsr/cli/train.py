"""The command `selfsr train`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from selfsr.cli.messages import explain_stopped_dry_run
from selfsr.cli.options import LogOption, refuse_unused

if TYPE_CHECKING:
    from selfsr.recipe import Recipe

EPILOG = """[bold]Examples[/bold]

selfsr recipes copy small_edsr_x2 my.yaml

selfsr train my.yaml --set data.hr=photos --dry-run

selfsr train my_one_step.yaml --dry-run --memory --layout sd21

selfsr train my.yaml --set data.hr=photos --set steps=20000

selfsr train my_gan.yaml --set method.terms.perceptual=null

selfsr train runs/my --resume

selfsr train my.yaml --log json > log.jsonl

torchrun --nproc-per-node 4 --max-restarts 3 -m selfsr train my.yaml --resume auto"""


class TrainCommand(TyperCommand):
    """The command, in which `--resume` may stand without a value, for the same as `--resume newest`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, after giving `--resume` its value."""
        following = [*args[1:], ""]
        complete = [
            "--resume=newest" if argument == "--resume" and after not in RESUME_CHOICES else argument
            for argument, after in zip(args, following, strict=True)
        ]
        return super().parse_args(ctx, complete)


RESUME_CHOICES = ("newest", "auto")


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
    resume: Annotated[
        Literal["newest", "auto"] | None,
        typer.Option(
            metavar="[auto]",
            help="Continue from the newest checkpoint of the run; with auto, start the run if there is none.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Check recipe and data, train six steps, evaluate two images of each set once and save in a temporary "
            "folder; print the estimated time, memory and disk space of the run.",
        ),
    ] = False,
    memory: Annotated[
        bool,
        typer.Option(
            "--memory",
            help="With --dry-run: only estimate the memory of a step and print its parts. Reads no data, weights or "
            "pretrained base and runs no step, so that it works on any machine.",
        ),
    ] = False,
    layout: Annotated[
        str | None,
        typer.Option(
            metavar="sd15|sd21|sd3",
            help="With --memory: use the sizes of Stable Diffusion 1.5, 2.1 or 3 medium for the base. Default: those "
            "of the recipe's base if its folder exists, else by its name.",
        ),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder in which the run folder is created.")] = Path("runs"),
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    no_report: Annotated[bool, typer.Option("--no-report", help="Do not write report.html at the end.")] = False,
    log: LogOption = "auto",
) -> None:
    """Train a model from a recipe. Ctrl-C saves and stops; --resume continues bit for bit on a CPU."""
    from selfsr.console import print_line, print_lines, set_log_style
    from selfsr.errors import InputError
    from selfsr.recipe import load_recipe, shipped_recipes
    from selfsr.training import dryrun
    from selfsr.training.memory import estimate_step_memory
    from selfsr.training.memory_table import describe_memory

    set_log_style(log)
    if dry_run:
        refuse_unused(context, "resume", "runs", "no_report", reason="with --dry-run")
    else:
        refuse_unused(context, "memory", reason="without --dry-run")
    if not memory:
        refuse_unused(context, "layout", reason="without --memory")
    if recipe.is_dir():
        refuse_unused(context, "runs", reason="with a run folder")
        if resume is None:
            raise InputError(
                f"train: expected a recipe, got the folder {recipe}; add --resume to continue the run in it."
            )
        folder, loaded = recipe, load_recipe(recipe / "recipe.yaml", settings or ())
    elif resume == "newest" and not recipe.is_file() and str(recipe) not in shipped_recipes():
        raise InputError(
            f"train: expected a run folder or a recipe to resume, got {recipe}, which does not exist; "
            f"{_suggest_run(recipe)}"
        )
    else:
        loaded = load_recipe(shipped_recipes().get(str(recipe), recipe), settings or ())
        folder = runs / loaded.name
    if memory:
        print_line("Building the networks and taking two steps on tensors without data; large bases need a minute.")
        print_lines(
            describe_memory(estimate_step_memory(loaded, device=device, layout=layout, load_data=False), loaded)
        )
        return
    if dry_run:
        with explain_stopped_dry_run():
            dryrun.dry_run(loaded, device=device)
        return
    choice = "auto" if resume == "auto" else resume is not None
    run_recipe(loaded, folder, device=device, log=log, resume=choice, report=not no_report)


def run_recipe(
    recipe: "Recipe",
    folder: Path,
    *,
    device: str,
    log: str,
    resume: bool | Literal["auto"] = False,
    report: bool = True,
) -> None:
    """Train, then print the scores and write the report.

    Raises:
        typer.Exit: the run diverged (4) or was stopped (130).
        InputError: see `fit`.
    """
    from selfsr.console import print_event, print_line
    from selfsr.training.guard import Diverged
    from selfsr.training.loop import fit

    try:
        finished = fit(recipe, folder, device=device, resume=resume)
    except Diverged as error:
        if _is_main_process():
            print_line(f"selfsr: {error}")
        raise typer.Exit(4) from error
    if not finished:
        if _is_main_process():
            print_line(f"Stopped and saved. Continue with: selfsr train {folder} --resume")
        raise typer.Exit(130)
    if _is_main_process():
        print_event("end", {"steps": recipe.steps, "folder": str(folder)})
        if log != "json" and (folder / "eval.jsonl").exists():
            _print_scores(folder)
    if report and _is_main_process():
        try:
            from selfsr.report import write_report

            print_line(f"Report: {write_report([folder], folder / 'report.html')}")
        except KeyboardInterrupt:
            print_line(f"The training is finished and saved, without a report. Write it with: selfsr report {folder}")
            raise typer.Exit(130) from None
        finally:
            print_line(f"Weights: {folder / 'weights'}")


def _print_scores(folder: Path) -> None:
    """Print the scores of bicubic upscaling and of start, best and last step of a finished run."""
    from selfsr.cli.score_table import print_score_table, tabulate_run
    from selfsr.runfolder.read import read_run_folders

    table = tabulate_run(read_run_folders([folder])[0])
    if table is not None:
        print_score_table(table)


def _suggest_run(path: Path) -> str:
    from selfsr.errors import find_similar

    folders = [entry.name for entry in path.parent.iterdir() if entry.is_dir()] if path.parent.is_dir() else []
    similar = find_similar(path.name, sorted(folders))
    return f"did you mean {path.parent / similar}?" if similar else "name a run folder, such as runs/NAME."


def _is_main_process() -> bool:
    from accelerate import PartialState

    return PartialState().is_main_process
