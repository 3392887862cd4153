"""Upscale images of floating point samples: [0, 1] by the network, and the rest by bicubic interpolation.

Networks are trained on samples in [0, 1], encoded as in sRGB. So a float image is split into two parts: its samples,
encoded and clipped to [0, 1], and the difference between the image and these. The network upscales the first
part, and bicubic interpolation the second one: light above white, negative values, and the light of transparent pixels.
Their sum has the range of the input, and pixels between black and white look as they would in a 16-bit file.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional

from selfsr.images.files import DecodedImage
from selfsr.images.floats import FloatFormat, decode_srgb, encode_srgb
from selfsr.images.resize import imresize
from selfsr.upscaling.options import Transfer

# Differences below it are rounding, in float16 also.
_ROUNDING = 1e-3
_ENCODED = FloatFormat()


@dataclass(frozen=True)
class FloatOptions:
    """The meaning of the samples of float images.

    Attributes:
        transfer: whether they are linear or encoded as in sRGB; "auto" takes OpenEXR files and TIFF files with a linear
            ICC profile as linear, others as encoded.
        white: the sample that is white.
    """

    transfer: Transfer = "auto"
    white: float = 1.0


def upscale_float(
    image: DecodedImage, upscale: Callable[[DecodedImage], DecodedImage], options: FloatOptions
) -> DecodedImage:
    """Upscale an image of floating point samples.

    Args:
        image: float16 or float32, any finite values.
        upscale: upscales and resizes an image of float32 in [0, 1].
        options: how its samples are understood.

    Returns:
        An image of the same dtype and meaning. Values beyond the range of float16 are clipped to it.
    """
    assert image.float_format is not None
    seen = encode_image(image, options)
    rest = _compute_rest(image, seen, options)
    upscaled = upscale(seen)
    pixels = _decode(upscaled, image.float_format, options)
    if rest is not None:
        pixels = pixels + _resize_within(rest, (upscaled.height, upscaled.width))
    dtype = image.pixels.dtype
    limit = np.finfo(dtype).max
    alpha = None if upscaled.alpha is None else upscaled.alpha.astype(dtype)
    pixels = np.clip(pixels, -limit, limit).astype(dtype)
    return replace(upscaled, pixels=pixels, alpha=alpha, float_format=image.float_format)


def encode_image(image: DecodedImage, options: FloatOptions) -> DecodedImage:
    """Return the part of a float image that the network gets: float32 in [0, 1], in sRGB, not multiplied by alpha."""
    assert image.float_format is not None
    alpha = None if image.alpha is None else np.clip(image.alpha.astype(np.float32), 0, 1)
    pixels = image.pixels.astype(np.float32) / np.float32(options.white)
    if alpha is not None and image.float_format.is_associated:
        pixels = np.where(alpha[:, :, None] > 0, pixels / np.maximum(alpha, 1e-20)[:, :, None], 0)
    pixels = np.clip(pixels, 0, 1)
    if is_linear(image.float_format, options):
        pixels = encode_srgb(pixels)
    return replace(image, pixels=pixels, alpha=alpha, float_format=_ENCODED)


def quantize_float(image: DecodedImage, bits: int, options: FloatOptions) -> tuple[DecodedImage, float]:
    """Return an image of integers, in sRGB, and the share of its samples that were clipped.

    Args:
        image: float16 or float32.
        bits: 8 or 16.
        options: how its samples are understood.
    """
    seen = encode_image(image, options)
    rest = _compute_rest(image, seen, options)
    share = 0.0 if rest is None else float(np.count_nonzero(rest) / rest.size)
    peak, dtype = 2**bits - 1, np.uint8 if bits == 8 else np.uint16
    pixels = np.floor(seen.pixels * peak + 0.5).astype(dtype)
    alpha = None if seen.alpha is None else np.floor(seen.alpha * peak + 0.5).astype(dtype)
    icc = None if is_linear(image.float_format or _ENCODED, options) else image.icc
    return replace(seen, pixels=pixels, alpha=alpha, icc=icc, float_format=None), share


def is_linear(meaning: FloatFormat, options: FloatOptions) -> bool:
    """Return whether samples are proportional to light."""
    return meaning.is_linear if options.transfer == "auto" else options.transfer == "linear"


def _decode(seen: DecodedImage, meaning: FloatFormat, options: FloatOptions) -> np.ndarray:
    """Return the samples of a float image, `[H, W, C]` float32, from the part that the network got."""
    pixels = decode_srgb(seen.pixels) if is_linear(meaning, options) else seen.pixels
    if seen.alpha is not None and meaning.is_associated:
        pixels = pixels * seen.alpha[:, :, None]
    return pixels * np.float32(options.white)


def _compute_rest(image: DecodedImage, seen: DecodedImage, options: FloatOptions) -> np.ndarray | None:
    """Return the image minus the part that the network gets, `[H, W, C]` float32, or None if that is zero."""
    assert image.float_format is not None
    samples = image.pixels.astype(np.float32)
    rest = samples - _decode(seen, image.float_format, options)
    scale = np.maximum(np.abs(samples), np.float32(options.white))
    rest = np.where(np.abs(rest) > _ROUNDING * scale, rest, np.float32(0))
    return rest if rest.any() else None


def _resize_within(rest: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize `[H, W, C]` bicubically, clamped to the range of the neighboring pixels if they are enlarged."""
    values = torch.from_numpy(np.ascontiguousarray(rest.transpose(2, 0, 1)))[None]
    resized = imresize(values, size=size)
    if size[0] < rest.shape[0] or size[1] < rest.shape[1]:
        return resized[0].permute(1, 2, 0).numpy()
    low, high = -functional.max_pool2d(-values, 3, 1, 1), functional.max_pool2d(values, 3, 1, 1)
    low, high = (functional.interpolate(limit, size) for limit in (low, high))
    return resized.clamp(low, high)[0].permute(1, 2, 0).numpy()
