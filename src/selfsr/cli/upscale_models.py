"""The models of `selfsr upscale`, and the size of their outputs."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from selfsr.cli.messages import print_last_weights
from selfsr.cli.sampling import choose_sampling

if TYPE_CHECKING:
    from selfsr.nets.weights.model import Model
    from selfsr.upscaling.sized import SizedUpscaler

# Without a model, --scale and --outscale.
_DEFAULT_SCALE = 2


@dataclass(frozen=True)
class WantedSize:
    """The options of the output's size; impossible ones are refused before a model is read.

    Attributes:
        scale: --scale, which selects a scale of a network with several.
        outscale: --outscale, the factor of the output's size.
        max_side_px: --max-side.

    Raises:
        InputError: the factor or the limit is impossible.
    """

    scale: int | None
    outscale: float | None
    max_side_px: int | None

    def __post_init__(self) -> None:
        from selfsr.upscaling.output_size import OutputSize

        OutputSize(_DEFAULT_SCALE if self.factor is None else self.factor, self.max_side_px)

    @property
    def factor(self) -> float | None:
        """The wanted factor, or None for the scale of the model."""
        return self.scale if self.outscale is None else self.outscale


class ChosenModels:
    """The weights files of the models, which are loaded once.

    Args:
        paths: the weights files.
        size: with the scale of a network with several.
    """

    def __init__(self, paths: Sequence[Path], size: WantedSize) -> None:
        self.paths, self._size = list(paths), size

    @property
    def names(self) -> list[str]:
        """The names of the files of several models; none for one model."""
        return [path.stem for path in self.paths] if len(self.paths) > 1 else []

    @cached_property
    def loaded(self) -> list["Model"]:
        """The models."""
        return [_load_model(path, self._size) for path in self.paths]


def find_models(models: list[str] | None, size: WantedSize, output: Path | None) -> list[Path]:
    """Return the weights files of the models; without any, the shipped one for the scale, whose name is printed.

    Raises:
        InputError: a model is unknown, or several have the same name or no output folder.
    """
    from selfsr.console import print_line
    from selfsr.errors import InputError
    from selfsr.models import choose_model, find_model

    if not models:
        scale = size.factor if size.scale is None else size.scale
        card = choose_model(math.ceil(scale or _DEFAULT_SCALE))
        print_line(f"Model: {card.name}; choose another with -m. List them with: selfsr models list")
        return [card.path]
    paths = [find_model(model) for model in models]
    for model, path in zip(models, paths, strict=True):
        print_last_weights(model, path)
    if len(paths) > 1 and output is None:
        raise InputError(
            f"upscale: expected an output folder for {len(paths)} models, got none; name one with --output."
        )
    counts = Counter(path.stem.casefold() for path in paths)
    for path in paths:
        if counts[path.stem.casefold()] > 1:
            raise InputError(
                f"upscale: expected models with different names, got {path.stem} twice; rename a file or leave it out."
            )
    return paths


def make_upscalers(
    context: typer.Context,
    models: ChosenModels,
    size: WantedSize,
    network: Mapping[str, Any],
    sampling: Mapping[str, Any],
    floats: Mapping[str, Any],
) -> list["SizedUpscaler"]:
    """Build what upscales, one for each model.

    Args:
        context: the command's call.
        models: the models.
        size: of the outputs.
        network: options of `Upscaler`, with tile and device as the user named them.
        sampling: options of models that sample.
        floats: options of `FloatOptions`.

    Raises:
        InputError: an option has no such value, or does nothing with the models.
    """
    from selfsr.machine.device import choose_device
    from selfsr.upscaling.float_images import FloatOptions
    from selfsr.upscaling.output_size import OutputSize
    from selfsr.upscaling.sized import SizedUpscaler
    from selfsr.upscaling.tile_size import parse_tile
    from selfsr.upscaling.upscaler import Upscaler

    options = {**network, "tile": parse_tile(network["tile"]), "device": choose_device(network["device"])}
    samplings = [choose_sampling(context, model, **sampling) for model in models.loaded]
    return [
        SizedUpscaler(
            Upscaler(model, sampling=chosen, **options),
            OutputSize(size.factor or model.scale, size.max_side_px),
            chosen.get("seed", 0),
            FloatOptions(**floats),
        )
        for model, chosen in zip(models.loaded, samplings, strict=True)
    ]


def _load_model(path: Path, size: WantedSize) -> "Model":
    from selfsr.errors import InputError
    from selfsr.nets.weights.load import load_model

    loaded = load_model(path, size.scale)
    if size.scale is not None and size.outscale is not None and loaded.scale != size.scale:
        raise InputError(
            f"upscale: with --outscale, expected a --scale of the model, got {size.scale} for {path.name}, which has "
            f"x{loaded.scale}; leave --scale out."
        )
    return loaded
