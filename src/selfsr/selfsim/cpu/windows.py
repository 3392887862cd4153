"""The numba kernels from an image to its window distances q, and back (eq. 6, 7, 9 and 10).

Flat images. An image plane is kept with rows of `pitch` values and zeros around it, so that a displacement
(dy, dx) is one offset `dy * pitch + dx`, and a window sum adds shifted slices of one array. Values computed across
the ends of rows land in columns that are never read. `pitch` is a multiple of LANES, so rows are full vectors.

The kernels share this file with all functions that they call, except vectors.py: numba's disk cache looks only at the
age of a kernel's file.
"""

import numpy as np

from selfsr._ops.compiled import helper, next_task, share
from selfsr.selfsim.cpu.tables import (
    COLUMNS,
    COMPLETE,
    CORNER,
    DX,
    DY,
    EX,
    EY,
    FIRST,
    FIRST_MASKED,
    IMAGE,
    LAST,
    LAST_MASKED,
    LEFT,
    MINUS,
    MINUS_TRUNCATED,
    PLUS,
    PLUS_TRUNCATED,
    ROWS,
    TOP,
)
from selfsr.selfsim.cpu.vectors import LANES, load, store

# Rows whose sums over columns are computed together, from values that most of them share.
TOGETHER = 4
# Values of a piece of a plane, on which several loops run while it is in the first-level cache.
PIECE = 1280


