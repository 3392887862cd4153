"""The portable backend: plain torch, on every device and in every dtype.

A Gaussian window is separable, and one pass over rows or columns is a product with a band matrix. Work goes block
by block: 32 pixels need a band of 32 x 42, so cost is linear in the image, and a block stays in the cache.

Moments are taken in float64, which spares the portable backend every trick against cancellation (docs/numerics.md)
and is out of reach of autocast and TF32. Where a device has no float64, each piece is centered first.
"""

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsr.pacing.contract import REACH_PX, Pace, Padding, Reduction, Ssim, compute_dtype, taps

_BLOCK_PX = 32
# Elements of one map that are worked on at once: what fits a core's cache, or fills a GPU.
_PIECE_ELEMENTS = {"cpu": 2**17}
_PIECE_ELEMENTS_ELSEWHERE = 2**22

_Place = tuple[slice, slice, slice]


class _Moments(NamedTuple):
    """Moments of s = x + y and d = x - y under the window (docs/pacing.md, eq. 7)."""

    mean_s: Tensor
    mean_d: Tensor
    var_s: Tensor
    var_d: Tensor


def ssim(x: Tensor, y: Tensor, options: Ssim) -> Tensor:
    """Return the SSIM map of eq. 3, clamped to [-1, 1]."""
    out = torch.empty_like(x, dtype=compute_dtype(x, y))
    for place, s in _pieces(x, y, options):
        out[place] = s
    return out


def weight(x: Tensor, y: Tensor, sigma: Tensor, options: Ssim, pace: Pace) -> Tensor:
    """Return the weight of eq. 4."""
    out = torch.empty_like(x, dtype=compute_dtype(x, y))
    for place, s in _pieces(x, y, options):
        out[place] = _weigh(s, sigma, pace)
    return out


