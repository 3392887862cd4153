"""The Triton backend: one kernel reads both images once and writes what is asked for; no map is stored unasked.

A program owns a tile of one plane, `ROWS` x `BLOCK` pixels, and walks down its rows. The horizontal moments of the
last 11 rows stay in registers; each new row completes the window of one output row (docs/pacing.md, eq. 8 and 9).
Every output has one owner and each program leaves one partial sum: no atomics, the same bits each time.

Where an image is channels-last, a row is walked as one line of W * C values whose horizontal neighbors are C apart,
so that memory is read in order in both layouts.
"""

# In a kernel, names are values of Triton's own language, which a checker of Python's types cannot follow.
# pyright: reportPossiblyUnboundVariable=false, reportOperatorIssue=false, reportCallIssue=false
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from selfsr.pacing.contract import Pace, Reduction, Ssim, compute_dtype, taps

# One value of a row for each thread, and enough rows that the ten around a tile are a small share.
BLOCK = 128
ROWS = 32
WARPS = 4

_PADDINGS = {"zero": 0, "reflect": 1, "replicate": 2}
_LOSSES = {"l1": 0, "l2": 1, "charbonnier": 2}
# What the kernel stores for each pixel, beside the gradient.
_NOTHING, _SSIM, _WEIGHT, _LOSS = range(4)


def ssim(x: Tensor, y: Tensor, options: Ssim) -> Tensor:
    """Return the SSIM map of eq. 3, clamped to [-1, 1]."""
    out = torch.empty_like(x, dtype=compute_dtype(x, y))
    _launch(x, y, x.new_ones((), dtype=out.dtype), options, Pace(1.0, "l1", 0.0), _SSIM, out=out)
    return out


def weight(x: Tensor, y: Tensor, sigma: Tensor, options: Ssim, pace: Pace) -> Tensor:
    """Return the weight of eq. 4."""
    out = torch.empty_like(x, dtype=compute_dtype(x, y))
    _launch(x, y, sigma, options, pace, _WEIGHT, out=out)
    return out


