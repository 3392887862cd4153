"""The Triton kernels of the self-similarity operator; `kernels` launches them and tells how memory is laid out.

Only the half plane of displacements is computed (docs/selfsim.md, eq. 9): for each d = (dy, dx) of it, the window
sum over u of the squared difference of I~(u) and I~(u + d) is the distance q of two pairs (p, d) and (p', -d).
Displacements come in four classes. Per axis a window is complete as long as |d| <= E = h - f ("near"), and cut to
between f + 1 and k - 1 of its k pixels beyond ("far"); each class has its own compiled kernel.

A walking program keeps one displacement per row of its tile (per warp on a GPU) and 128 columns, four to a lane,
and goes down the image row by row. Vertical window sums are made of running sums from the last block boundary up
and down (van Herk 1992; Gil & Werman 1993), horizontal ones of sums within and across lanes. Nothing is ever
subtracted from a sum, so no digits cancel; every result has one owner that adds in a fixed order.
"""

# Triton's own language: tuples grow by addition in it, and what a constant leaves out is never bound.
# ruff: noqa: RUF005
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false, reportPossiblyUnboundVariable=false
# pyright: reportAssignmentType=false, reportArgumentType=false, reportCallIssue=false

import inspect
from typing import Any

import triton
import triton.language as tl

# What a row number is subtracted from, so that the lowest one can be found by the maximum.
ROW_LIMIT = tl.constexpr(1 << 30)


def _kernel(function) -> Any:
    """Compile for the compile-time constants alone: no new kernel when a count happens to be 1 or a multiple of 16."""
    runtime = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.annotation is parameter.empty
    ]
    return triton.jit(function, do_not_specialize=runtime)


