"""The compiled CPU backend: one pass over the images computes all results and stores no map.

A task is a tile of one plane. It goes down the rows twice: first for the horizontal moments of s = x + y and d = x - y
(docs/pacing.md, eq. 8), which stay in the cache, then for the vertical moments and all that follows from them. Moments
are computed around the value at the center of the window (eq. 9), so no digits cancel.
"""

import numpy as np
import torch
from torch import Tensor

from selfsr._ops.compiled import exp, helper, next_task, run, share
from selfsr.losses.structural import gaussian_taps
from selfsr.pacing.contract import REACH_PX, PacingOptions, PacingReduction, SsimOptions, compute_dtype

# The moments of a tile, 4 maps of (rows + 10) x columns, fit into the L2 cache, and the 10 rows that neighboring tiles
# compute again are a small share. Fixed, so that results do not depend on the machine.
_TILE_ROWS = 64
_TILE_COLUMNS = 128
_HALO = 2 * REACH_PX
_BUFFER_ROWS = _TILE_ROWS + _HALO
_PLANE = _BUFFER_ROWS * _TILE_COLUMNS

_PADDING_CODES = {"zero": 0, "reflect": 1, "replicate": 2}
_ZERO, _REFLECT = _PADDING_CODES["zero"], _PADDING_CODES["reflect"]
_LOSS_CODES = {"l1": 0, "l2": 1, "charbonnier": 2}
_L1, _L2 = _LOSS_CODES["l1"], _LOSS_CODES["l2"]

# The map that the kernel stores, in addition to the gradient.
_NOTHING, _SSIM, _WEIGHT, _LOSS = range(4)

# Indices into the kernel's array of constants; the first six are the taps. The array has the compute dtype, since a
# literal would turn float32 arithmetic into float64.
_C1, _C2, _HALF, _ONE, _INVERSE_SIGMA, _PEAK, _EPS2, _TWO = range(6, 14)


def ssim(x: Tensor, y: Tensor, options: SsimOptions) -> Tensor:
    """Return the SSIM map of eq. 3, clamped to [-1, 1]."""
    return _run_kernel(x, y, 1.0, options, PacingOptions(1.0, "l1", 0.0), _SSIM)


def weight(x: Tensor, y: Tensor, sigma: Tensor, options: SsimOptions, pacing: PacingOptions) -> Tensor:
    """Return the weight of eq. 4."""
    return _run_kernel(x, y, sigma.item(), options, pacing, _WEIGHT)


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
    gradient = torch.empty_like(sr, dtype=dtype) if with_gradient else sr.new_empty(0)
    sums = np.zeros(_count_tasks(sr))
    stored = _LOSS if reduction == "none" else _NOTHING
    each = _run_kernel(sr, hr, sigma.item(), options, pacing, stored, sums, gradient)
    value = each if reduction == "none" else (torch.tensor(sums.sum()) / sr.numel()).to(dtype)
    return value, gradient.to(sr.dtype)