def loss(
    sr: Tensor,
    hr: Tensor,
    sigma: Tensor,
    options: Ssim,
    pace: Pace,
    reduction: Reduction,
    with_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """Return the loss of eq. 5 and the derivative of each element (eq. 6)."""
    dtype = compute_dtype(sr, hr)
    gradient = torch.empty_like(sr) if with_gradient else None
    if reduction == "none":
        value = torch.empty_like(sr, dtype=dtype)
        _launch(sr, hr, sigma, options, pace, _LOSS, out=value, gradient=gradient)
    else:
        sums = torch.empty(_grid(sr), dtype=torch.float64, device=sr.device)
        _launch(sr, hr, sigma, options, pace, _NOTHING, gradient=gradient, sums=sums)
        value = (sums.sum() / sr.numel()).to(dtype)
    return value, sr.new_empty(0) if gradient is None else gradient


def _interleaved(image: Tensor) -> int:
    """Return how many channels lie between horizontal neighbors: C if channels-last, else 1."""
    channels = image.shape[1]
    return channels if image.stride(1) == 1 and image.stride(3) == channels else 1


def _grid(image: Tensor) -> int:
    count, channels, height, width = image.shape
    group = _interleaved(image)
    return count * channels // group * triton.cdiv(height, ROWS) * triton.cdiv(width * group, BLOCK)


def _launch(
    x: Tensor,
    y: Tensor,
    sigma: Tensor,
    options: Ssim,
    pace: Pace,
    what: int,
    *,
    out: Tensor | None = None,
    gradient: Tensor | None = None,
    sums: Tensor | None = None,
) -> None:
    if x.numel() == 0:
        return
    dtype = compute_dtype(x, y)
    # A pointer that is not written needs to be valid all the same.
    out_or_x, gradient_or_x = (x if tensor is None else tensor for tensor in (out, gradient))
    walk[(_grid(x),)](
        x,
        y,
        sigma,
        out_or_x,
        gradient_or_x,
        x if sums is None else sums,
        *x.stride()[:3],
        *y.stride()[:3],
        *out_or_x.stride(),
        *gradient_or_x.stride(),
        *x.shape[1:],
        TAPS=taps(),
        C1=options.c1,
        C2=options.c2,
        PEAK=pace.peak,
        EPS2=pace.eps**2,
        PADDING=_PADDINGS[options.padding],
        LOSS=_LOSSES[pace.loss],
        WHAT=what,
        WITH_GRADIENT=gradient is not None,
        WITH_SUM=sums is not None,
        X_SW=x.stride(3),
        Y_SW=y.stride(3),
        GROUP=_interleaved(x),
        DTYPE=tl.float64 if dtype == torch.float64 else tl.float32,
        ROWS=ROWS,
        BLOCK=BLOCK,
        num_warps=WARPS,
        enable_fp_fusion=True,
    )


@triton.jit
def _source(position, size, PADDING: tl.constexpr):
    """Return which of `size` pixels stands at `position`, inside or outside; for zero padding, `position`."""
    if PADDING == 1:
        period = tl.maximum(2 * (size - 1), 1)
        position = tl.abs(position) % period
        position = tl.minimum(position, period - position)
        # A line of one pixel has a period of one, where the reflection is that pixel.
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
    """Load the k-th neighbor to the right of each pixel from both images; return s = x + y and d = x - y, [BLOCK].

    `near_x` and `near_y` point to the pixels themselves: a constant offset from them is part of the instruction.
    """
    if PADDING == 0:
        inside = inside & (column + k >= 0) & (column + k < width)
        x = tl.load(near_x + k * X_SW, mask=inside, other=0).to(DTYPE)
        y = tl.load(near_y + k * Y_SW, mask=inside, other=0).to(DTYPE)
    else:
        offset = _source(column + k, width, PADDING) - column
        x = tl.load(near_x + offset * X_SW, mask=inside, other=0).to(DTYPE)
        y = tl.load(near_y + offset * Y_SW, mask=inside, other=0).to(DTYPE)
    return x + y, x - y


@triton.jit
def _pair(low, high, pilot, tap, first, second):
    """Add two symmetric neighbors to the moments around the pilot (eq. 9)."""
    a = low - pilot
    b = high - pilot
    return first + tap * (a + b), second + tap * (a * a + b * b)


@triton.jit
def _across(
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
    """Return mean and variance of s and of d under the horizontal window (eq. 9), each [BLOCK]."""
    s, d = _load(near_x, near_y, column, 0, width, inside, X_SW, Y_SW, PADDING, DTYPE)
    first_s = tl.zeros([BLOCK], DTYPE)
    second_s, first_d, second_d = first_s, first_s, first_s
    for k in tl.static_range(1, 6):
        s_low, d_low = _load(near_x, near_y, column, -k, width, inside, X_SW, Y_SW, PADDING, DTYPE)
        s_high, d_high = _load(near_x, near_y, column, k, width, inside, X_SW, Y_SW, PADDING, DTYPE)
        first_s, second_s = _pair(s_low, s_high, s, TAPS[k], first_s, second_s)
        first_d, second_d = _pair(d_low, d_high, d, TAPS[k], first_d, second_d)
    return s + first_s, second_s - first_s * first_s, d + first_d, second_d - first_d * first_d


@triton.jit
def _down(
    m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10,
    v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10,
    TAPS: tl.constexpr,
):  # fmt: skip
    """Return mean and variance under the vertical window from 11 rows of horizontal moments (eq. 8 and 9)."""
    zero = m5 * 0
    first, second = _pair(m4, m6, m5, TAPS[1], zero, TAPS[0] * v5 + TAPS[1] * (v4 + v6))
    first, second = _pair(m3, m7, m5, TAPS[2], first, second + TAPS[2] * (v3 + v7))
    first, second = _pair(m2, m8, m5, TAPS[3], first, second + TAPS[3] * (v2 + v8))
    first, second = _pair(m1, m9, m5, TAPS[4], first, second + TAPS[4] * (v1 + v9))
    first, second = _pair(m0, m10, m5, TAPS[5], first, second + TAPS[5] * (v0 + v10))
    return m5 + first, second - first * first


@triton.jit
def _start_ring(BLOCK: tl.constexpr, DTYPE: tl.constexpr):
    """Return 11 rows of zeros, each of its own.

    If they shared one value, the first turn of a loop that shifts the ring would leave most names with the value they
    had, and Triton (3.9) would take those for constants of the loop.
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
def walk(
    x, y, sigma, out, gradient, sums,
    x_sn, x_sc, x_sh,
    y_sn, y_sc, y_sh,
    out_sn, out_sc, out_sh, out_sw,
    gradient_sn, gradient_sc, gradient_sh, gradient_sw,
    channels, height, width,
    TAPS: tl.constexpr, C1: tl.constexpr, C2: tl.constexpr, PEAK: tl.constexpr, EPS2: tl.constexpr,
    PADDING: tl.constexpr,
    LOSS: tl.constexpr,
    WHAT: tl.constexpr,
    WITH_GRADIENT: tl.constexpr,
    WITH_SUM: tl.constexpr,
    X_SW: tl.constexpr,
    Y_SW: tl.constexpr,
    GROUP: tl.constexpr,
    DTYPE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Walk down a tile: every result of eq. 3 to 6 that is asked for.

    `out` and `gradient` are images, `sums` has one float64 for each program; what is not asked for is not touched.
    A plane is one channel (GROUP 1) or GROUP interleaved channels.
    """
    strips = tl.cdiv(height, ROWS)
    blocks = tl.cdiv(width * GROUP, BLOCK)
    program = tl.program_id(0)
    plane = program // (strips * blocks)
    # Offsets of an image in a batch may pass 2^31; those in a row may not.
    image = (plane // (channels // GROUP)).to(tl.int64)
    top = program // blocks % strips * ROWS
    line = program % blocks * BLOCK + tl.arange(0, BLOCK)
    column = line // GROUP
    channel = (plane % (channels // GROUP) * GROUP + line % GROUP).to(tl.int64)
    inside = line < width * GROUP
    x += image * x_sn + channel * x_sc + column.to(tl.int64) * X_SW
    y += image * y_sn + channel * y_sc + column.to(tl.int64) * Y_SW

    total = tl.zeros([BLOCK], DTYPE)
    # The ring: mean (m) and variance (v) of s and d in the last 11 rows, the newest last.
    sm0, sm1, sm2, sm3, sm4, sm5, sm6, sm7, sm8, sm9, sm10 = _start_ring(BLOCK, DTYPE)
    sv0, sv1, sv2, sv3, sv4, sv5, sv6, sv7, sv8, sv9, sv10 = _start_ring(BLOCK, DTYPE)
    dm0, dm1, dm2, dm3, dm4, dm5, dm6, dm7, dm8, dm9, dm10 = _start_ring(BLOCK, DTYPE)
    dv0, dv1, dv2, dv3, dv4, dv5, dv6, dv7, dv8, dv9, dv10 = _start_ring(BLOCK, DTYPE)
    for step in range(0, tl.minimum(ROWS, height - top) + 10):
        row = _source(top + step - 5, height, PADDING)
        # A mask from scalars alone is one that the interpreter refuses.
        rows = column * 0 + row
        present = inside & (rows >= 0) & (rows < height)
        row = row.to(tl.int64)
        sm0, sm1, sm2, sm3, sm4, sm5, sm6, sm7, sm8, sm9 = sm1, sm2, sm3, sm4, sm5, sm6, sm7, sm8, sm9, sm10
        sv0, sv1, sv2, sv3, sv4, sv5, sv6, sv7, sv8, sv9 = sv1, sv2, sv3, sv4, sv5, sv6, sv7, sv8, sv9, sv10
        dm0, dm1, dm2, dm3, dm4, dm5, dm6, dm7, dm8, dm9 = dm1, dm2, dm3, dm4, dm5, dm6, dm7, dm8, dm9, dm10
        dv0, dv1, dv2, dv3, dv4, dv5, dv6, dv7, dv8, dv9 = dv1, dv2, dv3, dv4, dv5, dv6, dv7, dv8, dv9, dv10
        sm10, sv10, dm10, dv10 = _across(
            x + row * x_sh, y + row * y_sh, column, width, present, TAPS, X_SW, Y_SW, PADDING, DTYPE, BLOCK
        )
        if step >= 10:
            mean_s, var_s = _down(
                sm0, sm1, sm2, sm3, sm4, sm5, sm6, sm7, sm8, sm9, sm10,
                sv0, sv1, sv2, sv3, sv4, sv5, sv6, sv7, sv8, sv9, sv10, TAPS,
            )  # fmt: skip
            mean_d, var_d = _down(
                dm0, dm1, dm2, dm3, dm4, dm5, dm6, dm7, dm8, dm9, dm10,
                dv0, dv1, dv2, dv3, dv4, dv5, dv6, dv7, dv8, dv9, dv10, TAPS,
            )  # fmt: skip
            # eq. 3 in the terms of eq. 7
            a = mean_s * mean_s
            b = mean_d * mean_d
            above = ((a - b) * 0.5 + C1) * ((var_s - var_d) * 0.5 + C2)
            s = above / (((a + b) * 0.5 + C1) * ((var_s + var_d) * 0.5 + C2))
            # Comparisons written so that NaN stays NaN.
            s = tl.where(s > 1, 1.0, s)
            s = tl.where(s < -1, -1.0, s)

            here = (top + step - 10).to(tl.int64)
            result = s
            if WHAT != 1:
                # eq. 4
                z = (s + 1) / tl.load(sigma)
                w = PEAK * tl.exp(-(z * z))
                result = w
            if WHAT == 0 or WHAT == 3:
                here_x = tl.load(x + here * x_sh, mask=inside, other=0).to(DTYPE)
                here_y = tl.load(y + here * y_sh, mask=inside, other=0).to(DTYPE)
                d = here_x - here_y
                # eq. 5 and 6
                if LOSS == 0:
                    result = w * tl.abs(d)
                    # A difference of 0 or NaN is its own slope.
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
                    target = gradient + image * gradient_sn + channel * gradient_sc + here * gradient_sh
                    tl.store(target + column * gradient_sw, slope.to(gradient.dtype.element_ty), mask=inside)
            if WHAT != 0:
                tl.store(out + image * out_sn + channel * out_sc + here * out_sh + column * out_sw, result, mask=inside)
    if WITH_SUM:
        tl.store(sums + program, tl.sum(total.to(tl.float64)))
