"""The portable backend: plain PyTorch on every device and in every dtype.

The Gaussian window is separable, and one pass over rows or columns is a product with a band matrix. Images are
processed in blocks of 32 pixels with a band of 32 x 42, so the cost is linear in the image and a block fits into the
cache.

Moments are computed in float64, where cancellation does no harm (docs/numerics.md) and which autocast and TF32 do not
affect. On devices without float64 each piece is centered first.
"""

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsr.losses.structural import gaussian_taps
from selfsr.pacing.contract import REACH_PX, PacingOptions, PacingReduction, Padding, SsimOptions, compute_dtype

_BLOCK_PX = 32
# Elements of one map that are processed at once: they fit into a core's cache, or keep a GPU busy.
_PIECE_ELEMENTS = {"cpu": 2**17}
_PIECE_ELEMENTS_OTHER = 2**22

# Images, channels and rows of a piece.
_PieceIndex = tuple[slice, slice, slice]


class _Moments(NamedTuple):
    """Moments of s = x + y and d = x - y under the window (docs/pacing.md, eq. 7)."""

    mean_s: Tensor
    mean_d: Tensor
    var_s: Tensor
    var_d: Tensor


def ssim(x: Tensor, y: Tensor, options: SsimOptions) -> Tensor:
    """Return the SSIM map of eq. 3, clamped to [-1, 1]."""
    out = torch.empty_like(x, dtype=compute_dtype(x, y))
    for index, s in _iterate_pieces(x, y, options):
        out[index] = s
    return out


def weight(x: Tensor, y: Tensor, sigma: Tensor, options: SsimOptions, pacing: PacingOptions) -> Tensor:
    """Return the weight of eq. 4."""
    out = torch.empty_like(x, dtype=compute_dtype(x, y))
    for index, s in _iterate_pieces(x, y, options):
        out[index] = _weigh(s, sigma, pacing)
    return out


