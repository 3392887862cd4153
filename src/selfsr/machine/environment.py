"""What is installed here: for the doctor, and beside every run so that its figures can be placed later."""

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from selfsr.machine.device import choose_precision, why_not_bfloat16

# The packages that a result may depend on, and the extra that installs each ("" comes with selfsr or torch).
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
    "scikit-image": "demo",
}


def versions() -> dict[str, str | None]:
    """Return the version of each package that a result may depend on, None where it is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def remedy(package: str) -> str:
    """Return how a missing package is installed."""
    extra = _PACKAGES[package]
    return f'pip install "selfsr[{extra}]"' if extra else "not offered for this platform"


def devices() -> dict[str, str]:
    """Return every device by name, with what it is and the precision that it trains in."""
    here = [torch.device("cpu")]
    here += [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    here += [torch.device("mps")] if torch.backends.mps.is_available() else []
    told = {}
    for device in here:
        reason = why_not_bfloat16(device)
        why = "" if reason is None else f" ({reason})"
        told[str(device)] = f"{_name(device)}, trains in {choose_precision('auto', device)}{why}"
    return told


def write_environment(path: Path, device: torch.device) -> None:
    """Write versions, platform and `device` as JSON."""
    record = {
        "device": f"{device}: {_name(device)}",
        "threads": torch.get_num_threads(),
        "platform": platform.platform(terse=True),
        **versions(),
    }
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} cores" if device.type == "cpu" else "Apple GPU"
