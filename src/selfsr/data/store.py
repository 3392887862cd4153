"""Arrays and decoded images by number, cached in memory if they fit."""

import math
import mmap
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from selfsr.errors import InputError
from selfsr.images.files import ImageHeader, read_header, read_image
from selfsr.machine.distributed import local_process_count
from selfsr.machine.memory import measure_free_bytes

Cache = Literal["auto", "off", "memory"]

# Shares of the free memory for the cache, for "auto" and for "memory".
_AUTO_SHARE = 0.25
_ASKED_SHARE = 0.8


@dataclass(frozen=True)
class ArrayLayout:
    """Shape and type of an array in a store.

    Attributes:
        shape: the shape.
        dtype: the type.
    """

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def bytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


class ArrayStore:
    """Arrays by number, decoded by `_decode` on request.

    With the cache on, decoded arrays stay in memory. The cache is one block of memory that forked worker processes
    share, so that each array is decoded once. A process that gets the store by pickling reads without the cache.

    Args:
        key: the key of the recipe for messages, such as "data.hr".
        layouts: shapes and types of the arrays.
        cache: "memory" keeps all arrays, "auto" does if they take at most a quarter of the free memory, "off" none.

    Raises:
        InputError: the cache is "memory", and the arrays do not fit.
    """

    def __init__(self, key: str, layouts: Sequence[ArrayLayout], cache: Cache) -> None:
        self._layouts = list(layouts)
        self._start = np.concatenate(([0], np.cumsum([layout.bytes for layout in layouts], dtype=np.int64)))
        self.decoded_bytes: int = int(self._start[-1])
        self._memory: mmap.mmap | None = None
        if _choose_cached(key, cache, self.decoded_bytes):
            # The first bytes are flags: byte i is 1 once array i is decoded. Memory is allocated when written to.
            self._memory = mmap.mmap(-1, len(self) + self.decoded_bytes)

    def __len__(self) -> int:
        return len(self._layouts)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_memory": None}

    @property
    def cached(self) -> bool:
        """Whether decoded arrays stay in memory."""
        return self._memory is not None

    def read(self, index: int) -> np.ndarray:
        """Return array `index`, which is read-only by convention.

        Raises:
            InputError: the file is damaged, or changed after the store was made.
            OSError: the file cannot be read.
        """
        if self._memory is None:
            return self._decode(index)
        layout = self._layouts[index]
        cached = np.frombuffer(
            self._memory,
            layout.dtype,
            count=math.prod(layout.shape),
            offset=len(self) + int(self._start[index]),
        ).reshape(layout.shape)
        if not self._memory[index]:
            cached[:] = self._decode(index)
            self._memory[index] = 1
        return cached

    def _decode(self, index: int) -> np.ndarray:
        """Decode array `index` from its file, in its layout."""
        raise NotImplementedError


class ImageStore(ArrayStore):
    """Images by number: uint8 or uint16 `[H, W, 3]`, gray repeated to RGB.

    Args:
        key: the key of the recipe for messages, such as "data.hr".
        paths: the files.
        cache: see `ArrayStore`.

    Raises:
        InputError: a file is not an image by its header, or the cache is "memory" and the images do not fit.
        OSError: a file cannot be read.
    """

    def __init__(self, key: str, paths: Sequence[Path], cache: Cache) -> None:
        self.paths: list[Path] = list(paths)
        self.headers: list[ImageHeader] = read_headers(self.paths)
        layouts = [ArrayLayout((h.height, h.width, 3), np.dtype(f"u{h.bits // 8}")) for h in self.headers]
        super().__init__(key, layouts, cache)

    def _decode(self, index: int) -> np.ndarray:
        path, header = self.paths[index], self.headers[index]
        pixels = read_image(path).pixels
        if pixels.shape[2] == 1:
            pixels = np.repeat(pixels, 3, axis=2)
        if pixels.shape[:2] != (header.height, header.width) or pixels.dtype.itemsize * 8 != header.bits:
            raise InputError(
                f"{path}: expected the image of {header.height} x {header.width} pixels that was there at the "
                f"start, got {pixels.shape[0]} x {pixels.shape[1]}; do not change files during a run."
            )
        return pixels


def read_headers(paths: Sequence[Path]) -> list[ImageHeader]:
    """Read all headers, several at a time, since each takes a round trip on a network drive.

    Raises:
        InputError: a file is not an image.
        OSError: a file cannot be read.
    """
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(read_header, paths))


def _choose_cached(key: str, cache: Cache, need_bytes: int) -> bool:
    if cache == "off":
        return False
    # Each process of a machine has its own store.
    own_bytes = measure_free_bytes(torch.device("cpu")) // local_process_count()
    if cache == "auto":
        return need_bytes <= _AUTO_SHARE * own_bytes
    if need_bytes > _ASKED_SHARE * own_bytes:
        raise InputError(
            f"{key}: expected {need_bytes / 2**30:.1f} GB of free memory for cache: memory, "
            f"got {own_bytes / 2**30:.1f} GB; set cache: off or auto."
        )
    return True
