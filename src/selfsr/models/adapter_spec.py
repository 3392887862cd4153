"""The options of a one-step network for the adapters that another program has saved."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from selfsr.errors import InputError
from selfsr.nets.diffusion.adapters import Adapters
from selfsr.nets.diffusion.base_folder import open_base
from selfsr.nets.diffusion.lora import LAYER_KINDS, is_layer
from selfsr.nets.diffusion.one_step import OneStepSpec

# The published time of each layout; files of diffusers state none.
_TIMESTEPS = {"HYPIR": 200, "OSEDiff": 999}


def make_one_step_spec(path: Path, adapters: Adapters, base: Path) -> OneStepSpec:
    """Return the options with which `adapters` fit: targets and rank of the file, time and encoder of its paper.

    Args:
        path: the file, for messages.
        adapters: of HYPIR or OSEDiff.
        base: the model folder on which they were trained.

    Raises:
        InputError: the file does not state a one-step network, or has adapters of layers that the base lacks.
    """
    if adapters.layout not in _TIMESTEPS:
        raise InputError(
            f"weights {path}: expected adapters of HYPIR or OSEDiff, whose layout states a one-step network, got those "
            "of another program; start a training from them, with network.timestep in its recipe."
        )
    others = [name for name in adapters.tensors if not name.startswith(("unet.", "autoencoder."))]
    if others:
        raise InputError(
            f"weights {path}: expected adapters of U-Net and autoencoder, got {others[0]}; use another file."
        )
    opened = open_base(base)
    options: dict[str, Any] = {"base": base, "timestep": _TIMESTEPS[adapters.layout]}
    options["lora"] = _describe(path, adapters.list_layers("unet"), opened.denoiser)
    encoder = adapters.list_layers("autoencoder")
    if encoder:
        net = opened.space.net
        parts = {name: layer for name, layer in net.named_modules() if name.startswith(("encoder.", "quant_conv"))}
        options["encoder_lora"] = _describe(path, encoder, net, parts)
    if any(".base_layer." in name for name in adapters.tensors):
        options["trained"] = ("conv_in",)
    return OneStepSpec(**options)


def _describe(
    path: Path, ranks: Mapping[str, int], net: nn.Module, layers: Mapping[str, nn.Module] | None = None
) -> dict[str, Any]:
    """Return rank and targets of adapters: ends of layer names as far as they match no other layer."""
    layers = dict(net.named_modules()) if layers is None else layers
    layers = {name: layer for name, layer in layers.items() if isinstance(layer, nn.Linear | nn.Conv2d)}
    unknown = [name for name in ranks if name not in layers]
    if unknown:
        raise InputError(
            f"weights {path}: expected adapters of layers of the base, got one of {unknown[0]}, which the base lacks; "
            "name the base that they were trained on."
        )
    if len(set(ranks.values())) != 1:
        raise InputError(
            f"weights {path}: expected adapters of one rank, got {', '.join(map(str, sorted(set(ranks.values()))))}; "
            "use another file."
        )
    targets = [_shorten(name, ranks, layers) for name in ranks]
    return {"rank": next(iter(ranks.values())), "targets": tuple(dict.fromkeys(targets))}


def _shorten(name: str, chosen: Collection[str], layers: Collection[str]) -> str:
    """Return the shortest end of a name that no layer but chosen ones has, and that is no kind of layer."""
    pieces = name.split(".")
    for start in range(len(pieces) - 1, 0, -1):
        end = ".".join(pieces[start:])
        matched = (other for other in layers if is_layer(other, end))
        if not pieces[start].isdigit() and end not in LAYER_KINDS and all(other in chosen for other in matched):
            return end
    return name
