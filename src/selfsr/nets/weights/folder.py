"""Model folders: the files of a network on a pretrained base, with the names of diffusers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from selfsr.errors import InputError, shorten
from selfsr.nets.base import NETWORK_ENTRY

STATEMENT = "selfsr.json"
ADAPTERS = "lora/pytorch_lora_weights.safetensors"
ENCODER_ADAPTERS = "lora/encoder_lora_weights.safetensors"
PROMPT = "prompt.safetensors"
# Tensors that are neither adapters nor a prompt, such as a layer that is trained completely.
TRAINED = "trained.safetensors"

# The entry of the statement that lists the files with tensors.
FILES = "files"

_SHA256, _SHA256_BYTES = "base_sha256", 32
_EMBEDDING = "embedding"


def is_model_folder(path: Path) -> bool:
    """Return whether a folder has the statement of a network."""
    return (path / STATEMENT).is_file()


def list_network_files(folder: Path) -> list[Path]:
    """Return the files of a model folder that make the network, without other forms of it, such as a merged one."""
    names = (STATEMENT, ADAPTERS, ENCODER_ADAPTERS, PROMPT, TRAINED)
    return [folder / name for name in names if (folder / name).is_file()]


def is_input(name: str) -> bool:
    """Return whether a tensor of a network on a pretrained base is not trained: its prompt or its base's checksum."""
    return name in (_SHA256, "prompt") or name.startswith("prompt_")


def split_tensors(tensors: Mapping[str, Tensor], part: str) -> dict[str, dict[str, Tensor]]:
    """Return the tensors of a network on a pretrained base by file, with their names in the file.

    Args:
        tensors: its state.
        part: the denoiser's name in diffusers, "unet" or "transformer".
    """
    files: dict[str, dict[str, Tensor]] = {ADAPTERS: {}, ENCODER_ADAPTERS: {}, PROMPT: {}, TRAINED: {}}
    for name, tensor in tensors.items():
        end = name.replace(".default.weight", ".weight")
        if name == _SHA256:
            continue
        if name == "prompt" or name.startswith("prompt_"):
            files[PROMPT][_EMBEDDING if name == "prompt" else name.removeprefix("prompt_")] = tensor
        elif ".lora_" in name and name.startswith("unet."):
            files[ADAPTERS][f"{part}.{end.removeprefix('unet.')}"] = tensor
        elif ".lora_" in name and name.startswith("autoencoder."):
            files[ENCODER_ADAPTERS][end.removeprefix("autoencoder.")] = tensor
        else:
            files[TRAINED][name] = tensor
    return {name: content for name, content in files.items() if content}


def read_model_folder(folder: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a model folder under the names of the network, and its metadata.

    Raises:
        InputError: a file of it is missing or damaged.
        OSError: a file cannot be read.
    """
    metadata, sha256 = _read_statement(folder)
    for file in metadata.pop(FILES, "").split(", "):
        if file and not (folder / file).is_file():
            raise InputError(f"weights {folder}: expected {file}, as {STATEMENT} states, got none; export it again.")
    tensors: dict[str, Tensor] = {_SHA256: torch.tensor(list(bytes.fromhex(sha256)), dtype=torch.uint8)}
    for file, read in ((ADAPTERS, "unet."), (ENCODER_ADAPTERS, "autoencoder."), (PROMPT, "prompt"), (TRAINED, "")):
        if not (folder / file).is_file():
            continue
        for name, tensor in _read_tensors(folder / file).items():
            if file == PROMPT:
                tensors["prompt" if name == _EMBEDDING else f"prompt_{name}"] = tensor
            elif file == TRAINED:
                tensors[name] = tensor
            else:
                layer = name.partition(".")[2] if file == ADAPTERS else name
                tensors[f"{read}{layer.removesuffix('.weight')}.default.weight"] = tensor
    return tensors, metadata


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, ValueError, LookupError) as error:
        raise InputError(
            f"weights {path}: expected a .safetensors file, got one that cannot be read ({shorten(str(error))}); "
            "export the model again."
        ) from error


def make_statement(metadata: Mapping[str, str]) -> str:
    """Return the text of the statement for the metadata of a weights file."""
    statement: dict[str, Any] = dict(metadata)
    statement["network"] = json.loads(statement.pop(NETWORK_ENTRY))
    return json.dumps(statement, indent=2, ensure_ascii=False) + "\n"


def _read_statement(folder: Path) -> tuple[dict[str, str], str]:
    """Return the metadata, and the checksum of the base."""
    path = folder / STATEMENT
    try:
        statement = json.loads(path.read_text(encoding="utf-8"))
        network = statement.pop("network")
        sha256 = network[_SHA256]
        if len(bytes.fromhex(sha256)) != _SHA256_BYTES or not all(isinstance(text, str) for text in statement.values()):
            raise ValueError("other entries")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(
            f"weights {path}: expected JSON with network and its base_sha256, as selfsr export writes it, got "
            f"{shorten(str(error))}; export the model again."
        ) from error
    return {**statement, NETWORK_ENTRY: json.dumps(network)}, sha256
