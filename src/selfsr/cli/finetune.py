"""The command `selfsr finetune`."""

from pathlib import Path
from typing import Annotated

import typer

from selfsr.cli.options import LogOption

EPILOG = """[bold]Examples[/bold]

selfsr finetune photo_x4 photos

selfsr finetune 4xModel.pth photos --for 2h --gan --degrade real_esrgan

selfsr finetune 4xModel.pth photos --steps 5000 --dry-run

selfsr train runs/4xModel_finetuned --resume"""


def finetune(
    model: Annotated[str, typer.Argument(help="Weights file, or name of a shipped model (selfsr models list).")],
    photos: Annotated[Path, typer.Argument(help="Folder of photos, searched with its subfolders.")],
    duration: Annotated[
        str | None,
        typer.Option(
            "--for",
            help="Time of the run with its planning, such as 30m or 2h; the number of steps follows from the measured "
            "speed. Default: 30m, without --steps.",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=10, help="Optimizer steps, instead of --for.")] = None,
    degrade: Annotated[
        str | None,
        typer.Option(
            help="Preset that makes the inputs, such as real_esrgan, instead of bicubic. Use it for inputs with blur "
            "and noise."
        ),
    ] = None,
    gan: Annotated[
        bool,
        typer.Option(
            "--gan/--fidelity",
            help="Train for perceptual quality, with a discriminator, the self-similarity loss and a perceptual loss; "
            "or for PSNR.",
        ),
    ] = False,
    scale: Annotated[int | None, typer.Option(help="Upscaling factor, for a model that has several.")] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the run; default: the name of the model with _finetuned.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder in which the run folder is created.")] = Path("runs"),
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Choose the recipe and write it into the run folder; train nothing.")
    ] = False,
    log: LogOption = "auto",
) -> None:
    """Fine-tune a model on a folder of photos, without a recipe.

    A tenth of the photos is held out for evaluation. Crop, batch and steps follow from the photos, the memory and the
    time. The run folder has the recipe, weights, scores, and outputs before and after the training.
    """
    from selfsr.cli.train import run_recipe
    from selfsr.console import print_line, print_lines, set_log_style
    from selfsr.errors import InputError
    from selfsr.fileio import check_writable
    from selfsr.finetune.before_after import draw_before_after
    from selfsr.finetune.duration import read_duration_s
    from selfsr.finetune.plan import Request, name_run, plan_finetune

    set_log_style(log)
    if duration is not None and steps is not None:
        raise InputError("--steps: expected either --for or --steps, got both; leave one out.")
    seconds = read_duration_s(duration or "30m") if steps is None else None
    folder = runs / (name or name_run(model))
    check_writable(folder / "recipe.yaml")
    plan = plan_finetune(
        Request(model, photos, folder, degrade, gan=gan, seconds=seconds, steps=steps, scale=scale, device=device)
    )
    recipe = plan.recipe
    print_lines(
        [
            *plan.notes,
            f"{recipe.steps:,} steps of {recipe.batch} crops of {recipe.crop_px} px for "
            f"{'perceptual quality' if gan else 'PSNR'}, inputs by {degrade or 'bicubic'}; best by "
            f"{recipe.evaluate.best_by}."
            if recipe.evaluate
            else "",
        ]
    )
    if dry_run:
        from selfsr.fileio import write_atomic
        from selfsr.recipe import dump_recipe

        write_atomic(folder / "recipe.yaml", dump_recipe(recipe))
        print_line(f"Recipe: {folder / 'recipe.yaml'}. Train it with: selfsr train {folder / 'recipe.yaml'}")
        return
    run_recipe(recipe, folder, device=device, log=log)
    if image := draw_before_after(folder):
        print_line(f"Before and after: {image}")
