"""The compiled CPU backend of the self-similarity operator: the tables and buffers that its kernels read."""

import functools
import itertools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from selfsr.selfsim import cpu_graph, cpu_rows
from selfsr.selfsim.contract import Geometry, Pixels
from selfsr.selfsim.cpu_threads import run

# Rows that one task works through. Its buffers, a few such bands of one plane, then stay in the second-level
# cache, while the rows around a band, which each task computes again, stay a small share.
_BAND_ROWS = 160
# Pixel rows of one task of `spread_outside`.
_OUTSIDE_ROWS = 32
# Tasks to cut the backward of a batch into, so that many cores find work.
_BACKWARD_TASKS = 16
# Values in a row of a flat plane are a multiple of this: rows then begin at whole vectors and cache lines.
_PITCH_MULTIPLE = 16


class _Layout(NamedTuple):
    """A batch as the kernels read it: flat planes with zeros around, and where the masked pixels are."""

    planes: np.ndarray  # plane (n, c) begins at front + (n * channels + c) * stride
    front: int
    stride: int
    pitch: int
    channels: int
    places: np.ndarray  # [M] place of each pixel in its plane
    row_start: np.ndarray  # [N * height + 1] first pixel of each row of the images
    height: int
    border: int


def graph_sums(padded: Tensor, pixels: Pixels, geometry: Geometry) -> Tensor:
    """See `contract.Backend`."""
    layout = _lay_out(padded, pixels, geometry)
    window, f = geometry.window_px, geometry.half_window
    count = layout.places.size
    q = padded.new_empty(geometry.entries, count)
    target = q.numpy()
    target[geometry.entries // 2] = 0
    # Rows for the classes (cy, 0), then for (0, cx): each serves several displacements.
    edges = np.empty((2 * window, count), target.dtype)
    if f:
        energy = np.square(_images(layout)).sum(1).reshape(-1)
        position = pixels.image.numpy() * layout.stride + layout.places
        reach = geometry.half_search - f
        run(
            cpu_graph.sum_outside, -(-count // cpu_graph.BLOCK),
            energy, layout.pitch, position, f, reach, geometry.search_px, edges, target,
        )  # fmt: skip
    bands = _pixel_bands(layout, _BAND_ROWS)
    table = _displacements(geometry.search_px, window)
    scale = target.dtype.type(1 / (layout.channels * window**2))
    run(cpu_graph.sum_windows, len(bands) * len(table), *layout, bands, table, edges, scale, target)
    return q


def row_pass(
    q_sr: Tensor,
    q_hr: Tensor,
    geometry: Geometry,
    l1_weight: float,
    kl_weight: float,
    with_gradient: bool,
) -> tuple[Tensor, Tensor | None]:
    """See `contract.Backend`; the gradient takes the place of `q_sr`."""
    entries, count = q_sr.shape
    sr, hr = q_sr.detach().contiguous().numpy(), q_hr.detach().contiguous().numpy()
    constants = np.array([-1 / geometry.sigma, cpu_rows.FLOOR, l1_weight / entries, kl_weight / entries], sr.dtype)
    blocks = -(-count // cpu_rows.BLOCK)
    parts = np.zeros((blocks, 2))
    run(cpu_rows.compare_rows, blocks, sr, hr, constants, geometry.normalize, with_gradient, parts)
    # numpy adds in an order that depends on the number of blocks alone.
    return torch.from_numpy(parts.sum(0)), torch.from_numpy(sr) if with_gradient else None


def graph_backward(padded: Tensor, grad_q: Tensor, pixels: Pixels, geometry: Geometry) -> Tensor:
    """See `contract.Backend`."""
    layout = _lay_out(padded, pixels, geometry)
    count, channels, rows, pitch = _images(layout).shape
    height = padded.shape[2]
    window, f = geometry.window_px, geometry.half_window
    grad = grad_q.detach().contiguous().numpy()
    bands = _padded_bands(layout, height, _BAND_ROWS)
    # Each slot keeps a gradient of its own; together they must not outgrow the graph's share of a chunk.
    slots = max(1, min(-(-_BACKWARD_TASKS // len(bands)), 2 * geometry.search_px // channels))
    partial = np.empty((slots, count * channels * rows * pitch), grad.dtype)
    table = _displacements(geometry.search_px, window)
    run(cpu_graph.spread_windows, len(bands) * slots, *layout, window, bands, table, grad, partial)
    coefficients = np.zeros((2, count, rows * pitch), grad.dtype)
    if f:
        bands = _pixel_bands(layout, max(_OUTSIDE_ROWS, window))
        reach = geometry.half_search - f
        run(
            cpu_graph.spread_outside, len(bands),
            grad, layout.places, layout.row_start, layout.height, pitch, bands, f, reach, geometry.search_px,
            coefficients,
        )  # fmt: skip
    result = np.empty(padded.shape, grad.dtype)
    scale = grad.dtype.type(2 / (channels * window**2))
    run(
        cpu_graph.add_up, count * height,
        partial, coefficients, layout.planes, layout.front, layout.stride, pitch, scale, result,
    )  # fmt: skip
    return torch.from_numpy(result)


def _lay_out(padded: Tensor, pixels: Pixels, geometry: Geometry) -> _Layout:
    count, channels, rows, columns = padded.shape
    border = geometry.half_search
    pitch = -(-columns // _PITCH_MULTIPLE) * _PITCH_MULTIPLE
    # Zeros between planes: the offset of a displacement leads at most border + 1 rows away from a row.
    gap = border + 1
    stride = (rows + gap) * pitch
    images = padded.detach().numpy()
    planes = np.zeros(gap * pitch + count * channels * stride, images.dtype)
    planes[gap * pitch :].reshape(count, channels, rows + gap, pitch)[:, :, :rows, :columns] = images
    height = rows - 2 * border
    image, row, column = (coordinate.numpy() for coordinate in pixels)
    places = (row + border) * pitch + (column + border)
    row_start = np.searchsorted(image * height + row, np.arange(count * height + 1))
    return _Layout(planes, gap * pitch, stride, pitch, channels, places, row_start, height, border)


def _images(layout: _Layout) -> np.ndarray:
    """Return the planes as `[N, C, rows and gap, pitch]`."""
    return layout.planes[layout.front :].reshape(-1, layout.channels, layout.stride // layout.pitch, layout.pitch)


def _masked_rows(layout: _Layout) -> list[tuple[int, int]]:
    """First masked row of each image and the one after its last; equal if there is none."""
    masked = np.diff(layout.row_start).reshape(-1, layout.height) > 0
    return [(int(rows.argmax()), layout.height - int(rows[::-1].argmax())) if rows.any() else (0, 0) for rows in masked]


def _pixel_bands(layout: _Layout, band_rows: int) -> np.ndarray:
    """Cut the masked rows of each image into even bands of `band_rows` or more, if there are as many.

    Returns:
        The band table of `cpu_graph`, counted in rows of the image.
    """
    bands = []
    for image, (first, last) in enumerate(_masked_rows(layout)):
        parts = max(1, (last - first) // band_rows) if last > first else 0
        edges = [first + (last - first) * part // parts for part in range(parts)] + [last]
        bands += [(image, top, bottom, first, last) for top, bottom in itertools.pairwise(edges)]
    return np.array(bands, np.int64).reshape(-1, 5)


def _padded_bands(layout: _Layout, rows: int, band_rows: int) -> np.ndarray:
    """Cut all rows of each padded image into even bands; as `_pixel_bands`, but counted in padded rows."""
    parts = max(1, rows // band_rows)
    edges = [rows * part // parts for part in range(parts)] + [rows]
    return np.array(
        [
            (image, top, bottom, first, last)
            for image, (first, last) in enumerate(_masked_rows(layout))
            for top, bottom in itertools.pairwise(edges)
        ],
        np.int64,
    )


@functools.lru_cache(maxsize=16)
def _displacements(search_px: int, window_px: int) -> np.ndarray:
    """Tabulate one displacement of each pair +d, -d, with what both need; columns as in `cpu_graph`.

    The offsets whose window value stays in the search area form the rectangle [a0, a1] per axis with
    a0 = max(-f, -h - d), a1 = min(f, h - d). For -d it is the mirror image, and moving by d shows that the sum
    for -d at p is the sum for +d at p - e, e = d + a0 + a1.
    """
    h, f = search_px // 2, window_px // 2
    reach = h - f

    def span(d: int) -> tuple[int, int, int]:
        low, high = max(-f, -h - d), min(f, h - d)
        return low, high - low + 1, d + low + high

    def beyond(d: int) -> int:
        return max(d - reach, 0) + min(d + reach, 0)

    def outside(dy: int, dx: int) -> int:
        cy, cx = beyond(dy), beyond(dx)
        if cy and cx:
            return cpu_graph.CORNER
        if cy:
            return f + cy
        return window_px + f + cx if cx else cpu_graph.COMPLETE

    rows = []
    for dy in range(h + 1):
        for dx in range(-h if dy else 1, h + 1):
            top, height, ey = span(dy)
            left, width, ex = span(dx)
            plus, minus = (dy + h) * search_px + dx + h, (h - dy) * search_px + h - dx
            rows.append((dy, dx, top, height, left, width, ey, ex, plus, minus, outside(dy, dx), outside(-dy, -dx)))
    return np.array(rows, np.int64).reshape(-1, 12)
