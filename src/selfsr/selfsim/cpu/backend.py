"""The compiled CPU backend: the three stages of the operator, and the buffers that the kernels read."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from selfsr._ops.compiled import run
from selfsr._ops.scratch import empty
from selfsr.selfsim.contract import FLOOR, Geometry, Pixels
from selfsr.selfsim.cpu import rows, truncated, windows
from selfsr.selfsim.cpu.tables import split_masked_rows, split_padded_rows, tabulate_displacements
from selfsr.selfsim.cpu.vectors import LANES

# Rows of one task. Its buffers, a few such bands of one plane, then stay in the second-level cache, while the rows
# around a band, which each task computes again, stay a small share.
_BAND_ROWS = 160
# Pixel rows of one task of `spread_truncated`.
_TRUNCATED_ROWS = 32
# Least tasks of the backward pass of a batch, so that many cores find work.
_BACKWARD_TASKS = 8


class _PlaneLayout(NamedTuple):
    """A batch as the kernels read it: flat planes surrounded by zeros, and the masked pixels."""

    planes: np.ndarray  # plane (n, c) begins at front + (n * channels + c) * stride
    front: int
    stride: int
    pitch: int
    channels: int
    positions: np.ndarray  # [M] position of each pixel in its plane
    row_start: np.ndarray  # [N * height + 1] first pixel of each row of the images
    height: int
    border: int


def window_distances(padded: Tensor, pixels: Pixels, geometry: Geometry) -> Tensor:
    """See `contract.Backend`."""
    layout = _pack(padded, pixels, geometry)
    window, f = geometry.window_px, geometry.half_window
    count = layout.positions.size
    q = empty((geometry.entries, count), layout.planes.dtype)
    q[geometry.entries // 2] = 0
    # Rows for the classes (cy, 0), then for (0, cx): each serves several displacements.
    edges = np.empty((2 * window, count), q.dtype)
    if f:
        with np.errstate(over="ignore"):  # values of a diverged network: the loss is not finite, as in PyTorch
            energy = np.square(_view_images(layout)).sum(1).reshape(-1)
        batch_positions = pixels.image.numpy() * layout.stride + layout.positions
        reach = geometry.half_search - f
        run(
            truncated.sum_truncated, -(-count // truncated.BLOCK),
            energy, layout.pitch, batch_positions, f, reach, geometry.search_px, edges, q,
        )  # fmt: skip
    bands = split_masked_rows(layout.row_start, layout.height, _BAND_ROWS)
    table = tabulate_displacements(geometry.search_px, window)
    scale = q.dtype.type(1 / (layout.channels * window**2))
    run(windows.sum_windows, len(bands) * len(table), *layout, bands, table, edges, scale, q)
    return torch.from_numpy(q)


def loss_and_row_gradient(
    q_sr: Tensor,
    q_hr: Tensor,
    geometry: Geometry,
    l1_weight: float,
    kl_weight: float,
    with_gradient: bool,
) -> tuple[Tensor, Tensor | None]:
    """See `contract.Backend`; the gradient is written over `q_sr`."""
    entries, count = q_sr.shape
    sr, hr = q_sr.detach().contiguous().numpy(), q_hr.detach().contiguous().numpy()
    constants = np.array([-1 / geometry.sigma, FLOOR, l1_weight / entries, kl_weight / entries], sr.dtype)
    blocks = -(-count // rows.BLOCK)
    loss_parts = np.zeros((blocks, 2))
    run(rows.compare_rows, blocks, sr, hr, constants, geometry.normalize, with_gradient, loss_parts)
    # numpy adds in an order that depends only on the number of blocks.
    return torch.from_numpy(loss_parts.sum(0)), torch.from_numpy(sr) if with_gradient else None


def window_distances_backward(padded: Tensor, grad_q: Tensor, pixels: Pixels, geometry: Geometry) -> Tensor:
    """See `contract.Backend`."""
    layout = _pack(padded, pixels, geometry)
    count, channels, plane_rows, pitch = _view_images(layout).shape
    height = padded.shape[2]
    window, f = geometry.window_px, geometry.half_window
    grad = grad_q.detach().contiguous().numpy()
    bands = split_padded_rows(layout.row_start, layout.height, height, _BAND_ROWS)
    # Each slot has its own gradient; together they must not exceed the graph's share of a chunk.
    slots = max(1, min(-(-_BACKWARD_TASKS // len(bands)), 2 * geometry.search_px // channels))
    partial = empty((slots, count * channels * plane_rows * pitch), grad.dtype)
    table = tabulate_displacements(geometry.search_px, window)
    run(windows.spread_windows, len(bands) * slots, *layout, window, bands, table, grad, partial)
    coefficients = np.zeros((2, count, plane_rows * pitch), grad.dtype)
    if f:
        bands = split_masked_rows(layout.row_start, layout.height, max(_TRUNCATED_ROWS, window))
        reach = geometry.half_search - f
        run(
            truncated.spread_truncated, len(bands),
            grad, layout.positions, layout.row_start, layout.height, pitch, bands, f, reach, geometry.search_px,
            coefficients,
        )  # fmt: skip
    result = np.empty(padded.shape, grad.dtype)
    scale = grad.dtype.type(2 / (channels * window**2))
    run(
        windows.add_gradients, count * height,
        partial, coefficients, layout.planes, layout.front, layout.stride, pitch, scale, result,
    )  # fmt: skip
    return torch.from_numpy(result)


def _pack(padded: Tensor, pixels: Pixels, geometry: Geometry) -> _PlaneLayout:
    """Copy a padded batch `[N, C, H + 2h, W + 2h]` into flat planes and list its masked pixels."""
    count, channels, padded_rows, columns = padded.shape
    border = geometry.half_search
    pitch = -(-columns // LANES) * LANES
    # Zeros between planes: the offset of a displacement reaches at most border + 1 rows beyond a row.
    gap_rows = border + 1
    stride = (padded_rows + gap_rows) * pitch
    images = padded.detach().numpy()
    planes = np.zeros(gap_rows * pitch + count * channels * stride, images.dtype)
    with_gap = planes[gap_rows * pitch :].reshape(count, channels, padded_rows + gap_rows, pitch)
    with_gap[:, :, :padded_rows, :columns] = images
    height = padded_rows - 2 * border
    image, row, column = (coordinate.numpy() for coordinate in pixels)
    positions = (row + border) * pitch + (column + border)
    row_start = np.searchsorted(image * height + row, np.arange(count * height + 1))
    return _PlaneLayout(planes, gap_rows * pitch, stride, pitch, channels, positions, row_start, height, border)


def _view_images(layout: _PlaneLayout) -> np.ndarray:
    """View the planes as `[N, C, rows and gap, pitch]`."""
    return layout.planes[layout.front :].reshape(-1, layout.channels, layout.stride // layout.pitch, layout.pitch)
