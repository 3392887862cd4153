"""Read a weights file of any origin into named tensors, without running code that it may contain.

Files contain the tensors bare or under a key (`params_ema`, `state_dict`, ...), and under names to which wrappers have
added prefixes (`module.`, `_orig_mod.`). The result is bare tensors under the network's own names.
"""

import json
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from selfsr.errors import InputError, find_similar
from selfsr.nets.diffusion.adapters import flatten_osediff
from selfsr.nets.key_names import unfold_span
from selfsr.nets.weights.find import is_folder_of_model
from selfsr.nets.weights.folder import is_model_folder, read_model_folder
from selfsr.nets.weights.unpickle import RefusedNameError, read_pickle_inertly

# Suffixes of files to suggest; a file is recognized by its contents.
_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt")
# Keys of the weights in a file that contains more, EMA weights first.
_SECTIONS = (
    "params_ema",
    "params-ema",
    "ema",
    "params",
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "net_g",
    "generator",
)
# Keys of a training state, which contains no weights under one of the keys above.
_TRAINING_KEYS = frozenset(
    ("optimizer", "optimizers", "optimizer_state_dict", "param_groups", "schedulers", "iter", "epoch")
)
# Prefixes of names if one dict contains several networks; the generators in order of preference.
_GENERATORS = ("ema_model", "net_g_ema", "net_g", "netG", "generator")
_OTHER_NETWORKS = frozenset({"online_model", "net_d", "netD", "discriminator"})
# Counters of EMA wrappers among the tensors.
_COUNTERS = frozenset({"n_averaged", "initted", "step"})
# What the readers of pickles, archives and .safetensors raise for content that contradicts itself.
_DAMAGE = (
    pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, struct.error, SafetensorError, RuntimeError, EOFError,
    ValueError, LookupError, TypeError, AttributeError, AssertionError, ArithmeticError, MemoryError, StopIteration,
)  # fmt: skip
# The format's limit, in bytes.
_SAFETENSORS_HEADER_LIMIT = 100_000_000
# How deep in a file a dict of tensors may be.
_DEPTH_LIMIT = 16
# A tensor may repeat its numbers, as an expanded one, up to this many.
_REPEATED_LIMIT = 2**26


