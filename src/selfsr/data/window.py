"""Square windows of images, mirrored beyond the image, in the eight orientations of a square."""

from dataclasses import dataclass

import numpy as np

from selfsr.images.resize import symmetric_index


@dataclass(frozen=True)
class Window:
    """A square window of an image.

    Attributes:
        top: its first row, which may lie outside of the image.
        left: its first column.
        side_px: its side.
        symmetry: 0 to 7, see `apply_symmetry`.
        height: rows of the image that count; beyond them it is mirrored.
        width: columns that count.
    """

    top: int
    left: int
    side_px: int
    symmetry: int
    height: int
    width: int

    def cut(self, pixels: np.ndarray) -> np.ndarray:
        """Return the window of an image `[H, W, C]`: `[side, side, C]`, a view if it lies in the image."""
        counted = pixels[: self.height, : self.width]
        return apply_symmetry(crop_with_reflection(counted, self.top, self.left, self.side_px), self.symmetry)

    def place(self, first: int, row_pixels: int) -> np.ndarray:
        """Return where the pixels of the window lie in memory.

        Args:
            first: number of the first pixel of the image.
            row_pixels: pixels in a row of the image.

        Returns:
            int64 `[2, side]`: pixel (y, x) of the window has the number `out[0, y] + out[1, x]`.

        Example:
            >>> Window(top=1, left=0, side_px=2, symmetry=0, height=3, width=4).place(100, 4).tolist()
            [[104, 108], [0, 1]]
        """
        rows = first + row_pixels * symmetric_index(np.arange(self.top, self.top + self.side_px), self.height)
        columns = symmetric_index(np.arange(self.left, self.left + self.side_px), self.width)
        if self.symmetry & 1:
            columns = columns[::-1]
        if self.symmetry & 2:
            rows = rows[::-1]
        return np.stack([columns, rows] if self.symmetry & 4 else [rows, columns])


def crop_with_reflection(pixels: np.ndarray, top: int, left: int, side: int) -> np.ndarray:
    """Return `side` rows and columns from (top, left) on, mirrored beyond the image with the edge repeated."""
    height, width = pixels.shape[:2]
    if top >= 0 and left >= 0 and top + side <= height and left + side <= width:
        return pixels[top : top + side, left : left + side]
    rows = symmetric_index(np.arange(top, top + side), height)
    columns = symmetric_index(np.arange(left, left + side), width)
    return pixels[rows][:, columns]


def apply_symmetry(window: np.ndarray, k: int) -> np.ndarray:
    """Apply symmetry `k` of the square, 0 to 7: bit 0 flips columns, bit 1 flips rows, then bit 2 swaps them.

    >>> apply_symmetry(np.array([[1, 2], [3, 4]]), 5).tolist()
    [[2, 4], [1, 3]]
    """
    if k & 1:
        window = window[:, ::-1]
    if k & 2:
        window = window[::-1]
    return window.swapaxes(0, 1) if k & 4 else window
