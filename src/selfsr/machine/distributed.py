"""Sums and means over the processes of a run; a run of one process has nothing to add."""

import os
from typing import Any

import torch
from torch import Tensor, distributed


def process_count() -> int:
    """Return how many processes the run has."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def sum_over_processes(value: Tensor) -> Tensor:
    """Return the sum of every process's `value`, without a gradient."""
    if process_count() == 1:
        return value
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total


def mean_over_processes(value: Tensor) -> Tensor:
    """Return the mean of every process's `value`; its gradient reaches the values of all of them.

    Where losses are averaged over processes, as gradients are, a loss of the mean then has the gradient that it
    would have in one process. So has a gradient of that gradient. All processes must take the mean, and its
    gradient, in the same order.
    """
    return _Mean.apply(value) if process_count() > 1 else value  # pyright: ignore[reportReturnType]


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:  # noqa: ARG004 - the signature of a function
        return sum_over_processes(value) / process_count()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        # The mean is its own transpose; as a function with a gradient it can be differentiated as often as one likes.
        return mean_over_processes(gradients[0])


def processes_here() -> int:
    """Return how many processes train on this machine, as torchrun and accelerate tell them."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
