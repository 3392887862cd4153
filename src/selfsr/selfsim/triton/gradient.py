"""Triton kernels of the last stage, which computes the gradient of the images from the gradient of q.

Equations 10 and 11 of docs/selfsim.md: `spread_kernel` sums gradients over windows, `collect_kernel` adds their
products with the image at each pixel.
"""

# Triton's own language: tuples grow by addition in it, and what a constant leaves out is never bound.
# ruff: noqa: RUF005
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false, reportPossiblyUnboundVariable=false
# pyright: reportAssignmentType=false, reportArgumentType=false, reportCallIssue=false

import triton
import triton.language as tl

from selfsr.selfsim.triton.layout import ROW_LIMIT, kernel, touched_rows
from selfsr.selfsim.triton.walk import (
    bounds,
    carry,
    column_sums,
    displacements,
    join_columns,
    lane_columns,
    nothing_carried,
    row_sums,
    scatter,
)


@triton.jit
def _both_gradients(plus_q, minus_q, plus_slots, minus_slots, ROWS: tl.constexpr, LANES: tl.constexpr):
    """Return m_d of eq. 10: the gradients of the two pairs that share a window sum."""
    plus = lane_columns(tl.load(plus_slots), ROWS, LANES)
    minus = lane_columns(tl.load(minus_slots), ROWS, LANES)
    of_plus = ()
    for r in tl.static_range(4):
        of_plus = of_plus + (tl.load(scatter(plus_q, plus[r], LANES), mask=plus[r] >= 0, other=0.0),)
    of_minus = ()
    for r in tl.static_range(4):
        of_minus = of_minus + (tl.load(scatter(minus_q, minus[r], LANES), mask=minus[r] >= 0, other=0.0),)
    return join_columns(of_plus, ROWS, LANES) + join_columns(of_minus, ROWS, LANES)


