"""Memory that the compiled backends work in: in large pages, and kept from call to call.

A graph is some megabytes, needed for a fraction of a step and again in the next. To be given that much anew, page by
page and set to zero, takes as long as a kernel takes to fill it. Rows of a graph are some kilobytes apart, so that with
small pages the processor forgets where a page is before it comes to the next value on it.
"""

import math
import threading
import weakref
from typing import Any

import numpy as np

_LARGE_PAGE_BYTES = 2**21
# What is kept at most while nobody uses it.
KEPT_BYTES = 2**26

_lock = threading.RLock()  # taken again where collecting garbage, in the midst of `empty`, gives a block back
_free: dict[int, np.ndarray] = {}  # by address, the block that was given back first at the front


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an array that is not set.

    Its memory serves again once the array is no more: who keeps a slice or another view keeps the array, too.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < _LARGE_PAGE_BYTES // 2:
        return np.empty(shape, dtype)  # the allocator keeps as little as this itself
    with _lock:
        most = 2 * size + _LARGE_PAGE_BYTES
        fitting = [(block.size, key) for key, block in list(_free.items()) if size <= block.size <= most]
        block = _free.pop(min(fitting)[1]) if fitting else None
    if block is None:
        block = _large_pages(size)
    array = block[:size].view(dtype).reshape(shape)
    weakref.finalize(array, _give_back, block).atexit = False
    return array


def _large_pages(size: int) -> np.ndarray:
    """Return `size` bytes or more, in large pages where the system has them; numpy asks for these from two on."""
    whole = -(-size // _LARGE_PAGE_BYTES) * _LARGE_PAGE_BYTES
    memory = np.empty(whole + _LARGE_PAGE_BYTES, np.uint8)
    return memory[-memory.ctypes.data % _LARGE_PAGE_BYTES :][:whole]


def _give_back(block: np.ndarray) -> None:
    with _lock:
        _free[block.ctypes.data] = block
        while sum(kept.size for kept in _free.values()) > KEPT_BYTES:
            del _free[next(iter(_free))]
