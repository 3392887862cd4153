"""The command `selfsr inspect`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from selfsr.nets.base import NetworkSpec
    from selfsr.nets.weights.identify import FileNetwork

EPILOG = """[bold]Examples[/bold]

selfsr inspect 4x-model.pth

selfsr inspect runs/my

selfsr inspect photo_x4 --json"""

# A longer value of the metadata is shown by its size.
_LONGEST = 200


def inspect(
    model: Annotated[
        str,
        typer.Argument(
            help="Weights file, model folder, run folder (its best weights), or name from `selfsr models list`."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with the complete metadata.")] = False,
) -> None:
    """Print what a weights file contains, and the lines of a recipe that train it further."""
    import json

    from selfsr.models import find_model
    from selfsr.nets.weights.identify import identify_network

    path = find_model(model)
    network = identify_network(path)
    facts = _describe(path, network)
    if as_json:
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    for line in _format(path, model, network, facts):
        typer.echo(line)


def _describe(path: Path, network: "FileNetwork") -> dict[str, Any]:
    """Return the facts about a file as JSON has them."""
    from selfsr.nets.weights.folder import list_network_files

    spec = network.spec
    return {
        "file": str(path),
        "bytes": sum(file.stat().st_size for file in (list_network_files(path) if path.is_dir() else [path])),
        "architecture": network.architecture,
        "scale": list(network.scales),
        "channels": network.channels,
        "parameters": network.parameters,
        "tensors": network.tensors,
        "precision": network.precision,
        "section": network.section,
        "trainable": spec is not None,
        "network": None if spec is None else spec.model_dump(mode="json"),
        "metadata": network.metadata,
    }


def _format(path: Path, model: str, network: "FileNetwork", facts: dict[str, Any]) -> list[str]:
    from selfsr.nets.weights.detect import format_scales
    from selfsr.recipe.yaml12 import write_yaml

    color = {1: "gray", 3: "color", 4: "color with alpha"}.get(network.channels, f"{network.channels} channels")
    precision = ", ".join(f"{count} in {dtype}" for dtype, count in network.precision.items())
    section = f", under {network.section}" if network.section else ""
    scales = format_scales(network.scales) if network.scales else "any scale"
    lines = [
        f"file        {path}",
        f"size        {facts['bytes'] / 2**20:,.2f} MB: {network.tensors} tensors ({precision}){section}",
        f"network     {network.architecture} {scales}, {color}, {network.parameters:,} parameters",
    ]
    if network.spec is not None and network.spec.has_base:
        lines += _describe_base(network.spec, network.parameters)
    if network.spec is None:
        return [
            *lines,
            "training    not possible here; selfsr upscale, evaluate and compare open it",
            *_metadata(network),
        ]
    options = facts["network"]
    recipe: dict[str, Any] = {"network": {"kind": options["kind"], **options}}
    if len(network.scales) == 1:
        recipe["scale"] = network.scales[0]
    recipe |= {"data": {"channels": network.channels}, "start_from": str(path)}
    lines += ["training    possible, by these lines in a recipe:", ""]
    lines += [f"  {line}" for line in write_yaml(recipe).rstrip().splitlines()]
    lines += ["", "The short form: network: {kind: from_file}, with start_from"]
    if len(network.scales) == 1:
        lines.append(f"On photos of your own: selfsr finetune {shlex.quote(model)} PHOTOS")
    return lines + _metadata(network)


def _describe_base(spec: "NetworkSpec", trained: int) -> list[str]:
    """Return a line about the pretrained base, and one about the trained layers."""
    options = spec.model_dump(mode="json")
    encoder = options.get("encoder_lora")
    has_adapters = options.get("condition") != "controlnet"
    ranks = [f"adapters of rank {options['lora']['rank']}" if has_adapters else "a ControlNet"]
    ranks += [f"of rank {encoder['rank']} in the encoder"] if encoder else []
    ranks += [f"completely {', '.join(options['trained'])}"] if options["trained"] else []
    return [
        f"base        {options['base']}, checksum {options['base_sha256']}",
        f"trained     {' and '.join(ranks)}: {trained:,} numbers",
    ]


def _metadata(network: "FileNetwork") -> list[str]:
    """Return the entries of the metadata; of a long text, its number of lines."""
    if not network.metadata:
        return ["metadata    none"]
    lines = ["metadata"]
    for key, value in network.metadata.items():
        text = value if len(value) <= _LONGEST and "\n" not in value else f"{_count(value)}, see --json"
        lines.append(f"  {key}: {text}")
    return lines


def _count(text: str) -> str:
    """Return the number of lines of a text, or of characters if it has one line."""
    lines = len(text.splitlines())
    return f"{lines} lines" if lines > 1 else f"{len(text):,} characters"
