"""What this machine computes on, and how: the device and the precision, each with its reason."""

from typing import Literal

import torch
from torch import Tensor

from selfsr.errors import InputError

Precision = Literal["float32", "bfloat16", "float16"]


def choose_device(name: str = "auto") -> torch.device:
    """Return the device called `name`; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        InputError: there is no such device here.
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
        available = ", ".join(kind for kind, here in present.items() if here)
        raise InputError(f"device: expected auto or one of {available} (cuda:1 and so on), got {name!r}.")
    return device


def why_not_bfloat16(device: torch.device) -> str | None:
    """Return why bfloat16 is not computed natively on `device`, or None if it is."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return None if major >= 8 else f"compute capability {major}.{minor} has no bfloat16 units"
    if device.type == "cpu":
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return None if native else "this CPU has neither AVX512_BF16 nor AMX, and would emulate it"
    return f"not verified on {device.type}"


def choose_precision(name: str, device: torch.device) -> Precision:
    """Return the precision that networks run in; "auto" takes bfloat16 where the device computes it natively."""
    if name == "auto":
        return "float32" if why_not_bfloat16(device) else "bfloat16"
    if name == "float16" and device.type == "cpu":
        raise InputError("precision: float16 is for GPUs, the device is the CPU; choose auto, bfloat16 or float32.")
    if name not in ("float32", "bfloat16", "float16"):
        raise InputError(f"precision: expected auto, float32, bfloat16 or float16, got {name!r}.")
    return name


def to_device(samples: Tensor, device: torch.device) -> Tensor:
    """Bring to the device; to a GPU through page-locked memory, so that the CPU does not wait."""
    if device.type == "cuda":
        samples = samples.pin_memory()
    return samples.to(device, non_blocking=True)
