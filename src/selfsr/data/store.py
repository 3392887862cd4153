"""Arrays and decoded images by number, cached in memory or on disk."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from selfsr.data.array_cache import ArrayLayouts, DiskArrays, MemoryArrays
from selfsr.data.file_index import CacheFolder, Facts, IndexedFiles, index_files
from selfsr.errors import InputError
from selfsr.images.files import read_header, read_image
from selfsr.machine.distributed import local_process_count
from selfsr.machine.memory import measure_free_bytes

# A folder is that of a cache on disk.
Cache = Literal["auto", "off", "memory"] | CacheFolder

# Shares of the free memory for the cache, for "auto" and for "memory".
_AUTO_SHARE = 0.25
_ASKED_SHARE = 0.8


class ArrayStore:
    """Arrays by number, decoded by `_decode` on request.

    With the cache on, decoded arrays are kept. In memory the cache is one block that forked worker processes share, so
    that each array is decoded once; a process that gets the store by pickling reads without it. On disk it is a file
    that all processes share and the next run finds again.

    Args:
        key: the key of the recipe for messages, such as "data.hr".
        layouts: shapes and types of the arrays.
        cache: "memory" keeps all arrays, "auto" does if they take at most a quarter of the free memory, "off" none; a
            folder keeps them on disk.
        files: with a folder, where the arrays lie in it.

    Raises:
        InputError: the cache is "memory" or a folder, and the arrays do not fit.
    """

    def __init__(self, key: str, layouts: ArrayLayouts, cache: Cache, files: IndexedFiles | None) -> None:
        self._count = len(layouts)
        self.decoded_bytes: int = int(layouts.bytes.sum())
        self._arrays: MemoryArrays | DiskArrays | None = None
        if isinstance(cache, CacheFolder):
            assert files is not None
            self._arrays = DiskArrays(key, layouts, files)
        elif _choose_cached(key, cache, self.decoded_bytes):
            self._arrays = MemoryArrays(layouts)

    def __len__(self) -> int:
        return self._count

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_arrays": self._arrays if isinstance(self._arrays, DiskArrays) else None}

    @property
    def cached(self) -> bool:
        """Whether arrays come from memory: they are kept there, or an earlier run has filled the cache on disk."""
        return self._arrays is not None and self._arrays.is_filled

    def read(self, index: int) -> np.ndarray:
        """Return array `index`, which is read-only by convention.

        Raises:
            InputError: the file is damaged, or changed after the store was made.
            OSError: the file cannot be read.
        """
        if self._arrays is None:
            return self._decode(index)
        array = self._arrays.get(index)
        return self._arrays.put(index, self._decode(index)) if array is None else array

    def _decode(self, index: int) -> np.ndarray:
        """Decode array `index` from its file, in its layout."""
        raise NotImplementedError


class ImageStore(ArrayStore):
    """Images by number: uint8 or uint16 `[H, W, 3]`, gray repeated to RGB.

    Args:
        key: the key of the recipe for messages, such as "data.hr".
        paths: the files.
        cache: see `ArrayStore`.

    Attributes:
        paths: the files.
        sizes: int32 `[n, 2]`, height and width of each image.
        bits: uint8 `[n]`, 8 or 16.

    Raises:
        InputError: a file is not an image by its header, or the images do not fit in the cache.
        OSError: a file cannot be read, or the folder of the cache not written.
    """

    def __init__(self, key: str, paths: Sequence[Path], cache: Cache) -> None:
        self.paths: list[Path] = list(paths)
        facts, files = read_facts(key, self.paths, cache)
        self.sizes: np.ndarray = facts[:, :2]
        self.bits: np.ndarray = facts[:, 2].astype(np.uint8)
        super().__init__(key, _layout_images(facts), cache, files)

    def _decode(self, index: int) -> np.ndarray:
        path, (height, width) = self.paths[index], self.sizes[index].tolist()
        pixels = read_image(path).pixels
        if pixels.shape[2] == 1:
            pixels = np.repeat(pixels, 3, axis=2)
        if pixels.shape[:2] != (height, width) or pixels.dtype.itemsize * 8 != self.bits[index]:
            raise InputError(
                f"{path}: expected the image of {height} x {width} pixels that was there at the "
                f"start, got {pixels.shape[0]} x {pixels.shape[1]}; do not change files during a run."
            )
        return pixels


def read_facts(key: str, paths: Sequence[Path], cache: Cache) -> tuple[np.ndarray, IndexedFiles | None]:
    """Return height, width and bits of images, int32 `[n, 3]`; with a cache on disk, from its index.

    Otherwise all headers are read, several at a time, since each takes a round trip on a network drive.

    Args:
        key: the key of the recipe.
        paths: the files.
        cache: see `ArrayStore`.

    Returns:
        The facts, and with a cache on disk where the images lie in it.

    Raises:
        InputError: a file is not an image.
        OSError: a file cannot be read, or the folder of the cache not written.
    """
    if isinstance(cache, CacheFolder):
        files = index_files(cache, key, paths, _describe_image, lambda facts: _layout_images(facts).bytes)
        return files.facts, files
    with ThreadPoolExecutor(8) as pool:
        return np.array(list(pool.map(_describe_image, paths)), np.int32).reshape(-1, 3), None


def _describe_image(path: Path) -> Facts:
    header = read_header(path)
    return header.height, header.width, header.bits


def _layout_images(facts: np.ndarray) -> ArrayLayouts:
    shapes = np.concatenate([facts[:, :2], np.full((len(facts), 1), 3, np.int32)], axis=1)
    return ArrayLayouts(shapes, (facts[:, 2] // 8).astype(np.uint8))


def _choose_cached(key: str, cache: Literal["auto", "off", "memory"], need_bytes: int) -> bool:
    if cache == "off":
        return False
    # Each process of a machine has its own store.
    own_bytes = measure_free_bytes(torch.device("cpu")) // local_process_count()
    if cache == "auto":
        return need_bytes <= _AUTO_SHARE * own_bytes
    if need_bytes > _ASKED_SHARE * own_bytes:
        raise InputError(
            f"{key}: expected {need_bytes / 2**30:.1f} GB of free memory for cache: memory, "
            f"got {own_bytes / 2**30:.1f} GB; set cache: disk, off or auto."
        )
    return True
