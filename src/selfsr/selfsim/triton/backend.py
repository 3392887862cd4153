"""The Triton backend: the three stages of the operator as launches of kernels.

A launch waits for nothing and allocates through torch only, so that a call can be recorded in a CUDA graph.
"""

import contextlib
import ctypes
import math
from typing import NamedTuple

import torch
from torch import Tensor

from selfsr._ops.launches import launch
from selfsr.selfsim import eager
from selfsr.selfsim.contract import Geometry, Pixels, working_bytes
from selfsr.selfsim.triton import packing
from selfsr.selfsim.triton.config import config_of
from selfsr.selfsim.triton.distance import distance_kernel
from selfsr.selfsim.triton.gradient import collect_kernel, spread_kernel, truncated_gradient_kernel
from selfsr.selfsim.triton.packing import LANES, PIXEL_BLOCK, PackedBatch, next_power_of_two
from selfsr.selfsim.triton.rows import row_kernel
from selfsr.selfsim.triton.truncated import truncated_energy_kernel, truncated_weight_kernel

# Larger windows would not fit a thread's registers; they are left to the eager backend.
MAX_WINDOW_PX = 33
# The most bytes of window sums M_d that are kept between their computation and their use.
SPREAD_BYTES = 256 * 2**20
# Values of each of the two graphs that a program of `row_kernel` has at once.
ROW_VALUES = 5120