@kernel
def spread_kernel(
    grad_q, slots, touched, spread, pixels, first_j, count, groups, first_panel, group_panels, strips, rows, panels,
    height, chunk_rows, chunks,
    H: tl.constexpr, F: tl.constexpr, TRUNCATED_Y: tl.constexpr, TRUNCATED_X: tl.constexpr,
    PITCH: tl.constexpr, LEFT: tl.constexpr, TOP: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Write M_d of eq. 10, window sums of the gradients of q, for `count` displacements of a class.

    `spread` [count, group_panels, H + height, PITCH] has H rows of zeros above each panel, and stays zero
    wherever no masked pixel is near.
    """
    E: tl.constexpr = H - F
    S: tl.constexpr = 2 * H + 1
    VALID: tl.constexpr = 4 * LANES - (2 * F + 3) // 4 * 4
    pid = tl.program_id(0)
    j = pid % groups * ROWS + tl.arange(0, ROWS)[:, None]
    chunk = pid // groups % chunks
    strip = pid // groups // chunks % strips
    panel = (pid // groups // chunks // strips).to(tl.int64)
    mine = j < count
    dy, dx = displacements(first_j + tl.minimum(j, count - 1), H, F, TRUNCATED_Y, TRUNCATED_X)
    last_y, size_y, first_x, last_x, size_x = bounds(dy, dx, H, F)

    # The rows u of this chunk that a pixel near this strip can change.
    entry = touched + ((first_panel + panel) * strips + strip) * 2
    first = tl.maximum(tl.maximum(-tl.load(entry + 1) + ROW_LIMIT - H, 0), chunk * chunk_rows)
    last = tl.minimum(tl.minimum(tl.load(entry) + H, height), (chunk + 1) * chunk_rows)
    wanted = last - first

    column = tl.arange(0, 4 * LANES)[None, :]
    x0 = LEFT + strip * VALID
    # The sum for u is over the pixels p from u - a1 to u - a0.
    line = (first_panel + panel) * rows + (TOP + first) - last_y
    copy = panels.to(tl.int64) * rows * PITCH
    plus = -last_x
    minus = dx + first_x
    plus_slots = slots + ((plus & 3) * copy + line * PITCH) + (x0 + plus - (plus & 3))
    plus_slots = tl.multiple_of(plus_slots, [16, 16]) + column
    minus_slots = slots + ((minus & 3) * copy + (line + tl.minimum(dy, E)) * PITCH) + (x0 + minus - (minus & 3))
    minus_slots = tl.multiple_of(minus_slots, [16, 16]) + column
    index = (dy + H) * S + dx + H
    plus_q = grad_q + index.to(tl.int64) * pixels
    minus_q = grad_q + (S * S - 1 - index).to(tl.int64) * pixels
    target = spread + ((j * group_panels.to(tl.int64) + panel) * (H + height) + (H + first)) * PITCH + x0
    target = tl.multiple_of(target, [16, 16]) + column

    UNROLL: tl.constexpr = 2 * F if TRUNCATED_Y else 2 * F + 1
    carried = nothing_carried(spread, UNROLL, ROWS, LANES)
    blocks = tl.where(wanted > 0, (wanted + 2 * UNROLL - 2) // UNROLL, 0)
    for block in range(0, blocks):
        seen = ()
        running = 0.0
        for i in tl.static_range(UNROLL):
            row = _both_gradients(plus_q, minus_q, plus_slots + i * PITCH, minus_slots + i * PITCH, ROWS, LANES)
            seen = seen + (row,)
            running = row if i == 0 else running + row
            down = column_sums(carried, seen, running, size_y, F, TRUNCATED_Y)
            sums = row_sums(down, size_x, F, TRUNCATED_X, ROWS, LANES)
            t = block * UNROLL + (i - UNROLL + 1)
            inside = mine & (column < tl.where((t >= 0) & (t < wanted), VALID, 0))
            tl.store(target + (i - UNROLL + 1) * PITCH, join_columns(sums, ROWS, LANES), mask=inside)
        carried = carry(seen, TRUNCATED_Y)
        plus_slots += UNROLL * PITCH
        minus_slots += UNROLL * PITCH
        target += UNROLL * PITCH


@kernel
def truncated_gradient_kernel(
    planes, slots, touched, sums, grad, pixels, images, per_panel, strips, tiles, rows, height, width,
    H: tl.constexpr, F: tl.constexpr, C: tl.constexpr, PITCH: tl.constexpr, LEFT: tl.constexpr, TOP: tl.constexpr,
    VALID: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Set `grad` [images, C, height, width] to I~(u) sum_o w_{u - o}(o), the truncated term of eq. 11."""
    K: tl.constexpr = 2 * F + 1
    pid = tl.program_id(0)
    y = pid // tiles % height
    panel = (pid // tiles // height).to(tl.int64)
    x = pid % tiles * BLOCK + tl.arange(0, BLOCK)
    in_panel = x // width
    image = panel * per_panel + in_panel
    seen = (in_panel < per_panel) & (image < images)
    line = panel * rows + (TOP + y)
    weight = tl.zeros([BLOCK], planes.dtype.element_ty)
    first, last = touched_rows(touched + panel * strips * 2, pid % tiles * BLOCK, strips, H, VALID, BLOCK)
    if (F > 0) & (y >= first) & (y < last):
        for oy in range(-F, F + 1):
            for ox in range(-F, F + 1):
                slot = tl.load(slots + (line - oy) * PITCH + (LEFT + x - ox), mask=seen, other=-1)
                entry = sums + ((oy + F) * K + ox + F) * pixels.to(tl.int64) + slot
                weight += tl.load(entry, mask=slot >= 0, other=0.0)
    target = grad + (image * (C * height) + y) * width + (x - in_panel * width)
    for c in tl.static_range(C):
        value = tl.load(planes + (line * C + c) * PITCH + LEFT + x, mask=seen, other=0.0)
        tl.store(target + c * height.to(tl.int64) * width, value * weight, mask=seen)


@kernel
def collect_kernel(
    planes, touched, spread, grad, first_j, count, is_last, first_panel, group_panels, panels, images,
    per_panel, strips, tiles, rows, height, width,
    H: tl.constexpr, F: tl.constexpr, C: tl.constexpr, TRUNCATED_Y: tl.constexpr, TRUNCATED_X: tl.constexpr,
    PITCH: tl.constexpr, LEFT: tl.constexpr, TOP: tl.constexpr, VALID: tl.constexpr,
    ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Add both ends of eq. 10 for `count` displacements to `grad`, and scale it after the last ones.

    Each program owns ROWS x WIDTH pixels u: M_d(u) (I~(u) - I~(u + d)) + M_d(u - d) (I~(u) - I~(u - d)).
    """
    SCALE: tl.constexpr = 2.0 / (C * (2 * F + 1) * (2 * F + 1))
    pid = tl.program_id(0)
    bands = (height + ROWS - 1) // ROWS
    x0 = pid % tiles * WIDTH
    band = pid // tiles % bands
    panel = (pid // tiles // bands).to(tl.int64)
    x = x0 + tl.arange(0, WIDTH)[None, :]
    y = band * ROWS + tl.arange(0, ROWS)[:, None]
    in_panel = x // width
    image = (first_panel + panel) * per_panel + in_panel
    seen = (in_panel < per_panel) & (image < images) & (y < height)
    y = tl.minimum(y, height - 1)
    own = planes + (((first_panel + panel) * rows + (TOP + y)) * (C * PITCH) + (LEFT + x))
    own = tl.multiple_of(own, [1, 16])
    copy = panels.to(tl.int64) * rows * (C * PITCH)
    window = spread + ((panel * (H + height) + (H + y)) * PITCH + (LEFT + x))
    plane = group_panels.to(tl.int64) * (H + height) * PITCH
    target = grad + (image * (C * height) + y) * width + (x - in_panel * width)
    channel = height.to(tl.int64) * width
    own_values = ()
    gradient = ()
    for c in tl.static_range(C):
        own_values = own_values + (tl.load(own + c * PITCH),)
        gradient = gradient + (tl.load(target + c * channel, mask=seen, other=0.0),)
    first, last = touched_rows(touched + (first_panel + panel) * strips * 2, x0, strips, H, VALID, WIDTH)
    wanted = (band * ROWS < last) & ((band + 1) * ROWS > first)
    for i in range(0, tl.where(wanted, count, 0)):
        dy, dx = displacements(first_j + i, H, F, TRUNCATED_Y, TRUNCATED_X)
        begins = tl.load(tl.multiple_of(window, [1, 16]))
        ends = tl.load(window - (dy * PITCH + dx))
        ahead = own + ((dx & 3) * copy + (dy * (C * PITCH) + dx - (dx & 3)))
        behind = own + ((-dx & 3) * copy - (dy * (C * PITCH) + dx + (-dx & 3)))
        ahead = tl.multiple_of(ahead, [1, 16])
        behind = tl.multiple_of(behind, [1, 16])
        updated = ()
        for c in tl.static_range(C):
            total = tl.fma(begins, own_values[c] - tl.load(ahead + c * PITCH), gradient[c])
            updated = updated + (tl.fma(ends, own_values[c] - tl.load(behind + c * PITCH), total),)
        gradient = updated
        window += plane
    for c in tl.static_range(C):
        value = tl.where(is_last != 0, gradient[c] * SCALE, gradient[c])
        tl.store(target + c * channel, value, mask=seen)
