"""Open the models of `selfsr evaluate`; of several, only one is in memory at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from selfsr.cli.messages import print_last_weights
from selfsr.cli.options import refuse_unused

if TYPE_CHECKING:
    import torch

    from selfsr.evaluation.benchmark import UpscaleFn
    from selfsr.evaluation.seeds import Sampler
    from selfsr.nets.weights.model import Model

    SampleFn = Callable[[Model, bool], tuple[Sampler | None, dict[str, Any]]]


@dataclass(frozen=True)
class OpenedUpscaler:
    """An upscaler, ready to run.

    Attributes:
        upscale: the upscaler.
        luma_only: whether it is a network with one channel.
        sampler: the seeds of a network that samples; None for others.
    """

    upscale: "UpscaleFn"
    luma_only: bool = False
    sampler: "Sampler | None" = None


@dataclass(frozen=True)
class EvaluatedUpscaler:
    """An upscaler to evaluate.

    Attributes:
        title: its name in tables and results.
        open: opens it.
        options: the options that its results list.
        sampling: how it samples, for the protocol.
    """

    title: str
    open: Callable[[], OpenedUpscaler]
    options: dict[str, Any] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)


def find_models(
    context: typer.Context,
    paths: Sequence[str],
    scale: int | None,
    device: "torch.device",
    options: dict[str, Any],
    sample: "SampleFn",
) -> tuple[list[EvaluatedUpscaler], int | None]:
    """Check each model by opening it once, and return all with their scale.

    A single model stays open. Several models are opened again, one at a time.

    Args:
        context: the command's call.
        paths: files or names of shipped models.
        scale: the scale that the user asked for.
        device: the device of the networks.
        options: `tile` and `self_ensemble`.
        sample: sets the sampling of a model, by whether it is one of several; returns its sampler and the entry for the
            protocol.

    Raises:
        InputError: a model cannot be opened or is named twice, scales differ, or an option does not fit.
    """
    from selfsr.comparison.candidates import check_scales
    from selfsr.errors import InputError

    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise InputError(f"evaluate: expected different models, got {twice} twice; name each model once.")
    found: list[EvaluatedUpscaler] = []
    scales: dict[str, int] = {}
    sampled, fixed = False, False
    for path in paths:
        open_again = partial(_open, path, scale, device, options, sample, several=len(paths) > 1)
        opened, sampling, scales[path] = open_again()
        sampled |= opened.sampler is not None
        fixed |= bool(sampling)
        keep = partial(_same, opened) if len(paths) == 1 else partial(_open_only, open_again)
        found.append(EvaluatedUpscaler(path, keep, options, sampling))
    check_scales(scales, None, "evaluate")
    if len(paths) > 1 and not sampled:
        unused = ("seeds", "steps") if fixed else ("seeds", "steps", "color_fix")
        refuse_unused(context, *unused, reason="with models that have one output for each input")
    return found, next(iter(scales.values()), scale)


def _same(opened: OpenedUpscaler) -> OpenedUpscaler:
    return opened


def _open_only(open_again: Callable[[], tuple[OpenedUpscaler, dict[str, Any], int]]) -> OpenedUpscaler:
    return open_again()[0]


def _open(
    path: str,
    scale: int | None,
    device: "torch.device",
    options: dict[str, Any],
    sample: "SampleFn",
    *,
    several: bool,
) -> tuple[OpenedUpscaler, dict[str, Any], int]:
    """Return a model as upscaler, how it samples, and its scale."""
    from selfsr.errors import InputError
    from selfsr.nets.weights.find import find_model
    from selfsr.nets.weights.load import load_model
    from selfsr.upscaling.tile_size import parse_tile
    from selfsr.upscaling.upscaler import Upscaler

    file = find_model(path)
    print_last_weights(path, file)
    model = load_model(file, scale)
    if scale not in (None, model.scale):
        raise InputError(
            f"evaluate: expected --scale {model.scale}, the scale of {path}, got {scale}; leave --scale out, "
            "or choose another model."
        )
    # Of several models, those that do not sample may stand next to one that does.
    sampler, sampling = sample(model, several)
    upscaler = Upscaler(
        model,
        device=device,
        precision="float32",
        tile=parse_tile(options["tile"]),
        ensemble=options["self_ensemble"],
    )
    return OpenedUpscaler(upscaler, model.channels == 1, sampler), sampling, model.scale
