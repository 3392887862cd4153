"""Export a network on a pretrained base: a model folder with its adapters, and files for other programs."""

import copy
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from torch import Tensor, nn

from selfsr import __version__
from selfsr.errors import InputError
from selfsr.fileio import check_writable, write_atomic, write_folder_atomic
from selfsr.models.adapter_spec import make_one_step_spec
from selfsr.models.card_options import CardOptions
from selfsr.models.comparison import Difference, check_difference, choose_sizes, measure_difference
from selfsr.nets.base import NETWORK_ENTRY
from selfsr.nets.diffusion.adapters import find_adapters
from selfsr.nets.diffusion.one_step import OneStep
from selfsr.nets.diffusion.pretrained import PretrainedNetwork, PretrainedSpec
from selfsr.nets.weights.folder import (
    ADAPTERS,
    ENCODER_ADAPTERS,
    FILES,
    STATEMENT,
    make_statement,
    read_model_folder,
    split_tensors,
)
from selfsr.nets.weights.load import load_into, open_weights
from selfsr.nets.weights.model import Model
from selfsr.nets.weights.read import WeightsFile, read_weights
from selfsr.recipe.private import hide_metadata

KOHYA = "lora/kohya_lora_weights.safetensors"
MERGED = "merged"
# The parts that `--merge` writes; the others of a base are copied.
_WRITTEN = frozenset(("unet", "transformer", "vae"))
_ONE_STEP_NOTE = (
    "These are the weights of one-step super-resolution. Text-to-image programs load them as an adapter, but sample in "
    "many steps from noise, which is not what they were trained for; selfsr upscale runs them as trained."
)


@dataclass(frozen=True)
class FolderOptions:
    """What to write.

    Attributes:
        base: the base, where it is not that of the file's metadata; needed for adapters of other programs.
        scale: the scale; None for that of the file, or 4 for adapters of other programs, which state none.
        kohya: also write the adapters by the names of kohya.
        merge: also write a complete model folder of diffusers with the adapters added to its weights.
        overwrite: replace files that exist.
    """

    base: Path | None = None
    scale: int | None = None
    kohya: bool = False
    merge: bool = False
    overwrite: bool = False


def has_pretrained_base(source: Path) -> bool:
    """Return whether a file or folder has a network on a pretrained base, or adapters of one.

    Raises:
        InputError: it is not a weights file.
        OSError: it cannot be read.
    """
    weights = read_weights(source)
    if NETWORK_ENTRY in weights.metadata:
        try:
            return "base_sha256" in json.loads(weights.metadata[NETWORK_ENTRY])
        except (ValueError, TypeError):
            return False
    return find_adapters(weights.tensors, weights.metadata) is not None


def export_folder(
    source: Path, folder: Path, card: CardOptions, options: FolderOptions, *, report: Callable[[str], None]
) -> list[str]:
    """Write a model folder.

    Args:
        source: a weights file or model folder of a network on a pretrained base, or adapters of HYPIR or OSEDiff.
        folder: the folder; other files in it stay as they are.
        card: what its maker states; author, license and training images go into the statement.
        options: what to write.
        report: called with a line about each file.

    Returns:
        Notes, one sentence each.

    Raises:
        InputError: the base is missing or another one, a file exists, or the merged model differs too much.
        OSError: a file cannot be read or written.
    """
    _check_targets(folder, options)
    model, metadata = _open(source, options)
    net = model.net
    assert isinstance(net, PretrainedNetwork)
    assert isinstance(net.spec, PretrainedSpec)
    _check_forms(net, options)
    contents = _make_files(net, metadata | _state_card(card), kohya=options.kohya)
    for name, content in contents.items():
        write_atomic(folder / name, content)
        report(f"{name}: {len(content) / 1e6:,.2f} MB")
    _check_again(folder, net)
    base = Path(net.spec.base)
    notes = [
        f"The model needs its base: put the folder {base.name} next to {folder}, or write its path into "
        f"{folder / STATEMENT} as base."
    ]
    if options.kohya:
        notes.append(f"{KOHYA}: {_ONE_STEP_NOTE}")
        if ENCODER_ADAPTERS in contents:
            notes.append(f"{KOHYA} lacks the adapters of the encoder, which have no place in that format; use --merge.")
    if options.merge:
        notes += _merge(source, options, folder / MERGED, report)
    return notes


