"""Adapters in files of other programs: names of diffusers, and the layouts of published one-step models."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from selfsr.errors import InputError

_NAME = re.compile(r"(?P<layer>.+)\.lora_(?P<matrix>[AB])(?:\.(?P<adapter>\w+))?\.weight$")
# The parts of a pretrained model, by their names elsewhere, and ours.
PARTS = {"unet": "unet", "transformer": "unet", "vae": "autoencoder"}
_ALL_PARTS = (*PARTS, "autoencoder", "text_encoder", "text_encoder_2")
# OSEDiff leaves alpha at the default of peft, so that its factor is this number divided by the rank.
_OSEDIFF_ALPHA = 8
# OSEDiff trains the first convolution completely, and saves it with its adapter.
_OSEDIFF_LAYER = "unet.conv_in.base_layer."

Layout = Literal["diffusers", "HYPIR", "OSEDiff"]


@dataclass(frozen=True)
class Adapters:
    """The adapters of a file that does not state its network.

    Attributes:
        layout: which program wrote the file.
        tensors: by our names; alpha / rank is multiplied into them, so that the factor is 1.
    """

    layout: Layout
    tensors: dict[str, Tensor]

    def list_layers(self, part: str) -> dict[str, int]:
        """Return the rank of the adapter of each layer of a part, "unet" or "autoencoder"."""
        matches = {name: _NAME.match(name) for name in self.tensors}
        return {
            match["layer"].removeprefix(f"{part}."): self.tensors[name].shape[0]
            for name, match in matches.items()
            if match is not None and match["matrix"] == "A" and name.startswith(f"{part}.")
        }


def flatten_osediff(content: object) -> dict[str, Tensor] | None:
    """Return the tensors of a file of OSEDiff, which has U-Net and autoencoder in two dicts; None for others."""
    if not isinstance(content, Mapping) or not isinstance(content.get("state_dict_unet"), Mapping):
        return None
    return {
        f"{part}.{name}": tensor
        for part in ("unet", "vae")
        for name, tensor in (content.get(f"state_dict_{part}") or {}).items()
        if isinstance(tensor, Tensor)
    }


def find_adapters(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Adapters | None:
    """Return the adapters that a file consists of, or None if it is another file.

    Three layouts are known: diffusers' (`unet.LAYER.lora_A.weight`, with alpha in the header), the state dict of
    HYPIR (`LAYER.lora_A.default.weight`), and that of OSEDiff, as `flatten_osediff` returns it.

    Args:
        tensors: all tensors of the file.
        metadata: the header.

    Raises:
        InputError: the header states a kind of adapter that is not supported.
    """
    matches = {name: match for name in tensors if (match := _NAME.match(name)) is not None}
    names = {match["adapter"] for match in matches.values()}
    others = tensors.keys() - matches
    joined = {_rename(match): tensors[name].float() for name, match in matches.items()}
    if names == {None} and not others:
        return Adapters("diffusers", _strengthen(joined, _read_alphas(metadata)))
    if names == {"default"} and not others and not any(name.startswith("unet.") for name in tensors):
        return Adapters("HYPIR", joined)
    if any((name or "").startswith("default_") for name in names):
        layers = {name: tensors[name].float() for name in sorted(others) if name.startswith(_OSEDIFF_LAYER)}
        return Adapters("OSEDiff", _strengthen(joined, dict.fromkeys(PARTS.values(), _OSEDIFF_ALPHA)) | layers)
    return None


def _rename(match: re.Match[str]) -> str:
    """Return our name of a matrix; without the name of a part, it belongs to the denoiser."""
    part, _, layer = match["layer"].partition(".")
    if part not in _ALL_PARTS:
        part, layer = "unet", match["layer"]
    return f"{PARTS.get(part, part)}.{layer}.lora_{match['matrix']}.default.weight"


def _strengthen(tensors: dict[str, Tensor], alphas: Mapping[str, float]) -> dict[str, Tensor]:
    """Multiply the second matrix of each adapter by alpha / rank, since ours have the factor 1."""
    strong = dict(tensors)
    for name, tensor in tensors.items():
        alpha = alphas.get(name.split(".", 1)[0])
        if alpha is not None and ".lora_B." in name:
            strong[name] = tensor * (alpha / tensor.shape[1])
    return strong


def _read_alphas(metadata: Mapping[str, str]) -> dict[str, float]:
    """Return alpha of each part from a header of diffusers; without one, alpha is the rank."""
    try:
        config = json.loads(metadata.get("lora_adapter_metadata", "{}"))
        named = {"": "unet", **{f"{part}.": ours for part, ours in PARTS.items()}}
        unsupported = ("use_dora", "use_rslora", "alpha_pattern", "lora_bias")
        kinds = [key for prefix in named for kind in unsupported if config.get(key := f"{prefix}{kind}")]
        alphas = {
            ours: float(config[f"{prefix}lora_alpha"])
            for prefix, ours in named.items()
            if f"{prefix}lora_alpha" in config
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            "adapters: expected the configuration of adapters as JSON in lora_adapter_metadata, got another text; "
            "save the file again."
        ) from error
    if kinds:
        raise InputError(
            f"adapters: expected plain adapters with one strength, got {', '.join(kinds)}; merge them with diffusers."
        )
    return alphas
