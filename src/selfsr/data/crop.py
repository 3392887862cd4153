"""Crops of pictures: which one is taken, and how it is turned."""

from dataclasses import dataclass

import numpy as np

from selfsr.data.store import PictureStore
from selfsr.degrade.plan import Plan
from selfsr.errors import InputError
from selfsr.images.resize import mirrored


@dataclass(frozen=True)
class Draw:
    """What the device is to do to a window, every random number drawn but the noise itself.

    Attributes:
        plan: the degradation of the window.
        seed: of its noise.
        corner_lr_px: row and column of LR where the crop begins in the window.
        sharpens: whether the window is sharpened first.
    """

    plan: Plan
    seed: int
    corner_lr_px: tuple[int, int]
    sharpens: bool


@dataclass(frozen=True)
class Crop:
    """One training sample as it leaves the files; views, not to be written to.

    Attributes:
        hr: `[crop + 2 halo, crop + 2 halo, 3]`, uint8 or uint16, gray repeated to RGB; with `draw` the whole window.
        lr: `[crop / scale, crop / scale, 3]`, uint8, uint16 or (in [0, 1], not rounded) float32, or None where LR is
            made from `hr` on the device.
        mask: `[crop, crop, 1]`, uint8, 1 where there is an edge; None where masks are made on the device.
        draw: where `hr` is a window to be degraded on the device, how; the crop lies in it.
    """

    hr: np.ndarray
    lr: np.ndarray | None = None
    mask: np.ndarray | None = None
    draw: Draw | None = None


def check_scale(scale: int) -> None:
    """Refuse a scale at which LR made of HR would be HR."""
    if scale < 2:
        raise InputError(f"data: scale {scale} needs kind: pairs; from HR alone there is nothing to learn.")


def check_sizes(hr: PictureStore, scale: int, crop_px: int) -> None:
    """Refuse pictures that are smaller than the crop, by the largest crop that all would allow."""
    small = [i for i, header in enumerate(hr.headers) if min(header.height, header.width) < crop_px]
    if not small:
        return
    first, header = hr.paths[small[0]], hr.headers[small[0]]
    fits = min(min(h.height, h.width) for h in hr.headers) // scale * scale
    lower = f" or set crop_px to at most {fits}" if fits else ""
    raise InputError(
        f"data.hr: expected pictures of at least {crop_px} x {crop_px} pixels, the size of the crop, but "
        f"{len(small)} of {len(hr)} are smaller, the first is {first} with {header.height} x {header.width} "
        f"(height x width); leave them out{lower}."
    )


def draw_crop(rng: np.random.Generator, shape: tuple[int, ...], scale: int, crop_px: int) -> tuple[int, int, int]:
    """Return (top, left, turn): a corner on the LR grid, and one of the eight symmetries of the square."""
    rows, columns = ((side // scale - crop_px // scale) + 1 for side in shape[:2])
    return int(rng.integers(rows)) * scale, int(rng.integers(columns)) * scale, int(rng.integers(8))


def window_of(pixels: np.ndarray, top: int, left: int, side: int) -> np.ndarray:
    """Return `side` rows and columns from (top, left) on, mirrored where they leave the picture."""
    height, width = pixels.shape[:2]
    if top >= 0 and left >= 0 and top + side <= height and left + side <= width:
        return pixels[top : top + side, left : left + side]
    rows = mirrored(np.arange(top, top + side), height)
    columns = mirrored(np.arange(left, left + side), width)
    return pixels[rows][:, columns]


def turned(window: np.ndarray, turn: int) -> np.ndarray:
    """Apply symmetry `turn`: bit 0 flips columns, bit 1 flips rows, then bit 2 swaps them."""
    if turn & 1:
        window = window[:, ::-1]
    if turn & 2:
        window = window[::-1]
    return window.swapaxes(0, 1) if turn & 4 else window
