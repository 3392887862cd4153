"""Where the runs of a study go: how many at once, on which devices."""

import os
from dataclasses import dataclass

from selfsr.machine.device import choose_device


@dataclass(frozen=True)
class Slot:
    """A place where one run at a time is trained.

    Attributes:
        label: what it is called in messages.
        device: what `selfsr train --device` gets.
        environment: variables that the run gets besides the study's own.
    """

    label: str
    device: str
    environment: dict[str, str]


def slots(device: str, jobs: int | None) -> list[Slot]:
    """Return the places to train at.

    Args:
        device: "auto" or "cuda" spreads over all visible GPUs; anything else is where every run goes.
        jobs: runs at once; None is one for each GPU, or one.

    Raises:
        InputError: there is no such device here.
    """
    where = choose_device(device)
    if where.type == "cuda" and where.index is None:
        gpus = _visible_gpus()
        count = jobs or len(gpus)
        chosen = [gpus[index % len(gpus)] for index in range(count)]
        return [Slot(f"GPU {gpu}", "cuda", {"CUDA_VISIBLE_DEVICES": gpu}) for gpu in chosen]
    count = jobs or 1
    environment = {}
    if where.type == "cpu" and count > 1 and "OMP_NUM_THREADS" not in os.environ:
        # Each run would take every core for itself, and all of them would wait for one another.
        environment = {"OMP_NUM_THREADS": str(max(1, _cores() // count))}
    return [Slot(str(where), str(where), environment) for _ in range(count)]


def _visible_gpus() -> list[str]:
    """Return the GPUs by the names that `CUDA_VISIBLE_DEVICES` takes."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in given.split(",") if name.strip()]
    count = torch.cuda.device_count()
    return names[:count] if len(names) >= count else [str(index) for index in range(count)]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
