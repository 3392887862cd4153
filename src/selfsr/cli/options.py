"""Options that several commands share, and the check that every given option has an effect."""

from typing import Annotated, Literal

import typer

DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps; auto prefers a GPU.")]
SelfEnsembleOption = Annotated[
    bool,
    typer.Option("--self-ensemble", help="Average over the 8 flips and rotations: slightly better, 8 times slower."),
]
LogOption = Annotated[
    Literal["auto", "plain", "json"],
    typer.Option(
        help="How progress is shown: auto, a bar in a terminal and a line every 30 s in a file or a pipe; plain, lines "
        "everywhere; json, one JSON object per line on stdout."
    ),
]


def refuse_unused(context: typer.Context, *names: str, reason: str) -> None:
    """Refuse options that were given but do nothing.

    Args:
        context: the command's call.
        names: the options, as parameters of the function.
        reason: when they do nothing, such as "with --dry-run".

    Raises:
        InputError: one of the options was given.
    """
    from selfsr.errors import InputError

    for parameter in context.command.params:
        name = parameter.name
        source = None if name is None or name not in names else context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = parameter.opts[0]
            raise InputError(
                f"{context.command.name}: expected no {option} {reason}, where it does nothing, got one; "
                f"leave {option} out."
            )