@dataclass(frozen=True)
class WeightsFile:
    """The content of a weights file.

    Attributes:
        tensors: tensors on the CPU, under the network's own names.
        metadata: the file's metadata; empty if there are none.
        section: the keys under which the tensors were found, such as "params_ema"; "" if the file contains only them.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    section: str


def read_weights(path: Path) -> WeightsFile:
    """Read the weights in `path`, a file or a model folder; the content determines the format, not the suffix.

    Nothing that a file contains is run. Objects of unknown classes are ignored, and a pickled module gives its tensors.

    Raises:
        InputError: there is no such file or no weights in it, or the file is a pickle that calls anything but the
            constructors of tensors and of plain values.
        OSError: the file cannot be read.
    """
    if is_model_folder(path):
        return WeightsFile(*read_model_folder(path), "")
    if _detect_format(path) == "safetensors":
        try:
            tensors, metadata = _read_safetensors(path)
        except _DAMAGE as error:
            raise _damaged_error(path, error) from error
        section = ""
    else:
        content = _unpickle(path)
        entries = content.get("metadata") if isinstance(content, Mapping) else None
        entries = entries if isinstance(entries, Mapping) else {}
        metadata = {k: v for k, v in entries.items() if isinstance(k, str) and isinstance(v, str)}
        adapters = flatten_osediff(content)
        tensors, section = _find_weights(path, content) if adapters is None else (adapters, "state_dict_unet")
    _check_plain(path, tensors)
    # PyTorch computes almost nothing with the types of 8 bit.
    tensors = {k: t.float() if t.itemsize == 1 and t.is_floating_point() else t for k, t in tensors.items()}
    return WeightsFile(unfold_span(_strip_prefixes(tensors)), metadata, section)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        str(path).encode()
    except UnicodeEncodeError:  # safe_open takes no name that is not UTF-8
        content = path.read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return safetensors.torch.load(content), header.get("__metadata__", {})
    with safe_open(path, "pt", device="cpu") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 - not a dict


def _check_plain(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        is_plain = type(tensor) in (Tensor, nn.Parameter) and tensor.layout == torch.strided
        if not is_plain or tensor.device.type != "cpu" or tensor.is_quantized or tensor.is_complex():
            kind = "quantized" if tensor.is_quantized else f"{tensor.layout} {tensor.dtype} {tensor.device}"
            raise InputError(
                f"weights {path}: expected tensors of real numbers, got {name}, which is {kind}; "
                "convert it on the machine that saved it."
            )
        if tensor.numel() > max(_REPEATED_LIMIT, tensor.untyped_storage().nbytes() // tensor.itemsize):
            raise _damaged_error(path, ValueError(f"{name} has more numbers than the file"))


def _detect_format(path: Path) -> Literal["safetensors", "torch"]:
    if not path.exists():
        raise InputError(f"weights {path}: there is no such file; {_suggest_path(path)}")
    if path.is_dir():
        best = path / "weights" / "best.safetensors"
        advice = f"give {best}" if best.exists() else "give a weights file, .safetensors or .pth"
        raise InputError(f"weights {path}: expected a file, got a folder; {advice}.")
    with path.open("rb") as file:
        head = file.read(512)
    if head[:4] == b"PK\x03\x04":
        return _check_archive(path)
    # Eight bytes of length, then JSON; the first bytes of a text file or a pickle would be an impossible length.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < _SAFETENSORS_HEADER_LIMIT:
        return "safetensors"
    if head[:1] == b"\x80":
        return "torch"
    raise InputError(
        f"weights {path}: expected network weights (.safetensors, .pth), got {_name_other_format(path, head)}; "
        "name a weights file, or download it again."
    )


def _check_archive(path: Path) -> Literal["torch"]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (*_DAMAGE, OSError) as error:
        raise _damaged_error(path, error) from error
    if any(name.endswith("/constants.pkl") for name in names):
        raise InputError(
            f"weights {path}: expected weights, got a TorchScript program; "
            "save the state_dict() of the loaded program in its place."
        )
    if not any(name.endswith("data.pkl") for name in names):
        raise InputError(f"weights {path}: expected network weights, got a zip archive; unpack it and name a file.")
    return "torch"


def _name_other_format(path: Path, head: bytes) -> str:
    if not head:
        return "an empty file"
    if path.suffix.lower() == ".onnx":
        return "an ONNX graph"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer (run git lfs pull)"
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if not re.search(rb"[^\t\n\r\x20-\x7e\x80-\xff]", head):
        return "a text file"
    return "another kind of file"


def _unpickle(path: Path) -> Any:
    try:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of pickle protocols and of storage classes
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:  # a name that PyTorch refuses, or a protocol that it does not know
            return read_pickle_inertly(path)
    except RefusedNameError as error:
        raise InputError(
            f"weights {path}: expected only tensors, got a pickle that names {error.name}, which loading would run; "
            "ask for a .safetensors file, or save the bare state dict on a machine where you trust the file."
        ) from error
    except OSError as error:
        if error.filename is not None:
            raise
        raise _damaged_error(path, error) from error
    except _DAMAGE as error:
        raise _damaged_error(path, error) from error


def _damaged_error(path: Path, error: Exception) -> InputError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return InputError(f"weights {path}: the file is damaged or incomplete ({reason}); download or save it again.")


def _find_weights(path: Path, content: Any) -> tuple[dict[str, Tensor], str]:
    keys: list[str] = []
    while isinstance(content, Mapping):
        inner = [name for name in _SECTIONS if isinstance(content.get(name), Mapping)]
        if not inner and len(content) == 1:
            inner = [name for name, value in content.items() if isinstance(value, Mapping)]
        if not inner:
            break
        if len(keys) == _DEPTH_LIMIT:  # such as a dict that contains itself
            raise _damaged_error(path, ValueError(f"more than {_DEPTH_LIMIT} dicts in each other"))
        keys.append(str(inner[0]))
        content = content[inner[0]]
    tensors: dict[str, Tensor] = {}
    if isinstance(content, Mapping):
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        names = ", ".join(map(str, list(content)[:6]))
        if not tensors:
            if _TRAINING_KEYS & set(content):
                raise InputError(
                    f"weights {path}: expected network weights, got a training state (keys {names}); "
                    "give the weights that were saved with it, such as net_g_*.pth or weights/best.safetensors."
                )
            raise InputError(
                f"weights {path}: expected tensors by name, bare or under one of {', '.join(_SECTIONS[:6])}, "
                f"got {f'keys {names}' if names else 'an empty dict'}; save net.state_dict() instead."
            )
        return tensors, ".".join(keys)
    raise InputError(
        f"weights {path}: expected tensors by name, got a {type(content).__name__}; save net.state_dict() instead."
    )


def _strip_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefixes that wrappers add to the names."""
    tensors = {name: value for name, value in tensors.items() if not (name in _COUNTERS and value.ndim == 0)}
    groups = {name.split(".", 1)[0] for name in tensors}
    if groups and groups <= _OTHER_NETWORKS | set(_GENERATORS):
        for generator in _GENERATORS:
            if generator in groups:
                tensors = _select_prefix(tensors, f"{generator}.")
                break
    while True:
        for prefix in ("module.", "_orig_mod.", "model."):
            # In ESRGAN's oldest layout, `model.` is followed by a number and is not a wrapper's prefix.
            if tensors and all(re.match(re.escape(prefix) + r"(?!\d)", name) for name in tensors):
                tensors = _select_prefix(tensors, prefix)
                break
        else:
            return tensors


def _select_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _suggest_path(path: Path) -> str:
    if not path.parent.is_dir():
        return f"its folder {path.parent} does not exist either."
    siblings = sorted(path.parent.iterdir(), key=lambda sibling: (sibling.is_dir(), sibling.name))
    names = [sibling.name for sibling in siblings if _may_be_model(sibling)]
    similar = find_similar(path.name, names)
    if similar is None or Path(similar).suffix.lower() != path.suffix.lower():
        similar = next((name for name in names if Path(name).stem == path.stem), similar)
    if similar is not None:
        return f"did you mean {path.parent / similar}?"
    return f"check the path; {path.parent.resolve()} has no model with a similar name."


def _may_be_model(path: Path) -> bool:
    return is_folder_of_model(path) if path.is_dir() else path.suffix.lower() in _SUFFIXES