def _check_targets(folder: Path, options: FolderOptions) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"export: expected a folder for the files, got the file {folder}; choose another name.")
    names = [STATEMENT, ADAPTERS, *([KOHYA] if options.kohya else []), *([MERGED] if options.merge else [])]
    existing = [name for name in names if (folder / name).exists()]
    if existing and not options.overwrite:
        raise InputError(
            f"export: expected new files in {folder}, got {existing[0]}, which exists; add --overwrite, or choose "
            "another folder."
        )
    check_writable(folder / STATEMENT)


def _check_forms(net: PretrainedNetwork, options: FolderOptions) -> None:
    """Check that all that is trained has a place in the other forms.

    Raises:
        InputError: the network has a condition, for which other programs have no place.
    """
    forms = {"--kohya": options.kohya, "--merge": options.merge}
    for name in (name for name, asked in forms.items() if asked and not isinstance(net, OneStep)):
        assert net.spec is not None
        raise InputError(
            f"export: expected a one-step network for {name}, got {net.spec.title}, whose condition has no place in "
            f"that form; leave {name} out."
        )


def _open(source: Path, options: FolderOptions, **changes: Any) -> tuple[Model, dict[str, str]]:
    """Return the model, and the metadata that may be published.

    Args:
        source: file or folder.
        options: base and scale.
        changes: options of the network that differ from those of the file.
    """
    weights = read_weights(source)
    adapters = None
    if NETWORK_ENTRY not in weights.metadata:
        adapters = find_adapters(weights.tensors, weights.metadata)
    if adapters is None:
        entry = json.loads(weights.metadata[NETWORK_ENTRY])
        moved = {} if options.base is None else {"base": str(options.base.expanduser().absolute())}
        metadata = {**weights.metadata, NETWORK_ENTRY: json.dumps({**entry, **moved, **changes})}
        model = open_weights(source, replace(weights, metadata=metadata), options.scale)
        return model, hide_metadata(weights.metadata)
    if options.base is None:
        raise InputError(
            f"export: expected --base for {source}, which has adapters in the layout of {adapters.layout} only, got "
            "none; name the model folder on which they were trained."
        )
    spec = make_one_step_spec(source, adapters, options.base.expanduser().absolute()).model_copy(update=changes)
    scale = options.scale or 4
    net = spec.build(scale)
    load_into(net, source)
    metadata = {**net.file_metadata()}  # pyright: ignore[reportCallIssue]
    opened = WeightsFile({name: tensor.detach() for name, tensor in net.state_dict().items()}, metadata, "")
    return open_weights(source, opened, scale), {"architecture": spec.name}


def _state_card(card: CardOptions) -> dict[str, str]:
    stated = {"license": card.license or "", "training_data": card.dataset, "author": ", ".join(card.author)}
    return {key: text for key, text in stated.items() if text}


def _make_files(net: PretrainedNetwork, metadata: Mapping[str, str], *, kohya: bool) -> dict[str, bytes]:
    """Return the content of each file by its name."""
    stated = net.file_metadata()
    network = json.loads(stated[NETWORK_ENTRY])
    network["base"] = Path(network["base"]).name
    base = {"base_kind": net.base.kind}
    entries = {"selfsr": __version__, **metadata, **stated, NETWORK_ENTRY: json.dumps(network), **base}
    part = "transformer" if "Transformer" in net.base.kind else "unet"
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    split = split_tensors(tensors, part)
    files = {STATEMENT: make_statement({**entries, FILES: ", ".join(split)}).encode()}
    for name, content in split.items():
        header = {"format": "pt"}
        if name in (ADAPTERS, ENCODER_ADAPTERS):
            header |= {"selfsr": __version__, "base_sha256": network["base_sha256"]}
            header |= {"note": _ONE_STEP_NOTE} if isinstance(net, OneStep) else {}
            header["lora_adapter_metadata"] = _make_config(content, f"{part}." if name == ADAPTERS else "")
        files[name] = safetensors.torch.save(content, metadata=header)
        if kohya and name == ADAPTERS:
            header = {"format": "pt", "note": _ONE_STEP_NOTE, "ss_network_module": "networks.lora"}
            files[KOHYA] = safetensors.torch.save(_to_kohya(content), metadata=header)
    return files


