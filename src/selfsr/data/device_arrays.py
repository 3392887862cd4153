"""Decoded images in the memory of the training device, which cuts the crops itself."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from selfsr.data.window import Window
from selfsr.errors import InputError

_MOST_THREADS = 8


class DeviceArrays:
    """Images of 8 bits on a device, from which crops are gathered by the places of their pixels.

    Until `fill` there are none.

    Args:
        sizes: int `[n, 2]`, height and width of each image.
    """

    def __init__(self, sizes: np.ndarray) -> None:
        self._widths = sizes[:, 1].astype(np.int64)
        self._first = np.concatenate(([0], np.cumsum(sizes.astype(np.int64).prod(axis=1))))
        self._unreadable: dict[int, str] = {}
        self._pixels: Tensor | None = None
        self.is_filled: bool = False

    def __getstate__(self) -> dict:
        """Leave the images out: a loader process only places crops."""
        return {**self.__dict__, "_pixels": None}

    def fill(self, device: torch.device, decode: Callable[[int], np.ndarray], advance: Callable[[], None]) -> None:
        """Decode all images in threads and copy them to a device; those that cannot be read are errors of `place`.

        Args:
            device: the device.
            decode: returns image `index`, uint8 `[H, W, 3]`.
            advance: is called after each image.
        """
        pixels = torch.empty(int(self._first[-1]), 3, dtype=torch.uint8, device=device)

        def copy(index: int) -> None:
            try:
                image = decode(index)
            except (InputError, OSError) as error:
                self._unreadable[index] = str(error)
                return
            flat = torch.from_numpy(np.ascontiguousarray(image).reshape(-1, 3))
            pixels[int(self._first[index]) : int(self._first[index + 1])].copy_(flat)

        with ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_THREADS)) as pool:
            for _ in pool.map(copy, range(len(self._widths))):
                advance()
        self._pixels, self.is_filled = pixels, True

    def place(self, index: int, window: Window) -> np.ndarray:
        """Return where a window of image `index` lies, see `Window.place`.

        Raises:
            InputError: the image could not be read.
        """
        if index in self._unreadable:
            raise InputError(self._unreadable[index])
        return window.place(int(self._first[index]), int(self._widths[index]))

    def gather(self, places: Tensor) -> Tensor:
        """Return the windows at int64 `[n, 2, side]`, on the same device: uint8 `[n, side, side, 3]`."""
        assert self._pixels is not None, "gather in the process of fill only"
        index = places[:, 0, :, None] + places[:, 1, None, :]
        return self._pixels.index_select(0, index.flatten()).view(*index.shape, 3)
