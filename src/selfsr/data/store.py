"""Decoded pictures and other arrays by number, kept in memory where they fit."""

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
from selfsr.images.files import Header, read_header, read_picture
from selfsr.machine.distributed import processes_here
from selfsr.machine.memory import free_bytes

Cache = Literal["auto", "off", "memory"]

# Shares of the free memory that the cache may take.
_AUTO_SHARE = 0.25
_ASKED_SHARE = 0.8


@dataclass(frozen=True)
class Layout:
    """What an array of a store is.

    Attributes:
        shape: its shape.
        dtype: its type.
    """

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def bytes(self) -> int:
        """Bytes of memory."""
        return math.prod(self.shape) * self.dtype.itemsize


class ArrayStore:
    """Arrays by number, each made by `_decode` when it is asked for.

    With the cache on, an array that was decoded stays. The cache is one block of memory that forked worker processes
    share: whoever decodes an array first, decodes it for all. A process that gets the store by pickling reads without
    the cache.

    Args:
        where: what the files are, for messages, such as "data.hr".
        layouts: what the arrays will be.
        cache: "memory" keeps all, "auto" does so if they take at most a quarter of the free memory, "off" nothing.

    Raises:
        InputError: the arrays do not fit though "memory" is asked for.
    """

    def __init__(self, where: str, layouts: Sequence[Layout], cache: Cache) -> None:
        self._layouts = list(layouts)
        self._start = np.concatenate(([0], np.cumsum([layout.bytes for layout in layouts], dtype=np.int64)))
        self.decoded_bytes = int(self._start[-1])
        self._memory: mmap.mmap | None = None
        if _cached(where, cache, self.decoded_bytes):
            # The first bytes are flags: array i is decoded. Nothing is taken up until it is written to.
            self._memory = mmap.mmap(-1, len(self) + self.decoded_bytes)

    def __len__(self) -> int:
        return len(self._layouts)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_memory": None}

    @property
    def cached(self) -> bool:
        """Whether decoded arrays are kept."""
        return self._memory is not None

    def read(self, index: int) -> np.ndarray:
        """Return array `index`; not to be written to.

        Raises:
            InputError: the file is damaged, or is no longer what it was when the store was made.
            OSError: the file cannot be read.
        """
        if self._memory is None:
            return self._decode(index)
        layout = self._layouts[index]
        kept = np.frombuffer(
            self._memory,
            layout.dtype,
            count=math.prod(layout.shape),
            offset=len(self) + int(self._start[index]),
        ).reshape(layout.shape)
        if not self._memory[index]:
            kept[:] = self._decode(index)
            self._memory[index] = 1
        return kept

    def _decode(self, index: int) -> np.ndarray:
        """Return array `index` from its file, in its layout."""
        raise NotImplementedError


class PictureStore(ArrayStore):
    """The pictures of a list of files: uint8 or uint16 `[H, W, 3]`, gray repeated to RGB.

    Args:
        where: what the files are, for messages, such as "data.hr".
        paths: the files.
        cache: see `ArrayStore`.

    Raises:
        InputError: a file is not a picture by its header, or the pictures do not fit though "memory" is asked for.
        OSError: a file cannot be read.
    """

    def __init__(self, where: str, paths: Sequence[Path], cache: Cache) -> None:
        self.paths = list(paths)
        self.headers = read_headers(self.paths)
        layouts = [Layout((h.height, h.width, 3), np.dtype(f"u{h.bits // 8}")) for h in self.headers]
        super().__init__(where, layouts, cache)

    def _decode(self, index: int) -> np.ndarray:
        path, header = self.paths[index], self.headers[index]
        pixels = read_picture(path).pixels
        if pixels.shape[2] == 1:
            pixels = np.repeat(pixels, 3, axis=2)
        if pixels.shape[:2] != (header.height, header.width) or pixels.dtype.itemsize * 8 != header.bits:
            raise InputError(
                f"{path}: expected the picture of {header.height} x {header.width} pixels that was there at the "
                f"start, got {pixels.shape[0]} x {pixels.shape[1]}; do not change files during a run."
            )
        return pixels


def read_headers(paths: Sequence[Path]) -> list[Header]:
    """Read all headers, several at a time: on a network drive each takes a round trip.

    Raises:
        InputError: the first file that is not a picture.
        OSError: the first file that cannot be read.
    """
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(read_header, paths))


def _cached(where: str, cache: Cache, need_bytes: int) -> bool:
    if cache == "off":
        return False
    # Every process of a machine has a store of its own.
    own_bytes = free_bytes(torch.device("cpu")) // processes_here()
    if cache == "auto":
        return need_bytes <= _AUTO_SHARE * own_bytes
    if need_bytes > _ASKED_SHARE * own_bytes:
        raise InputError(
            f"{where}: cache: memory needs {need_bytes / 2**30:.1f} GB for the decoded pictures, "
            f"{own_bytes / 2**30:.1f} GB are free; set cache: off or auto."
        )
    return True
