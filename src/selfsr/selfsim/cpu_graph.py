"""The numba kernels between an image and the window distances q of its graph, and back (eq. 1).

Flat images. An image plane is kept with rows of `pitch` values and zeros around it, so that a displacement
(dy, dx) is one offset `dy * pitch + dx`, and a box filter a sum of shifted slices: long plain loops that LLVM
turns into vector code. What such a loop computes across the ends of rows lands in columns that nobody reads.
Loops take slices that start at zero: an index that numba cannot prove non-negative is tested at each access.
At most seven slices meet in one loop, since LLVM gives up on proving that more of them do not overlap.

The kernels share one file with all that they call: numba's disk cache looks at the age of a kernel's file alone.
"""

import numpy as np
from numba import njit

from selfsr.selfsim.cpu_threads import OPTIONS, next_task

_helper = njit(**OPTIONS)

# Columns of the displacement table.
DY, DX, TOP, ROWS, LEFT, COLUMNS, EY, EX, PLUS, MINUS, PLUS_OUTSIDE, MINUS_OUTSIDE = range(12)
# Values of the last two columns beside an index into the table of edge energies.
COMPLETE, CORNER = -1, -2
# Columns of the band table.
IMAGE, FIRST, LAST, FIRST_MASKED, LAST_MASKED = range(5)

# Values in a piece of a plane that is worked through several loops while it is in the first-level cache.
PIECE = 2048
# Pixels that the kernels of the outside part handle together.
BLOCK = 64


@_helper
def _sum_shifted(out, source, step, count):
    """Set out[i] to the sum of source[i + t * step] over t < count."""
    n = out.size
    if count >= 5:
        s0, s1, s2 = source[:n], source[step : step + n], source[2 * step : 2 * step + n]
        s3, s4 = source[3 * step : 3 * step + n], source[4 * step : 4 * step + n]
        for i in range(n):
            out[i] = (s0[i] + s1[i]) + (s2[i] + s3[i]) + s4[i]
        done = 5
    else:
        # Not out[:] = ..., which takes numba longer to compile than all the rest.
        for i in range(n):
            out[i] = source[i]
        done = 1
    while done + 4 <= count:
        start = done * step
        s0, s1 = source[start : start + n], source[start + step : start + step + n]
        s2, s3 = source[start + 2 * step : start + 2 * step + n], source[start + 3 * step : start + 3 * step + n]
        for i in range(n):
            out[i] += (s0[i] + s1[i]) + (s2[i] + s3[i])
        done += 4
    while done < count:
        s0 = source[done * step : done * step + n]
        for i in range(n):
            out[i] += s0[i]
        done += 1


@_helper
def _squared_difference(out, planes, first, start, delta, stride, channels):
    """Set out[i] to the sum over channels of (I[start + i] - I[start + i + delta])^2."""
    n = out.size
    if channels == 3:
        at = first + start
        a0, a1, a2 = (
            planes[at : at + n],
            planes[at + stride : at + stride + n],
            planes[at + 2 * stride : at + 2 * stride + n],
        )
        at += delta
        b0, b1, b2 = (
            planes[at : at + n],
            planes[at + stride : at + stride + n],
            planes[at + 2 * stride : at + 2 * stride + n],
        )
        for i in range(n):
            d0, d1, d2 = a0[i] - b0[i], a1[i] - b1[i], a2[i] - b2[i]
            out[i] = d0 * d0 + d1 * d1 + d2 * d2
        return
    out.fill(0)
    for c in range(channels):
        at = first + c * stride + start
        a, b = planes[at : at + n], planes[at + delta : at + delta + n]
        for i in range(n):
            d = a[i] - b[i]
            out[i] += d * d


@_helper
def _gather(target, index, shift, source, outside, scale):
    """Set target[j] to scale * (source[index[j] - shift] + outside[j]); no `outside` if it is empty."""
    if outside.size:
        for j in range(target.size):
            target[j] = scale * (source[index[j] - shift] + outside[j])
    else:
        for j in range(target.size):
            target[j] = scale * source[index[j] - shift]


