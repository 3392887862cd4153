"""Device functions of the kernels that walk down the image: displacements, and sums over windows.

Only the half plane of displacements is computed (docs/selfsim.md, eq. 9): for each d = (dy, dx) of it, the window
sum over u of the squared difference of I~(u) and I~(u + d) is the distance q of two pairs (p, d) and (p', -d).
Displacements come in four classes. Per axis a window is complete as long as |d| <= E = h - f, and beyond that it is
truncated to between f + 1 and k - 1 of its k pixels. Each class has its own compiled kernel.

A walking program keeps one displacement per row of its tile (per warp on a GPU) and 128 columns, four to a lane,
and goes down the image row by row. Vertical window sums are made of running sums from the last block boundary up
and down (van Herk 1992; Gil & Werman 1993), horizontal ones of sums within and across lanes. Nothing is ever
subtracted from a sum, so no digits cancel; every result has one owner that adds in a fixed order.
"""

# Triton's own language: tuples grow by addition in it, and what a constant leaves out is never bound.
# ruff: noqa: RUF005
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false, reportPossiblyUnboundVariable=false
# pyright: reportAssignmentType=false, reportArgumentType=false, reportCallIssue=false

import triton
import triton.language as tl


@triton.jit
def displacements(j, H: tl.constexpr, F: tl.constexpr, TRUNCATED_Y: tl.constexpr, TRUNCATED_X: tl.constexpr):
    """Return (dy, dx) of the j-th displacement of a class.

    dy changes fastest, and dy = 0 comes with dx > 0 only. `packing.PanelLayout.class_size` counts them.
    """
    E: tl.constexpr = H - F
    FIRST_Y: tl.constexpr = E + 1 if TRUNCATED_Y else 0
    SKIPPED_Y: tl.constexpr = 0 if TRUNCATED_Y else 1
    COUNT_Y: tl.constexpr = F if TRUNCATED_Y else E + 1
    FIRST_X: tl.constexpr = E + 1 if TRUNCATED_X else 1
    FIRST_NEGATIVE_X: tl.constexpr = -E - 1 if TRUNCATED_X else 0
    POSITIVE: tl.constexpr = (F if TRUNCATED_X else E) * COUNT_Y
    # 1 instead of 0 as the divisor if a class has no such displacement.
    PERIOD: tl.constexpr = COUNT_Y if COUNT_Y > 0 else 1
    LATER_PERIOD: tl.constexpr = COUNT_Y - SKIPPED_Y if COUNT_Y > SKIPPED_Y else 1
    later = j - POSITIVE
    dy = tl.where(later < 0, FIRST_Y + j % PERIOD, FIRST_Y + SKIPPED_Y + later % LATER_PERIOD)
    dx = tl.where(later < 0, FIRST_X + j // PERIOD, FIRST_NEGATIVE_X - later // LATER_PERIOD)
    return dy, dx


@triton.jit
def first_offset(d, H: tl.constexpr, F: tl.constexpr):
    """Return a0 of eq. 6: where the window at displacement d begins."""
    return tl.maximum(-H - d, -F)


@triton.jit
def last_offset(d, H: tl.constexpr, F: tl.constexpr):
    """Return a1 of eq. 6: where the window at displacement d ends."""
    return tl.minimum(H - d, F)


@triton.jit
def bounds(dy, dx, H: tl.constexpr, F: tl.constexpr):
    """Return the window of eq. 6 at (dy, dx): its last row and height, first and last column and width."""
    last_y = last_offset(dy, H, F)
    last_x = last_offset(dx, H, F)
    first_x = first_offset(dx, H, F)
    return last_y, last_y + (F + 1), first_x, last_x, last_x - first_x + 1


@triton.jit
def lane_columns(tile, ROWS: tl.constexpr, LANES: tl.constexpr):
    """Split a [ROWS, 4 LANES] tile into four [ROWS, LANES]: the columns 4 l + 0, 1, 2, 3 of lane l."""
    even, odd = tl.split(tl.reshape(tile, [ROWS, LANES, 2, 2]))
    v0, v2 = tl.split(even)
    v1, v3 = tl.split(odd)
    return v0, v1, v2, v3


@triton.jit
def join_columns(columns, ROWS: tl.constexpr, LANES: tl.constexpr):
    """Return the [ROWS, 4 LANES] tile whose `lane_columns` these are."""
    tile = tl.join(tl.join(columns[0], columns[2]), tl.join(columns[1], columns[3]))
    return tl.reshape(tile, [ROWS, 4 * LANES])


@triton.jit
def scatter(base, offsets, LANES: tl.constexpr):
    """Return the pointers `base` + `offsets` [ROWS, LANES], marked so that each lane accesses its own element.

    Before 3.8, Triton gives a tile of scattered addresses a layout of its own, and moves addresses, masks and values
    to it through shared memory, with barriers. Addresses that are said to be contiguous along the lanes stay where
    they are. The hint is untrue, and harmless only where a thread has one element of the tile: nothing can be merged
    into a wider access then. tests/selfsim counts the stores in the machine code.
    """
    # The hint is kept with the addition, which must therefore be in this function.
    return tl.max_contiguous(base + offsets, [1, LANES])


@triton.jit
def _from_lane(values, AHEAD: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr):
    """Return in each lane the value of the lane AHEAD of it; the values in the last lanes are never used."""
    if AHEAD == 0:
        return values
    lane = tl.minimum(tl.arange(0, LANES) + AHEAD, LANES - 1)
    return tl.gather(values, tl.broadcast_to(lane[None, :], [ROWS, LANES]), 1)


@triton.jit
def row_sums(tile, size_x, F: tl.constexpr, TRUNCATED_X: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr):
    """Return, for each of the four columns of a lane, the sum over the window that begins there.

    Complete windows are 2 F + 1 wide, truncated ones `size_x`, between F + 1 and 2 F.
    """
    v = lane_columns(tile, ROWS, LANES)
    WIDTH: tl.constexpr = F + 1 if TRUNCATED_X else 2 * F + 1
    # head[i]: the first i + 1 columns of the lane; tail[i]: its last i + 1.
    head = (v[0], v[0] + v[1])
    head = head + (head[1] + v[2],)
    head = head + (head[2] + v[3],)
    tail = (v[3], v[3] + v[2])
    tail = tail + (tail[1] + v[1], head[3])
    sums = ()
    for r in tl.static_range(4):
        if r + WIDTH <= 4:
            total = v[r]
            for i in tl.static_range(1, WIDTH):
                total = total + v[r + i]
        else:
            total = tail[3 - r]
            if r + WIDTH >= 8:
                middle = _from_lane(head[3], 1, ROWS, LANES)
                for i in tl.static_range(2, (r + WIDTH) // 4):
                    middle = middle + _from_lane(head[3], i, ROWS, LANES)
                total = total + middle
            if (r + WIDTH) % 4 > 0:
                total = total + _from_lane(head[(r + WIDTH) % 4 - 1], (r + WIDTH) // 4, ROWS, LANES)
        if TRUNCATED_X:
            for i in tl.static_range(F + 1, 2 * F):
                more = _from_lane(v[(r + i) % 4], (r + i) // 4, ROWS, LANES)
                total = total + tl.where(size_x > i, more, 0.0)
        sums = sums + (total,)
    return sums


@triton.jit
def nothing_carried(like, UNROLL: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr):
    """Return what `carry` returns, before the first block."""
    zero = tl.zeros([ROWS, 4 * LANES], like.dtype.element_ty)
    carried = (zero,)
    for _ in tl.static_range(UNROLL - 2):
        carried = carried + (zero,)
    return carried


@triton.jit
def column_sums(carried, seen, running, size_y, F: tl.constexpr, TRUNCATED_Y: tl.constexpr):
    """Return the sum down the window that the last of the rows `seen` in this block completes.

    Complete windows, and blocks, are 2 F + 1 rows high: the last rows of the previous block and the first of this
    one, which sum to `running`. Truncated blocks are 2 F rows high; `size_y` of these, F + 1 to 2 F, count.
    """
    if TRUNCATED_Y:
        rows = (carried + seen)[len(seen) - 1 :]
        total = rows[0]
        for i in tl.static_range(1, F + 1):
            total = total + rows[i]
        for i in tl.static_range(F + 1, 2 * F):
            total = total + tl.where(size_y > i, rows[i], 0.0)
    else:
        total = running
        if len(seen) < 2 * F + 1:
            total = carried[len(seen) - 1] + running
    return total


@triton.jit
def carry(seen, TRUNCATED_Y: tl.constexpr):
    """Return the last rows (truncated) or the sums from each row to the last (complete), for the next block."""
    if TRUNCATED_Y:
        return seen[1:]
    carried = (seen[len(seen) - 1],)
    for i in tl.static_range(len(seen) - 2):
        carried = (carried[0] + seen[len(seen) - 2 - i],) + carried
    return carried