def _count_tasks(image: Tensor) -> int:
    count, channels, height, width = image.shape
    return count * channels * -(-height // _TILE_ROWS) * -(-width // _TILE_COLUMNS)


def _run_kernel(
    x: Tensor,
    y: Tensor,
    sigma: float,
    options: SsimOptions,
    pacing: PacingOptions,
    stored: int,
    sums: np.ndarray | None = None,
    gradient: Tensor | None = None,
) -> Tensor:
    """Return the map that `stored` names; write the loss of each task to `sums`, the slope to `gradient`."""
    dtype = compute_dtype(x, y)
    x, y = x.detach().to(dtype), y.detach().to(dtype)
    out = x.new_empty(0) if stored == _NOTHING else torch.empty_like(x)
    gradient = x.new_empty(0) if gradient is None else gradient
    if x.numel() == 0:
        return out
    constants = [*gaussian_taps(), options.c1, options.c2, 0.5, 1.0, 1.0 / sigma, pacing.peak, pacing.eps**2, 2.0]
    run(
        _process_team,
        _count_tasks(x),
        *_flatten(x),
        *_flatten(y),
        tuple(x.shape),
        np.array(constants, _flatten(x)[0].dtype),
        _PADDING_CODES[options.padding],
        _LOSS_CODES[pacing.loss],
        stored,
        *_flatten(out),
        *_flatten(gradient),
        np.empty(0) if sums is None else sums,
    )
    return out


def _flatten(image: Tensor) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Return the memory of `image` as a 1-D array without a copy, and the strides of its four axes."""
    if image.numel() == 0:
        return image.detach().reshape(0).numpy(), (0, 0, 0, 0)
    n, c, h, w = image.stride()
    last = sum((size - 1) * stride for size, stride in zip(image.shape, image.stride(), strict=True))
    return image.detach().as_strided((last + 1,), (1,)).numpy(), (n, c, h, w)


@helper
def _source_index(i, size, padding):
    """Return the index of the pixel at position i, which may lie beyond the border; -1 for a zero."""
    if 0 <= i < size:
        return i
    if padding == _ZERO:
        return -1
    if padding == _REFLECT:
        period = max(2 * (size - 1), 1)
        i = abs(i) % period
        return min(i, period - i)
    return 0 if i < 0 else size - 1


@helper
def _load(image, base, stride, first, size, padding, line):
    """Copy one row of an image to `line`, from column `first` on, with padding beyond the border."""
    n = line.size
    left = min(max(0, -first), n)
    right = max(min(n, size - first), left)
    for j in range(left):
        column = _source_index(first + j, size, padding)
        line[j] = image[base + column * stride] if column >= 0 else 0
    for j in range(right, n):
        column = _source_index(first + j, size, padding)
        line[j] = image[base + column * stride] if column >= 0 else 0
    start = base + (first + left) * stride
    inside = line[left:right]
    if stride == 1:
        inside[:] = image[start : start + inside.size]
    else:
        for j in range(inside.size):
            inside[j] = image[start + j * stride]


@helper
def _store(line, image, base, stride):
    """Copy `line` to a row of an image."""
    if stride == 1:
        image[base : base + line.size] = line
    else:
        for j in range(line.size):
            image[base + j * stride] = line[j]


@helper
def _horizontal_moments(line, constants, mean, var):
    """Compute mean and variance under the horizontal window (eq. 9); `line` is 5 px longer at both ends."""
    g1, g2, g3, g4, g5 = constants[1], constants[2], constants[3], constants[4], constants[5]
    for j in range(mean.size):
        pilot = line[j + 5]
        a, b = line[j + 4] - pilot, line[j + 6] - pilot
        first = g1 * (a + b)
        second = g1 * (a * a + b * b)
        a, b = line[j + 3] - pilot, line[j + 7] - pilot
        first += g2 * (a + b)
        second += g2 * (a * a + b * b)
        a, b = line[j + 2] - pilot, line[j + 8] - pilot
        first += g3 * (a + b)
        second += g3 * (a * a + b * b)
        a, b = line[j + 1] - pilot, line[j + 9] - pilot
        first += g4 * (a + b)
        second += g4 * (a * a + b * b)
        a, b = line[j] - pilot, line[j + 10] - pilot
        first += g5 * (a + b)
        second += g5 * (a * a + b * b)
        mean[j] = pilot + first
        var[j] = second - first * first


@helper
def _vertical_moments(m, v, constants, mean, var):
    """Compute mean and variance under the vertical window from 11 rows of moments (eq. 8 and 9)."""
    p = _TILE_COLUMNS
    g0, g1, g2, g3, g4, g5 = constants[0], constants[1], constants[2], constants[3], constants[4], constants[5]
    for j in range(mean.size):
        pilot = m[5 * p + j]
        second = g0 * v[5 * p + j]
        a, b = m[4 * p + j] - pilot, m[6 * p + j] - pilot
        first = g1 * (a + b)
        second += g1 * (a * a + b * b + v[4 * p + j] + v[6 * p + j])
        a, b = m[3 * p + j] - pilot, m[7 * p + j] - pilot
        first += g2 * (a + b)
        second += g2 * (a * a + b * b + v[3 * p + j] + v[7 * p + j])
        a, b = m[2 * p + j] - pilot, m[8 * p + j] - pilot
        first += g3 * (a + b)
        second += g3 * (a * a + b * b + v[2 * p + j] + v[8 * p + j])
        a, b = m[p + j] - pilot, m[9 * p + j] - pilot
        first += g4 * (a + b)
        second += g4 * (a * a + b * b + v[p + j] + v[9 * p + j])
        a, b = m[j] - pilot, m[10 * p + j] - pilot
        first += g5 * (a + b)
        second += g5 * (a * a + b * b + v[j] + v[10 * p + j])
        mean[j] = pilot + first
        var[j] = second - first * first


@helper
def _combine_moments(mean_s, var_s, mean_d, var_d, constants, out):
    """Write the SSIM (eq. 3 in the terms of eq. 7) to `out`."""
    c1, c2, half, one = constants[_C1], constants[_C2], constants[_HALF], constants[_ONE]
    for j in range(out.size):
        a, b = mean_s[j] * mean_s[j], mean_d[j] * mean_d[j]
        numerator = (half * (a - b) + c1) * (half * (var_s[j] - var_d[j]) + c2)
        s = numerator / ((half * (a + b) + c1) * (half * (var_s[j] + var_d[j]) + c2))
        # Comparisons that keep NaN.
        s = one if s > one else s
        out[j] = -one if s < -one else s


@helper
def _weigh(s, constants, out):
    """Write the weight (eq. 4) to `out`."""
    one, inverse_sigma, peak = constants[_ONE], constants[_INVERSE_SIGMA], constants[_PEAK]
    for j in range(out.size):
        z = (s[j] + one) * inverse_sigma
        out[j] = peak * exp(-(z * z))


@helper
def _differentiate(x, y, w, constants, loss, value, slope):
    """Write the loss of each pixel to `value` and its derivative with respect to x to `slope` (eq. 5 and 6)."""
    two, eps2 = constants[_TWO], constants[_EPS2]
    if loss == _L1:
        for j in range(value.size):
            d = x[j] - y[j]
            value[j] = w[j] * abs(d)
            # The slope at 0 is 0, and NaN stays NaN.
            slope[j] = w[j] if d > 0 else (-w[j] if d < 0 else d)
    elif loss == _L2:
        for j in range(value.size):
            d = w[j] * (x[j] - y[j])
            value[j] = d * d
            slope[j] = two * w[j] * d
    else:
        for j in range(value.size):
            d = w[j] * (x[j] - y[j])
            root = np.sqrt(d * d + eps2)
            value[j] = root
            slope[j] = w[j] * d / root


def _process_team(team, *arguments):
    """Share the tiles among a team of threads."""
    return share(team, _process_tiles, arguments)


@helper
def _process_tiles(
    counter,
    x,
    x_stride,
    y,
    y_stride,
    shape,
    constants,
    padding,
    loss,
    stored,
    out,
    out_stride,
    gradient,
    gradient_stride,
    sums,
):
    """Compute the requested results of eq. 3 to 6 for tiles until none is left.

    `x`, `y`, `out` and `gradient` are 1-D arrays with the strides of an image. `out`, `gradient` and `sums` `[tasks]`
    are empty if they are not requested.
    """
    count, channels, height, width = shape
    strips, columns = -(-height // _TILE_ROWS), -(-width // _TILE_COLUMNS)
    tasks = count * channels * strips * columns
    lines = np.empty((4, _TILE_COLUMNS + _HALO), x.dtype)
    table = np.empty(4 * _PLANE, x.dtype)
    rows = np.empty((8, _TILE_COLUMNS), x.dtype)
    total = np.empty(_TILE_COLUMNS, np.float64)
    while True:
        task = next_task(counter)
        if task >= tasks:
            return
        plane, tile = task // (strips * columns), task % (strips * columns)
        image, channel = plane // channels, plane % channels
        top, left = tile // columns * _TILE_ROWS, tile % columns * _TILE_COLUMNS
        bottom, n = min(top + _TILE_ROWS, height), min(_TILE_COLUMNS, width - left)
        x_base = image * x_stride[0] + channel * x_stride[1]
        y_base = image * y_stride[0] + channel * y_stride[1]

        x_line, y_line = lines[0, : n + _HALO], lines[1, : n + _HALO]
        s_line, d_line = lines[2, : n + _HALO], lines[3, : n + _HALO]
        for k in range(bottom - top + _HALO):
            at = k * _TILE_COLUMNS
            row = _source_index(top + k - REACH_PX, height, padding)
            if row < 0:
                for moment in range(4):
                    table[moment * _PLANE + at : moment * _PLANE + at + n] = 0
                continue
            _load(x, x_base + row * x_stride[2], x_stride[3], left - REACH_PX, width, padding, x_line)
            _load(y, y_base + row * y_stride[2], y_stride[3], left - REACH_PX, width, padding, y_line)
            for j in range(n + _HALO):
                s_line[j] = x_line[j] + y_line[j]
                d_line[j] = x_line[j] - y_line[j]
            _horizontal_moments(s_line, constants, table[at : at + n], table[_PLANE + at : _PLANE + at + n])
            at += 2 * _PLANE
            _horizontal_moments(d_line, constants, table[at : at + n], table[_PLANE + at : _PLANE + at + n])

        mean_s, var_s, mean_d, var_d = rows[0, :n], rows[1, :n], rows[2, :n], rows[3, :n]
        s, w, value, slope = rows[4, :n], rows[5, :n], rows[6, :n], rows[7, :n]
        total[:n] = 0
        for row in range(top, bottom):
            at = (row - top) * _TILE_COLUMNS
            _vertical_moments(table[at:], table[_PLANE + at :], constants, mean_s, var_s)
            at += 2 * _PLANE
            _vertical_moments(table[at:], table[_PLANE + at :], constants, mean_d, var_d)
            _combine_moments(mean_s, var_s, mean_d, var_d, constants, s)
            out_base = image * out_stride[0] + channel * out_stride[1] + row * out_stride[2] + left * out_stride[3]
            if stored == _SSIM:
                _store(s, out, out_base, out_stride[3])
                continue
            _weigh(s, constants, w)
            if stored == _WEIGHT:
                _store(w, out, out_base, out_stride[3])
                continue
            _load(x, x_base + row * x_stride[2], x_stride[3], left, width, padding, lines[0, :n])
            _load(y, y_base + row * y_stride[2], y_stride[3], left, width, padding, lines[1, :n])
            _differentiate(lines[0, :n], lines[1, :n], w, constants, loss, value, slope)
            for j in range(n):
                total[j] += value[j]
            if stored == _LOSS:
                _store(value, out, out_base, out_stride[3])
            if gradient.size > 0:
                stride = gradient_stride
                base = image * stride[0] + channel * stride[1] + row * stride[2] + left * stride[3]
                _store(slope, gradient, base, stride[3])
        if sums.size > 0:
            sums[task] = total[:n].sum()
