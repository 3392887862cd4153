"""The numba kernel from the window distances of two graphs to the loss and gradient (eq. 2 to 6).

It shares this file with the functions that it calls: numba's disk cache looks only at the age of a kernel's file.
"""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from selfsr._ops.compiled import exp, helper, next_task, share
from selfsr.selfsim.contract import FLOOR

# Pixels that are processed together: few enough for their rows to stay in the second-level cache.
BLOCK = 128
# Rows of q that are prefetched. Rows are a page or more apart, too far for the prefetcher of a processor.
ROWS_AHEAD = 4
CACHE_LINE_BYTES = 64


def _prefetch(_typing, values, i):
    """Prefetch the cache line of values[i]."""

    def generate(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        function = builder.module.declare_intrinsic(
            "llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        )
        address = builder.bitcast(builder.gep(array.data, [arguments[1]]), byte)
        # To read, to keep in all levels, data.
        builder.call(function, [address, *(ir.Constant(number, flag) for flag in (0, 3, 1))])
        return context.get_dummy_value()

    return types.none(values, i), generate


prefetch: Any = intrinsic(_prefetch)


@helper
def _prefetch_all(values):
    """Prefetch all of values."""
    for i in range(0, values.size, CACHE_LINE_BYTES // values.itemsize):
        prefetch(values, i)


@helper
def _add_exponentials(q, scale, out, total):
    """Set out to exp(scale * q) and add it to total."""
    for j in range(q.size):
        value = exp(scale * q[j])
        out[j] = value
        total[j] += value


def compare_rows(team, *arguments):
    """See `_compare_rows`."""
    return share(team, _compare_rows, arguments)


@helper
def _compare_rows(counter, q_sr, q_hr, constants, normalize, with_gradient, parts):
    """Write the loss parts of each block to parts `[blocks, 2]`, and with_gradient dL/dq over q_sr.

    docs/selfsim.md, eq. 2 to 6; X and Y are the graphs of q_sr and q_hr. The logarithm of a graph is
    ln X = t - ln Z, t = -q / sigma: the sum Z of a row and the bracket ln Y - ln X are kept in float64, since an
    error in ln Z moves an entire row, whose KL is small against its logarithms.

    constants: -1 / sigma, the floor, and the two weights divided by S*S, in the dtype of q.
    """
    entries, count = q_sr.shape
    dtype = q_sr.dtype
    scale, floor, l1_factor, kl_factor = constants[0], constants[1], constants[2], constants[3]
    one = floor / floor
    log_floor = math.log(FLOOR)
    size = min(BLOCK, count)
    x, y = np.empty((entries, size), dtype), np.empty((entries, size), dtype)
    # One array for all values that a loop writes: LLVM then has fewer overlaps to rule out.
    inverse = np.empty((2, BLOCK), dtype)
    logs = np.empty((2, BLOCK), np.float64)
    sums = np.empty((3, BLOCK), np.float64)
    while True:
        task = next_task(counter)
        start = task * BLOCK
        if start >= count:
            return
        end = min(start + BLOCK, count)
        width = end - start
        sums.fill(0)
        for d in range(entries):
            ahead = min(d + ROWS_AHEAD, entries - 1)
            _prefetch_all(q_sr[ahead, start:end])
            _prefetch_all(q_hr[ahead, start:end])
            _add_exponentials(q_sr[d, start:end], scale, x[d], sums[0])
            _add_exponentials(q_hr[d, start:end], scale, y[d], sums[1])
        for side in range(2):
            for j in range(width):
                z = sums[side, j] if normalize else 1.0
                inverse[side, j] = 1.0 / z
                logs[side, j] = math.log(z)
        sums.fill(0)
        for d in range(entries):
            q_x, q_y, x_row, y_row = q_sr[d, start:end], q_hr[d, start:end], x[d], y[d]
            for j in range(width):
                x_value, y_value = x_row[j] * inverse[0, j], y_row[j] * inverse[1, j]
                y_floored = floor if y_value < floor else y_value
                x_log = log_floor if x_value < floor else np.float64(scale * q_x[j]) - logs[0, j]
                y_log = log_floor if y_value < floor else np.float64(scale * q_y[j]) - logs[1, j]
                sums[0, j] += abs(x_value - y_value)
                sums[1, j] += y_floored * (y_log - x_log)
        l1, kl = 0.0, 0.0
        for j in range(width):
            l1 += sums[0, j]
            kl += sums[1, j]
        parts[task, 0], parts[task, 1] = l1_factor * l1, kl_factor * kl
        if not with_gradient:
            continue
        # X dL/dX is written to y, and its sum over the row to sums[2]. sign(0) is 0, and NaN stays NaN.
        for d in range(entries):
            x_row, y_row = x[d], y[d]
            for j in range(width):
                x_value, y_value = x_row[j] * inverse[0, j], y_row[j] * inverse[1, j]
                difference = x_value - y_value
                sign = one if difference > 0 else (-one if difference < 0 else difference)
                y_floored = floor if y_value < floor else y_value
                mixed = l1_factor * x_value * sign - (floor * 0 if x_value < floor else kl_factor * y_floored)
                y_row[j] = mixed
                sums[2, j] += mixed
        for j in range(width):
            logs[0, j] = sums[2, j] * inverse[0, j] if normalize else 0.0
            inverse[1, j] = logs[0, j]
        for d in range(entries):
            target, x_row, y_row = q_sr[d, start:end], x[d], y[d]
            for j in range(width):
                target[j] = scale * (y_row[j] - x_row[j] * inverse[1, j])
