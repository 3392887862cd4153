"""Make pairs of LR and SR images, with thumbnails, for the README of a model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from selfsr.evaluation.sets import name_images
from selfsr.images.files import DecodedImage, image_to_tensor, read_image, tensor_to_pixels, write_image
from selfsr.images.resize import bicubic_lr, mod_crop, round_to_bits
from selfsr.upscaling.upscaler import Upscaler

# Width and height of OpenModelDB's thumbnails, in pixels of the output: half of its largest card at 1.33 device pixels.
_THUMBNAIL_PX = (366, 296)


@dataclass(frozen=True)
class Pair:
    """Names of the images of one photo, below the folder `images`.

    Attributes:
        lr: the input, PNG.
        sr: the output, PNG.
        lr_thumbnail: the middle of the input, PNG.
        sr_thumbnail: the same part of the output, JPEG.
    """

    lr: str
    sr: str
    lr_thumbnail: str
    sr_thumbnail: str


def plan_pairs(paths: Sequence[Path]) -> list[Pair]:
    """Return the names of the pairs of photos."""
    stems = [name.replace("/", "_") for name in name_images(paths)]
    return [Pair(f"{s}_lr.png", f"{s}_sr.png", f"{s}_lr_thumb.png", f"{s}_sr_thumb.jpg") for s in stems]


def write_pair(path: Path, pair: Pair, upscaler: Upscaler, folder: Path) -> None:
    """Reduce a photo by the scale of a model, upscale it again, and write both with thumbnails.

    The LR image is made as in evaluations, by antialiased bicubic. A model of scale 1 gets the photo itself.

    Args:
        path: the photo.
        pair: names of the images.
        upscaler: the model.
        folder: the folder of the images.

    Raises:
        InputError: the photo cannot be read or is too small.
        OSError: a file cannot be read or written.
    """
    scale = upscaler.model.scale
    hr = mod_crop(round_to_bits(image_to_tensor(read_image(path))), scale)
    lr = hr if scale == 1 else bicubic_lr(hr, scale)
    with torch.no_grad():
        sr = upscaler(lr.to(upscaler.device)).cpu()
    lr_thumbnail, sr_thumbnail = _crop_thumbnails(lr, sr, scale)
    for name, image in (
        (pair.lr, lr),
        (pair.sr, sr),
        (pair.lr_thumbnail, lr_thumbnail),
        (pair.sr_thumbnail, sr_thumbnail),
    ):
        write_image(folder / name, DecodedImage(tensor_to_pixels(image[0])))


def _crop_thumbnails(lr: Tensor, sr: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    height, width = lr.shape[-2:]
    w, h = (min(side, math.ceil(px / scale)) for side, px in zip((width, height), _THUMBNAIL_PX, strict=True))
    top, left = (height - h) // 2, (width - w) // 2
    lr_crop = lr[..., top : top + h, left : left + w]
    sr_crop = sr[..., scale * top : scale * (top + h), scale * left : scale * (left + w)]
    return lr_crop, sr_crop
