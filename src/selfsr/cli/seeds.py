"""The seeds with which `selfsr evaluate` scores models that sample their output."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfsr.cli.sampling import choose_sampling, is_seed

if TYPE_CHECKING:
    from selfsr.evaluation.seeds import Sampler
    from selfsr.nets.weights.model import Model

SeedsOption = Annotated[
    str,
    typer.Option(
        metavar="N,N,...",
        help="Seeds of models that sample. With several, scores are means over them, with their standard deviation, "
        "and two more metrics say how much the outputs differ. Use at least three to compare models.",
    ),
]


def choose_seeds(
    context: typer.Context,
    model: "Model",
    *,
    seeds: str,
    steps: int | None,
    color_fix: str | None,
    several: bool = False,
) -> "tuple[Sampler | None, dict[str, Any]]":
    """Set the sampling of a model; return its seeds and the entry for the protocol.

    Returns:
        The sampler and the options with `seeds`; without a sampler for a model that does not sample.

    Raises:
        InputError: the model does not sample and an option was given, or an option has no such value.
    """
    from selfsr.evaluation.seeds import Sampler
    from selfsr.nets.diffusion.sampling import describe_sampling, set_sampling

    if not choose_sampling(context, model, seed="0", steps=steps, color_fix=color_fix, several=several):
        return None, {}
    if not model.is_sampled:
        return None, {"color_fix": describe_sampling(model.net)["color_fix"]}
    numbers = read_seeds(seeds)
    sampler = Sampler(numbers, lambda seed: set_sampling(model.net, seed=seed))
    return sampler, {"seeds": list(numbers), **describe_sampling(model.net)}


def read_seeds(text: str) -> tuple[int, ...]:
    """Read the option `--seeds`.

    Raises:
        InputError: an entry is no whole number from 0 on, or is named twice.

    Example:
        >>> read_seeds("0,1, 2")
        (0, 1, 2)
    """
    from selfsr.errors import InputError

    entries = [entry.strip() for entry in text.split(",")]
    for entry in entries:
        if not is_seed(entry):
            raise InputError(
                f"evaluate: expected whole numbers from 0 on for --seeds, got {entry!r} in {text!r}; write them with "
                "commas between them, such as 0,1,2."
            )
    seeds = tuple(int(entry) for entry in entries)
    if len(set(seeds)) < len(seeds):
        raise InputError(f"evaluate: expected different --seeds, got {text!r}; name each seed once.")
    return seeds
