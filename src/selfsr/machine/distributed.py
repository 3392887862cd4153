"""Compute sums and means over the processes of a run, and let them agree."""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from selfsr.errors import InputError

T = TypeVar("T")


def process_count() -> int:
    """Return the number of processes of the run; 1 without `torch.distributed`."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def process_rank() -> int:
    """Return the number of this process in the run; 0 without `torch.distributed`."""
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def sum_over_processes(value: Tensor) -> Tensor:
    """Return the sum of `value` over all processes, without a gradient; a single process gets its own tensor."""
    if process_count() == 1:
        return value
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total


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


# While one process works by itself, such as for FID of a large set, the others wait; gloo's default of half an hour
# would end the run. They notice at once that a process has ended, but a machine without network only after this time.
_LONGEST_WORK = timedelta(hours=6)
_control_groups: dict[timedelta | None, tuple[Any, Any]] = {}


def _get_control_group(timeout: timedelta | None = None) -> Any:
    """Return the group for messages between the processes; it works on the CPU and never waits for a GPU.

    All processes must call this in the same order, since the first call with a limit makes its group.

    Args:
        timeout: limit for an answer of the others; None is gloo's own.
    """
    world = distributed.group.WORLD
    known, group = _control_groups.get(timeout, (None, None))
    if known is not world:  # a second run in one process has another world
        group = distributed.new_group(backend="gloo", timeout=timeout)
        _control_groups[timeout] = (world, group)
    return group


def share_from_first(make: Callable[[], T]) -> T:
    """Call `make` in the first process only, and return its result in all processes.

    So only the first machine needs the files that `make` reads. All processes must call this in the same order.

    Args:
        make: returns a value that can be pickled.

    Raises:
        InputError, OSError: `make` raised it; all processes raise it.
    """
    if process_count() == 1:
        return make()
    outcome: list[Any] = [None, None]
    if distributed.get_rank() == 0:
        try:
            outcome[0] = make()
        except (InputError, OSError) as error:
            outcome[1] = error
    distributed.broadcast_object_list(outcome, src=0, group=_get_control_group(_LONGEST_WORK))
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def share_with_all(make: Callable[[], T]) -> list[T]:
    """Call `make` in each process, and return the results of all of them, by rank, in all processes.

    All processes must call this in the same order.

    Args:
        make: returns a value that can be pickled.

    Raises:
        InputError, OSError: `make` raised it in a process; all processes raise that of the first one.
    """
    if process_count() == 1:
        return [make()]
    outcome: tuple[T | None, Exception | None]
    try:
        outcome = (make(), None)
    except (InputError, OSError) as error:
        outcome = (None, error)
    outcomes: list[Any] = [None] * process_count()
    distributed.all_gather_object(outcomes, outcome, group=_get_control_group(_LONGEST_WORK))
    for _, error in outcomes:
        if error is not None:
            raise error
    return [value for value, _ in outcomes]


class StopAgreement:
    """Let all processes stop after the same step if one of them wants to.

    Each step exchanges one number in the background and reads the result of the step before. So no process waits for
    the others, nor for its GPU, and a request takes effect one step later.
    """

    def __init__(self) -> None:
        self._pending: tuple[Any, Tensor] | None = None

    def check(self, stop_requested: bool) -> bool:
        """Return whether to stop after this step; all processes call it after each step and get the same answer.

        Args:
            stop_requested: whether this process wants to stop.
        """
        if process_count() == 1:
            return stop_requested
        agreed = self.finish()
        flag = torch.tensor([int(stop_requested)], dtype=torch.int32)
        work = distributed.all_reduce(flag, distributed.ReduceOp.MAX, group=_get_control_group(), async_op=True)
        self._pending = (work, flag)
        return agreed

    def finish(self) -> bool:
        """Wait for the exchange in the background, and return whether a process wanted to stop."""
        if self._pending is None:
            return False
        work, flag = self._pending
        self._pending = None
        work.wait()
        return bool(flag.item())


def local_process_count() -> int:
    """Return the number of processes on this machine, from the environment of torchrun and accelerate."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_first_on_machine() -> bool:
    """Return whether this is the first process on its machine, from the environment of torchrun and accelerate."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def is_first_process() -> bool:
    """Return whether this is the first process of a run, before it has joined the others.

    The variables are those that accelerate reads: of torchrun, Intel MPI, Open MPI and MVAPICH.
    """
    names = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
    return next((os.environ[name] for name in names if name in os.environ), "0") == "0"
