"""Choose the device and the precision of networks."""

from typing import Literal, cast, get_args

import torch
from torch import Tensor

from selfsr.errors import InputError

Precision = Literal["float32", "tf32", "bfloat16", "float16"]


def choose_device(name: str = "auto") -> torch.device:
    """Return the device called `name`; "auto" prefers CUDA, then MPS, then the CPU.

    Args:
        name: "auto", or a name of PyTorch such as "cpu" or "cuda:1".

    Raises:
        InputError: this machine has no such device.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or not present.get(device.type, False):
        available = ", ".join(kind for kind, is_present in present.items() if is_present)
        raise InputError(f"device: expected auto or one of {available}, got {name!r}; use one of these.")
    return device


def why_not_bfloat16(device: torch.device) -> str | None:
    """Return why `device` does not compute bfloat16 natively, or None if it does."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return None if major >= 8 else f"compute capability {major}.{minor} has no bfloat16 units"
    if device.type == "cpu":
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return None if native else "this CPU has neither AVX512_BF16 nor AMX, and would emulate it"
    return f"not verified on {device.type}"


def why_not_tf32(device: torch.device) -> str | None:
    """Return why `device` does not compute TF32, or None if it does."""
    if device.type != "cuda":
        return "only NVIDIA GPUs have them"
    if torch.version.hip is not None:
        return "AMD GPUs have none"
    major, minor = torch.cuda.get_device_capability(device)
    return None if major >= 8 else f"compute capability {major}.{minor} has none"


def choose_precision(name: str, device: torch.device) -> Precision:
    """Return the precision of networks; "auto" is bfloat16 if the device computes it natively, else float32.

    Args:
        name: "auto", "float32", "tf32", "bfloat16" or "float16".
        device: the device of the networks.

    Raises:
        InputError: the name is unknown, or it is float16 on a CPU.

    Example:
        >>> choose_precision("float32", torch.device("cpu"))
        'float32'
    """
    if name == "auto":
        return "float32" if why_not_bfloat16(device) else "bfloat16"
    if name == "float16" and device.type == "cpu":
        raise InputError("precision: expected auto, bfloat16 or float32 on a CPU, got float16; use one of these.")
    if name == "tf32" and (reason := why_not_tf32(device)) is not None:
        raise InputError(f"precision: expected a GPU with TF32 units for tf32, got {device}: {reason}; use float32.")
    if name not in get_args(Precision):
        raise InputError(
            f"precision: expected auto, float32, tf32, bfloat16 or float16, got {name!r}; use one of these."
        )
    return cast(Precision, name)


def to_device(samples: Tensor, device: torch.device) -> Tensor:
    """Copy to a device unless it is there; to a GPU through page-locked memory, so that the CPU does not wait."""
    if device.type == "cuda" and not samples.is_cuda:
        samples = samples.pin_memory()
    return samples.to(device, non_blocking=True)
