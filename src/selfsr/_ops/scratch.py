"""Work memory of the compiled backends: in large pages, and kept between calls.

A graph takes some megabytes for a fraction of each step. A fresh allocation of that size, page by page and set to zero,
takes as long as the kernel that fills it. Rows of a graph are some kilobytes apart; with small pages each access to the
next row would miss the processor's cache of page addresses. Decision and measurements: docs/adr/0001-torch-threads.md.
"""

import math
import threading
import weakref
from typing import Any

import numpy as np

_LARGE_PAGE_BYTES = 2**21
# The most unused memory that is kept.
KEPT_BYTES = 2**26

_lock = threading.RLock()  # reentrant: garbage collection during `empty` may return a block
_free: dict[int, np.ndarray] = {}  # by address; the block that was returned first is first


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an uninitialized array, in memory that is reused once the array and all its views are gone."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < _LARGE_PAGE_BYTES // 2:
        return np.empty(shape, dtype)  # the allocator itself keeps blocks of this size
    with _lock:
        largest = 2 * size + _LARGE_PAGE_BYTES
        fitting = [(block.size, key) for key, block in list(_free.items()) if size <= block.size <= largest]
        block = _free.pop(min(fitting)[1]) if fitting else None
    if block is None:
        block = _allocate_large_pages(size)
    array = block[:size].view(dtype).reshape(shape)
    weakref.finalize(array, _return_block, block).atexit = False
    return array


def _allocate_large_pages(size: int) -> np.ndarray:
    """Return at least `size` bytes, aligned to large pages.

    numpy requests large pages from two pages on, if the system has them.
    """
    rounded = -(-size // _LARGE_PAGE_BYTES) * _LARGE_PAGE_BYTES
    memory = np.empty(rounded + _LARGE_PAGE_BYTES, np.uint8)
    return memory[-memory.ctypes.data % _LARGE_PAGE_BYTES :][:rounded]


def _return_block(block: np.ndarray) -> None:
    with _lock:
        _free[block.ctypes.data] = block
        while sum(kept.size for kept in _free.values()) > KEPT_BYTES:
            del _free[next(iter(_free))]
