"""Resize the output of a model to another size, in blocks that fit into memory."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from selfsr.images.files import DecodedImage, tensor_to_pixels
from selfsr.images.large import new_array
from selfsr.images.resize import compute_taps, imresize, weighted_sums

# Samples of the larger of input and output of a block, which is computed in float32 with a few copies.
_BLOCK_SAMPLES = 2**24


def resize_output(image: DecodedImage, size: tuple[int, int], *, scratch: Path) -> DecodedImage:
    """Resize an image bicubically; floating point samples must be float32 in [0, 1].

    The result is that of `imresize`, rounded, and does not depend on the blocks.

    Args:
        image: the output of the model.
        size: (height, width) of the result in pixels.
        scratch: folder for a temporary file, if the result does not fit into memory.

    Raises:
        OSError: `scratch` has no space.
    """
    if size == (image.height, image.width):
        return image
    height, width = size
    pixels = new_array((*size, image.channels), image.pixels.dtype, scratch)
    alpha = None if image.alpha is None else new_array(size, image.pixels.dtype, scratch)
    shrink = max(1.0, image.height / height)
    row_samples = max(width, image.width) * shrink * (image.channels + (alpha is not None))
    step = max(1, int(_BLOCK_SAMPLES / row_samples))
    for start in range(0, height, step):
        rows = slice(start, min(start + step, height))
        pixels[rows] = _resize_rows(image.pixels, rows, size, image)
        if alpha is not None and image.alpha is not None:
            alpha[rows] = _resize_rows(image.alpha[:, :, None], rows, size, image)[:, :, 0]
    return replace(image, pixels=pixels, alpha=alpha)


def _resize_rows(pixels: np.ndarray, rows: slice, size: tuple[int, int], image: DecodedImage) -> np.ndarray:
    """Return some rows of the resized `[H, W, C]`, pixels or alpha of `image`, from the rows that they need.

    Opaque alpha stays opaque, since the weights of a pixel sum to 1 and the rest is rounding.
    """
    height, width, channels = pixels.shape
    index, weight = (taps[rows] for taps in compute_taps(height, size[0], size[0] / height))
    low, high = int(index.min()), int(index.max()) + 1
    block = torch.from_numpy(np.ascontiguousarray(pixels[low:high], np.float32)) / image.peak
    columns_first = size[1] / width < size[0] / height  # as in `imresize`, the axis that shrinks most
    if columns_first:
        block = _resize_columns(block, size[1])
    if size[0] != height:
        taps = torch.from_numpy(index - low), torch.from_numpy(weight.astype(np.float32))
        block = weighted_sums(block.reshape(high - low, -1), *taps).reshape(len(index), -1, channels)
    if not columns_first:
        block = _resize_columns(block, size[1])
    return tensor_to_pixels(block.permute(2, 0, 1), image.bits)


def _resize_columns(block: torch.Tensor, width: int) -> torch.Tensor:
    """Resize the columns of `[H, W, C]`."""
    resized = imresize(block.permute(2, 0, 1)[None], size=(block.shape[0], width))
    return resized[0].permute(1, 2, 0).contiguous()
