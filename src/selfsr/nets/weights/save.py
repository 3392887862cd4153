"""Weights files out: what everyone can open, and what the file says of itself."""

import io
import os
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from selfsr.errors import InputError
from selfsr.nets import key_names
from selfsr.nets.base import SrNetwork


def save_weights(path: Path, net: nn.Module, metadata: Mapping[str, str]) -> None:
    """Save the weights of `net` so that spandrel and the tools on it open them; whole or not at all.

    A `.safetensors` file holds the bare state dict, a `.pth` file the same under `params` with the metadata
    beside it. Names are the published ones (an RRDB's are BasicSR's), tensors contiguous and unshared.

    Args:
        path: where to; its folder is made.
        net: the network, also one that is compiled or wrapped for several processes.
        metadata: what the file says of itself: architecture, scale, recipe, version.

    Raises:
        InputError: the suffix is neither `.safetensors` nor `.pth`.
        OSError: the disk is full or not writable; a file that stood there still does.
    """
    if path.suffix not in (".safetensors", ".pth"):
        raise InputError(f"weights {path}: the suffix must be .safetensors or .pth, got {path.suffix or 'none'}.")
    while (inner := getattr(net, "_orig_mod", getattr(net, "module", None))) is not None:
        net = inner
    if any(".eval_conv." in name for name in net.state_dict()):
        from selfsr.nets.spandrel.span_conv import refresh_fused

        refresh_fused(net)
    tensors = dict(net.state_dict())
    if key_names.is_rrdb(tensors):
        tensors = key_names.rrdb_published_names(tensors)
    # A clone each: safetensors refuses tensors that share memory, and an averaged one must not move on meanwhile.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    # Of a run of several scales the metadata names all of them, the network the last one it was used at.
    said = {**(net.file_metadata() if isinstance(net, SrNetwork) else {}), **metadata}
    if path.suffix == ".safetensors":
        content = safetensors.torch.save(tensors, metadata={"format": "pt", **said})
    else:
        buffer = io.BytesIO()
        torch.save({"params": tensors, "metadata": said}, buffer)
        content = buffer.getvalue()
    _write(path, content)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        error.filename = str(path)  # a full disk names no file
        raise
    finally:
        unfinished.unlink(missing_ok=True)