def loss(
    sr: Tensor,
    hr: Tensor,
    sigma: Tensor,
    options: Ssim,
    pace: Pace,
    reduction: Reduction,
    with_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """Return the loss of eq. 5 and the derivative of each element (eq. 6)."""
    dtype = compute_dtype(sr, hr)
    gradient = torch.empty_like(sr) if with_gradient else sr.new_empty(0)
    each = torch.empty_like(sr, dtype=dtype) if reduction == "none" else sr.new_empty(0)
    total = torch.zeros((), dtype=_moment_dtype(sr.device), device=sr.device)
    for place, s in _pieces(sr, hr, options):
        difference = sr[place].to(dtype) - hr[place].to(dtype)
        value, slope = _differ(difference, _weigh(s, sigma, pace), pace)
        if with_gradient:
            gradient[place] = slope
        if reduction == "none":
            each[place] = value
        else:
            # Axis by axis: a sum over everything at once is cut at the number of threads, and depends on it.
            total += value.sum(3, dtype=total.dtype).sum(2).sum(1).sum()
    return (each if reduction == "none" else (total / sr.numel()).to(dtype)), gradient


def _weigh(s: Tensor, sigma: Tensor, pace: Pace) -> Tensor:
    # eq. 4; overwrites s
    return s.add_(1).div_(sigma).square_().neg_().exp_().mul_(pace.peak)


def _differ(difference: Tensor, w: Tensor, pace: Pace) -> tuple[Tensor, Tensor]:
    """Return the loss of each element and its derivative by sr (eq. 5 and 6); overwrites its arguments."""
    if pace.loss == "l1":
        slope = difference.sign() * w
        return difference.abs_().mul_(w), slope
    difference.mul_(w)
    if pace.loss == "l2":
        slope = w.mul_(difference).mul_(2)
        return difference.square_(), slope
    value = difference.square().add_(pace.eps**2).sqrt_()
    return value, w.mul_(difference).div_(value)


def _moment_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


def _pieces(x: Tensor, y: Tensor, options: Ssim) -> Iterator[tuple[_Place, Tensor]]:
    """Yield the SSIM map piece by piece, in the compute dtype, each with its place in the batch.

    A piece is some whole images or, of a large image, a strip of rows; its size does not depend on anything but
    the shape, so that results repeat bit for bit.
    """
    count, channels, height, width = x.shape
    if x.numel() == 0:
        return
    limit = _PIECE_ELEMENTS.get(x.device.type, _PIECE_ELEMENTS_ELSEWHERE)
    row = channels * width
    rows = height if row * height <= limit else max(limit // row // _BLOCK_PX, 1) * _BLOCK_PX
    images = max(limit // (row * rows), 1)
    dtype = compute_dtype(x, y)
    for first in range(0, count, images):
        for top in range(0, height, rows):
            strip = slice(top, min(top + rows, height))
            place = (slice(first, min(first + images, count)), slice(None), strip)
            yield place, _combine(_moments(x[place[0]], y[place[0]], strip, options.padding), options).to(dtype)


def _combine(m: _Moments, options: Ssim) -> Tensor:
    """Return eq. 3 in the terms of eq. 7; overwrites the moments."""
    mean_s2, mean_d2 = m.mean_s.square_(), m.mean_d.square_()
    above = (mean_s2 - mean_d2).mul_(0.5).add_(options.c1)
    above.mul_((m.var_s - m.var_d).mul_(0.5).add_(options.c2))
    below = mean_s2.add_(mean_d2).mul_(0.5).add_(options.c1)
    below.mul_(m.var_s.add_(m.var_d).mul_(0.5).add_(options.c2))
    return above.div_(below).clamp_(-1, 1)


def _moments(x: Tensor, y: Tensor, strip: slice, padding: Padding) -> _Moments:
    """Return the moments of the rows in `strip`, `[n, C, rows, W]` each."""
    width = x.shape[3]
    rows = strip.stop - strip.start
    dtype = _moment_dtype(x.device)
    # maps: s, s^2, d, d^2, with the rows and columns that the window reaches beyond the strip
    shape = (4, *x.shape[:2], rows + 2 * REACH_PX, width + 2 * REACH_PX)
    maps = torch.empty(shape, dtype=dtype, device=x.device)
    _fill(maps[0], x, strip, padding)
    _fill(maps[1], y, strip, padding)
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
        band = _band(n, dtype, x.device)
        across[..., left : left + n] = maps[..., left : left + n + 2 * REACH_PX] @ band.T
    means = maps.new_empty((4, *x.shape[:2], rows, width))
    for top in range(0, rows, _BLOCK_PX):
        n = min(_BLOCK_PX, rows - top)
        band = _band(n, dtype, x.device)
        means[..., top : top + n, :] = band @ across[..., top : top + n + 2 * REACH_PX, :]

    mean_s, mean_s2, mean_d, mean_d2 = means
    mean_s2.addcmul_(mean_s, mean_s, value=-1)
    mean_d2.addcmul_(mean_d, mean_d, value=-1)
    if centers is not None:
        mean_s += centers[0]
        mean_d += centers[1]
    return _Moments(mean_s, mean_d, mean_s2, mean_d2)


def _fill(target: Tensor, image: Tensor, strip: slice, padding: Padding) -> None:
    """Write the rows of `image` in `strip` to `target`, with the padding around them."""
    height, width = image.shape[2:]
    first, last = strip.start - REACH_PX, strip.stop + REACH_PX
    if padding == "zero":
        top, bottom = max(first, 0), min(last, height)
        target.zero_()
        target[..., top - first : bottom - first, REACH_PX:-REACH_PX] = image[..., top:bottom, :]
        return
    rows = _source(first, last, height, padding, image.device)
    columns = _source(-REACH_PX, width + REACH_PX, width, padding, image.device)
    target.copy_(image.index_select(2, rows).index_select(3, columns))


def _source(first: int, last: int, size: int, padding: Padding, device: torch.device) -> Tensor:
    """Return which of `size` pixels stands at each position from `first` to `last`, inside or outside."""
    position = torch.arange(first, last, device=device)
    if padding == "replicate":
        return position.clamp(0, size - 1)
    period = max(2 * (size - 1), 1)
    position = position.remainder(period)
    return torch.minimum(position, period - position) if size > 1 else position


@functools.lru_cache(maxsize=256)
def _band(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the matrix `[size, size + 10]` that takes a padded line to its means under the window."""
    side = taps()
    line = F.pad(torch.tensor([*reversed(side), *side[1:]], dtype=torch.float64), (0, size))
    rows = line.repeat(size)[: size * (size + 2 * REACH_PX)].reshape(size, size + 2 * REACH_PX)
    assert math.isclose(rows[-1].sum().item(), 1, rel_tol=1e-12), "the last row lost a tap"
    return rows.to(device, dtype)
