"""The compiled CPU backend of the self-similarity operator: its stages, and the buffers that its kernels read."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from selfsr._ops.compiled import run
from selfsr._ops.scratch import empty
from selfsr.selfsim.contract import Geometry, Pixels
from selfsr.selfsim.cpu import outside as cpu_outside
from selfsr.selfsim.cpu import rows as cpu_rows
from selfsr.selfsim.cpu import windows as cpu_windows
from selfsr.selfsim.cpu.tables import displacements, masked_bands, padded_bands
from selfsr.selfsim.cpu.vectors import LANES

# Rows that one task works through. Its buffers, a few such bands of one plane, then stay in the second-level
# cache, while the rows around a band, which each task computes again, stay a small share.
_BAND_ROWS = 160
# Pixel rows of one task of `spread_outside`.
_OUTSIDE_ROWS = 32
# Tasks to cut the backward of a batch into, so that many cores find work.
_BACKWARD_TASKS = 8


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
    target = empty((geometry.entries, count), layout.planes.dtype)
    target[geometry.entries // 2] = 0
    # Rows for the classes (cy, 0), then for (0, cx): each serves several displacements.
    edges = np.empty((2 * window, count), target.dtype)
    if f:
        energy = np.square(_images(layout)).sum(1).reshape(-1)
        position = pixels.image.numpy() * layout.stride + layout.places
        reach = geometry.half_search - f
        run(
            cpu_outside.sum_outside, -(-count // cpu_outside.BLOCK),
            energy, layout.pitch, position, f, reach, geometry.search_px, edges, target,
        )  # fmt: skip
    bands = masked_bands(layout.row_start, layout.height, _BAND_ROWS)
    table = displacements(geometry.search_px, window)
    scale = target.dtype.type(1 / (layout.channels * window**2))
    run(cpu_windows.sum_windows, len(bands) * len(table), *layout, bands, table, edges, scale, target)
    return torch.from_numpy(target)


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
    bands = padded_bands(layout.row_start, layout.height, height, _BAND_ROWS)
    # Each slot keeps a gradient of its own; together they must not outgrow the graph's share of a chunk.
    slots = max(1, min(-(-_BACKWARD_TASKS // len(bands)), 2 * geometry.search_px // channels))
    partial = empty((slots, count * channels * rows * pitch), grad.dtype)
    table = displacements(geometry.search_px, window)
    run(cpu_windows.spread_windows, len(bands) * slots, *layout, window, bands, table, grad, partial)
    coefficients = np.zeros((2, count, rows * pitch), grad.dtype)
    if f:
        bands = masked_bands(layout.row_start, layout.height, max(_OUTSIDE_ROWS, window))
        reach = geometry.half_search - f
        run(
            cpu_outside.spread_outside, len(bands),
            grad, layout.places, layout.row_start, layout.height, pitch, bands, f, reach, geometry.search_px,
            coefficients,
        )  # fmt: skip
    result = np.empty(padded.shape, grad.dtype)
    scale = grad.dtype.type(2 / (channels * window**2))
    run(
        cpu_windows.add_up, count * height,
        partial, coefficients, layout.planes, layout.front, layout.stride, pitch, scale, result,
    )  # fmt: skip
    return torch.from_numpy(result)


def _lay_out(padded: Tensor, pixels: Pixels, geometry: Geometry) -> _Layout:
    count, channels, rows, columns = padded.shape
    border = geometry.half_search
    pitch = -(-columns // LANES) * LANES
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
