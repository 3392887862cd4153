"""Sums and means over the processes of a run; a run of one process has nothing to add."""

from typing import Any

import torch
from torch import Tensor, distributed


def sum_over_processes(value: Tensor) -> Tensor:
    """Return the sum of every process's `value`, without a gradient."""
    if not _several():
        return value
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total


def mean_over_processes(value: Tensor) -> Tensor:
    """Return the mean of every process's `value`; its gradient reaches the values of all of them.

    Where losses are averaged over processes, as gradients are, a loss of the mean then has the gradient that it
    would have in one process.
    """
    return _Mean.apply(value) if _several() else value  # pyright: ignore[reportReturnType]


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:  # noqa: ARG004 - the signature of a function
        return sum_over_processes(value) / distributed.get_world_size()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        return sum_over_processes(gradients[0]) / distributed.get_world_size()


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
