"""The Triton backend: one kernel reads both images once and writes only the requested results.

A program owns a tile of one plane, `ROWS` x `BLOCK` pixels, and goes down its rows. The horizontal moments of the last
11 rows stay in registers; each new row completes the window of one output row (docs/pacing.md, eq. 8 and 9). Every
output has one owner and each program writes one partial sum. There are no atomics, so the bits are the same each time.

In a channels-last image a row is one line of W * C values whose horizontal neighbors are C apart, so that memory is
read in order in both layouts.
"""

# Names in a kernel are values of Triton's language, which type checkers do not know.
# pyright: reportPossiblyUnboundVariable=false, reportOperatorIssue=false, reportCallIssue=false
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from selfsr._ops.launches import launch
from selfsr.losses.structural import gaussian_taps
from selfsr.pacing.contract import PacingOptions, PacingReduction, SsimOptions, compute_dtype

# One value of a row for each thread, and enough rows that the ten around a tile are a small share.
BLOCK = 128
ROWS = 32
WARPS = 4

_PADDING_CODES = {"zero": 0, "reflect": 1, "replicate": 2}
_LOSS_CODES = {"l1": 0, "l2": 1, "charbonnier": 2}
# The map that the kernel stores, in addition to the gradient.
_NOTHING, _SSIM, _WEIGHT, _LOSS = range(4)


def ssim(x: Tensor, y: Tensor, options: SsimOptions) -> Tensor:
    """Return the SSIM map of eq. 3, clamped to [-1, 1]."""
    out = torch.empty_like(x, dtype=compute_dtype(x, y))
    _launch(x, y, x.new_ones((), dtype=out.dtype), options, PacingOptions(1.0, "l1", 0.0), _SSIM, out=out)
    return out


def weight(x: Tensor, y: Tensor, sigma: Tensor, options: SsimOptions, pacing: PacingOptions) -> Tensor:
    """Return the weight of eq. 4."""
    out = torch.empty_like(x, dtype=compute_dtype(x, y))
    _launch(x, y, sigma, options, pacing, _WEIGHT, out=out)
    return out


