"""Hold out a part of the photos, and choose the crop that fits the rest."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selfsr.errors import InputError
from selfsr.fileio import write_atomic
from selfsr.images.files import read_header
from selfsr.images.paths import list_images

# The share of the photos that is held out, and the most that an evaluation needs.
_HELD_OUT, _MOST_HELD_OUT = 0.1, 20
# Sides of an LR crop in pixels, the preferred one first; smaller ones are for small photos.
_LR_CROPS_PX = (48, 32, 24, 16)
# One photo in ten may be smaller than the crop.
_MAY_BE_SMALL = 10


@dataclass(frozen=True)
class SplitPhotos:
    """The photos of a fine-tuning.

    Attributes:
        train: images for training.
        held_out: images for evaluation, which the training never reads.
    """

    train: list[Path]
    held_out: list[Path]


def split_photos(folder: Path) -> SplitPhotos:
    """Hold out a tenth of the images of a folder, at least one and at most twenty.

    The choice is a hash of the paths below the folder, so every run makes the same one.

    Args:
        folder: a folder of images, searched with its subfolders, or a list of images.

    Raises:
        InputError: the folder is missing, or has fewer than two images.
    """
    paths = list_images(folder)
    if len(paths) < 2:
        raise InputError(
            f"{folder}: expected at least two photos, one to train on and one to evaluate, got {len(paths)}; add some."
        )
    count = max(1, min(_MOST_HELD_OUT, round(_HELD_OUT * len(paths))))
    root = os.path.commonpath([path.parent for path in paths])
    ranked = sorted(paths, key=lambda path: hashlib.sha256(os.fsencode(os.path.relpath(path, root))).digest())
    return SplitPhotos(sorted(ranked[count:]), sorted(ranked[:count]))


def choose_crop_px(paths: Sequence[Path], scale: int, minimum_px: int) -> int:
    """Return the side of the HR crop: 48 pixels of LR, or less where more than a tenth of the images are smaller.

    Args:
        paths: images for training.
        scale: upscaling factor.
        minimum_px: smallest side of the HR crop that network and losses allow.

    Raises:
        InputError: an image cannot be read, or nearly all are smaller than the smallest crop.
    """
    sides = sorted(min(header.height, header.width) for header in map(read_header, paths))
    reference_px = sides[len(sides) // _MAY_BE_SMALL]
    crops_px = [max(side * scale, -(-minimum_px // scale) * scale) for side in _LR_CROPS_PX]
    for crop_px in crops_px:
        if crop_px <= reference_px:
            return crop_px
    if crops_px[-1] <= sides[-1]:
        return crops_px[-1]
    raise InputError(
        f"{paths[0].parent}: expected photos of at least {crops_px[-1]} x {crops_px[-1]} pixels, got none whose "
        f"shorter side exceeds {sides[-1]}; add larger ones."
    )


def write_list(path: Path, images: Sequence[Path]) -> None:
    """Write a list of images that `list_images` reads, with absolute paths."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "".join(f"{image.resolve()}\n" for image in images))