def loss(
    sr: Tensor,
    hr: Tensor,
    sigma: Tensor,
    options: SsimOptions,
    pacing: PacingOptions,
    reduction: PacingReduction,
    with_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """Return the loss of eq. 5 and its elementwise derivative with respect to `sr` (eq. 6)."""
    dtype = compute_dtype(sr, hr)
    gradient = torch.empty_like(sr) if with_gradient else sr.new_empty(0)
    each = torch.empty_like(sr, dtype=dtype) if reduction == "none" else sr.new_empty(0)
    total = torch.zeros((), dtype=_moment_dtype(sr.device), device=sr.device)
    for index, s in _iterate_pieces(sr, hr, options):
        difference = sr[index].to(dtype) - hr[index].to(dtype)
        value, slope = _differentiate(difference, _weigh(s, sigma, pacing), pacing)
        if with_gradient:
            gradient[index] = slope
        if reduction == "none":
            each[index] = value
        else:
            # Axis by axis: torch splits a full sum by the number of threads, and its bits depend on that.
            total += value.sum(3, dtype=total.dtype).sum(2).sum(1).sum()
    return (each if reduction == "none" else (total / sr.numel()).to(dtype)), gradient


def _weigh(s: Tensor, sigma: Tensor, pacing: PacingOptions) -> Tensor:
    # eq. 4; overwrites s
    return s.add_(1).div_(sigma).square_().neg_().exp_().mul_(pacing.peak)


def _differentiate(difference: Tensor, w: Tensor, pacing: PacingOptions) -> tuple[Tensor, Tensor]:
    """Return the loss of each element and its derivative with respect to sr (eq. 5 and 6); overwrites its arguments."""
    if pacing.loss == "l1":
        slope = difference.sign() * w
        return difference.abs_().mul_(w), slope
    difference.mul_(w)
    if pacing.loss == "l2":
        slope = w.mul_(difference).mul_(2)
        return difference.square_(), slope
    value = difference.square().add_(pacing.eps**2).sqrt_()
    return value, w.mul_(difference).div_(value)


def _moment_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


def _iterate_pieces(x: Tensor, y: Tensor, options: SsimOptions) -> Iterator[tuple[_PieceIndex, Tensor]]:
    """Yield the index and the SSIM map of each piece, in the compute dtype.

    A piece is several images or, for a large image, a strip of rows. Its size depends on the shape only, so that
    results repeat bit for bit.
    """
    count, channels, height, width = x.shape
    if x.numel() == 0:
        return
    limit = _PIECE_ELEMENTS.get(x.device.type, _PIECE_ELEMENTS_OTHER)
    row = channels * width
    rows = height if row * height <= limit else max(limit // row // _BLOCK_PX, 1) * _BLOCK_PX
    images = max(limit // (row * rows), 1)
    dtype = compute_dtype(x, y)
    for first in range(0, count, images):
        for top in range(0, height, rows):
            strip = slice(top, min(top + rows, height))
            batch = slice(first, min(first + images, count))
            moments = _compute_moments(x[batch], y[batch], strip, options.padding)
            yield (batch, slice(None), strip), _combine_moments(moments, options).to(dtype)


def _combine_moments(m: _Moments, options: SsimOptions) -> Tensor:
    """Return eq. 3 in the terms of eq. 7; overwrites the moments."""
    mean_s2, mean_d2 = m.mean_s.square_(), m.mean_d.square_()
    numerator = (mean_s2 - mean_d2).mul_(0.5).add_(options.c1)
    numerator.mul_((m.var_s - m.var_d).mul_(0.5).add_(options.c2))
    denominator = mean_s2.add_(mean_d2).mul_(0.5).add_(options.c1)
    denominator.mul_(m.var_s.add_(m.var_d).mul_(0.5).add_(options.c2))
    return numerator.div_(denominator).clamp_(-1, 1)


def _compute_moments(x: Tensor, y: Tensor, strip: slice, padding: Padding) -> _Moments:
    """Return the moments of the rows in `strip`, `[n, C, rows, W]` each."""
    width = x.shape[3]
    rows = strip.stop - strip.start
    dtype = _moment_dtype(x.device)
    # The maps s, s^2, d and d^2, padded by the reach of the window.
    shape = (4, *x.shape[:2], rows + 2 * REACH_PX, width + 2 * REACH_PX)
    maps = torch.empty(shape, dtype=dtype, device=x.device)
    _pad_rows(maps[0], x, strip, padding)
    _pad_rows(maps[1], y, strip, padding)
    torch.sub(maps[0], maps[1], out=maps[2])
    maps[0] += maps[1]
    centers = None
    if dtype != torch.float64:
        centers = maps[::2].mean((-1, -2), keepdim=True)
        maps[::2] -= centers
    torch.mul(maps[::2], maps[::2], out=maps[1::2])

    across = maps.new_empty((*shape[:-1], width))
    for left in range(0, width, _BLOCK_PX):
        n = min(_BLOCK_PX, width - left)
        band = _band_matrix(n, dtype, x.device)
        across[..., left : left + n] = maps[..., left : left + n + 2 * REACH_PX] @ band.T
    means = maps.new_empty((4, *x.shape[:2], rows, width))
    for top in range(0, rows, _BLOCK_PX):
        n = min(_BLOCK_PX, rows - top)
        band = _band_matrix(n, dtype, x.device)
        means[..., top : top + n, :] = band @ across[..., top : top + n + 2 * REACH_PX, :]

    mean_s, mean_s2, mean_d, mean_d2 = means
    mean_s2.addcmul_(mean_s, mean_s, value=-1)
    mean_d2.addcmul_(mean_d, mean_d, value=-1)
    if centers is not None:
        mean_s += centers[0]
        mean_d += centers[1]
    return _Moments(mean_s, mean_d, mean_s2, mean_d2)


def _pad_rows(target: Tensor, image: Tensor, strip: slice, padding: Padding) -> None:
    """Write the rows `strip` of an image to `target`, with the padding around them."""
    height, width = image.shape[2:]
    first, last = strip.start - REACH_PX, strip.stop + REACH_PX
    if padding == "zero":
        top, bottom = max(first, 0), min(last, height)
        target.zero_()
        target[..., top - first : bottom - first, REACH_PX:-REACH_PX] = image[..., top:bottom, :]
        return
    rows = _source_indices(first, last, height, padding, image.device)
    columns = _source_indices(-REACH_PX, width + REACH_PX, width, padding, image.device)
    target.copy_(image.index_select(2, rows).index_select(3, columns))


def _source_indices(first: int, last: int, size: int, padding: Padding, device: torch.device) -> Tensor:
    """Return the pixel at each position from `first` to `last`, which may lie beyond the border."""
    position = torch.arange(first, last, device=device)
    if padding == "replicate":
        return position.clamp(0, size - 1)
    period = max(2 * (size - 1), 1)
    position = position.remainder(period)
    return torch.minimum(position, period - position) if size > 1 else position


@functools.lru_cache(maxsize=256)
def _band_matrix(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the matrix `[size, size + 10]` that maps a padded line to its means under the window."""
    side = gaussian_taps()
    line = F.pad(torch.tensor([*reversed(side), *side[1:]], dtype=torch.float64), (0, size))
    rows = line.repeat(size)[: size * (size + 2 * REACH_PX)].reshape(size, size + 2 * REACH_PX)
    assert math.isclose(rows[-1].sum().item(), 1, rel_tol=1e-12), "the last row lost a tap"
    return rows.to(device, dtype)
