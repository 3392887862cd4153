"""The Triton backend: where the images of a batch lie in memory, and which kernels run over them.

A launch waits for nothing and allocates through torch only, so a call can be recorded in a CUDA graph.

Layout. Images, with their reflected borders, lie side by side in panels of `pitch` columns, so that strips of 120
columns (for a window of 9) fit many small images as well as a large one. The pitch is a compile-time constant:
that the next row and channel are at constant distances removes the address arithmetic from the inner loops. It
comes in steps of a half octave, so that few kernels are ever compiled. `slots` has a pixel's number at its place
and -1 elsewhere. Around panels there are zeros (-1), wide enough for every window and displacement: no inner loop
checks a bound.
"""

import contextlib
import ctypes
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from selfsr.selfsim import eager
from selfsr.selfsim.contract import Geometry, Pixels, working_bytes
from selfsr.selfsim.triton.cuts import cut_energy_kernel, cut_gradient_kernel
from selfsr.selfsim.triton.distance import distance_kernel
from selfsr.selfsim.triton.gradient import collect_kernel, outside_gradient_kernel, spread_kernel
from selfsr.selfsim.triton.layout import pack_kernel, slot_kernel
from selfsr.selfsim.triton.rows import row_kernel

# Larger windows would not fit a thread's registers; they are left to the eager backend.
MAX_WINDOW_PX = 33
# Displacements, of the same strip, that a walking program takes; one to a warp.
ROWS = 8
# Lanes of a row; each has four columns.
LANES = 32
# Columns of a panel: the images of a batch are spread over panels of this pitch; few small ones get a smaller one,
# and an image that is wider the next power of two. Few pitches mean few compiled kernels, wide panels few wasted
# columns.
PANEL_COLUMNS = 2048
SMALL_PANEL_COLUMNS = 512
# Programs that are enough to keep a GPU busy; with fewer, columns are cut into shorter walks.
ENOUGH_PROGRAMS = 1024
# The most bytes of window sums M_d that are kept between their computation and their use.
SPREAD_BYTES = 256 * 2**20
# Values of a row pass that a program holds at once, in each of the two graphs.
ROW_PASS_VALUES = 5120


