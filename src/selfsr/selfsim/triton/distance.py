"""Triton kernel from packed images to the window distances q (docs/selfsim.md, eq. 6 to 9)."""

# Triton's own language: tuples grow by addition in it, and what a constant leaves out is never bound.
# ruff: noqa: RUF005
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false, reportPossiblyUnboundVariable=false
# pyright: reportAssignmentType=false, reportArgumentType=false, reportCallIssue=false

import triton
import triton.language as tl

from selfsr.selfsim.triton.layout import ROW_LIMIT, kernel
from selfsr.selfsim.triton.walk import (
    bounds,
    carry,
    column_sums,
    displacements,
    lane_columns,
    nothing_carried,
    row_sums,
    scatter,
)


@triton.jit
def _squared_difference(center, shifted, C: tl.constexpr, PITCH: tl.constexpr):
    difference = tl.load(center) - tl.load(shifted)
    total = difference * difference
    for c in tl.static_range(1, C):
        difference = tl.load(center + c * PITCH) - tl.load(shifted + c * PITCH)
        total = tl.fma(difference, difference, total)
    return total


@triton.jit
def _store_distances(
    sums, q, energy, slots, inside, F: tl.constexpr, C: tl.constexpr, TRUNCATED: tl.constexpr,
    ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Write the four window sums of each lane to the graph entries of the pixels they belong to."""
    SCALE: tl.constexpr = 1.0 / (C * (2 * F + 1) * (2 * F + 1))
    slot = lane_columns(tl.load(slots), ROWS, LANES)
    for r in tl.static_range(4):
        masked = inside & (slot[r] >= 0)
        value = sums[r]
        if TRUNCATED:
            value = value + tl.load(scatter(energy, slot[r], LANES), mask=masked, other=0.0)
        tl.store(scatter(q, slot[r], LANES), value * SCALE, mask=masked)


@kernel
def distance_kernel(
    planes, slots, touched, energy, q, pixels, count, groups, strips, rows, panels, height, chunk_rows, chunks,
    H: tl.constexpr, F: tl.constexpr, C: tl.constexpr, TRUNCATED_Y: tl.constexpr, TRUNCATED_X: tl.constexpr,
    PITCH: tl.constexpr, LEFT: tl.constexpr, TOP: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Write q of `count` displacements of a class and of their negatives at all pixels (eq. 6 to 9)."""
    E: tl.constexpr = H - F
    S: tl.constexpr = 2 * H + 1
    VALID: tl.constexpr = 4 * LANES - (2 * F + 3) // 4 * 4
    pid = tl.program_id(0)
    j = pid % groups * ROWS + tl.arange(0, ROWS)[:, None]
    chunk = pid // groups % chunks
    strip = pid // groups // chunks % strips
    panel = (pid // groups // chunks // strips).to(tl.int64)
    mine = j < count
    dy, dx = displacements(tl.minimum(j, count - 1), H, F, TRUNCATED_Y, TRUNCATED_X)
    _, size_y, first_x, last_x, size_x = bounds(dy, dx, H, F)

    # The rows u of this chunk whose window sums a pixel near this strip needs.
    entry = touched + (panel * strips + strip) * 2
    first = tl.maximum(-tl.load(entry + 1) + ROW_LIMIT - E, H - E + chunk * chunk_rows)
    last = tl.minimum(tl.load(entry), tl.minimum(H - E + (chunk + 1) * chunk_rows, height))
    wanted = last - first

    column = tl.arange(0, 4 * LANES)[None, :]
    x0 = LEFT + strip * VALID
    # Windows begin in row first - F; a window sum in column x0 + i is of the window that begins there.
    line = panel * rows + (TOP + first - F)
    copy = panels.to(tl.int64) * rows * PITCH
    center = planes + line * (C * PITCH) + tl.broadcast_to(x0 + column, [ROWS, 4 * LANES])
    center = tl.multiple_of(center, [1, 16])
    shifted = planes + (dx & 3) * (copy * C) + (line + dy) * (C * PITCH) + (x0 + dx - (dx & 3))
    shifted = tl.multiple_of(shifted, [16, 16]) + column
    # Pixel p of (p, d) is u, that of (p, -d) is u + e; both counted from where the window begins.
    plus = -first_x
    minus = dx + last_x
    line += F
    plus_slots = slots + (plus & 3) * copy + line * PITCH + (x0 + plus - (plus & 3))
    plus_slots = tl.multiple_of(plus_slots, [16, 16]) + column
    minus_slots = slots + (minus & 3) * copy + (line + tl.minimum(dy, E)) * PITCH + (x0 + minus - (minus & 3))
    minus_slots = tl.multiple_of(minus_slots, [16, 16]) + column
    index = (dy + H) * S + dx + H
    plus_q = q + index.to(tl.int64) * pixels
    minus_q = q + (S * S - 1 - index).to(tl.int64) * pixels
    # The class of eq. 8 among (2 F + 1)^2: how many rows and columns of the window are truncated.
    kind = (tl.maximum(dy - E, 0) + F) * (2 * F + 1) + dx - tl.minimum(tl.maximum(dx, -E), E) + F
    plus_energy = energy + kind.to(tl.int64) * pixels
    minus_energy = energy + ((2 * F + 1) * (2 * F + 1) - 1 - kind).to(tl.int64) * pixels

    lane = tl.arange(0, LANES)[None, :]

    TRUNCATED: tl.constexpr = TRUNCATED_Y or TRUNCATED_X
    UNROLL: tl.constexpr = 2 * F if TRUNCATED_Y else 2 * F + 1
    carried = nothing_carried(planes, UNROLL, ROWS, LANES)
    blocks = tl.where(wanted > 0, (wanted + 2 * UNROLL - 2) // UNROLL, 0)
    for block in range(0, blocks):
        seen = ()
        running = 0.0
        for i in tl.static_range(UNROLL):
            row = _squared_difference(center + i * C * PITCH, shifted + i * C * PITCH, C, PITCH)
            seen = seen + (row,)
            running = row if i == 0 else running + row
            down = column_sums(carried, seen, running, size_y, F, TRUNCATED_Y)
            sums = row_sums(down, size_x, F, TRUNCATED_X, ROWS, LANES)
            # The window that this row completes begins in row t.
            t = block * UNROLL + (i - UNROLL + 1)
            inside = mine & (lane < tl.where((t >= 0) & (t < wanted), VALID // 4, 0))
            move = (i - UNROLL + 1) * PITCH
            _store_distances(sums, plus_q, plus_energy, plus_slots + move, inside, F, C, TRUNCATED, ROWS, LANES)
            _store_distances(sums, minus_q, minus_energy, minus_slots + move, inside, F, C, TRUNCATED, ROWS, LANES)
        carried = carry(seen, TRUNCATED_Y)
        center += UNROLL * C * PITCH
        shifted += UNROLL * C * PITCH
        plus_slots += UNROLL * PITCH
        minus_slots += UNROLL * PITCH
