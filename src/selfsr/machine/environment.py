"""List versions and devices, for `selfsr doctor` and for the run folder."""

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from selfsr.fileio import write_atomic
from selfsr.machine.device import choose_precision, why_not_bfloat16

# The packages that results depend on, and the extra that installs each; "" is installed with selfsr or torch.
_PACKAGES = {
    "selfsr": "",
    "torch": "",
    "triton": "",
    "numba": "train",
    "accelerate": "train",
    "spandrel": "train",
    "torchvision": "train",
    "torchmetrics": "metrics",
    "tensorboard": "track",
    "pytorch-optimizer": "optimizers",
    "scikit-image": "demo",
    "diffusers": "diffusion",
    "peft": "diffusion",
    "transformers": "diffusion",
}


def list_versions() -> dict[str, str | None]:
    """Return the version of each package that results depend on, None if it is not installed."""
    by_package: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            by_package[package] = version(package)
        except PackageNotFoundError:
            by_package[package] = None
    return by_package


def suggest_install(package: str) -> str:
    """Return the command that installs a package, or why there is none."""
    extra = _PACKAGES[package]
    return f'pip install "selfsr[{extra}]"' if extra else "not offered for this platform"


def describe_devices() -> dict[str, str]:
    """Return a line on each device by name: its model, and the precision of training on it."""
    devices = [torch.device("cpu")]
    devices += [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    devices += [torch.device("mps")] if torch.backends.mps.is_available() else []
    lines = {}
    for device in devices:
        reason = why_not_bfloat16(device)
        why = "" if reason is None else f" ({reason})"
        lines[str(device)] = f"{_name(device)}, trains in {choose_precision('auto', device)}{why}"
    return lines


def write_environment(path: Path, device: torch.device) -> None:
    """Write versions, platform and `device` as JSON."""
    record = {
        "device": f"{device}: {_name(device)}",
        "threads": torch.get_num_threads(),
        "platform": platform.platform(terse=True),
        **list_versions(),
    }
    write_atomic(path, json.dumps(record, indent=2) + "\n")


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} cores" if device.type == "cpu" else "Apple GPU"
