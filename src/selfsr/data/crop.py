"""Random crops of images."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from selfsr.console import print_line
from selfsr.data.store import Cache, ImageStore, read_facts
from selfsr.degrade.plan import DegradationPlan
from selfsr.errors import InputError
from selfsr.images.files import ImageHeader
from selfsr.machine.distributed import is_first_process

# What happens to images that are smaller than the crop.
SmallImages = Literal["error", "skip", "pad"]


@dataclass(frozen=True)
class SampledDegradation:
    """The degradation of one window, sampled up to its noise, which the device generates.

    Attributes:
        plan: the steps of the degradation.
        seed: seed of the noise.
        corner_lr_px: row and column of the crop in the window, in pixels of LR.
        sharpens: whether the window is sharpened first.
    """

    plan: DegradationPlan
    seed: int
    corner_lr_px: tuple[int, int]
    sharpens: bool


@dataclass(frozen=True)
class TrainingCrop:
    """One training sample as read from files; read-only views.

    Attributes:
        hr: `[crop + 2 halo, crop + 2 halo, 3]`, uint8 or uint16, gray repeated to RGB; with `degradation` the full
            window. With `cache: device` int64 `[2, side]`, the places of its pixels (`Window.place`).
        lr: `[crop / scale, crop / scale, 3]`, uint8, uint16 or (in [0, 1], not rounded) float32, or places as in `hr`;
            None if the device makes LR from `hr`.
        mask: `[crop, crop, 1]`, uint8, 1 at edges; None if the device makes masks.
        degradation: the degradation that the device applies to `hr`, a window around the crop; None for none.
    """

    hr: np.ndarray
    lr: np.ndarray | None = None
    mask: np.ndarray | None = None
    degradation: SampledDegradation | None = None


def check_scale(scale: int) -> None:
    """Check that LR made from HR is smaller than HR.

    Raises:
        InputError: the scale is 1.
    """
    if scale < 2:
        raise InputError(f"data: expected a scale of 2 or more with kind: folder, got {scale}; use kind: pairs.")


def is_small(header: ImageHeader, crop_px: int) -> bool:
    """Return whether an image is smaller than a crop at one of its sides."""
    return min(header.height, header.width) < crop_px


def choose_large(paths: Sequence[Path], sides_px: Iterable[int], crop_px: int, folder: Path) -> tuple[list[Path], int]:
    """Return the images that are not smaller than the crop, in their order, and the number of the others.

    Args:
        paths: the files.
        sides_px: the shorter side of each image.
        crop_px: side of the HR crop.
        folder: the folder of the images, for the message.

    Raises:
        InputError: all images are smaller.
    """
    large = [path for path, side_px in zip(paths, sides_px, strict=True) if side_px >= crop_px]
    if not large:
        raise InputError(
            f"data.hr: expected an image of at least {crop_px} x {crop_px} pixels, the size of the crop, in {folder}, "
            f"got {len(paths)} images that are all smaller; lower crop_px, or set data.small to pad."
        )
    return large, len(paths) - len(large)


def skip_small(paths: Sequence[Path], crop_px: int, folder: Path, cache: Cache) -> list[Path]:
    """Return the images that are not smaller than the crop, in their order; print the number of the others.

    Raises:
        InputError: all images are smaller, or a file is not an image.
    """
    facts, _ = read_facts("data.hr", paths, cache)
    large, skipped = choose_large(paths, facts[:, :2].min(axis=1).tolist(), crop_px, folder)
    if skipped and is_first_process():
        print_line(
            f"data.small: {skipped:,} of {len(paths):,} images are smaller than the crop of {crop_px} x {crop_px} "
            "pixels and are left out."
        )
    return large


def check_sizes(hr: ImageStore, scale: int, crop_px: int, *, pad: bool) -> None:
    """Check that no image is smaller than the crop, or that each can be padded to it.

    Args:
        hr: the images.
        scale: how many times larger HR is than LR.
        crop_px: side of the HR crop.
        pad: whether smaller images are padded; then only one LR pixel is required.

    Raises:
        InputError: an image is smaller; the message has the largest crop that fits all images.
    """
    if pad:
        _check_one_lr_pixel(hr, scale)
        return
    sides_px = hr.sizes.min(axis=1)
    too_small = np.flatnonzero(sides_px < crop_px)
    if not len(too_small):
        return
    first, (height, width) = hr.paths[too_small[0]], hr.sizes[too_small[0]].tolist()
    largest = int(sides_px.min()) // scale * scale
    advice = f", or crop_px to at most {largest}" if largest else ""
    raise InputError(
        f"data.hr: expected images of at least {crop_px} x {crop_px} pixels, the size of the crop, but "
        f"{len(too_small)} of {len(hr)} are smaller, the first is {first} with {height} x {width} "
        f"(height x width); set data.small to skip or pad{advice}."
    )


def _check_one_lr_pixel(hr: ImageStore, scale: int) -> None:
    for index in np.flatnonzero(hr.sizes.min(axis=1) < scale):
        height, width = hr.sizes[index].tolist()
        raise InputError(
            f"{hr.paths[index]}: expected at least {scale} x {scale} pixels, one pixel of LR, got {height} x {width} "
            "(height x width); leave it out."
        )


def sample_crop(rng: np.random.Generator, shape: tuple[int, ...], scale: int, crop_px: int) -> tuple[int, int, int]:
    """Return random (top, left, symmetry): a corner on the LR grid, and one of the eight symmetries of the square.

    Along a side that is smaller than the crop the corner is 0.
    """
    rows, columns = (max(side // scale - crop_px // scale, 0) + 1 for side in shape[:2])
    return int(rng.integers(rows)) * scale, int(rng.integers(columns)) * scale, int(rng.integers(8))
