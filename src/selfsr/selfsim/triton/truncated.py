"""Triton kernels of truncated windows: sums over offsets outside the search area (eq. 8 and 11)."""

# Triton's own language: tuples grow by addition in it, and what a constant leaves out is never bound.
# ruff: noqa: RUF005
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false, reportPossiblyUnboundVariable=false
# pyright: reportAssignmentType=false, reportArgumentType=false, reportCallIssue=false

import triton
import triton.language as tl

from selfsr.selfsim.triton.layout import kernel, locate_pixels


@triton.jit
def _sum_truncated(square, step_y, step_x, sums, pixels, n, listed, R: tl.constexpr, F: tl.constexpr):
    """Write sums over parts of the square [-R, R]^2 around `square`, for all truncations of both axes.

    Entry (F + i, F + j) of `sums` [2 F + 1, 2 F + 1, pixels] is over the i last rows (first, if negative) and
    the j last (first) columns. Every sum begins with the rows and columns at the rim.
    """
    K: tl.constexpr = 2 * F + 1
    zero = tl.zeros(n.shape, sums.dtype.element_ty)
    if F > 0:
        tl.store(sums + (F * K + F) * pixels + n, zero, mask=listed)
    for side in tl.static_range(2):
        sign = 1 - 2 * side
        # j = 0: full rows, from the rim inwards.
        total = zero
        for i in range(1, F + 1):
            line = square + sign * (R + 1 - i) * step_y
            for x in range(-R, R + 1):
                total += tl.load(line + x * step_x, mask=listed, other=0.0)
            tl.store(sums + ((sign * i + F) * K + F) * pixels + n, total, mask=listed)
    tl.debug_barrier()
    for side in tl.static_range(2 if F > 0 else 0):
        # The other j: to the full rows, the outer columns of the other rows, from the opposite rim.
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
                    edge += tl.load(line + (1 - 2 * end) * (R + 1 - j) * step_x, mask=listed, other=0.0)
                    added = added + (columns[end * F + j - 1] + edge,)
            columns = added
            # Rows up to y remain if R - y are truncated; without truncation both sides would write the same entry.
            i = R - y
            if (i <= F) & (i >= side):
                entry = sums + (sign * i + F) * K * pixels + n
                whole = tl.load(entry + F * pixels, mask=listed, other=0.0)
                for end in tl.static_range(2):
                    for j in tl.static_range(1, F + 1):
                        x = F + (1 - 2 * end) * j
                        tl.store(entry + x * pixels, columns[end * F + j - 1] + whole, mask=listed)


@kernel
def truncated_energy_kernel(
    energy, image_of, row_of, column_of, sums, q, pixels, per_panel, width, rows,
    H: tl.constexpr, F: tl.constexpr, PITCH: tl.constexpr, LEFT: tl.constexpr, TOP: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the truncated term of eq. 8 for each class of displacements and pixel, `sums` [k, k, pixels].

    Also write the entries of q that no walk reaches: 0 at d = 0.
    """
    S: tl.constexpr = 2 * H + 1
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    count = pixels.to(tl.int64)
    panel, row, column, listed = locate_pixels(image_of, row_of, column_of, n, pixels, per_panel, width, H, LEFT)
    zero = tl.zeros([BLOCK], q.dtype.element_ty)
    tl.store(q + (S * S // 2) * count + n, zero, mask=listed)
    square = energy + (panel * rows + (TOP + row)) * PITCH + column
    if F > 0:
        _sum_truncated(square, PITCH, 1, sums, count, n, listed, F, F)


@kernel
def truncated_weight_kernel(grad_q, sums, pixels, H: tl.constexpr, F: tl.constexpr, BLOCK: tl.constexpr):
    """Write the weights of eq. 11 for each window offset and pixel, `sums` [k, k, pixels].

    Offset o sums the gradients of those d for which d + o lies outside the search area.
    """
    S: tl.constexpr = 2 * H + 1
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    count = pixels.to(tl.int64)
    _sum_truncated(grad_q + (S * S // 2) * count + n, S * count, count, sums, count, n, n < pixels, H, F)
