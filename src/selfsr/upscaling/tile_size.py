"""Find the largest tile that fits into free memory, by measuring the memory per pixel."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from selfsr.errors import InputError
from selfsr.machine.memory import PeakBytes, is_out_of_memory, measure_free_bytes

Tile = int | Literal["auto", "off"]

LEAST_TILE_PX = 32

# Larger tiles are not faster, and 64 channels at 4 times 1024 px are half of the range of 32-bit indices.
_LARGEST_TILE_PX = {"cuda": 1024}
_LARGEST_TILE_PX_ELSEWHERE = 512
# On a GPU, the memory of convolution libraries is measured, since torch allocates it; on a CPU it is not.
_SHARE_OF_FREE = {"cuda": 0.8}
_SHARE_OF_FREE_ELSEWHERE = 0.4
_PROBE_PX = 64


def measure_bytes_per_pixel(
    upscale: Callable[[Tensor], Tensor], channels: int, device: torch.device, probe_px: int
) -> float:
    """Measure the peak memory per input pixel, by upscaling a square of `probe_px`."""
    if device.type == "cuda":
        # The difference of two sizes leaves out memory that does not grow with the image.
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


def find_largest_tile_px(
    upscale: Callable[[Tensor], Tensor],
    channels: int,
    device: torch.device,
    *,
    multiple_px: int = 1,
    minimum_px: int = 0,
) -> int:
    """Return the side of the largest tile that fits into free memory, with a reserve.

    It is a power of two if `multiple_px` allows it, and at least 32 px.

    Args:
        upscale: maps `[1, channels, h, w]` on `device` to the output.
        channels: channels of the input.
        device: the device of `upscale`.
        multiple_px: the side is a multiple of this.
        minimum_px: the side is not smaller than this.
    """
    probe_px = -(-max(_PROBE_PX, minimum_px) // multiple_px) * multiple_px
    try:
        bytes_taken = measure_bytes_per_pixel(upscale, channels, device, probe_px)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return probe_px  # the caller halves it further
    budget = _SHARE_OF_FREE.get(device.type, _SHARE_OF_FREE_ELSEWHERE) * measure_free_bytes(device)
    affordable = math.sqrt(budget / bytes_taken)
    side = int(min(affordable, _LARGEST_TILE_PX.get(device.type, _LARGEST_TILE_PX_ELSEWHERE)))
    side = max(LEAST_TILE_PX, minimum_px, 1 << (max(side, 1).bit_length() - 1))
    return max(side // multiple_px, 1) * multiple_px


def halve_tile_px(tile_px: int, multiple_px: int = 1) -> int | None:
    """Return half the side of a tile, as a multiple of `multiple_px`; None if that is less than 32 px.

    Example:
        >>> halve_tile_px(100, 16), halve_tile_px(60)
        (48, None)
    """
    half = tile_px // 2 // multiple_px * multiple_px
    return half if half >= LEAST_TILE_PX else None


def parse_tile(text: str) -> Tile:
    """Read the option `--tile`.

    Raises:
        InputError: it is neither auto nor off nor a number.

    Example:
        >>> parse_tile("auto"), parse_tile("256")
        ('auto', 256)
    """
    if text == "auto" or text == "off":
        return text
    if not text.isdecimal():
        raise InputError(f"upscale: expected --tile auto, off or a number of pixels, got {text!r}; use one of these.")
    return int(text)
