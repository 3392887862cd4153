"""The commands `selfsr recipes`: list, print and copy the shipped recipes, and list the networks."""

from pathlib import Path
from typing import Annotated

import typer

app: typer.Typer = typer.Typer(no_args_is_help=True)


@app.command("list")
def list_recipes() -> None:
    """List the shipped recipes with their networks, scales and steps."""
    from rich.table import Table

    from selfsr.console import print_table
    from selfsr.recipe import load_recipe, shipped_recipes

    table = Table(box=None)
    table.add_column("recipe", no_wrap=True)
    for title in ("network", "scale", "steps", "description"):
        table.add_column(title)
    for name, path in shipped_recipes().items():
        recipe = load_recipe(path)
        scales = ", ".join(f"x{scale}" for scale in recipe.scales)
        table.add_row(name, recipe.network.kind, scales, f"{recipe.steps:,}", _title(path))
    print_table(table)


@app.command()
def networks() -> None:
    """List the networks that a recipe can train, with the size of their default options."""
    from rich.table import Table

    from selfsr.console import print_table
    from selfsr.nets.union import list_networks

    table = Table(box=None)
    table.add_column("kind", no_wrap=True)
    for title in ("network", "scales", "channels"):
        table.add_column(title)
    table.add_column("weights", justify="right")
    table.add_column("paper")
    for network in list_networks():
        scales = ", ".join(f"x{scale}" for scale in network.scales)
        channels = ", ".join(map(str, network.channel_counts))
        kinds = ", ".join(network.kinds)
        table.add_row(kinds, network.title, scales, channels, f"{network.parameters:,}", network.paper)
    print_table(table)


@app.command()
def show(name: Annotated[str, typer.Argument(help="Name from `selfsr recipes list`.")]) -> None:
    """Print a shipped recipe."""
    typer.echo(_find(name).read_text(encoding="utf-8"), nl=False)


@app.command()
def copy(
    name: Annotated[str, typer.Argument(help="Name from `selfsr recipes list`.")],
    to: Annotated[Path, typer.Argument(help="File or folder to write to.")],
) -> None:
    """Copy a shipped recipe, so that you can change it."""
    from selfsr.errors import InputError
    from selfsr.fileio import write_atomic

    source = _find(name)
    if to.is_dir():
        to = to / source.name
    if to.exists():
        raise InputError(
            f"recipes copy: expected a new file, got {to}, which exists; choose another name or delete it."
        )
    write_atomic(to, source.read_bytes())
    typer.echo(f"Wrote {to}; train it with: selfsr train {to}")


@app.command()
def schema(to: Annotated[Path | None, typer.Argument(help="File to write; without it, print.")] = None) -> None:
    """Write the JSON Schema of recipes, for completion and checks in editors."""
    import json

    from selfsr.fileio import write_atomic
    from selfsr.recipe import Recipe

    text = json.dumps(Recipe.model_json_schema(), indent=2)
    if to is None:
        typer.echo(text)
    else:
        write_atomic(to, text + "\n")
        typer.echo(f"Wrote {to}; name it in a recipe's first line: # yaml-language-server: $schema={to}")


def _find(name: str) -> Path:
    import difflib

    from selfsr.errors import InputError
    from selfsr.recipe import shipped_recipes

    known = shipped_recipes()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        advice = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(known)}."
        raise InputError(f"recipes: expected the name of a shipped recipe, got {name!r}; {advice}")
    return known[name]


def _title(path: Path) -> str:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    return first.removeprefix("# ") if first.startswith("# ") else ""