def loss(
    sr: Tensor,
    hr: Tensor,
    sigma: Tensor,
    options: SsimOptions,
    pacing: PacingOptions,
    reduction: PacingReduction,
    with_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """Return the loss of eq. 5 and its elementwise derivative with respect to `sr` (eq. 6)."""
    dtype = compute_dtype(sr, hr)
    gradient = torch.empty_like(sr) if with_gradient else None
    if reduction == "none":
        value = torch.empty_like(sr, dtype=dtype)
        _launch(sr, hr, sigma, options, pacing, _LOSS, out=value, gradient=gradient)
    else:
        sums = torch.empty(_count_programs(sr), dtype=torch.float64, device=sr.device)
        _launch(sr, hr, sigma, options, pacing, _NOTHING, gradient=gradient, sums=sums)
        value = (sums.sum() / sr.numel()).to(dtype)
    return value, sr.new_empty(0) if gradient is None else gradient


def _count_interleaved(image: Tensor) -> int:
    """Return the distance of horizontal neighbors in elements: C if channels-last, else 1."""
    channels = image.shape[1]
    return channels if image.stride(1) == 1 and image.stride(3) == channels else 1


def _count_programs(image: Tensor) -> int:
    count, channels, height, width = image.shape
    group = _count_interleaved(image)
    return count * channels // group * triton.cdiv(height, ROWS) * triton.cdiv(width * group, BLOCK)


def _launch(
    x: Tensor,
    y: Tensor,
    sigma: Tensor,
    options: SsimOptions,
    pacing: PacingOptions,
    stored: int,
    *,
    out: Tensor | None = None,
    gradient: Tensor | None = None,
    sums: Tensor | None = None,
) -> None:
    if x.numel() == 0:
        return
    dtype = compute_dtype(x, y)
    # Unused pointers must also be valid: the kernel gets x for them.
    out_or_x, gradient_or_x = (x if tensor is None else tensor for tensor in (out, gradient))
    x_sn, x_sc, x_sh, x_sw = x.stride()
    y_sn, y_sc, y_sh, y_sw = y.stride()
    out_sn, out_sc, out_sh, out_sw = out_or_x.stride()
    gradient_sn, gradient_sc, gradient_sh, gradient_sw = gradient_or_x.stride()
    launch(
        pacing_kernel,
        _count_programs(x),
        x=x,
        y=y,
        sigma=sigma,
        out=out_or_x,
        gradient=gradient_or_x,
        sums=x if sums is None else sums,
        x_sn=x_sn,
        x_sc=x_sc,
        x_sh=x_sh,
        y_sn=y_sn,
        y_sc=y_sc,
        y_sh=y_sh,
        out_sn=out_sn,
        out_sc=out_sc,
        out_sh=out_sh,
        out_sw=out_sw,
        gradient_sn=gradient_sn,
        gradient_sc=gradient_sc,
        gradient_sh=gradient_sh,
        gradient_sw=gradient_sw,
        channels=x.shape[1],
        height=x.shape[2],
        width=x.shape[3],
        TAPS=gaussian_taps(),
        C1=options.c1,
        C2=options.c2,
        PEAK=pacing.peak,
        EPS2=pacing.eps**2,
        PADDING=_PADDING_CODES[options.padding],
        LOSS=_LOSS_CODES[pacing.loss],
        STORED=stored,
        WITH_GRADIENT=gradient is not None,
        WITH_SUM=sums is not None,
        X_SW=x_sw,
        Y_SW=y_sw,
        GROUP=_count_interleaved(x),
        DTYPE=tl.float64 if dtype == torch.float64 else tl.float32,
        ROWS=ROWS,
        BLOCK=BLOCK,
        num_warps=WARPS,
        enable_fp_fusion=True,
    )


@triton.jit
def _source_index(position, size, PADDING: tl.constexpr):
    """Return the pixel at `position`, which may be outside; with zero padding `position` itself."""
    if PADDING == 1:
        period = tl.maximum(2 * (size - 1), 1)
        position = tl.abs(position) % period
        position = tl.minimum(position, period - position)
        # In a line of one pixel the reflection is that pixel.
        position = tl.minimum(position, size - 1)
    elif PADDING == 2:
        position = tl.minimum(tl.maximum(position, 0), size - 1)
    return position


@triton.jit
def _load(
    near_x,
    near_y,
    column,
    k: tl.constexpr,
    width,
    inside,
    X_SW: tl.constexpr,
    Y_SW: tl.constexpr,
    PADDING: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """Return s = x + y and d = x - y of the k-th neighbor to the right of each pixel, `[BLOCK]`.

    `near_x` and `near_y` point to the pixels themselves: a constant offset is part of the load instruction.
    """
    if PADDING == 0:
        inside = inside & (column + k >= 0) & (column + k < width)
        x = tl.load(near_x + k * X_SW, mask=inside, other=0).to(DTYPE)
        y = tl.load(near_y + k * Y_SW, mask=inside, other=0).to(DTYPE)
    else:
        offset = _source_index(column + k, width, PADDING) - column
        x = tl.load(near_x + offset * X_SW, mask=inside, other=0).to(DTYPE)
        y = tl.load(near_y + offset * Y_SW, mask=inside, other=0).to(DTYPE)
    return x + y, x - y


@triton.jit
def _add_pair(low, high, pilot, tap, first, second):
    """Add two symmetric neighbors to the moments around the pilot (eq. 9)."""
    a = low - pilot
    b = high - pilot
    return first + tap * (a + b), second + tap * (a * a + b * b)


@triton.jit
def _horizontal_moments(
    near_x,
    near_y,
    column,
    width,
    inside,
    TAPS: tl.constexpr,
    X_SW: tl.constexpr,
    Y_SW: tl.constexpr,
    PADDING: tl.constexpr,
    DTYPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Return mean and variance of s and of d under the horizontal window (eq. 9), each `[BLOCK]`."""
    s, d = _load(near_x, near_y, column, 0, width, inside, X_SW, Y_SW, PADDING, DTYPE)
    first_s = tl.zeros([BLOCK], DTYPE)
    second_s, first_d, second_d = first_s, first_s, first_s
    for k in tl.static_range(1, 6):
        s_low, d_low = _load(near_x, near_y, column, -k, width, inside, X_SW, Y_SW, PADDING, DTYPE)
        s_high, d_high = _load(near_x, near_y, column, k, width, inside, X_SW, Y_SW, PADDING, DTYPE)
        first_s, second_s = _add_pair(s_low, s_high, s, TAPS[k], first_s, second_s)
        first_d, second_d = _add_pair(d_low, d_high, d, TAPS[k], first_d, second_d)
    return s + first_s, second_s - first_s * first_s, d + first_d, second_d - first_d * first_d


@triton.jit
def _vertical_moments(
    m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10,
    v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10,
    TAPS: tl.constexpr,
):  # fmt: skip
    """Return mean and variance under the vertical window from 11 rows of horizontal moments (eq. 8 and 9)."""
    zero = m5 * 0
    first, second = _add_pair(m4, m6, m5, TAPS[1], zero, TAPS[0] * v5 + TAPS[1] * (v4 + v6))
    first, second = _add_pair(m3, m7, m5, TAPS[2], first, second + TAPS[2] * (v3 + v7))
    first, second = _add_pair(m2, m8, m5, TAPS[3], first, second + TAPS[3] * (v2 + v8))
    first, second = _add_pair(m1, m9, m5, TAPS[4], first, second + TAPS[4] * (v1 + v9))
    first, second = _add_pair(m0, m10, m5, TAPS[5], first, second + TAPS[5] * (v0 + v10))
    return m5 + first, second - first * first


@triton.jit
def _start_ring(BLOCK: tl.constexpr, DTYPE: tl.constexpr):
    """Return 11 distinct rows of zeros.

    If they shared one value, the first iteration of a loop that shifts the ring would leave most names unchanged, and
    Triton (3.9) would treat these as constants of the loop.
    """
    return (
        tl.zeros([BLOCK], DTYPE),
        tl.zeros([BLOCK], DTYPE),
        tl.zeros([BLOCK], DTYPE),
        tl.zeros([BLOCK], DTYPE),
        tl.zeros([BLOCK], DTYPE),
        tl.zeros([BLOCK], DTYPE),
        tl.zeros([BLOCK], DTYPE),
        tl.zeros([BLOCK], DTYPE),
        tl.zeros([BLOCK], DTYPE),
        tl.zeros([BLOCK], DTYPE),
        tl.zeros([BLOCK], DTYPE),
    )


@triton.jit
def pacing_kernel(
    x, y, sigma, out, gradient, sums,
    x_sn, x_sc, x_sh,
    y_sn, y_sc, y_sh,
    out_sn, out_sc, out_sh, out_sw,
    gradient_sn, gradient_sc, gradient_sh, gradient_sw,
    channels, height, width,
    TAPS: tl.constexpr, C1: tl.constexpr, C2: tl.constexpr, PEAK: tl.constexpr, EPS2: tl.constexpr,
    PADDING: tl.constexpr,
    LOSS: tl.constexpr,
    STORED: tl.constexpr,
    WITH_GRADIENT: tl.constexpr,
    WITH_SUM: tl.constexpr,
    X_SW: tl.constexpr,
    Y_SW: tl.constexpr,
    GROUP: tl.constexpr,
    DTYPE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Compute the requested results of eq. 3 to 6 for a tile, row by row.

    `out` and `gradient` are images, `sums` has one float64 for each program; they are untouched if not requested.
    A plane is one channel (GROUP 1) or GROUP interleaved channels.
    """
    strips = tl.cdiv(height, ROWS)
    blocks = tl.cdiv(width * GROUP, BLOCK)
    program = tl.program_id(0)
    plane = program // (strips * blocks)
    # Offsets between images may exceed 2^31; those in a row may not.
    image = (plane // (channels // GROUP)).to(tl.int64)
    top = program // blocks % strips * ROWS
    line = program % blocks * BLOCK + tl.arange(0, BLOCK)
    column = line // GROUP
    channel = (plane % (channels // GROUP) * GROUP + line % GROUP).to(tl.int64)
    inside = line < width * GROUP
    x += image * x_sn + channel * x_sc + column.to(tl.int64) * X_SW
    y += image * y_sn + channel * y_sc + column.to(tl.int64) * Y_SW

    total = tl.zeros([BLOCK], DTYPE)
    # The ring: mean (m) and variance (v) of s and d in the last 11 rows, newest last.
    sm0, sm1, sm2, sm3, sm4, sm5, sm6, sm7, sm8, sm9, sm10 = _start_ring(BLOCK, DTYPE)
    sv0, sv1, sv2, sv3, sv4, sv5, sv6, sv7, sv8, sv9, sv10 = _start_ring(BLOCK, DTYPE)
    dm0, dm1, dm2, dm3, dm4, dm5, dm6, dm7, dm8, dm9, dm10 = _start_ring(BLOCK, DTYPE)
    dv0, dv1, dv2, dv3, dv4, dv5, dv6, dv7, dv8, dv9, dv10 = _start_ring(BLOCK, DTYPE)
    for step in range(0, tl.minimum(ROWS, height - top) + 10):
        row = _source_index(top + step - 5, height, PADDING)
        # The interpreter rejects a mask made of scalars only.
        rows = column * 0 + row
        present = inside & (rows >= 0) & (rows < height)
        row = row.to(tl.int64)
        sm0, sm1, sm2, sm3, sm4, sm5, sm6, sm7, sm8, sm9 = sm1, sm2, sm3, sm4, sm5, sm6, sm7, sm8, sm9, sm10
        sv0, sv1, sv2, sv3, sv4, sv5, sv6, sv7, sv8, sv9 = sv1, sv2, sv3, sv4, sv5, sv6, sv7, sv8, sv9, sv10
        dm0, dm1, dm2, dm3, dm4, dm5, dm6, dm7, dm8, dm9 = dm1, dm2, dm3, dm4, dm5, dm6, dm7, dm8, dm9, dm10
        dv0, dv1, dv2, dv3, dv4, dv5, dv6, dv7, dv8, dv9 = dv1, dv2, dv3, dv4, dv5, dv6, dv7, dv8, dv9, dv10
        sm10, sv10, dm10, dv10 = _horizontal_moments(
            x + row * x_sh, y + row * y_sh, column, width, present, TAPS, X_SW, Y_SW, PADDING, DTYPE, BLOCK
        )
        if step >= 10:
            mean_s, var_s = _vertical_moments(
                sm0, sm1, sm2, sm3, sm4, sm5, sm6, sm7, sm8, sm9, sm10,
                sv0, sv1, sv2, sv3, sv4, sv5, sv6, sv7, sv8, sv9, sv10, TAPS,
            )  # fmt: skip
            mean_d, var_d = _vertical_moments(
                dm0, dm1, dm2, dm3, dm4, dm5, dm6, dm7, dm8, dm9, dm10,
                dv0, dv1, dv2, dv3, dv4, dv5, dv6, dv7, dv8, dv9, dv10, TAPS,
            )  # fmt: skip
            # eq. 3 in the terms of eq. 7
            a = mean_s * mean_s
            b = mean_d * mean_d
            numerator = ((a - b) * 0.5 + C1) * ((var_s - var_d) * 0.5 + C2)
            s = numerator / (((a + b) * 0.5 + C1) * ((var_s + var_d) * 0.5 + C2))
            # Comparisons that keep NaN.
            s = tl.where(s > 1, 1.0, s)
            s = tl.where(s < -1, -1.0, s)

            out_row = (top + step - 10).to(tl.int64)
            result = s
            if STORED != 1:
                # eq. 4
                z = (s + 1) / tl.load(sigma)
                w = PEAK * tl.exp(-(z * z))
                result = w
            if STORED == 0 or STORED == 3:
                x_value = tl.load(x + out_row * x_sh, mask=inside, other=0).to(DTYPE)
                y_value = tl.load(y + out_row * y_sh, mask=inside, other=0).to(DTYPE)
                d = x_value - y_value
                # eq. 5 and 6
                if LOSS == 0:
                    result = w * tl.abs(d)
                    # The slope at 0 is 0, and NaN stays NaN.
                    slope = tl.where(d > 0, w, tl.where(d < 0, -w, d))
                elif LOSS == 1:
                    d = w * d
                    result = d * d
                    slope = 2 * w * d
                else:
                    d = w * d
                    result = tl.sqrt(d * d + EPS2)
                    slope = w * d / result
                if WITH_SUM:
                    total += tl.where(inside, result, 0.0)
                if WITH_GRADIENT:
                    target = gradient + image * gradient_sn + channel * gradient_sc + out_row * gradient_sh
                    tl.store(target + column * gradient_sw, slope.to(gradient.dtype.element_ty), mask=inside)
            if STORED != 0:
                target = out + image * out_sn + channel * out_sc + out_row * out_sh
                tl.store(target + column * out_sw, result, mask=inside)
    if WITH_SUM:
        tl.store(sums + program, tl.sum(total.to(tl.float64)))
