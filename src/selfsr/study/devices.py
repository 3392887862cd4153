"""Choose the devices of a study, and the number of runs that train at once on each."""

import os
from dataclasses import dataclass

from selfsr.machine.device import choose_device


@dataclass(frozen=True)
class DeviceSlot:
    """A device, or a part of one, that trains one run at a time.

    Attributes:
        label: its name in messages.
        device: the value of `selfsr train --device`.
        environment: additional environment variables of the run.
    """

    label: str
    device: str
    environment: dict[str, str]


def choose_slots(device: str, jobs: int | None) -> list[DeviceSlot]:
    """Return one slot for each run that trains at the same time.

    Args:
        device: "auto" and "cuda" use all visible GPUs; any other device gets every run.
        jobs: number of runs at once; None means one for each GPU, or one on another device.

    Raises:
        InputError: this machine has no such device.
    """
    torch_device = choose_device(device)
    if torch_device.type == "cuda" and torch_device.index is None:
        gpus = _list_visible_gpus()
        count = jobs or len(gpus)
        shared = [gpus[index % len(gpus)] for index in range(count)]
        return [DeviceSlot(f"GPU {gpu}", "cuda", {"CUDA_VISIBLE_DEVICES": gpu}) for gpu in shared]
    count = jobs or 1
    environment = {}
    if torch_device.type == "cpu" and count > 1 and "OMP_NUM_THREADS" not in os.environ:
        # Otherwise each run would start a thread for every core, and the runs would slow one another down.
        environment = {"OMP_NUM_THREADS": str(max(1, _count_cores() // count))}
    return [DeviceSlot(str(torch_device), str(torch_device), environment) for _ in range(count)]


def _list_visible_gpus() -> list[str]:
    """Return the names of the GPUs in the form of `CUDA_VISIBLE_DEVICES`."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in visible.split(",") if name.strip()]
    count = torch.cuda.device_count()
    return names[:count] if len(names) >= count else [str(index) for index in range(count)]


def _count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