@_kernel
def pack_kernel(
    padded, planes, energy, images, per_panel, height, width, rows, panels,
    C: tl.constexpr, PITCH: tl.constexpr, LEFT: tl.constexpr, TOP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Lay images side by side in `planes` [4, panels, rows, C, PITCH], copy s moved s columns to the left.

    Whatever column a displacement starts at, one of the copies has it on a 16-byte boundary. Around the images
    there are zeros. `energy` [panels, rows, PITCH] is the sum of squares over the channels.
    """
    pid = tl.program_id(0)
    blocks: tl.constexpr = (PITCH + BLOCK - 1) // BLOCK
    row = pid // blocks % rows
    panel = pid // blocks // rows
    column = pid % blocks * BLOCK + tl.arange(0, BLOCK)
    x = column - LEFT
    # One to a column: the interpreter's masks cannot be mixed with scalar ones.
    y = row - TOP + column * 0
    in_panel = x // width
    image = panel * per_panel + in_panel
    seen = (x >= 0) & (in_panel < per_panel) & (image < images) & (y >= 0) & (y < height)
    source = padded + (image.to(tl.int64) * (C * height) + y) * width + (x - in_panel * width)
    line = (panel.to(tl.int64) * rows + row) * PITCH
    squares = tl.zeros([BLOCK], padded.dtype.element_ty)
    for c in tl.static_range(C):
        values = tl.load(source + c * height.to(tl.int64) * width, mask=seen, other=0.0)
        squares = tl.fma(values, values, squares)
        # The last columns of the moved copies stay unwritten, and are never read.
        for s in tl.static_range(4):
            target = planes + (s * panels.to(tl.int64) * rows * PITCH + line) * C + c * PITCH
            tl.store(target + column - s, values, mask=(column >= s) & (column < PITCH))
    tl.store(energy + line + column, squares, mask=column < PITCH)


@triton.jit
def _place(image_of, row_of, column_of, n, pixels, per_panel, width, H: tl.constexpr, LEFT: tl.constexpr):
    """Return panel, row without the slack above, column in the panel, and whether slot `n` is a pixel at all."""
    image = tl.load(image_of + n, mask=n < pixels, other=-1)
    used = image >= 0
    row = tl.load(row_of + n, mask=used, other=0).to(tl.int32) + H
    column = tl.load(column_of + n, mask=used, other=0).to(tl.int32) + H
    panel = tl.where(used, image // per_panel, 0)
    in_panel = tl.where(used, image % per_panel, 0).to(tl.int32)
    return panel, row, LEFT + in_panel * width + column, used


@_kernel
def slot_kernel(
    image_of, row_of, column_of, slots, touched, pixels, per_panel, width, rows, panels, strips,
    H: tl.constexpr, PITCH: tl.constexpr, LEFT: tl.constexpr, TOP: tl.constexpr, VALID: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Write each pixel's number into `slots` [4, panels, rows, PITCH] and mark what it can touch.

    `touched` [panels, strips, 2]: one past the last row with a pixel near the strip; ROW_LIMIT less the first.
    """
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    panel, row, column, used = _place(image_of, row_of, column_of, n, pixels, per_panel, width, H, LEFT)
    line = (panel * rows + (TOP + row)) * PITCH
    for s in tl.static_range(4):
        tl.store(slots + s * panels.to(tl.int64) * rows * PITCH + line + (column - s), n, mask=used)
    first = tl.maximum(column - LEFT - H, 0) // VALID
    last = tl.minimum((column - LEFT + H) // VALID, strips - 1)
    for i in tl.static_range(2 * H // VALID + 2):
        entry = touched + (panel * strips + (first + i)) * 2
        near = used & (first + i <= last)
        tl.atomic_max(entry, row + 1, mask=near)
        tl.atomic_max(entry + 1, -row + ROW_LIMIT, mask=near)


@triton.jit
def _displacements(j, H: tl.constexpr, F: tl.constexpr, FAR_Y: tl.constexpr, FAR_X: tl.constexpr):
    """Return (dy, dx) of the j-th displacement of a class: dy changes fastest, and dy = 0 comes with dx > 0 only.

    `kernels.class_size` counts them.
    """
    E: tl.constexpr = H - F
    FIRST_Y: tl.constexpr = E + 1 if FAR_Y else 0
    SKIPPED_Y: tl.constexpr = 0 if FAR_Y else 1
    COUNT_Y: tl.constexpr = F if FAR_Y else E + 1
    FIRST_X: tl.constexpr = E + 1 if FAR_X else 1
    FIRST_NEGATIVE_X: tl.constexpr = -E - 1 if FAR_X else 0
    POSITIVE: tl.constexpr = (F if FAR_X else E) * COUNT_Y
    # Where a class has no such displacement, 1 in place of 0 to divide by.
    PERIOD: tl.constexpr = COUNT_Y if COUNT_Y > 0 else 1
    LATER_PERIOD: tl.constexpr = COUNT_Y - SKIPPED_Y if COUNT_Y > SKIPPED_Y else 1
    later = j - POSITIVE
    dy = tl.where(later < 0, FIRST_Y + j % PERIOD, FIRST_Y + SKIPPED_Y + later % LATER_PERIOD)
    dx = tl.where(later < 0, FIRST_X + j // PERIOD, FIRST_NEGATIVE_X - later // LATER_PERIOD)
    return dy, dx


@triton.jit
def _first_offset(d, H: tl.constexpr, F: tl.constexpr):
    """Return a0 of eq. 6: where the window at displacement d begins."""
    return tl.maximum(-H - d, -F)


@triton.jit
def _last_offset(d, H: tl.constexpr, F: tl.constexpr):
    """Return a1 of eq. 6: where the window at displacement d ends."""
    return tl.minimum(H - d, F)


@triton.jit
def _lane_columns(tile, ROWS: tl.constexpr, LANES: tl.constexpr):
    """Take a [ROWS, 4 LANES] tile apart into four [ROWS, LANES]: the columns 4 l + 0, 1, 2, 3 of lane l."""
    even, odd = tl.split(tl.reshape(tile, [ROWS, LANES, 2, 2]))
    v0, v2 = tl.split(even)
    v1, v3 = tl.split(odd)
    return v0, v1, v2, v3


@triton.jit
def _from_lane(values, AHEAD: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr):
    """Return in each lane the value of the lane AHEAD of it; what the last lanes get is never used."""
    if AHEAD == 0:
        return values
    lane = tl.minimum(tl.arange(0, LANES) + AHEAD, LANES - 1)
    return tl.gather(values, tl.broadcast_to(lane[None, :], [ROWS, LANES]), 1)


@triton.jit
def _row_sums(tile, size_x, F: tl.constexpr, FAR_X: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr):
    """Return, for each of the four columns of a lane, the sum over the window that begins there.

    Near windows are 2 F + 1 wide, far ones `size_x`, between F + 1 and 2 F.
    """
    v = _lane_columns(tile, ROWS, LANES)
    WIDTH: tl.constexpr = F + 1 if FAR_X else 2 * F + 1
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
        if FAR_X:
            for i in tl.static_range(F + 1, 2 * F):
                more = _from_lane(v[(r + i) % 4], (r + i) // 4, ROWS, LANES)
                total = total + tl.where(size_x > i, more, 0.0)
        sums = sums + (total,)
    return sums


@triton.jit
def _nothing_carried(like, UNROLL: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr):
    """Return what `_carry` returns, before the first block."""
    zero = tl.zeros([ROWS, 4 * LANES], like.dtype.element_ty)
    carried = (zero,)
    for _ in tl.static_range(UNROLL - 2):
        carried = carried + (zero,)
    return carried


@triton.jit
def _column_sums(carried, seen, running, size_y, F: tl.constexpr, FAR_Y: tl.constexpr):
    """Return the sum down the window that the last of the rows `seen` in this block completes.

    Near windows, and blocks, are 2 F + 1 rows high: the last rows of the previous block and the first of this
    one, which sum to `running`. Far blocks are 2 F rows high; `size_y` of these, between F + 1 and 2 F, count.
    """
    if FAR_Y:
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
def _carry(seen, FAR_Y: tl.constexpr):
    """Return what the next block needs: the last rows (far), or sums from each row to the last (near)."""
    if FAR_Y:
        return seen[1:]
    carried = (seen[len(seen) - 1],)
    for i in tl.static_range(len(seen) - 2):
        carried = (carried[0] + seen[len(seen) - 2 - i],) + carried
    return carried


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
    sums, q, energy, slots, inside, F: tl.constexpr, C: tl.constexpr, FAR: tl.constexpr,
    ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Write the four window sums of each lane to the graph entries of the pixels they belong to."""
    SCALE: tl.constexpr = 1.0 / (C * (2 * F + 1) * (2 * F + 1))
    slot = _lane_columns(tl.load(slots), ROWS, LANES)
    for r in tl.static_range(4):
        masked = inside & (slot[r] >= 0)
        value = sums[r]
        if FAR:
            value = value + tl.load(energy + slot[r], mask=masked, other=0.0)
        tl.store(q + slot[r], value * SCALE, mask=masked)


@_kernel
def distance_kernel(
    planes, slots, touched, energy, q, pixels, count, groups, strips, rows, panels, height, chunk_rows, chunks,
    H: tl.constexpr, F: tl.constexpr, C: tl.constexpr, FAR_Y: tl.constexpr, FAR_X: tl.constexpr,
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
    dy, dx = _displacements(tl.minimum(j, count - 1), H, F, FAR_Y, FAR_X)
    last_x = _last_offset(dx, H, F)
    first_x = _first_offset(dx, H, F)
    size_y = _last_offset(dy, H, F) + (F + 1)
    size_x = last_x - first_x + 1

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
    near = planes + line * (C * PITCH) + tl.broadcast_to(x0 + column, [ROWS, 4 * LANES])
    near = tl.multiple_of(near, [1, 16])
    far = planes + (dx & 3) * (copy * C) + (line + dy) * (C * PITCH) + (x0 + dx - (dx & 3))
    far = tl.multiple_of(far, [16, 16]) + column
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
    # The class of eq. 8 among (2 F + 1)^2: how many rows and columns of the window are cut off.
    kind = (tl.maximum(dy - E, 0) + F) * (2 * F + 1) + dx - tl.minimum(tl.maximum(dx, -E), E) + F
    plus_energy = energy + kind.to(tl.int64) * pixels
    minus_energy = energy + ((2 * F + 1) * (2 * F + 1) - 1 - kind).to(tl.int64) * pixels

    lane = tl.arange(0, LANES)[None, :]

    FAR: tl.constexpr = FAR_Y or FAR_X
    UNROLL: tl.constexpr = 2 * F if FAR_Y else 2 * F + 1
    carried = _nothing_carried(planes, UNROLL, ROWS, LANES)
    blocks = tl.where(wanted > 0, (wanted + 2 * UNROLL - 2) // UNROLL, 0)
    for block in range(0, blocks):
        seen = ()
        running = 0.0
        for i in tl.static_range(UNROLL):
            row = _squared_difference(near + i * C * PITCH, far + i * C * PITCH, C, PITCH)
            seen = seen + (row,)
            running = row if i == 0 else running + row
            column_sums = _column_sums(carried, seen, running, size_y, F, FAR_Y)
            sums = _row_sums(column_sums, size_x, F, FAR_X, ROWS, LANES)
            # The window that this row completes begins in row t.
            t = block * UNROLL + (i - UNROLL + 1)
            inside = mine & (lane < tl.where((t >= 0) & (t < wanted), VALID // 4, 0))
            here = (i - UNROLL + 1) * PITCH
            _store_distances(sums, plus_q, plus_energy, plus_slots + here, inside, F, C, FAR, ROWS, LANES)
            _store_distances(sums, minus_q, minus_energy, minus_slots + here, inside, F, C, FAR, ROWS, LANES)
        carried = _carry(seen, FAR_Y)
        near += UNROLL * C * PITCH
        far += UNROLL * C * PITCH
        plus_slots += UNROLL * PITCH
        minus_slots += UNROLL * PITCH


@triton.jit
def _both_gradients(plus_q, minus_q, plus_slots, minus_slots):
    """Return m_d of eq. 10: the gradients of the two pairs that share a window sum."""
    plus = tl.load(plus_slots)
    minus = tl.load(minus_slots)
    return tl.load(plus_q + plus, mask=plus >= 0, other=0.0) + tl.load(minus_q + minus, mask=minus >= 0, other=0.0)


@_kernel
def spread_kernel(
    grad_q, slots, touched, spread, pixels, first_j, count, groups, first_panel, group_panels, strips, rows, panels,
    height, chunk_rows, chunks,
    H: tl.constexpr, F: tl.constexpr, FAR_Y: tl.constexpr, FAR_X: tl.constexpr,
    PITCH: tl.constexpr, LEFT: tl.constexpr, TOP: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Write M_d of eq. 10, the window sums of the gradients towards q, for `count` displacements of a class.

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
    dy, dx = _displacements(first_j + tl.minimum(j, count - 1), H, F, FAR_Y, FAR_X)
    last_y = _last_offset(dy, H, F)
    last_x = _last_offset(dx, H, F)
    first_x = _first_offset(dx, H, F)
    size_y = last_y + (F + 1)
    size_x = last_x - first_x + 1

    # The rows u of this chunk that a pixel near this strip can touch.
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

    UNROLL: tl.constexpr = 2 * F if FAR_Y else 2 * F + 1
    carried = _nothing_carried(spread, UNROLL, ROWS, LANES)
    blocks = tl.where(wanted > 0, (wanted + 2 * UNROLL - 2) // UNROLL, 0)
    for block in range(0, blocks):
        seen = ()
        running = 0.0
        for i in tl.static_range(UNROLL):
            row = _both_gradients(plus_q, minus_q, plus_slots + i * PITCH, minus_slots + i * PITCH)
            seen = seen + (row,)
            running = row if i == 0 else running + row
            column_sums = _column_sums(carried, seen, running, size_y, F, FAR_Y)
            sums = _row_sums(column_sums, size_x, F, FAR_X, ROWS, LANES)
            t = block * UNROLL + (i - UNROLL + 1)
            tile = tl.reshape(tl.join(tl.join(sums[0], sums[2]), tl.join(sums[1], sums[3])), [ROWS, 4 * LANES])
            inside = mine & (column < tl.where((t >= 0) & (t < wanted), VALID, 0))
            tile = tl.join(tl.join(sums[0], sums[2]), tl.join(sums[1], sums[3]))
            tile = tl.reshape(tile, [ROWS, 4 * LANES])
            tl.store(target + (i - UNROLL + 1) * PITCH, tile, mask=inside)
        carried = _carry(seen, FAR_Y)
        plus_slots += UNROLL * PITCH
        minus_slots += UNROLL * PITCH
        target += UNROLL * PITCH


@triton.jit
def _cut_off_sums(square, step_y, step_x, sums, pixels, n, used, R: tl.constexpr, F: tl.constexpr):
    """Write sums over parts of the square [-R, R]^2 around `square`, for all F + F + 1 cuts along both axes.

    Entry (F + i, F + j) of `sums` [2 F + 1, 2 F + 1, pixels] is over the i last rows (first, if negative) and
    the j last (first) columns. Every sum begins with the rows and columns at the rim.
    """
    K: tl.constexpr = 2 * F + 1
    zero = tl.zeros(n.shape, sums.dtype.element_ty)
    if F > 0:
        tl.store(sums + (F * K + F) * pixels + n, zero, mask=used)
    for side in tl.static_range(2):
        sign = 1 - 2 * side
        # j = 0: whole rows, from the rim inwards.
        total = zero
        for i in range(1, F + 1):
            line = square + sign * (R + 1 - i) * step_y
            for x in range(-R, R + 1):
                total += tl.load(line + x * step_x, mask=used, other=0.0)
            tl.store(sums + ((sign * i + F) * K + F) * pixels + n, total, mask=used)
    tl.debug_barrier()
    for side in tl.static_range(2 if F > 0 else 0):
        # The other j: to the whole rows, the outer columns of the other rows, from the opposite rim.
        sign = 1 - 2 * side
        columns = (zero,)
        for _ in tl.static_range(2 * F - 1):
            columns = columns + (zero,)
        for y in range(-R, R + 1):
            line = square + sign * y * step_y
            added = ()
            for end in tl.static_range(2):
                edge = zero
                for j in tl.static_range(1, F + 1):
                    edge += tl.load(line + (1 - 2 * end) * (R + 1 - j) * step_x, mask=used, other=0.0)
                    added = added + (columns[end * F + j - 1] + edge,)
            columns = added
            # Rows up to y remain if R - y are cut off; without a cut both sides would write the same entry.
            i = R - y
            if (i <= F) & (i >= side):
                entry = sums + (sign * i + F) * K * pixels + n
                whole = tl.load(entry + F * pixels, mask=used, other=0.0)
                for end in tl.static_range(2):
                    for j in tl.static_range(1, F + 1):
                        x = F + (1 - 2 * end) * j
                        tl.store(entry + x * pixels, columns[end * F + j - 1] + whole, mask=used)


@_kernel
def cut_energy_kernel(
    energy, image_of, row_of, column_of, sums, q, pixels, per_panel, width, rows,
    H: tl.constexpr, F: tl.constexpr, PITCH: tl.constexpr, LEFT: tl.constexpr, TOP: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the outside term of eq. 8 for each class of displacement and pixel, `sums` [k, k, pixels].

    Also writes the entries of q that no walk reaches: 0 at d = 0, and 0 for slots without a pixel.
    """
    S: tl.constexpr = 2 * H + 1
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    count = pixels.to(tl.int64)
    listed = n < pixels
    panel, row, column, used = _place(image_of, row_of, column_of, n, pixels, per_panel, width, H, LEFT)
    zero = tl.zeros([BLOCK], q.dtype.element_ty)
    tl.store(q + (S * S // 2) * count + n, zero, mask=listed)
    unused = listed & (used == 0)
    if tl.max(unused.to(tl.int32), 0) > 0:
        for d in range(S * S):
            tl.store(q + d * count + n, zero, mask=unused)
    square = energy + (panel * rows + (TOP + row)) * PITCH + column
    if F > 0:
        _cut_off_sums(square, PITCH, 1, sums, count, n, used, F, F)


@_kernel
def cut_gradient_kernel(
    image_of, grad_q, sums, pixels, H: tl.constexpr, F: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Write the weights of eq. 11 for each window offset and pixel, `sums` [k, k, pixels].

    Offset o has the gradients of those d for which d + o lies outside of the search area.
    """
    S: tl.constexpr = 2 * H + 1
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    count = pixels.to(tl.int64)
    used = tl.load(image_of + n, mask=n < pixels, other=-1) >= 0
    _cut_off_sums(grad_q + (S * S // 2) * count + n, S * count, count, sums, count, n, used, H, F)


@_kernel
def outside_gradient_kernel(
    planes, slots, touched, sums, grad, pixels, images, per_panel, strips, tiles, rows, height, width,
    H: tl.constexpr, F: tl.constexpr, C: tl.constexpr, PITCH: tl.constexpr, LEFT: tl.constexpr, TOP: tl.constexpr,
    VALID: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Start `grad` [images, C, height, width] with I~(u) sum_o w_{u - o}(o), the outside term of eq. 11."""
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
    first, last = _touched_rows(touched + panel * strips * 2, pid % tiles * BLOCK, strips, H, VALID, BLOCK)
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


@triton.jit
def _touched_rows(touched, x0, strips, H: tl.constexpr, VALID: tl.constexpr, WIDTH: tl.constexpr):
    """Return the first row that a pixel near columns [x0, x0 + WIDTH) can touch and one past the last."""
    first = 0
    last = 0
    for i in tl.static_range((WIDTH - 1) // VALID + 2):
        strip = tl.minimum(x0 // VALID + i, strips - 1)
        first = tl.maximum(first, tl.load(touched + strip * 2 + 1))
        last = tl.maximum(last, tl.load(touched + strip * 2))
    return -first + ROW_LIMIT - H, last + tl.where(last > 0, H, 0)


@_kernel
def collect_kernel(
    planes, touched, spread, grad, first_j, count, is_last, first_panel, group_panels, panels, images,
    per_panel, strips, tiles, rows, height, width,
    H: tl.constexpr, F: tl.constexpr, C: tl.constexpr, FAR_Y: tl.constexpr, FAR_X: tl.constexpr,
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
    here = ()
    gradient = ()
    for c in tl.static_range(C):
        here = here + (tl.load(own + c * PITCH),)
        gradient = gradient + (tl.load(target + c * channel, mask=seen, other=0.0),)
    first, last = _touched_rows(touched + (first_panel + panel) * strips * 2, x0, strips, H, VALID, WIDTH)
    wanted = (band * ROWS < last) & ((band + 1) * ROWS > first)
    for i in range(0, tl.where(wanted, count, 0)):
        dy, dx = _displacements(first_j + i, H, F, FAR_Y, FAR_X)
        begins = tl.load(tl.multiple_of(window, [1, 16]))
        ends = tl.load(window - (dy * PITCH + dx))
        ahead = own + ((dx & 3) * copy + (dy * (C * PITCH) + dx - (dx & 3)))
        behind = own + ((-dx & 3) * copy - (dy * (C * PITCH) + dx + (-dx & 3)))
        ahead = tl.multiple_of(ahead, [1, 16])
        behind = tl.multiple_of(behind, [1, 16])
        updated = ()
        for c in tl.static_range(C):
            total = tl.fma(begins, here[c] - tl.load(ahead + c * PITCH), gradient[c])
            updated = updated + (tl.fma(ends, here[c] - tl.load(behind + c * PITCH), total),)
        gradient = updated
        window += plane
    for c in tl.static_range(C):
        value = tl.where(is_last != 0, gradient[c] * SCALE, gradient[c])
        tl.store(target + c * channel, value, mask=seen)


@triton.jit
def _joined(high, low, dtype: tl.constexpr):
    """Return the number that `kernels.halves` took apart, `[1, 1]`."""
    return tl.full([1, 1], high, dtype) + tl.full([1, 1], low, dtype)


@triton.jit
def _column_total(values):
    """Sum each column of all tiles; across lanes in float64."""
    total = values[0]
    for i in tl.static_range(1, len(values)):
        total = total + values[i]
    return tl.sum(total.to(tl.float64), 0)


@_kernel
def row_kernel(
    q_sr, q_hr, grad_q, parts, pixels, rate_high, rate_low, rate2_high, rate2_low, l1_high, l1_low, kl_high, kl_low,
    ENTRIES: tl.constexpr, NORMALIZE: tl.constexpr, WITH_GRADIENT: tl.constexpr, SIZE: tl.constexpr,
    BLOCK: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Write this block's L1 and KL (eq. 4 and 5) to `parts` [2, programs] and the gradient to `grad_q`.

    Whole rows of the graph are held at once, in tiles of SIZE entries of BLOCK pixels. `rate` is -1 / sigma,
    `rate2` the same for powers of 2. `grad_q` may be `q_sr`: named twice, its addresses are not kept in registers.
    """
    LOG_FLOOR: tl.constexpr = -23.025850929940457
    # What lies beyond a row's end: a distance so large that its similarity is 0.
    NONE: tl.constexpr = 1e20
    TILES: tl.constexpr = (ENTRIES + SIZE - 1) // SIZE
    dtype: tl.constexpr = q_sr.dtype.element_ty
    floor = tl.full([1, 1], 1e-10, dtype)
    rate = _joined(rate_high, rate_low, dtype)
    rate2 = _joined(rate2_high, rate2_low, dtype)
    l1_weight = _joined(l1_high, l1_low, dtype)
    kl_weight = _joined(kl_high, kl_low, dtype)
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    listed = n < pixels
    d = tl.arange(0, SIZE)[:, None]
    if WIDE:
        offset = d.to(tl.int64) * pixels + n[None, :]
    else:
        offset = d * pixels + n[None, :]
    tile = pixels.to(tl.int64) * SIZE

    q = ()
    p = ()
    x = ()
    y = ()
    for i in tl.static_range(TILES):
        mask = (d + i * SIZE < ENTRIES) & listed[None, :]
        q = q + (tl.load(q_sr + i * tile + offset, mask=mask, other=NONE),)
        p = p + (tl.load(q_hr + i * tile + offset, mask=mask, other=NONE),)
        x = x + (tl.exp2(q[i] * rate2),)
        y = y + (tl.exp2(p[i] * rate2),)
    if NORMALIZE:
        # A rounding of ln Z would shift a whole row of KL, so it and the ratio of the two Z are kept in float64.
        total_x = tl.where(listed, _column_total(x), 1.0)
        total_y = tl.where(listed, _column_total(y), 1.0)
        over_x = (1.0 / total_x).to(dtype)[None, :]
        over_y = (1.0 / total_y).to(dtype)[None, :]
        log_x = tl.log(total_x)
        log_y = tl.log(total_y)
        shift = (log_x - log_y)[None, :]
        shift_high = shift.to(dtype)
        shift_low = (shift - shift_high.to(tl.float64)).to(dtype)
        floor_x = (log_x + LOG_FLOOR).to(dtype)[None, :]
        floor_y = (log_y + LOG_FLOOR).to(dtype)[None, :]
    else:
        shift_high = tl.zeros([1, BLOCK], dtype)
        shift_low = shift_high
        floor_x = shift_high + LOG_FLOOR
        floor_y = floor_x

    l1 = ()
    kl = ()
    pull = ()
    for i in tl.static_range(TILES):
        if NORMALIZE:
            x_i = x[i] * over_x
            y_i = y[i] * over_y
        else:
            x_i = x[i]
            y_i = y[i]
        above = tl.maximum(y_i, floor)
        # ln Y' - ln X': what the logarithms differ by, and how far each lies below the floor.
        ratio = tl.fma(p[i] - q[i], rate, shift_high) + shift_low
        below_x = tl.maximum(tl.fma(q[i], -rate, floor_x), 0.0)
        below_y = tl.maximum(tl.fma(p[i], -rate, floor_y), 0.0)
        divergence = above * (ratio + (below_y - below_x))
        if (i + 1) * SIZE > ENTRIES:
            divergence = tl.where(d + i * SIZE < ENTRIES, divergence, 0.0)
        kl = kl + (divergence,)
        l1 = l1 + (tl.abs(x_i - y_i),)
        # X times the gradient towards X.
        toward = tl.where(x_i >= floor, above, 0.0)
        if NORMALIZE:
            # Taking X off changes nothing, as a row of X sums to 1, and leaves no rounding where X = Y.
            toward -= x_i
        signed = tl.where(x_i > y_i, x_i, tl.where(x_i < y_i, -x_i, 0.0))
        pull = pull + (tl.fma(signed, l1_weight, -kl_weight * toward),)
    l1_total = tl.sum(_column_total(l1)[None, :] * _joined(l1_high, l1_low, tl.float64), 1) / ENTRIES
    kl_total = tl.sum(_column_total(kl)[None, :] * _joined(kl_high, kl_low, tl.float64), 1) / ENTRIES
    program = tl.program_id(0) + tl.arange(0, 1)
    tl.store(parts + program, l1_total)
    tl.store(parts + tl.num_programs(0) + program, kl_total)

    if WITH_GRADIENT:
        scale = rate * (1.0 / ENTRIES)
        if NORMALIZE:
            shared = (-_column_total(pull)).to(dtype)[None, :] * over_x
        for i in tl.static_range(TILES):
            gradient = pull[i]
            if NORMALIZE:
                gradient = tl.fma(x[i], shared, gradient)
            mask = (d + i * SIZE < ENTRIES) & listed[None, :]
            tl.store(grad_q + i * tile + offset, gradient * scale, mask=mask)
