"""Measure free and used memory, and detect when it runs out."""

import weakref
from pathlib import Path
from typing import TypeGuard

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception is an out-of-memory error of a GPU or of the CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    signs = ("out of memory", "not enough memory", "can't allocate memory", "STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)


def release_cached_memory() -> None:
    """Return cached memory to the device, after it ran out."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def measure_free_bytes(device: torch.device) -> int:
    """Return the free bytes of `device`, with the unused memory of torch's cache."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    import psutil

    return max(0, min([psutil.virtual_memory().available, *_free_bytes_of_container()]))


def _free_bytes_of_container() -> list[int]:
    """Return the free bytes below the limit of a container (Linux control groups, version 2 and 1)."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            limit_bytes, used_bytes = ((Path("/sys/fs/cgroup") / name).read_text().strip() for name in (limit, used))
        except OSError:
            continue
        return [int(limit_bytes) - int(used_bytes)] if limit_bytes.isdigit() else []
    return []


def measure_memory_mb(device: torch.device) -> float:
    """Return the memory of this process in MB of 2**20: the peak on a GPU, the resident memory on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import psutil

    return psutil.Process().memory_info().rss / 2**20


def _is_tensor(value: object) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor)


class PeakBytes(TorchDispatchMode):
    """Count the bytes of all tensors that are made in this context.

    The count is exact and the same on every device, but leaves out what libraries allocate internally.

    Attributes:
        peak: the most bytes that were alive at once.

    Example:
        >>> with PeakBytes() as counted:
        ...     total = torch.ones(1000).sum()
        >>> counted.peak
        4004
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive = 0
        self._holders: dict[int, int] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True would import the compiler, a second for nothing

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {tensor.untyped_storage().data_ptr() for tensor in tree_leaves((args, kwargs)) if _is_tensor(tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if _is_tensor(tensor):
                self._count(tensor, given)
        return out

    def _count(self, tensor: Tensor, given: set[int]) -> None:
        storage = tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if key in given and key not in self._holders:
            return  # a view of a tensor from outside, or that tensor after an operation in place
        if key not in self._holders:
            self._holders[key] = 0
            self._alive += size
            self.peak: int = max(self.peak, self._alive)
        self._holders[key] += 1
        weakref.finalize(tensor, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._holders[key] -= 1
        if self._holders[key] == 0:
            del self._holders[key]
            self._alive -= size
