"""The commands `selfsr recipes`: list, print and copy the shipped recipes, and list the networks."""

from pathlib import Path
from typing import Annotated, Any

import typer

app: typer.Typer = typer.Typer(no_args_is_help=True)

_LEAST_DESCRIPTION = 20  # columns; a shorter one says nothing


@app.command("list")
def list_recipes(
    network: Annotated[str | None, typer.Option(help="Only recipes for this kind of network, such as edsr.")] = None,
    scale: Annotated[int | None, typer.Option(help="Only recipes for this scale.")] = None,
    gan: Annotated[bool | None, typer.Option("--gan/--no-gan", help="Only recipes with a GAN, or only others.")] = None,
    small: Annotated[
        bool | None,
        typer.Option("--small/--full", help="Only small versions for a laptop, or only the others."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all entries as a JSON list.")] = False,
) -> None:
    """List the shipped recipes, one per line, with their networks, scales and steps.

    For example: selfsr recipes list --gan --scale 4 --small
    """
    import json

    recipes = [
        row
        for row in _read_rows()
        if (network is None or row["network"] == network)
        and (scale is None or scale in row["scales"])
        and (gan is None or row["gan"] == gan)
        and (small is None or row["small"] == small)
    ]
    if not recipes:
        raise _no_recipe_error(network, scale)
    if as_json:
        typer.echo(json.dumps(recipes, indent=2))
        return
    _print_rows(recipes)


def _read_rows() -> list[dict[str, Any]]:
    """Return what the list shows of each shipped recipe."""
    from selfsr.recipe import load_recipe, shipped_recipes

    rows = []
    for name, path in shipped_recipes().items():
        recipe = load_recipe(path)
        rows.append(
            {
                "name": name,
                "network": recipe.network.kind,
                "scales": list(recipe.scales),
                "steps": recipe.steps,
                "method": recipe.method.kind,
                "gan": recipe.method.kind == "gan",
                "small": name.startswith("small_"),
                "description": _title(path),
            }
        )
    return rows


def _print_rows(rows: list[dict[str, Any]]) -> None:
    """Print a line for each recipe; in a narrow terminal, only its description is cut, or left out."""
    from rich.console import Console

    from selfsr.console import pipe_width

    header = ("recipe", "network", "scale", "steps", "description")
    cells = [
        (row["name"], row["network"], ", ".join(f"x{scale}" for scale in row["scales"]), f"{row['steps']:,}")
        for row in rows
    ]
    sides = [max(len(row[column]) for row in (*cells, header)) for column in range(len(header) - 1)]
    output = Console(highlight=False, markup=False, emoji=False)
    width = output.width if output.is_terminal else pipe_width()
    for names, description in zip(
        (header[:-1], *cells), (header[-1], *(row["description"] for row in rows)), strict=True
    ):
        start = "  ".join(text.ljust(side) for text, side in zip(names, sides, strict=True))
        room = len(description) if width is None else width - len(start) - 2
        text = description if len(description) <= room else f"{description[: max(0, room - 1)]}…"
        output.print(f"{start}  {text}".rstrip() if room >= _LEAST_DESCRIPTION else start.rstrip(), soft_wrap=True)


def _no_recipe_error(network: str | None, scale: int | None) -> Exception:
    """Return the error for filters that leave no recipe; it names the nearest network."""
    from selfsr.errors import InputError, suggest

    rows = _read_rows()
    networks = sorted({row["network"] for row in rows})
    if network is not None and network not in networks:
        advice = suggest(network, networks, f"choose one of {', '.join(networks)}")
        return InputError(f"recipes list: --network: expected the network of a shipped recipe, got {network}{advice}")
    scales = sorted({number for row in rows for number in row["scales"]})
    if scale is not None and scale not in scales:
        known = ", ".join(map(str, scales))
        return InputError(
            f"recipes list: --scale: expected a scale of a shipped recipe ({known}), got {scale}; choose one of these."
        )
    return InputError("recipes list: filters that leave a recipe were expected, got none left; give fewer of them.")


@app.command()
def networks() -> None:
    """List the networks that a recipe can train: first the kinds, with the size of their default options.

    Then the architectures of spandrel, by the scales that they can be built for.
    """
    from rich.table import Table

    from selfsr.console import print_table
    from selfsr.nets.union import list_networks

    table = Table(box=None)
    table.add_column("kind", no_wrap=True)
    for title in ("network", "scales", "channels"):
        table.add_column(title)
    table.add_column("weights", justify="right")
    table.add_column("paper", overflow="fold")
    for network in list_networks():
        scales = ", ".join(f"x{scale}" for scale in network.scales)
        channels = ", ".join(map(str, network.channel_counts))
        kinds = ", ".join(network.kinds)
        weights = "of the base" if network.parameters is None else f"{network.parameters:,}"
        table.add_row(kinds, network.title, scales, channels, weights, network.paper)
    print_table(table)
    typer.echo("\nArchitectures of spandrel, as network: {kind: spandrel, architecture: NAME}:\n")
    print_table(_make_architectures_table())


def _make_architectures_table() -> Any:
    """Return a table with a row for each set of scales, and the architectures that have it."""
    from rich.table import Table

    from selfsr.nets.spandrel.registry import read_architectures

    names: dict[tuple[int, ...], list[str]] = {}
    for name, architecture in sorted(read_architectures().items(), key=lambda item: item[0].lower()):
        names.setdefault(architecture.scales, []).append(name)
    table = Table(box=None)
    table.add_column("scales", no_wrap=True)
    table.add_column("architectures")
    for scales in sorted(names, key=lambda scales: (-len(scales), scales)):
        table.add_row(", ".join(f"x{scale}" for scale in scales), ", ".join(names[scales]))
    return table


@app.command()
def show(name: Annotated[str, typer.Argument(help="Name from `selfsr recipes list`.")]) -> None:
    """Print a shipped recipe."""
    typer.echo(_find(name).read_text(encoding="utf-8"), nl=False)


@app.command()
def copy(
    name: Annotated[str, typer.Argument(help="Name from `selfsr recipes list`.")],
    to: Annotated[Path, typer.Argument(help="File or folder to write to.")],
) -> None:
    """Copy a shipped recipe, to change it."""
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
    from selfsr.errors import InputError, suggest
    from selfsr.recipe import shipped_recipes

    known = shipped_recipes()
    if name not in known:
        advice = suggest(name, known, f"choose one of {', '.join(known)}")
        raise InputError(f"recipes: expected the name of a shipped recipe, got {name!r}{advice}")
    return known[name]


def _title(path: Path) -> str:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    return first.removeprefix("# ") if first.startswith("# ") else ""
