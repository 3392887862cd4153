"""Compute sums and means over the processes of a run."""

import os
from typing import Any

import torch
from torch import Tensor, distributed


def process_count() -> int:
    """Return the number of processes of the run; 1 without `torch.distributed`."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def sum_over_processes(value: Tensor) -> Tensor:
    """Return the sum of `value` over all processes, without a gradient; a single process gets its own tensor."""
    if process_count() == 1:
        return value
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total


def share_number(value: float, device: torch.device) -> float:
    """Return the number of the first process in all processes; the others' values are ignored."""
    if process_count() == 1:
        return value
    shared = torch.tensor(value, dtype=torch.float64, device=device)
    distributed.broadcast(shared, src=0)
    return shared.item()


def mean_over_processes(value: Tensor) -> Tensor:
    """Return the mean of `value` over all processes, with a gradient for the values of all of them.

    DDP averages gradients over the processes, and so the losses. A loss of this mean then has the gradient that it has
    in a single process, and so does the gradient of that gradient. All processes must compute the mean, and its
    gradient, in the same order.
    """
    return _Mean.apply(value) if process_count() > 1 else value  # pyright: ignore[reportReturnType]


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:  # noqa: ARG004 - the signature of a function
        return sum_over_processes(value) / process_count()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        # The mean is its own transpose. It has a gradient itself, so that it can be differentiated any number of times.
        return mean_over_processes(gradients[0])


def local_process_count() -> int:
    """Return the number of processes on this machine, from the environment of torchrun and accelerate."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Return whether this is the first process of a run, before it has joined the others.

    The variables are those that accelerate reads: of torchrun, Intel MPI, Open MPI and MVAPICH.
    """
    names = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
    return next((os.environ[name] for name in names if name in os.environ), "0") == "0"
