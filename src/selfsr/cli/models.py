"""The commands `selfsr models`: list and show the shipped models, and add one from a run."""

from pathlib import Path
from typing import Annotated

import typer

from selfsr.cli.options import DeviceOption
from selfsr.evaluation.metrics import list_extra_metrics

app: typer.Typer = typer.Typer(no_args_is_help=True)

ADD_EPILOG = """[bold]Example[/bold]

selfsr models add runs/photo_x2 -o photo_x2.safetensors --data Set5 --data Set14 --training-data data.md"""


@app.command("list")
def list_models() -> None:
    """List the models that come with the package, with their scores on the first set of their cards."""
    from rich.table import Table

    from selfsr.console import print_table
    from selfsr.evaluation.metrics import METRICS, describe_better
    from selfsr.models import read_models

    cards = read_models().values()
    shown = ("psnr_y", "ssim_y", "lpips")
    table = Table(box=None, pad_edge=False)
    for title in ("model", "scale", "KB", "set", *(METRICS[metric].title for metric in shown), "trained on", "license"):
        table.add_column(title, justify="left" if title in ("model", "set", "trained on", "license") else "right")
    for card in cards:
        name, means = next(iter(card.scores.items()), ("", {}))
        numbers = [METRICS[m].format_score(means[m]) if m in means else "" for m in shown]
        size = f"{card.path.stat().st_size / 2**10:,.0f}"
        table.add_row(card.name, f"x{card.scale}", size, name, *numbers, card.training_data, card.license)
    if not cards:
        typer.echo("This installation has no models.")
        return
    print_table(table)
    typer.echo(describe_better(shown))


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="Name from `selfsr models list`, or a weights file with a card.")],
    recipe: Annotated[bool, typer.Option("--recipe", help="Print the recipe of its training instead.")] = False,
) -> None:
    """Print the card of a model: scores, training images and their terms, license."""
    from selfsr.models import find_model, read_card
    from selfsr.models.card import write_card

    card = read_card(find_model(model))
    typer.echo(card.recipe if recipe else write_card(card), nl=False)


@app.command(epilog=ADD_EPILOG)
def add(
    run: Annotated[Path, typer.Argument(help="Run folder; its weights/last is used.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write, .safetensors; its card is the .md file next to it.")
    ],
    data: Annotated[
        list[str],
        typer.Option(metavar="[NAME=]DIR", help="Folder of HR images to evaluate on; NAME renames it. Repeatable."),
    ],
    training_data: Annotated[
        Path,
        typer.Option(help="Markdown file: its first line names the training images, the rest has their terms of use."),
    ],
    license: Annotated[str, typer.Option(help="License of the weights file.")] = "Apache-2.0",
    metric: Annotated[
        list[str] | None,
        typer.Option(help=f"Additional metric: {', '.join(list_extra_metrics())}. Repeatable."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
    device: DeviceOption = "auto",
) -> None:
    """Write the model of a run in the form of a shipped one: small, float16, with scores, origin and a card.

    To publish a model of your own, use `selfsr export`.
    """
    from selfsr.errors import InputError
    from selfsr.evaluation.sets import find_sets
    from selfsr.machine.device import choose_device
    from selfsr.models.add import add_model

    if output.exists() and not overwrite:
        raise InputError(f"models add: expected a new file, got {output}, which exists; add --overwrite.")
    names, terms = _read_training_data(training_data)
    card = add_model(
        run,
        output,
        find_sets(data),
        training_data=names,
        terms=terms,
        license=license,
        metrics=metric or (),
        device=choose_device(device),
    )
    for name, means in card.scores.items():
        typer.echo(f"{name}: {means['psnr_y']:.2f} dB PSNR-Y, {means['ssim_y']:.4f} SSIM-Y")
    typer.echo(f"Wrote {output} ({output.stat().st_size / 2**10:,.0f} KB) and {output.with_suffix('.md')}")


def _read_training_data(path: Path) -> tuple[str, str]:
    """Return the names of the training images, and their terms of use."""
    from selfsr.errors import InputError

    names, _, terms = path.read_text(encoding="utf-8", errors="replace").partition("\n")
    if not names.strip() or not terms.strip():
        raise InputError(
            f"--training-data {path}: expected the names of the training images in the first line and their terms "
            "below, got less; write both."
        )
    return names.strip(), terms.strip()
