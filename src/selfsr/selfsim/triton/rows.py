"""Triton kernel from the window distances of two graphs to the loss and its gradient (eq. 12, 13)."""

# Triton's own language: tuples grow by addition in it, and what a constant leaves out is never bound.
# ruff: noqa: RUF005
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false, reportPossiblyUnboundVariable=false
# pyright: reportAssignmentType=false, reportArgumentType=false, reportCallIssue=false

import triton
import triton.language as tl

from selfsr.selfsim.triton.layout import kernel


@triton.jit
def _join(high, low, dtype: tl.constexpr):
    """Return the number that `backend.split_float` split, `[1, 1]`."""
    return tl.full([1, 1], high, dtype) + tl.full([1, 1], low, dtype)


@triton.jit
def _column_total(values):
    """Sum each column of all tiles; across lanes in float64."""
    total = values[0]
    for i in tl.static_range(1, len(values)):
        total = total + values[i]
    return tl.sum(total.to(tl.float64), 0)


@kernel
def row_kernel(
    q_sr, q_hr, grad_q, parts, pixels, rate_high, rate_low, rate2_high, rate2_low, l1_high, l1_low, kl_high, kl_low,
    ENTRIES: tl.constexpr, NORMALIZE: tl.constexpr, WITH_GRADIENT: tl.constexpr, SIZE: tl.constexpr,
    BLOCK: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Write this block's L1 and KL (eq. 4 and 5) to `parts` [2, programs] and the gradient to `grad_q`.

    A program holds complete rows of the graph, in tiles of SIZE entries of BLOCK pixels. `rate` is -1 / sigma,
    `rate2` the same for powers of 2. `grad_q` may be `q_sr`: named twice, its addresses are not kept in registers.
    """
    LOG_FLOOR: tl.constexpr = -23.025850929940457
    # Beyond the end of a row: a distance so large that its similarity is 0.
    NONE: tl.constexpr = 1e20
    TILES: tl.constexpr = (ENTRIES + SIZE - 1) // SIZE
    dtype: tl.constexpr = q_sr.dtype.element_ty
    floor = tl.full([1, 1], 1e-10, dtype)
    rate = _join(rate_high, rate_low, dtype)
    rate2 = _join(rate2_high, rate2_low, dtype)
    l1_weight = _join(l1_high, l1_low, dtype)
    kl_weight = _join(kl_high, kl_low, dtype)
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
        # A rounding of ln Z would shift an entire row of KL, so it and the ratio of the two Z are kept in float64.
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
        # ln Y' - ln X': the difference of the logarithms, and how far each lies below the floor.
        ratio = tl.fma(p[i] - q[i], rate, shift_high) + shift_low
        below_x = tl.maximum(tl.fma(q[i], -rate, floor_x), 0.0)
        below_y = tl.maximum(tl.fma(p[i], -rate, floor_y), 0.0)
        divergence = above * (ratio + (below_y - below_x))
        if (i + 1) * SIZE > ENTRIES:
            divergence = tl.where(d + i * SIZE < ENTRIES, divergence, 0.0)
        kl = kl + (divergence,)
        l1 = l1 + (tl.abs(x_i - y_i),)
        # X times the gradient with respect to X.
        toward = tl.where(x_i >= floor, above, 0.0)
        if NORMALIZE:
            # Subtracting X changes nothing, as a row of X sums to 1, and leaves no rounding error where X = Y.
            toward -= x_i
        signed = tl.where(x_i > y_i, x_i, tl.where(x_i < y_i, -x_i, 0.0))
        pull = pull + (tl.fma(signed, l1_weight, -kl_weight * toward),)
    l1_total = tl.sum(_column_total(l1)[None, :] * _join(l1_high, l1_low, tl.float64), 1) / ENTRIES
    kl_total = tl.sum(_column_total(kl)[None, :] * _join(kl_high, kl_low, tl.float64), 1) / ENTRIES
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
