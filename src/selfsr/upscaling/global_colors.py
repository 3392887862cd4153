"""Give a large image the mean and the deviation of its input's colors, block by block (AdaIN, docs/diffusion.md)."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from selfsr.images.color_fix import VARIANCE_EPS
from selfsr.images.resize import imresize

_BLOCK_SAMPLES = 2**22
# Rows of the input on each side of a block; the bicubic kernel reaches at most 2 of them.
_MARGIN_ROWS = 4


def match_moments(
    out: np.ndarray, read_lr: Callable[[slice], Tensor], scale: int, write: Callable[[slice, Tensor], None]
) -> None:
    """Write an image whose channels have the mean and the standard deviation of the enlarged input.

    It is `fix_colors` with "adain" over the complete image, in blocks that fit into memory.

    Args:
        out: output of the model, float32 `[H, W, C]`.
        read_lr: returns rows of the input, float `[1, C, rows, w]` in [0, 1].
        scale: scale of the model.
        write: stores finished rows, float32 `[1, C, rows, W]`, not clamped.
    """
    blocks = list(_split_rows(out, scale))
    mean, std = _moments(_read_rows(out, rows) for rows, _, _ in blocks)
    wanted_mean, wanted_std = _moments(_enlarge(read_lr, block, scale, len(out) // scale) for block in blocks)
    for rows, _, _ in blocks:
        write(rows, ((_read_rows(out, rows) - mean) / std * wanted_std + wanted_mean).float())


def _split_rows(out: np.ndarray, scale: int) -> Iterator[tuple[slice, int, int]]:
    """Yield blocks of rows: of the output, and the first and one past the last row of the input."""
    height = len(out) // scale
    step = max(_MARGIN_ROWS, _BLOCK_SAMPLES // (out.shape[1] * out.shape[2] * scale))
    for start in range(0, height, step):
        end = min(start + step, height)
        yield slice(start * scale, end * scale), start, end


def _read_rows(out: np.ndarray, rows: slice) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(out[rows].transpose(2, 0, 1), np.float64))[None]


def _enlarge(read_lr: Callable[[slice], Tensor], block: tuple[slice, int, int], scale: int, height: int) -> Tensor:
    _, start, end = block
    low, high = max(0, start - _MARGIN_ROWS), min(height, end + _MARGIN_ROWS)
    enlarged = imresize(read_lr(slice(low, high)).double().cpu(), scale).clamp(0, 1)
    return enlarged[:, :, (start - low) * scale : (end - low) * scale]


def _moments(blocks: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel over all blocks, float64 `[1, C, 1, 1]`."""
    count, mean, squares = 0, torch.zeros(()), torch.zeros(())
    for block in blocks:
        size = block.shape[-2] * block.shape[-1]
        block_mean = block.mean(dim=(2, 3), keepdim=True)
        block_squares = (block - block_mean).square().sum(dim=(2, 3), keepdim=True)
        difference = block_mean - mean
        # Chan, Golub and LeVeque, "Algorithms for computing the sample variance", 1983, eq. 2.1.
        mean = mean + difference * size / (count + size)
        squares = squares + block_squares + difference.square() * count * size / (count + size)
        count += size
    return mean, (squares / max(count - 1, 1) + VARIANCE_EPS).sqrt()