@dataclass(frozen=True)
class _Layout:
    """Sizes of the panels; see the module's text. All in pixels or counts."""

    images: int
    channels: int
    height: int
    width: int
    half_search: int
    half_window: int

    @classmethod
    def of(cls, padded: Tensor, geometry: Geometry) -> "_Layout":
        images, channels, height, width = padded.shape
        return cls(images, channels, height, width, geometry.half_search, geometry.half_window)

    @property
    def left(self) -> int:
        """Columns before the first image: a displacement, and the distance to a 16-byte boundary."""
        return (self.half_search + 6) // 4 * 4

    @property
    def valid(self) -> int:
        """Columns of a strip that have complete windows."""
        return 4 * LANES - (2 * self.half_window + 3) // 4 * 4

    @property
    def rows(self) -> int:
        """Rows of a panel: a displacement above an image, and one and a block of rows that was begun below."""
        return self.half_search + self.height + self.half_search + 3 * self.half_window + 2

    @property
    def per_panel(self) -> int:
        """Images in a panel."""
        return max(1, min(self.images, (PANEL_COLUMNS - self._around) // self.width))

    @property
    def panels(self) -> int:
        return -(-self.images // self.per_panel)

    @property
    def strips(self) -> int:
        """Strips of `valid` columns in a panel."""
        return -(-self.per_panel * self.width // self.valid)

    @property
    def tiles(self) -> int:
        """Tiles of all columns of a lane row in a panel."""
        return -(-self.per_panel * self.width // (4 * LANES))

    @property
    def _around(self) -> int:
        """Columns that a panel needs beside its images: on the left, and the most that a last tile reads."""
        return self.left + 4 * LANES + self.half_search

    @property
    def pitch(self) -> int:
        """Columns of a panel with what is around the images."""
        need = self._around + max((self.strips - 1) * self.valid, (self.tiles - 1) * 4 * LANES)
        if need <= SMALL_PANEL_COLUMNS:
            return SMALL_PANEL_COLUMNS
        return max(PANEL_COLUMNS, _power_of_two(need))

    def constants(self) -> dict[str, int]:
        """The compile-time constants that most kernels share."""
        h, f = self.half_search, self.half_window
        return {"H": h, "F": f, "PITCH": self.pitch, "LEFT": self.left, "TOP": h}

    def walks(self, displacements: int, panels: int, rows: int) -> tuple[int, int, int]:
        """Return groups of displacements, rows of a walk, and walks one below the other."""
        groups = -(-displacements // ROWS)
        few = ENOUGH_PROGRAMS // (groups * self.strips * panels)
        chunks = max(1, min(few, rows // (4 * (2 * self.half_window + 1))))
        chunk_rows = -(-rows // chunks)
        return groups, chunk_rows, -(-rows // chunk_rows)


def class_size(layout: _Layout, far_y: bool, far_x: bool) -> int:
    """Count the displacements of a class; `triton_walk.displacements` lists them."""
    f, inner = layout.half_window, layout.half_search - layout.half_window
    positive, other = (f, f) if far_x else (inner, inner + 1)
    return positive * (f if far_y else inner + 1) + other * (f if far_y else inner)


def _classes(layout: _Layout) -> Iterator[tuple[bool, bool, int]]:
    for far_y in (False, True):
        for far_x in (False, True):
            size = class_size(layout, far_y, far_x)
            if size:
                yield far_y, far_x, size


class _Panels:
    """What both directions need: the packed images, and the masked pixels among them."""

    def __init__(self, padded: Tensor, pixels: Pixels, geometry: Geometry):
        layout = self.layout = _Layout.of(padded, geometry)
        self.pixels = Pixels(*(c.contiguous() for c in pixels))
        self.count = pixels.image.numel()
        area = (layout.panels, layout.rows)
        self.planes = padded.new_empty(4, *area, layout.channels, layout.pitch)
        self.energy = padded.new_empty(*area, layout.pitch)
        self.slots = padded.new_full((4, *area, layout.pitch), -1, dtype=torch.int32)
        self.touched = padded.new_zeros((layout.panels, layout.strips, 2), dtype=torch.int32)
        block = 512
        blocks = -(-layout.pitch // block)
        pack_kernel[(blocks * layout.rows * layout.panels,)](
            padded, self.planes, self.energy, layout.images, layout.per_panel, layout.height, layout.width,
            layout.rows, layout.panels, C=layout.channels, PITCH=layout.pitch, LEFT=layout.left,
            TOP=layout.half_search, BLOCK=block, num_warps=4, enable_fp_fusion=False,
        )  # fmt: skip
        slot_kernel[(-(-self.count // 128),)](
            *self.pixels, self.slots, self.touched, self.count, layout.per_panel, layout.width, layout.rows,
            layout.panels, layout.strips, H=layout.half_search, PITCH=layout.pitch, LEFT=layout.left,
            TOP=layout.half_search, VALID=layout.valid, BLOCK=128, num_warps=4, enable_fp_fusion=False,
        )  # fmt: skip

    @property
    def bytes(self) -> int:
        """Bytes of all that is kept here."""
        return sum(t.numel() * t.element_size() for t in (self.planes, self.energy, self.slots, self.touched))


def graph_sums(padded: Tensor, pixels: Pixels, geometry: Geometry) -> Tensor:
    """Return the window distances q `[S*S, M]`; see `contract.Backend`.

    Windows above `MAX_WINDOW_PX` are computed by `eager`.
    """
    if geometry.window_px > MAX_WINDOW_PX:
        return eager.graph_sums(padded, pixels, geometry)
    with _device_of(padded):
        panels = _Panels(padded, pixels, geometry)
        layout, count = panels.layout, panels.count
        q = padded.new_empty(geometry.entries, count)
        cut_energy = padded.new_empty(geometry.window_px**2, count)
        cut_energy_kernel[(-(-count // 128),)](
            panels.energy, *panels.pixels, cut_energy, q, count, layout.per_panel, layout.width, layout.rows,
            **layout.constants(), BLOCK=128, num_warps=4, enable_fp_fusion=False,
        )  # fmt: skip
        # Window sums are needed for masked pixels, and up to E rows above them.
        rows = layout.height - layout.half_search - layout.half_window
        for far_y, far_x, size in _classes(layout):
            groups, chunk_rows, chunks = layout.walks(size, layout.panels, rows)
            distance_kernel[(groups * chunks * layout.strips * layout.panels,)](
                panels.planes, panels.slots, panels.touched, cut_energy, q, count, size, groups, layout.strips,
                layout.rows, layout.panels, layout.height, chunk_rows, chunks, **layout.constants(),
                C=layout.channels, FAR_Y=far_y, FAR_X=far_x, ROWS=ROWS, LANES=LANES, num_warps=ROWS,
                enable_fp_fusion=False,
            )  # fmt: skip
        return q


def row_pass(
    q_sr: Tensor, q_hr: Tensor, geometry: Geometry, l1_weight: float, kl_weight: float, with_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the two parts of the loss and the gradient towards `q_sr`, in its place; see `contract.Backend`."""
    q_sr, q_hr = q_sr.contiguous(), q_hr.contiguous()
    entries, count = q_sr.shape
    size = max(min(_power_of_two(entries), 64), _power_of_two(-(-entries // 16)))
    held = -(-entries // size) * size
    block = min(32, _power_of_two(max(1, ROW_PASS_VALUES // held) + 1) // 2)
    programs = -(-count // block)
    rate = -1 / geometry.sigma
    with _device_of(q_sr):
        parts = q_sr.new_empty((2, programs), dtype=torch.float64)
        row_kernel[(programs,)](
            q_sr, q_hr, q_sr, parts, count, *halves(rate), *halves(rate / math.log(2)), *halves(l1_weight),
            *halves(kl_weight), ENTRIES=entries, NORMALIZE=geometry.normalize, WITH_GRADIENT=with_gradient,
            SIZE=size, BLOCK=block, WIDE=size * count >= 2**31, num_warps=8, enable_fp_fusion=False,
        )  # fmt: skip
        return parts.sum(1), q_sr if with_gradient else None


def graph_backward(padded: Tensor, grad_q: Tensor, pixels: Pixels, geometry: Geometry) -> Tensor:
    """Return the gradient towards `padded`; see `contract.Backend`."""
    if geometry.window_px > MAX_WINDOW_PX:
        return eager.graph_backward(padded, grad_q, pixels, geometry)
    with _device_of(padded):
        grad_q = grad_q.contiguous()
        panels = _Panels(padded, pixels, geometry)
        layout = panels.layout
        grad = padded.new_empty(padded.shape)
        _start_gradient(panels, grad_q, grad, geometry)
        plane = (layout.half_search + layout.height) * layout.pitch
        planes = _spread_planes(panels, geometry, plane * padded.element_size())
        longest = max((size for *_, size in _classes(layout)), default=0)
        together = max(1, min(layout.panels, planes // max(longest, 1)))
        at_once = min(longest, max(1, planes // together))
        spread = padded.new_empty(at_once * together * plane)
        parts = [
            (far_y, far_x, first, min(at_once, size - first))
            for far_y, far_x, size in _classes(layout)
            for first in range(0, size, at_once)
        ]
        for first_panel in range(0, layout.panels, together):
            spread.zero_()
            for part in parts:
                _add_gradient(panels, grad_q, grad, spread, first_panel, together, part, part == parts[-1])
        return grad


def _start_gradient(panels: _Panels, grad_q: Tensor, grad: Tensor, geometry: Geometry) -> None:
    layout, count = panels.layout, panels.count
    cut_gradients = grad_q.new_empty(geometry.window_px**2, count)
    cut_gradient_kernel[(-(-count // 128),)](
        grad_q, cut_gradients, count, H=layout.half_search, F=layout.half_window, BLOCK=128,
        num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    outside_gradient_kernel[(layout.tiles * layout.height * layout.panels,)](
        panels.planes, panels.slots, panels.touched, cut_gradients, grad, count, layout.images, layout.per_panel,
        layout.strips, layout.tiles, layout.rows, layout.height, layout.width, **layout.constants(),
        C=layout.channels, VALID=layout.valid, BLOCK=4 * LANES, num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip


def _spread_planes(panels: _Panels, geometry: Geometry, plane_bytes: int) -> int:
    """Return how many planes of M_d, of one panel each, may be kept at once: what the contract leaves."""
    h, layout = geometry.half_search, panels.layout
    itemsize = panels.planes.element_size()
    allowed = working_bytes(
        panels.count, layout.images, layout.height - 2 * h, layout.width - 2 * h, geometry, itemsize
    )
    taken = panels.count * (geometry.entries + geometry.window_px**2) * itemsize + panels.bytes
    # A walking program fills ROWS of them.
    return max(ROWS, min(allowed - taken, SPREAD_BYTES) // plane_bytes)


def _add_gradient(
    panels: _Panels,
    grad_q: Tensor,
    grad: Tensor,
    spread: Tensor,
    first_panel: int,
    together: int,
    part: tuple[bool, bool, int, int],
    is_last: bool,
) -> None:
    """Add a part of a class, given by its first displacement and their number, in some panels."""
    layout = panels.layout
    far_y, far_x, first, size = part
    count = min(together, layout.panels - first_panel)
    groups, chunk_rows, chunks = layout.walks(size, count, layout.height)
    spread_kernel[(groups * chunks * layout.strips * count,)](
        grad_q, panels.slots, panels.touched, spread, panels.count, first, size, groups, first_panel, count,
        layout.strips, layout.rows, layout.panels, layout.height, chunk_rows, chunks, **layout.constants(),
        FAR_Y=far_y, FAR_X=far_x, ROWS=ROWS, LANES=LANES, num_warps=ROWS, enable_fp_fusion=False,
    )  # fmt: skip
    bands = -(-layout.height // ROWS)
    collect_kernel[(layout.tiles * bands * count,)](
        panels.planes, panels.touched, spread, grad, first, size, int(is_last), first_panel, count, layout.panels,
        layout.images, layout.per_panel, layout.strips, layout.tiles, layout.rows, layout.height, layout.width,
        **layout.constants(), C=layout.channels, FAR_Y=far_y, FAR_X=far_x, VALID=layout.valid, ROWS=ROWS,
        WIDTH=4 * LANES, num_warps=ROWS, enable_fp_fusion=False,
    )  # fmt: skip


def _power_of_two(least: int) -> int:
    return 1 << max(least - 1, 0).bit_length()


def halves(value: float) -> tuple[float, float]:
    """Take a number apart into two that float32, the only float that Triton takes as an argument, can hold."""
    high = ctypes.c_float(value).value
    return high, value - high


def _device_of(tensor: Tensor) -> contextlib.AbstractContextManager:
    """Make the tensor's GPU the current one, on which Triton launches."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()
