"""The numba kernels of the energy term: offsets that leave the search area, where windows read zeros (eq. 8 and 11).

They share this file with all that they call: numba's disk cache looks at the age of a kernel's file alone.
"""

import numpy as np

from selfsr._ops.compiled import helper, next_task, share
from selfsr.selfsim.cpu.tables import FIRST, IMAGE, LAST

# Pixels that are handled together.
BLOCK = 64


def sum_outside(team, *arguments):
    """See `_sum_outside`."""
    return share(team, _sum_outside, arguments)


@helper
def _sum_outside(counter, energy, pitch, position, f, reach, search, edges, q):
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


def spread_outside(team, *arguments):
    """See `_spread_outside`."""
    return share(team, _spread_outside, arguments)


@helper
def _spread_outside(counter, grad_q, index, row_start, height, pitch, bands, f, reach, search, coefficients):
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
                            # Classes that lose the row give all they have, the others only what the column loses.
                            weight.fill(0)
                            for cy in range(-f, f + 1):
                                line = whole[cy + f] if side_y * cy > f - depth_y else strip[cy + f]
                                for j in range(BLOCK):
                                    weight[j] += line[j]
                            shift = side_y * depth_y * pitch + side_x * depth_x
                            for j in range(width):
                                plane[where[j] + shift] += weight[j]
