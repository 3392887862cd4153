"""Types and checks of options that several networks share."""

from typing import Annotated

from pydantic import Field, PositiveInt

Depths = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
DropRate = Annotated[float, Field(ge=0, lt=1)]


def check_heads(features: int, depths: tuple[int, ...], heads: tuple[int, ...]) -> None:
    """Check that every group has a number of heads, and that it divides the features.

    Raises:
        ValueError: it does not; the message names the options.
    """
    if len(depths) != len(heads):
        raise ValueError(f"depths and heads must be of one length, got {len(depths)} and {len(heads)}")
    for number in heads:
        if features % number:
            raise ValueError(f"features must be a multiple of heads {number}, got {features}")


def check_integer_channels(name: str, features: int, ratio: float) -> None:
    """Check that `features * ratio` is an integer from which spandrel infers the same ratio.

    Raises:
        ValueError: it is not; the message names the option `name`.
    """
    channels = int(features * ratio)
    if channels < 1 or channels != features * ratio or int(features * (channels / features)) != channels:
        raise ValueError(f"{name} must give a whole number of channels, got {features} x {ratio}")