@helper
def _rows_per_piece(pitch):
    return max(1, PIECE // (TOGETHER * pitch)) * TOGETHER


@helper
def _squared_difference(out, n, planes, at, delta, stride, channels):
    """Set out[i] to the channel sum of (I[at + i] - I[at + i + delta])^2, for i < n and a vector more."""
    if channels == 3:
        second, third = at + stride, at + 2 * stride
        for i in range(0, n, LANES):
            a = load(planes, at + i) - load(planes, at + delta + i)
            b = load(planes, second + i) - load(planes, second + delta + i)
            c = load(planes, third + i) - load(planes, third + delta + i)
            store(out, i, a * a + b * b + c * c)
        return
    for i in range(0, n, LANES):
        a = load(planes, at + i) - load(planes, at + delta + i)
        total = a * a
        for c in range(1, channels):
            a = load(planes, at + c * stride + i) - load(planes, at + c * stride + delta + i)
            total = total + a * a
        store(out, i, total)


@helper
def _sum_across(out, out_at, n, source, at, threes, count):
    """Set out[out_at + i] to the sum of count values from source[at + i] on, for i < n and a vector more.

    threes: space for n + count values and a vector more.
    """
    if count < 6:
        for i in range(0, n, LANES):
            total = load(source, at + i)
            for t in range(1, count):
                total = total + load(source, at + i + t)
            store(out, out_at + i, total)
        return
    # From sums of three: 9 values with four additions instead of eight.
    for i in range(0, n + count - 3, LANES):
        store(threes, i, load(source, at + i) + load(source, at + i + 1) + load(source, at + i + 2))
    if count == 9:
        for i in range(0, n, LANES):
            store(out, out_at + i, load(threes, i) + load(threes, i + 3) + load(threes, i + 6))
        return
    in_threes = count // 3 * 3
    for i in range(0, n, LANES):
        total = load(threes, i)
        for t in range(3, in_threes, 3):
            total = total + load(threes, i + t)
        for t in range(in_threes, count):
            total = total + load(source, at + i + t)
        store(out, out_at + i, total)


@helper
def _sum_down(out, out_at, rows, source, at, pitch, count):
    """Set each of `rows` rows of out to the sum of count rows of source, in groups of TOGETHER rows."""
    for row in range(0, rows, TOGETHER):
        first, target = at + row * pitch, out_at + row * pitch
        if count < TOGETHER:
            for i in range(0, TOGETHER * pitch, LANES):
                total = load(source, first + i)
                for t in range(1, count):
                    total = total + load(source, first + i + t * pitch)
                store(out, target + i, total)
            continue
        for i in range(first, first + pitch, LANES):
            common = load(source, i + 3 * pitch)
            for t in range(4, count):
                common = common + load(source, i + t * pitch)
            below = i + count * pitch
            third, fifth = load(source, i + 2 * pitch), load(source, below)
            upper, lower = load(source, i + pitch) + third, fifth + load(source, below + pitch)
            store(out, target, common + (load(source, i) + upper))
            store(out, target + pitch, common + (upper + fifth))
            store(out, target + 2 * pitch, common + (third + lower))
            store(out, target + 3 * pitch, common + (lower + load(source, below + 2 * pitch)))
            target += LANES


@helper
def _gather(target, index, shift, source, truncated, scale):
    """Set target[j] to scale * (source[index[j] - shift] + truncated[j]); empty `truncated` means 0."""
    if truncated.size:
        for j in range(target.size):
            target[j] = scale * (source[index[j] - shift] + truncated[j])
    else:
        for j in range(target.size):
            target[j] = scale * source[index[j] - shift]


def sum_windows(team, *arguments):
    """See `_sum_windows`."""
    return share(team, _sum_windows, arguments)


@helper
def _sum_windows(
    counter, planes, front, stride, pitch, channels, index, row_start, height, border, bands, table, edges, scale, q
):
    """Add the inside part of eq. 1 to q `[S*S, M]` and scale; one task per band and half displacement.

    D_d(u) is the squared difference of the image at u and u + d, summed over channels, and B_d(u) the sum of
    D_d(u + o) over the offsets o whose window value stays in the search area. B_d gives the inside part of +d,
    at p, and of -d, at p - e (`tables.tabulate_displacements`).
    """
    tasks = bands.shape[0] * table.shape[0]
    piece_rows = _rows_per_piece(pitch)
    reach = tallest = widest = 0
    for t in range(table.shape[0]):
        reach = max(reach, abs(table[t, EY]) + table[t, ROWS])
        widest = max(widest, table[t, COLUMNS])
    for t in range(bands.shape[0]):
        tallest = max(tallest, bands[t, LAST] - bands[t, FIRST])
    spare = widest + 2 * LANES
    difference = np.empty((piece_rows + reach + 1) * pitch + spare, planes.dtype)
    threes = np.empty(difference.size, planes.dtype)
    across = np.empty((tallest + reach + TOGETHER) * pitch + spare, planes.dtype)
    box = np.empty(piece_rows * pitch, planes.dtype)
    nothing = q[0, :0]
    while True:
        task = next_task(counter)
        if task >= tasks:
            return
        band = bands[task // table.shape[0]]
        move = table[task % table.shape[0]]
        delta = move[DY] * pitch + move[DX]
        ey, e = move[EY], move[EY] * pitch + move[EX]
        first = front + band[IMAGE] * channels * stride
        starts = row_start[band[IMAGE] * height : (band[IMAGE] + 1) * height + 1]
        # Rows of the padded image for which B is needed, and its sums across, which reach ROWS - 1 rows further.
        low, high = border + band[FIRST] - max(ey, 0), border + band[LAST] + max(-ey, 0)
        origin = (low + move[TOP]) * pitch
        done = 0
        for row in range(low, high, piece_rows):
            end = min(row + piece_rows, high)
            wanted = (end - low + move[ROWS] - 1) * pitch
            _squared_difference(
                difference, wanted - done + move[COLUMNS] - 1,
                planes, first + origin + done + move[LEFT], delta, stride, channels,
            )  # fmt: skip
            _sum_across(across, done, wanted - done, difference, 0, threes, move[COLUMNS])
            done = wanted
            _sum_down(box, 0, end - row, across, (row - low) * pitch, pitch, move[ROWS])
            # +d reads B at the pixel, -d at the pixel minus e.
            for side in range(2):
                offset = ey if side else 0
                m0 = starts[min(max(row - border + offset, band[FIRST]), band[LAST])]
                m1 = starts[min(max(end - border + offset, band[FIRST]), band[LAST])]
                entry = move[MINUS] if side else move[PLUS]
                target = q[entry, m0:m1]
                kind = move[MINUS_TRUNCATED] if side else move[PLUS_TRUNCATED]
                if kind == COMPLETE:
                    truncated = nothing
                elif kind == CORNER:
                    truncated = target
                else:
                    truncated = edges[kind, m0:m1]
                _gather(target, index[m0:m1], row * pitch + (e if side else 0), box, truncated, scale)


@helper
def _scatter(target, index, shift, values):
    """Add values[j] to target[index[j] - shift]."""
    for j in range(values.size):
        target[index[j] - shift] += values[j]


@helper
def _add_products(out, out_at, n, planes, at, delta, stride, channels, weight, weight_at):
    """Add M(u) (I(u) - I(u + d)) + M(u - d) (I(u) - I(u - d)) to out, at n positions u of each channel."""
    for i in range(0, n, LANES):
        m, m_behind = load(weight, weight_at + i), load(weight, weight_at + i - delta)
        u, target = at + i, out_at + i
        for _ in range(channels):
            value = load(planes, u)
            added = m * (value - load(planes, u + delta)) + m_behind * (value - load(planes, u - delta))
            store(out, target, load(out, target) + added)
            u += stride
            target += stride


def spread_windows(team, *arguments):
    """See `_spread_windows`."""
    return share(team, _spread_windows, arguments)


@helper
def _spread_windows(
    counter,
    planes,
    front,
    stride,
    pitch,
    channels,
    index,
    row_start,
    height,
    border,
    window,
    bands,
    table,
    grad_q,
    partial,
):
    """Write the gradient of the inside part, up to a factor, to partial `[slots, N * C * plane]`.

    This is the transpose of `sum_windows`.

    One task for each band of rows of the padded image and slot, a fixed share of the displacements. A value of
    partial has one owner, which also sets it to zero first.
    """
    slots, slot_size = partial.shape
    flat = partial.reshape(slots * slot_size)
    tasks = bands.shape[0] * slots
    piece_rows = _rows_per_piece(pitch)
    tallest = 0
    for t in range(bands.shape[0]):
        tallest = max(tallest, bands[t, LAST] - bands[t, FIRST])
    # m and its sums across need a window more of rows than M, which also needs the rows of u - d.
    size = (tallest + border + window + TOGETHER + 4) * pitch + window + 2 * LANES
    scattered = np.empty(size, planes.dtype)
    across = np.empty(size, planes.dtype)
    threes = np.empty((piece_rows + border + window + 1) * pitch + window + 2 * LANES, planes.dtype)
    weight = np.empty(size, planes.dtype)
    while True:
        task = next_task(counter)
        if task >= tasks:
            return
        band = bands[task // slots]
        slot = task % slots
        first = front + band[IMAGE] * channels * stride
        starts = row_start[band[IMAGE] * height : (band[IMAGE] + 1) * height + 1]
        low, high = band[FIRST], band[LAST]
        target = slot * slot_size + band[IMAGE] * channels * stride
        for c in range(channels):
            at = target + c * stride
            flat[at + low * pitch : at + high * pitch].fill(0)
        if band[FIRST_MASKED] >= band[LAST_MASKED]:
            continue
        for t in range(slot * table.shape[0] // slots, (slot + 1) * table.shape[0] // slots):
            move = table[t]
            dy, top, ey = move[DY], move[TOP], move[EY]
            delta, e = dy * pitch + move[DX], ey * pitch + move[EX]
            # Rows in which M is not zero, and those of them that this band needs.
            m_low = max(border + band[FIRST_MASKED] - max(ey, 0) + top, low - dy)
            m_high = min(border + band[LAST_MASKED] + max(-ey, 0) + top + move[ROWS] - 1, high)
            if m_low >= m_high:
                continue
            # Rows of m under those windows: m(u - o) for o in top .. top + ROWS - 1.
            bottom = top + move[ROWS] - 1
            g_low, g_high = m_low - bottom, m_high - top
            margin = window
            length = (g_high - g_low) * pitch
            scattered[: length + 2 * margin].fill(0)
            inner = scattered[margin : margin + length]
            for side in range(2):
                offset = ey if side else 0
                m0 = starts[min(max(g_low - border + offset, band[FIRST_MASKED]), band[LAST_MASKED])]
                m1 = starts[min(max(g_high - border + offset, band[FIRST_MASKED]), band[LAST_MASKED])]
                shift = g_low * pitch + (e if side else 0)
                _scatter(inner, index[m0:m1], shift, grad_q[move[MINUS] if side else move[PLUS], m0:m1])
            right = move[LEFT] + move[COLUMNS] - 1
            # M on rows u_low - dy - 1 .. u_high + 1, zero outside m_low .. m_high.
            u_low, u_high = max(low, m_low), min(high, m_high + dy)
            base = u_low - dy - 1
            weight[: (m_low - base) * pitch].fill(0)
            done = 0
            reached = m_low
            for row in range(u_low, u_high, piece_rows):
                end = min(row + piece_rows, u_high)
                limit = min(end, m_high)
                if limit > reached:
                    wanted = (limit - m_low + move[ROWS] - 1) * pitch
                    _sum_across(across, done, wanted - done, scattered, margin + done - right, threes, move[COLUMNS])
                    done = wanted
                    _sum_down(
                        weight, (reached - base) * pitch, limit - reached,
                        across, (reached - m_low) * pitch, pitch, move[ROWS],
                    )  # fmt: skip
                    reached = limit
                    if reached == m_high:
                        weight[(m_high - base) * pitch : (u_high + 1 - base) * pitch].fill(0)
                _add_products(
                    flat, target + row * pitch, (end - row) * pitch,
                    planes, first + row * pitch, delta, stride, channels, weight, (row - base) * pitch,
                )  # fmt: skip


def add_gradients(team, *arguments):
    """See `_add_gradients`."""
    return share(team, _add_gradients, arguments)


@helper
def _add_gradients(counter, partial, coefficients, planes, front, stride, pitch, scale, out):
    """Add the results of `spread_windows` and `spread_truncated` in out `[N, C, H + 2h, W + 2h]`, times scale.

    One task for each row of each image; slots are added in their order.
    """
    images, channels, rows, columns = out.shape
    total = np.empty(columns, out.dtype)
    while True:
        task = next_task(counter)
        if task >= images * rows:
            return
        image, row = task // rows, task % rows
        first = row * pitch
        even = coefficients[0, image, first : first + columns]
        odd = coefficients[1, image, first : first + columns]
        for c in range(channels):
            at = (image * channels + c) * stride + first
            pixels = planes[front + at : front + at + columns]
            for x in range(columns):
                total[x] = pixels[x] * (even[x] + odd[x])
            for slot in range(partial.shape[0]):
                part = partial[slot, at : at + columns]
                for x in range(columns):
                    total[x] += part[x]
            target = out[image, c, row]
            for x in range(columns):
                target[x] = scale * total[x]
