"""How large a tile fits: free memory, what a network takes per pixel, and how running out of it looks."""

import math
import weakref
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

LEAST_TILE_PX = 32

# Larger tiles are not faster, and 64 channels at 4 times 1024 px are half of what 32-bit indices can reach.
_LARGEST_TILE_PX = {"cuda": 1024}
_LARGEST_TILE_PX_ELSEWHERE = 512
# What a convolution library takes for itself is seen on a GPU, where its memory comes from torch's allocator,
# and not on a CPU.
_SHARE_OF_FREE = {"cuda": 0.8}
_SHARE_OF_FREE_ELSEWHERE = 0.4
_PROBE_PX = 64


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    signs = ("out of memory", "not enough memory", "can't allocate memory", "STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)


def release() -> None:
    """Give cached memory back to the device, after running out of it."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def free_bytes(device: torch.device) -> int:
    """Return how many bytes can still be taken on `device`, what torch's cache holds unused included."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    import psutil

    return max(0, min([psutil.virtual_memory().available, *_free_bytes_of_container()]))


def _free_bytes_of_container() -> list[int]:
    """Return what is left of the limit that a container sets (Linux control groups, version 2 and 1)."""
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


class PeakBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that are made inside; `peak` is the most that were alive at once.

    Exact and the same on every device, but blind to what libraries allocate for themselves.
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
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        return out

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if key not in self._holders:
            self._holders[key] = 0
            self._alive += size
            self.peak = max(self.peak, self._alive)
        self._holders[key] += 1
        weakref.finalize(tensor, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._holders[key] -= 1
        if self._holders[key] == 0:
            del self._holders[key]
            self._alive -= size


def bytes_per_pixel(upscale: Callable[[Tensor], Tensor], channels: int, device: torch.device, probe_px: int) -> float:
    """Measure what upscaling takes per input pixel at its peak, by doing it with a square of `probe_px`."""
    if device.type == "cuda":
        # The difference of two sizes leaves out what does not grow with the picture.
        small, large = (_peak_on_cuda(upscale, channels, device, px) for px in (probe_px, 2 * probe_px))
        return max(large - small, small / 4, 1) / (3 * probe_px**2)
    with torch.inference_mode(), PeakBytes() as counted:
        upscale(torch.zeros(1, channels, probe_px, probe_px, device=device))
    return counted.peak / probe_px**2


def _peak_on_cuda(upscale: Callable[[Tensor], Tensor], channels: int, device: torch.device, px: int) -> int:
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    with torch.inference_mode():
        upscale(torch.zeros(1, channels, px, px, device=device))
    return torch.cuda.max_memory_allocated(device) - before


def largest_tile_px(
    upscale: Callable[[Tensor], Tensor],
    channels: int,
    device: torch.device,
    *,
    multiple_px: int = 1,
    minimum_px: int = 0,
) -> int:
    """Return the side of the largest tile that fits into free memory, with room to spare.

    A power of two where `multiple_px` allows it, and at least 32 px.

    Args:
        upscale: maps `[1, channels, h, w]` on `device` to the output.
        channels: of the input.
        device: where `upscale` computes.
        multiple_px: the tile is a multiple of this.
        minimum_px: the tile is not smaller than this.
    """
    probe_px = -(-max(_PROBE_PX, minimum_px) // multiple_px) * multiple_px
    try:
        taken = bytes_per_pixel(upscale, channels, device, probe_px)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return probe_px  # what uses it halves it further
    budget = _SHARE_OF_FREE.get(device.type, _SHARE_OF_FREE_ELSEWHERE) * free_bytes(device)
    affordable = math.sqrt(budget / taken)
    side = int(min(affordable, _LARGEST_TILE_PX.get(device.type, _LARGEST_TILE_PX_ELSEWHERE)))
    side = max(LEAST_TILE_PX, minimum_px, 1 << (max(side, 1).bit_length() - 1))
    return max(side // multiple_px, 1) * multiple_px


def smaller_tile_px(tile_px: int, multiple_px: int = 1) -> int | None:
    """Return half of a tile that did not fit, as a multiple of `multiple_px`; None if that is less than 32 px."""
    half = tile_px // 2 // multiple_px * multiple_px
    return half if half >= LEAST_TILE_PX else None