def window_distances(padded: Tensor, pixels: Pixels, geometry: Geometry) -> Tensor:
    """Return the window distances q `[S*S, M]`; see `contract.Backend`.

    Windows above `MAX_WINDOW_PX` are computed by `eager`.
    """
    if geometry.window_px > MAX_WINDOW_PX:
        return eager.window_distances(padded, pixels, geometry)
    with _use_device_of(padded):
        batch = PackedBatch(padded, pixels, geometry)
        layout = batch.layout
        q = padded.new_empty(geometry.entries, batch.count)
        truncated_energy = padded.new_empty(geometry.window_px**2, batch.count)
        launch(
            truncated_energy_kernel,
            -(-batch.count // PIXEL_BLOCK),
            **batch.pixel_arguments(),
            energy=batch.energy,
            sums=truncated_energy,
            q=q,
            rows=layout.rows,
            **layout.constants(),
            BLOCK=PIXEL_BLOCK,
            num_warps=4,
            enable_fp_fusion=False,
        )
        # Window sums are needed for masked pixels, and up to E rows above them.
        height = layout.height - layout.half_search - layout.half_window
        for truncated_y, truncated_x, size in layout.classes():
            groups, chunk_rows, chunks = layout.split_walks(size, layout.panels, height)
            launch(
                distance_kernel,
                groups * chunks * layout.strips * layout.panels,
                planes=batch.planes,
                slots=batch.slots,
                touched=batch.touched,
                energy=truncated_energy,
                q=q,
                pixels=batch.count,
                count=size,
                groups=groups,
                strips=layout.strips,
                rows=layout.rows,
                panels=layout.panels,
                height=layout.height,
                chunk_rows=chunk_rows,
                chunks=chunks,
                **layout.constants(),
                C=layout.channels,
                TRUNCATED_Y=truncated_y,
                TRUNCATED_X=truncated_x,
                ROWS=packing.ROWS,
                LANES=LANES,
                num_warps=packing.ROWS,
                enable_fp_fusion=False,
            )
        return q


def loss_and_row_gradient(
    q_sr: Tensor, q_hr: Tensor, geometry: Geometry, l1_weight: float, kl_weight: float, with_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the loss parts and the gradient, written over `q_sr`; see `contract.Backend`."""
    q_sr, q_hr = q_sr.contiguous(), q_hr.contiguous()
    entries, count = q_sr.shape
    size = max(min(next_power_of_two(entries), 64), next_power_of_two(-(-entries // 16)))
    rounded_entries = -(-entries // size) * size
    block = min(32, next_power_of_two(max(1, ROW_VALUES // rounded_entries) + 1) // 2)
    programs = -(-count // block)
    rate = -1 / geometry.sigma
    rate_high, rate_low = split_float(rate)
    rate2_high, rate2_low = split_float(rate / math.log(2))
    l1_high, l1_low = split_float(l1_weight)
    kl_high, kl_low = split_float(kl_weight)
    with _use_device_of(q_sr):
        loss_parts = q_sr.new_empty((2, programs), dtype=torch.float64)
        launch(
            row_kernel,
            programs,
            q_sr=q_sr,
            q_hr=q_hr,
            grad_q=q_sr,
            parts=loss_parts,
            pixels=count,
            rate_high=rate_high,
            rate_low=rate_low,
            rate2_high=rate2_high,
            rate2_low=rate2_low,
            l1_high=l1_high,
            l1_low=l1_low,
            kl_high=kl_high,
            kl_low=kl_low,
            ENTRIES=entries,
            NORMALIZE=geometry.normalize,
            WITH_GRADIENT=with_gradient,
            SIZE=size,
            BLOCK=block,
            WIDE=size * count >= 2**31,
            num_warps=config_of(q_sr).row_warps,
            enable_fp_fusion=False,
        )
        return loss_parts.sum(1), q_sr if with_gradient else None


def window_distances_backward(padded: Tensor, grad_q: Tensor, pixels: Pixels, geometry: Geometry) -> Tensor:
    """Return the gradient with respect to `padded`; see `contract.Backend`."""
    if geometry.window_px > MAX_WINDOW_PX:
        return eager.window_distances_backward(padded, grad_q, pixels, geometry)
    with _use_device_of(padded):
        grad_q = grad_q.contiguous()
        batch = PackedBatch(padded, pixels, geometry)
        layout = batch.layout
        grad = padded.new_empty(padded.shape)
        _start_gradient(batch, grad_q, grad, geometry)
        plane = (layout.half_search + layout.height) * layout.pitch
        planes = _count_spread_planes(batch, geometry, plane * padded.element_size())
        longest = max((size for *_, size in layout.classes()), default=0)
        group_panels = max(1, min(layout.panels, planes // max(longest, 1)))
        at_once = min(longest, max(1, planes // group_panels))
        spread = padded.new_empty(at_once * group_panels * plane)
        slices = [
            _ClassSlice(truncated_y, truncated_x, first, min(at_once, size - first))
            for truncated_y, truncated_x, size in layout.classes()
            for first in range(0, size, at_once)
        ]
        for first_panel in range(0, layout.panels, group_panels):
            spread.zero_()
            count = min(group_panels, layout.panels - first_panel)
            for part in slices:
                _spread_gradient(batch, grad_q, spread, first_panel, count, part)
                _collect_gradient(batch, spread, grad, first_panel, count, part, part == slices[-1])
        return grad


class _ClassSlice(NamedTuple):
    """Displacements of one class, by the number of the first."""

    truncated_y: bool
    truncated_x: bool
    first: int
    displacements: int


def _start_gradient(batch: PackedBatch, grad_q: Tensor, grad: Tensor, geometry: Geometry) -> None:
    """Set `grad` to the truncated term of eq. 11, to which the other kernels add."""
    layout = batch.layout
    truncated_weights = grad_q.new_empty(geometry.window_px**2, batch.count)
    launch(
        truncated_weight_kernel,
        -(-batch.count // PIXEL_BLOCK),
        grad_q=grad_q,
        sums=truncated_weights,
        pixels=batch.count,
        H=layout.half_search,
        F=layout.half_window,
        BLOCK=PIXEL_BLOCK,
        num_warps=4,
        enable_fp_fusion=False,
    )
    launch(
        truncated_gradient_kernel,
        layout.tiles * layout.height * layout.panels,
        planes=batch.planes,
        slots=batch.slots,
        touched=batch.touched,
        sums=truncated_weights,
        grad=grad,
        pixels=batch.count,
        images=layout.images,
        per_panel=layout.per_panel,
        strips=layout.strips,
        tiles=layout.tiles,
        rows=layout.rows,
        height=layout.height,
        width=layout.width,
        **layout.constants(),
        C=layout.channels,
        VALID=layout.valid,
        BLOCK=4 * LANES,
        num_warps=4,
        enable_fp_fusion=False,
    )


def _count_spread_planes(batch: PackedBatch, geometry: Geometry, plane_bytes: int) -> int:
    """Return how many planes of M_d, of one panel each, the memory bound of the contract leaves room for."""
    h, layout = geometry.half_search, batch.layout
    itemsize = batch.planes.element_size()
    height, width = layout.height - 2 * h, layout.width - 2 * h
    allowed = working_bytes(batch.count, layout.images, height, width, geometry, itemsize)
    taken = batch.count * (geometry.entries + geometry.window_px**2) * itemsize + batch.bytes
    # One program fills ROWS of them.
    return max(packing.ROWS, min(allowed - taken, SPREAD_BYTES) // plane_bytes)


def _spread_gradient(
    batch: PackedBatch, grad_q: Tensor, spread: Tensor, first_panel: int, panels: int, part: _ClassSlice
) -> None:
    """Write M_d of eq. 10 for some displacements in some panels to `spread`."""
    layout = batch.layout
    groups, chunk_rows, chunks = layout.split_walks(part.displacements, panels, layout.height)
    launch(
        spread_kernel,
        groups * chunks * layout.strips * panels,
        grad_q=grad_q,
        slots=batch.slots,
        touched=batch.touched,
        spread=spread,
        pixels=batch.count,
        first_j=part.first,
        count=part.displacements,
        groups=groups,
        first_panel=first_panel,
        group_panels=panels,
        strips=layout.strips,
        rows=layout.rows,
        panels=layout.panels,
        height=layout.height,
        chunk_rows=chunk_rows,
        chunks=chunks,
        **layout.constants(),
        TRUNCATED_Y=part.truncated_y,
        TRUNCATED_X=part.truncated_x,
        ROWS=packing.ROWS,
        LANES=LANES,
        num_warps=packing.ROWS,
        enable_fp_fusion=False,
    )


def _collect_gradient(
    batch: PackedBatch, spread: Tensor, grad: Tensor, first_panel: int, panels: int, part: _ClassSlice, is_last: bool
) -> None:
    """Add the products of `spread` with the images to `grad`, and scale it after the last displacements."""
    layout = batch.layout
    bands = -(-layout.height // packing.ROWS)
    launch(
        collect_kernel,
        layout.tiles * bands * panels,
        planes=batch.planes,
        touched=batch.touched,
        spread=spread,
        grad=grad,
        first_j=part.first,
        count=part.displacements,
        is_last=int(is_last),
        first_panel=first_panel,
        group_panels=panels,
        panels=layout.panels,
        images=layout.images,
        per_panel=layout.per_panel,
        strips=layout.strips,
        tiles=layout.tiles,
        rows=layout.rows,
        height=layout.height,
        width=layout.width,
        **layout.constants(),
        C=layout.channels,
        TRUNCATED_Y=part.truncated_y,
        TRUNCATED_X=part.truncated_x,
        VALID=layout.valid,
        ROWS=packing.ROWS,
        WIDTH=4 * LANES,
        **config_of(grad).collect_options(),
        num_warps=packing.ROWS,
        enable_fp_fusion=False,
    )


def split_float(value: float) -> tuple[float, float]:
    """Split a number into a float32 and the rest, since Triton takes only float32 as an argument."""
    high = ctypes.c_float(value).value
    return high, value - high


def _use_device_of(tensor: Tensor) -> contextlib.AbstractContextManager:
    """Make the tensor's GPU the current one, on which Triton launches."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()
