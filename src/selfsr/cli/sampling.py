"""Options of models that sample their output, for the commands that run models."""

import random
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfsr.cli.options import refuse_unused

if TYPE_CHECKING:
    from selfsr.nets.weights.model import Model

SeedOption = Annotated[
    str,
    typer.Option(
        metavar="N|random",
        help="Seed of models that sample; the same seed gives the same noise at each pixel, also in tiles. random "
        "picks and prints one.",
    ),
]
StepsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Sampling steps of models that sample; default: as trained. Fewer are faster and give smoother outputs.",
    ),
]
SamplesOption = Annotated[
    int,
    typer.Option(min=1, help="Samples of each image, with the seeds N, N + 1, ...; files end in _s0, _s1, ..."),
]
ColorFixOption = Annotated[
    str | None,
    typer.Option(
        metavar="wavelet|adain|ycbcr|none",
        help="How the output of models that sample gets the colors of the input; default: as trained.",
    ),
]
_LARGEST_RANDOM_SEED = 2**31
_LONGEST_SEED = 18


def choose_sampling(
    context: typer.Context,
    model: "Model",
    *,
    seed: str,
    steps: int | None,
    color_fix: str | None,
    several: bool = False,
) -> dict[str, Any]:
    """Return the sampling options for `set_sampling`; empty for a model without diffusion.

    With `several`, options that this model does not have may be for another one.

    Raises:
        InputError: the model does not sample and an option was given, or an option has no such value.
    """
    from selfsr.nets.diffusion.sampling import set_sampling

    if not model.is_sampled:
        drawn = ("seed", "seeds", "steps", "samples")
        unused = drawn if model.is_diffusion else (*drawn, "color_fix")
        if not several:
            refuse_unused(context, *unused, reason=f"with {model.architecture}, which has one output for each input")
        if not model.is_diffusion:
            return {}
    sampling: dict[str, Any] = {"seed": _read_seed(seed)}
    if steps is not None and model.is_sampled:
        sampling["steps"] = steps
    if color_fix is not None:
        sampling["color_fix"] = _read_color_fix(color_fix)
    set_sampling(model.net, **sampling)  # says what is wrong before anything is written
    return sampling


def is_seed(text: str) -> bool:
    """Return whether a text is a seed: a whole number from 0 on, not too long."""
    return text.isascii() and text.isdecimal() and len(text) <= _LONGEST_SEED


def _read_seed(text: str) -> int:
    from selfsr.console import print_line
    from selfsr.errors import InputError, shorten

    if text == "random":
        seed = random.randrange(_LARGEST_RANDOM_SEED)
        print_line(f"Seed {seed}")
        return seed
    if not is_seed(text):
        raise InputError(
            f"seed: expected a whole number of at most {_LONGEST_SEED} digits or random, got {shorten(repr(text))}; "
            "use one of these."
        )
    return int(text)


def _read_color_fix(text: str) -> str:
    from typing import get_args

    from selfsr.errors import InputError
    from selfsr.images.color_fix import ColorFix

    known = get_args(ColorFix)
    if text not in known:
        raise InputError(f"color fix: expected one of {', '.join(known)}, got {text!r}; choose one of them.")
    return text
