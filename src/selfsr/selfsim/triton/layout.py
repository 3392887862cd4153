"""Triton kernels that write images and pixel numbers into panels, and functions to find them there.

`packing` explains panels, planes and slots.
"""

# Triton's own language, which a type checker of Python cannot follow.
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false, reportPossiblyUnboundVariable=false
# pyright: reportAssignmentType=false, reportArgumentType=false, reportCallIssue=false

import inspect
from typing import Any

import triton
import triton.language as tl

# Row numbers are subtracted from this, so that an atomic maximum finds the lowest one.
ROW_LIMIT = tl.constexpr(1 << 30)


def kernel(function) -> Any:
    """Specialize a kernel on its constants only: a count of 1 or a multiple of 16 makes no new one."""
    runtime = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.annotation is parameter.empty
    ]
    return triton.jit(function, do_not_specialize=runtime)


@kernel
def pack_kernel(
    padded, planes, energy, images, per_panel, height, width, rows, panels,
    C: tl.constexpr, PITCH: tl.constexpr, LEFT: tl.constexpr, TOP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write images into `planes` [4, panels, rows, C, PITCH], copy s moved s columns to the left.

    Whatever column a displacement starts at, one of the copies has it on a 16-byte boundary. Around the images
    there are zeros. `energy` [panels, rows, PITCH] is the sum of squares over the channels.
    """
    pid = tl.program_id(0)
    blocks: tl.constexpr = (PITCH + BLOCK - 1) // BLOCK
    row = pid // blocks % rows
    panel = pid // blocks // rows
    column = pid % blocks * BLOCK + tl.arange(0, BLOCK)
    x = column - LEFT
    # One value to a column: the interpreter cannot mix masks of vectors and scalars.
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
def locate_pixels(image_of, row_of, column_of, n, pixels, per_panel, width, H: tl.constexpr, LEFT: tl.constexpr):
    """Return panel, row (without the zeros above) and column of pixel `n`, and whether it exists."""
    listed = n < pixels
    image = tl.load(image_of + n, mask=listed, other=0)
    row = tl.load(row_of + n, mask=listed, other=0).to(tl.int32) + H
    column = tl.load(column_of + n, mask=listed, other=0).to(tl.int32) + H
    return image // per_panel, row, LEFT + (image % per_panel).to(tl.int32) * width + column, listed


@kernel
def slot_kernel(
    image_of, row_of, column_of, slots, touched, pixels, per_panel, width, rows, panels, strips,
    H: tl.constexpr, PITCH: tl.constexpr, LEFT: tl.constexpr, TOP: tl.constexpr, VALID: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Write each pixel's number into `slots` [4, panels, rows, PITCH], and mark the strips near it.

    `touched` [panels, strips, 2]: one past the last row with a pixel near the strip; ROW_LIMIT minus the first.
    """
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    panel, row, column, listed = locate_pixels(image_of, row_of, column_of, n, pixels, per_panel, width, H, LEFT)
    line = (panel * rows + (TOP + row)) * PITCH
    for s in tl.static_range(4):
        tl.store(slots + s * panels.to(tl.int64) * rows * PITCH + line + (column - s), n, mask=listed)
    first = tl.maximum(column - LEFT - H, 0) // VALID
    last = tl.minimum((column - LEFT + H) // VALID, strips - 1)
    for i in tl.static_range(2 * H // VALID + 2):
        entry = touched + (panel * strips + (first + i)) * 2
        near = listed & (first + i <= last)
        tl.atomic_max(entry, row + 1, mask=near)
        tl.atomic_max(entry + 1, -row + ROW_LIMIT, mask=near)


@triton.jit
def touched_rows(touched, x0, strips, H: tl.constexpr, VALID: tl.constexpr, WIDTH: tl.constexpr):
    """Return the first row that a pixel near columns [x0, x0 + WIDTH) can change, and one past the last."""
    first = 0
    last = 0
    for i in tl.static_range((WIDTH - 1) // VALID + 2):
        strip = tl.minimum(x0 // VALID + i, strips - 1)
        first = tl.maximum(first, tl.load(touched + strip * 2 + 1))
        last = tl.maximum(last, tl.load(touched + strip * 2))
    return -first + ROW_LIMIT - H, last + tl.where(last > 0, H, 0)