def _make_config(adapters: Mapping[str, Tensor], prefix: str) -> str:
    """Return the configuration of adapters as diffusers writes it into headers."""
    from peft import LoraConfig

    layers = [name.removeprefix(prefix).removesuffix(".lora_A.weight") for name in adapters if ".lora_A." in name]
    rank = next(len(tensor) for name, tensor in adapters.items() if ".lora_A." in name)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=layers).to_dict()
    texts = {f"{prefix}{key}": sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    return json.dumps(texts, indent=2, sort_keys=True)


def _to_kohya(adapters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya

    converted = convert_state_dict_to_kohya(dict(adapters))
    return {f"lora_{name}" if name.startswith("transformer_") else name: tensor for name, tensor in converted.items()}


def _check_again(folder: Path, net: PretrainedNetwork) -> None:
    """Check that the folder has the state of the network, bit for bit."""
    tensors, _ = read_model_folder(folder)
    state = net.state_dict()
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensor, state[name].cpu()) for name, tensor in tensors.items())


def _merge(source: Path, options: FolderOptions, folder: Path, report: Callable[[str], None]) -> list[str]:
    """Write a model folder of diffusers with the adapters in its weights, and compare its outputs."""
    exact, _ = _open(source, options, base_precision="float32")  # the merged weights are float32
    net = exact.net
    assert isinstance(net, PretrainedNetwork)
    assert isinstance(net.spec, PretrainedSpec)
    base, notes = Path(net.spec.base), []
    merged: dict[str, Any] = {"unet": fuse(net.unet, net.make_denoiser())}
    if hasattr(net, "autoencoder"):
        merged["autoencoder"] = fuse(cast(nn.Module, net.autoencoder), net.space.net)
    difference = _compare(exact, merged)
    check_difference(MERGED, difference, half=False)
    with write_folder_atomic(folder) as temporary:
        part = "transformer" if "Transformer" in net.base.kind else "unet"
        merged["unet"].save_pretrained(temporary / part)
        autoencoder = merged.get("autoencoder", net.space.net)
        autoencoder.save_pretrained(temporary / "vae")
        notes += _copy_rest(base, temporary)
    report(f"{MERGED}: {difference}, compared with the adapters on the base in float32")
    return [*notes, f"{MERGED}: {_ONE_STEP_NOTE}"]


def fuse(adapted: nn.Module, plain: nn.Module) -> nn.Module:
    """Return a copy of a network with the adapters of another added to its weights.

    Args:
        adapted: with layers of peft, of strength 1.
        plain: the same network without adapters, which stays as it is; layers that it lacks are left out.
    """
    fused = copy.deepcopy(plain).float()
    layers = dict(fused.named_modules())
    with torch.no_grad():
        for name, layer in adapted.named_modules():
            if name not in layers:
                continue
            source: Any = getattr(layer, "base_layer", layer)
            for key, parameter in source.named_parameters(recurse=False):
                value = parameter.float()
                if key == "weight" and hasattr(layer, "get_delta_weight"):
                    value = value + layer.get_delta_weight("default")  # pyright: ignore[reportCallIssue]
                getattr(layers[name], key).copy_(value)
    return fused


def _compare(model: Model, merged: Mapping[str, Any]) -> Difference:
    net = copy.deepcopy(model.net)
    for name, module in merged.items():
        setattr(net, name, module)
    other = replace(model, net=net.eval())
    return measure_difference(other.upscale, model.upscale, model.channels, choose_sizes(model))


def _copy_rest(base: Path, folder: Path) -> list[str]:
    """Copy the other parts of a base; return a note if a stock pipeline cannot open the folder."""
    index = base / "model_index.json"
    for part in base.iterdir():
        if part.is_dir() and part.name not in _WRITTEN and (part.name == "scheduler" or index.is_file()):
            shutil.copytree(part, folder / part.name)
    if index.is_file():
        shutil.copy(index, folder / index.name)
        return []
    return [
        f"{MERGED} has no model_index.json, since the base has none; pipelines of diffusers take its parts one by one."
    ]
