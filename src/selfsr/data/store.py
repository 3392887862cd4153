"""Arrays and decoded images by number, cached in memory, on disk or on the training device."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from selfsr.data.array_cache import ArrayLayouts, DiskArrays, MemoryArrays
from selfsr.data.device_arrays import DeviceArrays
from selfsr.data.file_index import CacheFolder, Facts, IndexedFiles, index_files
from selfsr.data.window import Window
from selfsr.errors import InputError
from selfsr.images.files import read_header, read_image
from selfsr.machine.device import to_device
from selfsr.machine.distributed import local_process_count
from selfsr.machine.memory import measure_free_bytes

# A folder is that of a cache on disk.
Cache = Literal["auto", "off", "memory", "device"] | CacheFolder

# Shares of the free memory for the cache, for "auto", and for "memory" and "device".
_AUTO_SHARE = 0.25
ASKED_SHARE = 0.8


class ArrayStore:
    """Arrays by number, decoded by `_decode` on request.

    With the cache on, decoded arrays are kept. In memory the cache is one block that forked worker processes share, so
    that each array is decoded once; a process that gets the store by pickling reads without it. On disk it is a file
    that all processes share and the next run finds again.

    Args:
        key: the key of the recipe for messages, such as "data.hr".
        layouts: shapes and types of the arrays.
        cache: "memory" keeps all arrays, "auto" does if they take at most a quarter of the free memory, "off" and
            "device" none here; a folder keeps them on disk.
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
        cache: see `ArrayStore`; "device" keeps all images on the training device, once `fill_device` has been called.

    Attributes:
        paths: the files.
        on_device: the images on the training device; None with another cache.
        sizes: int32 `[n, 2]`, height and width of each image.
        file_bytes: int64 `[n]`, the sizes of the files; None without a cache on disk.
        bits: uint8 `[n]`, 8 or 16.

    Raises:
        InputError: a file is not an image by its header, the images do not fit in the cache, or some have 16 bits and
            the cache is "device".
        OSError: a file cannot be read, or the folder of the cache not written.
    """

    def __init__(self, key: str, paths: Sequence[Path], cache: Cache) -> None:
        self.paths: list[Path] = list(paths)
        facts, files = read_facts(key, self.paths, cache)
        self.sizes: np.ndarray = facts[:, :2]
        self.file_bytes: np.ndarray | None = None if files is None else files.file_bytes
        self.bits: np.ndarray = facts[:, 2].astype(np.uint8)
        super().__init__(key, _layout_images(facts), cache, files)
        self.on_device: DeviceArrays | None = None
        if cache == "device":
            _check_bits(key, self.paths, self.bits)
            self.on_device = DeviceArrays(self.sizes)

    @property
    def cached(self) -> bool:
        """Whether images come from memory."""
        return self.on_device is not None or super().cached

    def cut(self, index: int, window: Window) -> np.ndarray:
        """Return a window of image `index`: `[side, side, 3]`, or int64 `[2, side]`, its places on the device.

        Raises:
            InputError, OSError: as for `read`.
        """
        if self.on_device is not None and self.on_device.is_filled:
            return self.on_device.place(index, window)
        return window.cut(self.read(index))

    def fill_device(self, device: torch.device, advance: Callable[[], None]) -> None:
        """Decode all images to the device, with cache "device"; call `advance` after each."""
        assert self.on_device is not None
        self.on_device.fill(device, self._decode, advance)

    def load_windows(self, windows: Tensor, device: torch.device) -> Tensor:
        """Return windows of `cut`, `[n, ...]`, as `[n, side, side, 3]` on the device."""
        moved = to_device(windows, device)
        if moved.dtype != torch.int64:
            return moved
        assert self.on_device is not None
        return self.on_device.gather(moved)

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


def _check_bits(key: str, paths: Sequence[Path], bits: np.ndarray) -> None:
    deep = np.flatnonzero(bits != 8)
    if len(deep):
        raise InputError(
            f"{key}: expected images of 8 bits for cache: device, got {len(deep)} of 16 bits, the first is "
            f"{paths[deep[0]]}; set cache: memory or disk."
        )


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


def _choose_cached(key: str, cache: Literal["auto", "off", "memory", "device"], need_bytes: int) -> bool:
    if cache in ("off", "device"):
        return False
    # Each process of a machine has its own store.
    own_bytes = measure_free_bytes(torch.device("cpu")) // local_process_count()
    if cache == "auto":
        return need_bytes <= _AUTO_SHARE * own_bytes
    if need_bytes > ASKED_SHARE * own_bytes:
        raise InputError(
            f"{key}: expected {need_bytes / 2**30:.1f} GB of free memory for cache: memory, "
            f"got {own_bytes / 2**30:.1f} GB; set cache: disk, off or auto."
        )
    return True
