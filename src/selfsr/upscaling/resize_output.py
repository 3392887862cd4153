"""Resize the output of a model to another scale than the model's, in blocks that fit into memory."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from selfsr.images.files import DecodedImage, tensor_to_pixels
from selfsr.images.large import new_array
from selfsr.images.resize import imresize

# Samples of the larger of input and output of a block, which is computed in float32 with a few copies.
_BLOCK_SAMPLES = 2**24
# Rows of the model's input on each side of a block. The bicubic kernel reaches at most 2 of them, whatever the scales.
_MARGIN_ROWS = 4


def resize_output(image: DecodedImage, *, model_scale: int, scale: int, scratch: Path) -> DecodedImage:
    """Resize an image of `model_scale` times the size of the model's input to `scale` times that size.

    The result is that of `imresize`, rounded, and does not depend on the blocks.

    Args:
        image: the output of the model.
        model_scale: scale of the model.
        scale: scale of the result.
        scratch: folder for a temporary file, if the result does not fit into memory.

    Raises:
        OSError: `scratch` has no space.
    """
    if scale == model_scale:
        return image
    rows, columns = image.height // model_scale, image.width // model_scale
    size = (rows * scale, columns * scale)
    pixels = new_array((*size, image.channels), image.pixels.dtype, scratch)
    alpha = None if image.alpha is None else new_array(size, image.pixels.dtype, scratch)
    row_samples = columns * max(scale, model_scale) ** 2 * (image.channels + (alpha is not None))
    step = max(_MARGIN_ROWS, _BLOCK_SAMPLES // row_samples)
    for start in range(0, rows, step):
        end = min(start + step, rows)
        low, high = max(0, start - _MARGIN_ROWS), min(rows, end + _MARGIN_ROWS)
        block = slice(low * model_scale, high * model_scale)
        kept = slice((start - low) * scale, (end - low) * scale)
        target = slice(start * scale, end * scale)
        out_size = ((high - low) * scale, columns * scale)
        pixels[target] = _resize(image.pixels[block], out_size, image.bits)[kept]
        if alpha is not None and image.alpha is not None:
            alpha[target] = _resize(image.alpha[block, :, None], out_size, image.bits)[kept, :, 0]
    return replace(image, pixels=pixels, alpha=alpha)


def _resize(pixels: np.ndarray, size: tuple[int, int], bits: int) -> np.ndarray:
    """Resize `[H, W, C]`; opaque alpha stays opaque, since the weights of a pixel sum to 1 and the rest is rounding."""
    image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32))[None] / (2**bits - 1)
    return tensor_to_pixels(imresize(image, size=size)[0], bits)
