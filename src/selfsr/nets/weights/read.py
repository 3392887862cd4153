"""Reading a weights file of any origin into named tensors, without running what it may carry.

Files hold the tensors bare or one level down (`params_ema`, `state_dict`, ...), under names that a wrapper has
put its own before (`module.`, `_orig_mod.`). What comes out are bare tensors under the network's own names.
"""

import difflib
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from selfsr.errors import InputError

# Where weights lie in a file that holds more, the averaged ones first.
_PARTS = (
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
# Keys of files from which training goes on, and which have no weights in one of the places above.
_TRAINING_KEYS = frozenset(
    ("optimizer", "optimizers", "optimizers", "optimizer_state_dict", "param_groups", "schedulers", "iter", "epoch")
)
# First words of names where several networks share one flat dict; the generators in order of preference.
_GENERATORS = ("ema_model", "net_g_ema", "net_g", "netG", "generator")
_BESIDE_THEM = frozenset({"online_model", "net_d", "netD", "discriminator"})
# Counters that averaging wrappers keep among the tensors.
_COUNTERS = frozenset({"n_averaged", "initted", "step"})
# How the two unpicklers say which name they refused.
_NAMED = re.compile(r"(?:GLOBAL |Global ')([\w.]+)")
# Bytes; the format's own limit.
_SAFETENSORS_HEADER_LIMIT = 100_000_000


@dataclass(frozen=True)
class Checkpoint:
    """The weights that a file holds.

    Attributes:
        tensors: on the CPU, by the network's own names.
        metadata: what the file says of itself; empty where it says nothing.
        part: where in the file they lay, "" if they are all of it.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    part: str


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the weights in `path`; the content decides on the format, not the suffix.

    Raises:
        InputError: no such file, or no weights in it, or more than weights: a pickle that names anything but
            tensors and plain containers is refused, and nothing of it is run.
        OSError: the file cannot be read.
    """
    if _format_of(path) == "safetensors":
        try:
            with safe_open(path, "pt", device="cpu") as file:
                metadata = file.metadata() or {}
                content = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except SafetensorError as error:
            raise _damaged(path, error) from error
        return Checkpoint(_own_names(content), metadata, "")
    content = _unpickle(path)
    metadata = content.get("metadata", {}) if isinstance(content, Mapping) else {}
    tensors, part = _find_weights(path, content)
    return Checkpoint(_own_names(tensors), {k: v for k, v in dict(metadata).items() if isinstance(v, str)}, part)


def _format_of(path: Path) -> Literal["safetensors", "torch"]:
    if not path.exists():
        raise InputError(f"weights {path}: there is no such file; {_nearest(path)}.")
    if path.is_dir():
        best = path / "weights" / "best.safetensors"
        advice = f"give {best}" if best.exists() else "give a weights file, .safetensors or .pth"
        raise InputError(f"weights {path}: expected a file, got a folder; {advice}.")
    with path.open("rb") as file:
        head = file.read(512)
    if head[:4] == b"PK\x03\x04":
        return _check_archive(path)
    # Eight bytes of length, then JSON; in a text file or a pickle the length would be astronomical.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < _SAFETENSORS_HEADER_LIMIT:
        return "safetensors"
    if head[:1] == b"\x80":
        return "torch"
    raise InputError(
        f"weights {path}: expected network weights (.safetensors, .pth), got {_what_else(path, head)}; "
        "name a weights file, or download it anew."
    )


def _check_archive(path: Path) -> Literal["torch"]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise _damaged(path, error) from error
    if any(name.endswith("/constants.pkl") for name in names):
        raise InputError(
            f"weights {path}: expected weights, got a TorchScript program; "
            "save the state_dict() of the loaded program in its place."
        )
    if not any(name.endswith("data.pkl") for name in names):
        raise InputError(f"weights {path}: expected network weights, got a zip archive; unpack it and name a file.")
    return "torch"


def _what_else(path: Path, head: bytes) -> str:
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
                warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            if _NAMED.search(str(error)):
                raise
            # Torch's unpickler knows one protocol; spandrel's knows all, and names as little as torch's may be named.
            from spandrel.__helpers.unpickler import RestrictedUnpickle

            return torch.load(path, map_location="cpu", pickle_module=RestrictedUnpickle, weights_only=False)
    except pickle.UnpicklingError as error:
        named = _NAMED.search(str(error))
        if named is None:
            raise _damaged(path, error) from error
        raise InputError(
            f"weights {path}: expected tensors alone, got a pickle that names {named[1]}, which loading would run; "
            "ask for a .safetensors file, or save the bare state dict where you trust the file."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    lines = str(error).splitlines() or [type(error).__name__]
    return InputError(f"weights {path}: the file is damaged or incomplete ({lines[0]}); download or save it anew.")


def _find_weights(path: Path, content: Any) -> tuple[dict[str, Tensor], str]:
    places: list[str] = []
    while isinstance(content, Mapping):
        inner = [name for name in _PARTS if isinstance(content.get(name), Mapping)]
        if not inner and len(content) == 1:
            inner = [name for name, value in content.items() if isinstance(value, Mapping)]
        if not inner:
            break
        places.append(str(inner[0]))
        content = content[inner[0]]
    tensors: dict[str, Tensor] = {}
    if isinstance(content, Mapping):
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        names = ", ".join(map(str, list(content)[:6]))
        if not tensors:
            if _TRAINING_KEYS & set(content):
                raise InputError(
                    f"weights {path}: expected network weights, got a training state (keys {names}); "
                    "give the weights saved beside it, such as net_g_*.pth or weights/best.safetensors."
                )
            raise InputError(
                f"weights {path}: expected tensors by name, bare or under one of {', '.join(_PARTS[:6])}, "
                f"got {f'keys {names}' if names else 'an empty dict'}; save net.state_dict() instead."
            )
        return tensors, ".".join(places)
    raise InputError(
        f"weights {path}: expected tensors by name, got a {type(content).__name__}; save net.state_dict() instead."
    )


def _own_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take off what wrappers put before the names."""
    tensors = {name: value for name, value in tensors.items() if not (name in _COUNTERS and value.ndim == 0)}
    groups = {name.split(".", 1)[0] for name in tensors}
    if groups and groups <= _BESIDE_THEM | set(_GENERATORS):
        for generator in _GENERATORS:
            if generator in groups:
                tensors = _without_prefix(tensors, f"{generator}.")
                break
    while True:
        for prefix in ("module.", "_orig_mod.", "model."):
            # ESRGAN's oldest layout is a Sequential named `model`: there the name goes on with a number.
            if tensors and all(re.match(re.escape(prefix) + r"(?!\d)", name) for name in tensors):
                tensors = _without_prefix(tensors, prefix)
                break
        else:
            return tensors


def _without_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _nearest(path: Path) -> str:
    if not path.parent.is_dir():
        return f"its folder {path.parent} does not exist either"
    names = [p.name for p in path.parent.iterdir() if p.is_file()]
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"did you mean {path.parent / close[0]}" if close else f"look into {path.parent}"
