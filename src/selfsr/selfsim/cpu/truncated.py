"""The numba kernels of truncated windows, which read zeros outside the search area (eq. 8, 11).

They share this file with all functions that they call: numba's disk cache looks only at the age of a kernel's file.
"""

import numpy as np

from selfsr._ops.compiled import helper, next_task, share
from selfsr.selfsim.cpu.tables import FIRST, IMAGE, LAST

# Pixels that are processed together.
BLOCK = 64


def sum_truncated(team, *arguments):
    """See `_sum_truncated`."""
    return share(team, _sum_truncated, arguments)


@helper
def _sum_truncated(counter, energy, pitch, position, f, reach, search, edges, q):
    """Sum e(p + o) = sum over c of I_c(p + o)^2 over the offsets o that leave the search area, for each p.

    The offsets that leave depend only on how far d exceeds `reach` = h - f in each axis: its class, -f..f
    twice. The sum of a class (cy, cx) goes to q[d] if both are nonzero, since only one d has it then, else to
    `edges`. All sums add positive numbers: energy differences would cancel. One task for each BLOCK pixels.
    """
    k = 2 * f + 1
    h = search // 2
    count = position.size
    patch = np.empty((k, k, BLOCK), energy.dtype)
    complete = np.empty((k, BLOCK), energy.dtype)
    strip = np.empty((k, BLOCK), energy.dtype)
    # truncated_rows[t]: sum of `complete` over t rows at one end; inside[t]: sum of `strip` over t rows at the other.
    truncated_rows = np.zeros((f + 1, BLOCK), energy.dtype)
    inside = np.zeros((k + 1, BLOCK), energy.dtype)
    while True:
        start = next_task(counter) * BLOCK
        if start >= count:
            return
        width = min(BLOCK, count - start)
        at = position[start : start + width]
        for oy in range(k):
            complete[oy].fill(0)
            for ox in range(k):
                cell, line, shift = patch[oy, ox], complete[oy], (oy - f) * pitch + ox - f
                for j in range(width):
                    value = energy[at[j] + shift]
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
                    # A large dy truncates the last rows, a small dy the first.
                    for t in range(k):
                        line = strip[t if side_y > 0 else k - 1 - t]
                        below, above = inside[t], inside[t + 1]
                        for j in range(BLOCK):
                            above[j] = below[j] + line[j]
                    for t in range(f):
                        line = complete[k - 1 - t if side_y > 0 else t]
                        below, above = truncated_rows[t], truncated_rows[t + 1]
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
                        rows, columns = truncated_rows[depth_y], inside[k - depth_y]
                        for j in range(width):
                            target[j] = rows[j] + columns[j]


def spread_truncated(team, *arguments):
    """See `_spread_truncated`."""
    return share(team, _spread_truncated, arguments)


@helper
def _spread_truncated(counter, grad_q, index, row_start, height, pitch, bands, f, reach, search, coefficients):
    """Add to coefficients `[2, N, plane]` at p + o the weight of e(p + o) in each p.

    This is the transpose of `sum_truncated`.

    One task for each band of pixels. Bands are at least 2f rows high and write to the two planes in turn, so
    that no two tasks write to one value.
    """
    k = 2 * f + 1
    h = search // 2
    # Gradient of each class, its rows' sums, and those of the classes whose windows lose a column.
    classes = np.empty((k, k, BLOCK), grad_q.dtype)
    complete = np.empty((k, BLOCK), grad_q.dtype)
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
            at = index[start:end]
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
                line = complete[cy]
                line.fill(0)
                for cx in range(k):
                    cell = classes[cy, cx]
                    for j in range(BLOCK):
                        line[j] += cell[j]
            for side_x in (-1, 1):
                # Offsets ox from the center outwards: more and more classes lose them.
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
                            # Classes that lose the row give their full sum, the others only that of the lost columns.
                            weight.fill(0)
                            for cy in range(-f, f + 1):
                                line = complete[cy + f] if side_y * cy > f - depth_y else strip[cy + f]
                                for j in range(BLOCK):
                                    weight[j] += line[j]
                            shift = side_y * depth_y * pitch + side_x * depth_x
                            for j in range(width):
                                plane[at[j] + shift] += weight[j]