@njit(**OPTIONS)
def sum_windows(
    counter, planes, front, stride, pitch, channels, index, row_start, height, border, bands, table, edges, scale, q
):
    """Add the inside part of eq. 1 to q `[S*S, M]` and scale: one task for each band and half displacement.

    D_d(u) is the squared difference of the image at u and u + d, summed over channels, and B_d(u) the sum of
    D_d(u + o) over the offsets o whose window value stays in the search area. B_d gives the inside part of +d,
    at p, and of -d, at p - e (`cpu._displacements`).
    """
    tasks = bands.shape[0] * table.shape[0]
    piece_rows = max(1, PIECE // pitch)
    reach = tallest = 0
    for t in range(table.shape[0]):
        reach = max(reach, abs(table[t, EY]) + table[t, ROWS])
    for t in range(bands.shape[0]):
        tallest = max(tallest, bands[t, LAST] - bands[t, FIRST])
    difference = np.empty((piece_rows + reach + 1) * pitch, planes.dtype)
    across = np.empty((tallest + reach) * pitch, planes.dtype)
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
        # Rows of the padded image on which B is wanted, and its sums across, which reach ROWS - 1 rows further.
        low, high = border + band[FIRST] - max(ey, 0), border + band[LAST] + max(-ey, 0)
        origin = (low + move[TOP]) * pitch
        done = 0
        for row in range(low, high, piece_rows):
            end = min(row + piece_rows, high)
            wanted = (end - low + move[ROWS] - 1) * pitch
            _squared_difference(
                difference[: wanted - done + move[COLUMNS] - 1],
                planes, first, origin + done + move[LEFT], delta, stride, channels,
            )  # fmt: skip
            _sum_shifted(across[done:wanted], difference, 1, move[COLUMNS])
            done = wanted
            _sum_shifted(box[: (end - row) * pitch], across[(row - low) * pitch :], pitch, move[ROWS])
            # +d reads B at the pixel, -d at the pixel minus e.
            for side in range(2):
                offset = ey if side else 0
                m0 = starts[min(max(row - border + offset, band[FIRST]), band[LAST])]
                m1 = starts[min(max(end - border + offset, band[FIRST]), band[LAST])]
                entry = move[PLUS + side]
                target = q[entry, m0:m1]
                kind = move[PLUS_OUTSIDE + side]
                if kind == COMPLETE:
                    outside = nothing
                elif kind == CORNER:
                    outside = target
                else:
                    outside = edges[kind, m0:m1]
                _gather(target, index[m0:m1], row * pitch + (e if side else 0), box, outside, scale)


@njit(**OPTIONS)
def sum_outside(counter, energy, pitch, position, f, reach, search, edges, q):
    """Sum e(p + o) = sum over c of I_c(p + o)^2 over the offsets o that leave the search area, for each p.

    Which offsets leave depends only on by how much d exceeds `reach` = h - f in each axis: its class, -f..f
    twice. The sum of a class (cy, cx) goes to q[d] if both are non-zero, for then one d alone has it, else to
    `edges`. All sums add positive numbers: energy differences would cancel. One task for each BLOCK pixels.
    """
    k = 2 * f + 1
    h = search // 2
    count = position.size
    patch = np.empty((k, k, BLOCK), energy.dtype)
    whole = np.empty((k, BLOCK), energy.dtype)
    strip = np.empty((k, BLOCK), energy.dtype)
    # outside_rows[t]: sum of `whole` over t rows at one end; inside[t]: sum of `strip` over t rows at the other.
    outside_rows = np.zeros((f + 1, BLOCK), energy.dtype)
    inside = np.zeros((k + 1, BLOCK), energy.dtype)
    while True:
        start = next_task(counter) * BLOCK
        if start >= count:
            return
        width = min(BLOCK, count - start)
        where = position[start : start + width]
        for oy in range(k):
            whole[oy].fill(0)
            for ox in range(k):
                cell, line, shift = patch[oy, ox], whole[oy], (oy - f) * pitch + ox - f
                for j in range(width):
                    value = energy[where[j] + shift]
                    cell[j] = value
                    line[j] += value
        for side_x in (-1, 1):
            strip.fill(0)
            for depth_x in range(f + 1):
                if depth_x == 0 and side_x > 0:
                    continue
                if depth_x:
                    column = k - depth_x if side_x > 0 else depth_x - 1
                    for oy in range(k):
                        line, cell = strip[oy], patch[oy, column]
                        for j in range(BLOCK):
                            line[j] += cell[j]
                for side_y in (-1, 1):
                    # dy too large cuts off the last rows, dy too small the first.
                    for t in range(k):
                        line = strip[t if side_y > 0 else k - 1 - t]
                        below, above = inside[t], inside[t + 1]
                        for j in range(BLOCK):
                            above[j] = below[j] + line[j]
                    for t in range(f):
                        line = whole[k - 1 - t if side_y > 0 else t]
                        below, above = outside_rows[t], outside_rows[t + 1]
                        for j in range(BLOCK):
                            above[j] = below[j] + line[j]
                    for depth_y in range(f + 1):
                        if depth_y == 0 and (side_y > 0 or depth_x == 0):
                            continue
                        if depth_x and depth_y:
                            dy, dx = side_y * (reach + depth_y), side_x * (reach + depth_x)
                            target = q[(dy + h) * search + dx + h, start : start + width]
                        elif depth_y:
                            target = edges[f + side_y * depth_y, start : start + width]
                        else:
                            target = edges[k + f + side_x * depth_x, start : start + width]
                        rows, columns = outside_rows[depth_y], inside[k - depth_y]
                        for j in range(width):
                            target[j] = rows[j] + columns[j]


@njit(**OPTIONS)
def spread_outside(counter, grad_q, index, row_start, height, pitch, bands, f, reach, search, coefficients):
    """Transpose of `sum_outside`: add to coefficients `[2, N, plane]` at p + o what each p gives e(p + o).

    One task for each band of pixels. Bands are at least 2f rows high and write to the two planes in turn, so
    that no two of them meet.
    """
    k = 2 * f + 1
    h = search // 2
    # Gradient of each class, its rows' sums, and those of the classes whose windows lose a column.
    classes = np.empty((k, k, BLOCK), grad_q.dtype)
    whole = np.empty((k, BLOCK), grad_q.dtype)
    strip = np.empty((k, BLOCK), grad_q.dtype)
    weight = np.empty(BLOCK, grad_q.dtype)
    while True:
        task = next_task(counter)
        if task >= bands.shape[0]:
            return
        band = bands[task]
        plane = coefficients[task % 2, band[IMAGE]]
        first = row_start[band[IMAGE] * height + band[FIRST]]
        last = row_start[band[IMAGE] * height + band[LAST]]
        for start in range(first, last, BLOCK):
            end = min(start + BLOCK, last)
            width = end - start
            where = index[start:end]
            classes.fill(0)
            for dy in range(-h, h + 1):
                cy = max(dy - reach, 0) + min(dy + reach, 0)
                for dx in range(-h, h + 1):
                    cx = max(dx - reach, 0) + min(dx + reach, 0)
                    if cy or cx:
                        cell, source = classes[cy + f, cx + f], grad_q[(dy + h) * search + dx + h, start:end]
                        for j in range(width):
                            cell[j] += source[j]
            for cy in range(k):
                line = whole[cy]
                line.fill(0)
                for cx in range(k):
                    cell = classes[cy, cx]
                    for j in range(BLOCK):
                        line[j] += cell[j]
            for side_x in (-1, 1):
                # Offsets ox from the centre outwards: more and more classes lose them.
                strip.fill(0)
                for depth_x in range(f + 1):
                    if depth_x == 0 and side_x > 0:
                        continue
                    if depth_x:
                        for cy in range(k):
                            line, cell = strip[cy], classes[cy, f + side_x * (f + 1 - depth_x)]
                            for j in range(BLOCK):
                                line[j] += cell[j]
                    for side_y in (-1, 1):
                        for depth_y in range(f + 1):
                            if depth_y == 0 and side_y > 0:
                                continue
                            # Classes that lose the row give all they have, the others only what the column loses.
                            weight.fill(0)
                            for cy in range(-f, f + 1):
                                line = whole[cy + f] if side_y * cy > f - depth_y else strip[cy + f]
                                for j in range(BLOCK):
                                    weight[j] += line[j]
                            shift = side_y * depth_y * pitch + side_x * depth_x
                            for j in range(width):
                                plane[where[j] + shift] += weight[j]


@_helper
def _scatter(target, index, shift, values):
    """Add values[j] to target[index[j] - shift]."""
    for j in range(values.size):
        target[index[j] - shift] += values[j]


@_helper
def _add_products(out, image, start, delta, weight, at):
    """Add M(u) (I(u) - I(u + d)) + M(u - d) (I(u) - I(u - d)) to out; out begins at `start`, M at `at`."""
    n = out.size
    here, ahead, behind = (
        image[start : start + n],
        image[start + delta : start + delta + n],
        image[start - delta : start - delta + n],
    )
    weight_here, weight_behind = weight[at : at + n], weight[at - delta : at - delta + n]
    for i in range(n):
        out[i] += weight_here[i] * (here[i] - ahead[i]) + weight_behind[i] * (here[i] - behind[i])


@njit(**OPTIONS)
def spread_windows(
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
    """Transpose of `sum_windows`, up to a factor: the gradient of the inside part, partial `[slots, N * C * plane]`.

    One task for each band of rows of the padded image and slot, a fixed share of the displacements. A value of
    partial has one owner, which also sets it to zero first.
    """
    slots = partial.shape[0]
    tasks = bands.shape[0] * slots
    piece_rows = max(1, PIECE // pitch)
    tallest = 0
    for t in range(bands.shape[0]):
        tallest = max(tallest, bands[t, LAST] - bands[t, FIRST])
    # m and its sums across need a window more of rows than M, which needs the rows of u - d too.
    rows = tallest + border + window + 2
    given = np.empty((rows + 2) * pitch, planes.dtype)
    across = np.empty((rows + 2) * pitch, planes.dtype)
    weight = np.empty((rows + 2) * pitch, planes.dtype)
    while True:
        task = next_task(counter)
        if task >= tasks:
            return
        band = bands[task // slots]
        slot = task % slots
        first = front + band[IMAGE] * channels * stride
        starts = row_start[band[IMAGE] * height : (band[IMAGE] + 1) * height + 1]
        low, high = band[FIRST], band[LAST]
        for c in range(channels):
            at = (band[IMAGE] * channels + c) * stride
            partial[slot, at + low * pitch : at + high * pitch].fill(0)
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
            size = (g_high - g_low) * pitch
            given[: size + 2 * margin].fill(0)
            inner = given[margin : margin + size]
            for side in range(2):
                offset = ey if side else 0
                m0 = starts[min(max(g_low - border + offset, band[FIRST_MASKED]), band[LAST_MASKED])]
                m1 = starts[min(max(g_high - border + offset, band[FIRST_MASKED]), band[LAST_MASKED])]
                shift = g_low * pitch + (e if side else 0)
                _scatter(inner, index[m0:m1], shift, grad_q[move[PLUS + side], m0:m1])
            right = move[LEFT] + move[COLUMNS] - 1
            # M on rows u_low - dy - 1 .. u_high + 1, zero outside m_low .. m_high.
            u_low, u_high = max(low, m_low), min(high, m_high + dy)
            base = u_low - dy - 1
            weight[: (m_low - base) * pitch].fill(0)
            weight[(m_high - base) * pitch : (u_high + 1 - base) * pitch].fill(0)
            done = 0
            reached = m_low
            for row in range(u_low, u_high, piece_rows):
                end = min(row + piece_rows, u_high)
                limit = min(end, m_high)
                if limit > reached:
                    wanted = (limit - m_low + move[ROWS] - 1) * pitch
                    _sum_shifted(across[done:wanted], given[margin + done - right :], 1, move[COLUMNS])
                    done = wanted
                    _sum_shifted(
                        weight[(reached - base) * pitch : (limit - base) * pitch],
                        across[(reached - m_low) * pitch :], pitch, move[ROWS],
                    )  # fmt: skip
                    reached = limit
                for c in range(channels):
                    at = (band[IMAGE] * channels + c) * stride
                    _add_products(
                        partial[slot, at + row * pitch : at + end * pitch],
                        planes, first + c * stride + row * pitch, delta, weight, (row - base) * pitch,
                    )  # fmt: skip


@njit(**OPTIONS)
def add_up(counter, partial, coefficients, planes, front, stride, pitch, scale, out):
    """Set out `[N, C, H + 2h, W + 2h]` to all that `spread_windows` and `spread_outside` left, times scale.

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
