"""Save weights files that other programs open, with metadata from which the network is built again."""

import io
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from selfsr.errors import InputError
from selfsr.fileio import write_atomic
from selfsr.nets import key_names
from selfsr.nets.base import StatedNetwork


def save_weights(
    path: Path,
    net: nn.Module,
    metadata: Mapping[str, str],
    *,
    dtype: torch.dtype | None = None,
    fold: bool = False,
) -> None:
    """Save the weights of a network atomically, so that spandrel and the tools based on it open the file.

    A `.safetensors` file contains the bare state dict, a `.pth` file has it under `params`, and the metadata under
    `metadata`. Names are the published ones (for RRDB, BasicSR's). Tensors are contiguous and share no memory.

    Args:
        path: the file, `.safetensors` or `.pth`; its folder is created.
        net: the network, which may be compiled or wrapped for several processes.
        metadata: further entries, such as the recipe and the version. They override those of the network itself.
        dtype: the type to which floating-point tensors are rounded; None keeps theirs. Tensors that the network
            computes for itself are computed before.
        fold: of SPAN, save the fused convolutions only, which are a fifth of the size and give the same outputs.

    Raises:
        InputError: the suffix is neither `.safetensors` nor `.pth`, or a number is too large for `dtype`.
        OSError: the disk is full or not writable; an existing file is unchanged.

    Example:
        >>> import tempfile
        >>> from selfsr.nets.edsr import EdsrSpec
        >>> from selfsr.nets.weights import read_metadata
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "net.safetensors"
        ...     save_weights(path, EdsrSpec(features=8, blocks=1).build(scale=2), {"note": "untrained"})
        ...     read_metadata(path)["note"]
        'untrained'
    """
    if path.suffix not in (".safetensors", ".pth"):
        raise InputError(f"weights {path}: the suffix must be .safetensors or .pth, got {path.suffix or 'none'}.")
    while (inner := getattr(net, "_orig_mod", getattr(net, "module", None))) is not None:
        net = inner
    if any(".eval_conv." in name for name in net.state_dict()):
        from selfsr.nets.spandrel.span_conv import update_fused_convs

        update_fused_convs(net)
    tensors = key_names.fold_span(net.state_dict()) if fold else dict(net.state_dict())
    if key_names.is_rrdb(tensors):
        tensors = key_names.to_rrdb_published_names(tensors)
    # Clones, because safetensors refuses tensors that share memory, and training may change them meanwhile.
    tensors = {name: _round(name, tensor.detach().cpu(), dtype) for name, tensor in tensors.items()}
    # In a run of several scales, `metadata` lists all scales; the network only knows the one of its last step.
    entries = {**(net.file_metadata() if isinstance(net, StatedNetwork) else {}), **metadata}
    if path.suffix == ".safetensors":
        content = safetensors.torch.save(tensors, metadata={"format": "pt", **entries})
    else:
        buffer = io.BytesIO()
        torch.save({"params": tensors, "metadata": entries}, buffer)
        content = buffer.getvalue()
    write_atomic(path, content)


def _round(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    rounds = dtype is not None and tensor.is_floating_point()
    rounded = (tensor.to(dtype) if rounds else tensor).contiguous().clone()
    if rounds and bool((rounded.isinf() & tensor.isfinite()).any()):
        raise InputError(
            f"weights: expected numbers within the range of {str(dtype).removeprefix('torch.')}, got larger ones in "
            f"{name}; save them in float32 or bfloat16."
        )
    return rounded
