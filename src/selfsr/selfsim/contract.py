"""What every backend of the self-similarity operator provides, and the words they share.

A backend is a module with three functions of the names and signatures in `Backend`. Rows of the graph are
kept displacement-major, `[search_px**2, M]` for M masked pixels: each pass over one displacement then reads
and writes memory in order, and sums over a row run over the outer axis.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

# MiB that a call may take beside its images, unless the caller says otherwise. A GPU gets more: a batch of 64 crops of
# 128 px then takes 3 pieces instead of 11, so that each keeps it busy. Not a share of the memory that is free, which
# differs from run to run: how the work is cut shows in the last bits of the gradient.
MEMORY_MB = 256.0
GPU_MEMORY_MB = 1024.0


@dataclass(frozen=True)
class Geometry:
    """Sizes and constants of a graph (docs/selfsim.md, eq. 1 to 3); the defaults are the published ones.

    Attributes:
        search_px: side S of the square search area around a pixel, odd.
        window_px: side k of the compared windows, odd, at most `search_px`.
        sigma: bandwidth of the similarity `exp(-q / sigma)`, for images in [0, 1].
        normalize: whether each row is divided by its sum.
    """

    search_px: int = 25
    window_px: int = 9
    sigma: float = 0.004
    normalize: bool = True

    @property
    def half_search(self) -> int:
        """h: how far the search area reaches from its center; also the width of the reflected border."""
        return self.search_px // 2

    @property
    def half_window(self) -> int:
        """f: how far a window reaches from its center."""
        return self.window_px // 2

    @property
    def entries(self) -> int:
        """S*S: entries in a row of the graph, one for each displacement (row-major over dy, then dx)."""
        return self.search_px**2


class Pixels(NamedTuple):
    """The masked pixels of a batch, ordered by image, then row, then column; int64 `[M]` each."""

    image: Tensor
    row: Tensor
    column: Tensor


def default_memory_mb(image: Tensor) -> float:
    """Return the budget in MiB where the caller names none."""
    return MEMORY_MB if image.device.type == "cpu" else GPU_MEMORY_MB


def sum_dtype(image: Tensor) -> torch.dtype:
    """Return the dtype in which sums over pixels are kept: float64 wherever the device has it."""
    return torch.float32 if image.device.type == "mps" else torch.float64


# How many columns of a graph a row pass may hold in temporary values at once.
ROW_BLOCK = 2048
# What blocks of fixed size take, whatever the images: the compiled kernels have a few for each thread.
FIXED_BYTES = 2**20
# Least displacements whose maps count: with a tiny search area a gradient and copies of the images are the larger part.
_LEAST_MAPS = 8
# A backend may round rows up to whole vectors, and put an empty search area between images.
_ROUNDING_PX = 15


def working_bytes(pixels: int, images: int, rows: int, width: int, geometry: Geometry, itemsize: int) -> int:
    """Bytes that a backend may take for a chunk, beside the images and their gradient.

    Two graphs; maps of S displacements, as many as the window has binary digits and three more, of the padded
    band (a backend computes one dy after another); and a few blocks of graph columns in the row pass or, before it, a
    few tables of the k^2 window offsets of each pixel (eq. 8).
    """
    h = geometry.half_search
    area = images * (rows + 3 * h + 1) * (width + 2 * h + _ROUNDING_PX)
    maps = (geometry.window_px.bit_length() + 3) * max(geometry.search_px, _LEAST_MAPS) * area
    blocks = 8 * geometry.entries * min(pixels, ROW_BLOCK)
    offsets = 5 * geometry.window_px**2 * pixels
    return FIXED_BYTES + itemsize * (2 * geometry.entries * pixels + maps + max(blocks, offsets))


class Backend(Protocol):
    """The three stages of the operator.

    `padded` is `[N, C, H + 2h, W + 2h]`, contiguous, float32 or float64; `pixels` are distinct, in order, at
    least one, counted in the image without its border. What a stage allocates, `working_bytes` bounds. A stage
    never waits for the device and gives the same bits each time, whatever the number of threads.
    """

    def graph_sums(self, padded: Tensor, pixels: Pixels, geometry: Geometry) -> Tensor:
        """Return the window distances q `[S*S, M]` of eq. 1, in the dtype of `padded`."""
        ...

    def row_pass(
        self,
        q_sr: Tensor,
        q_hr: Tensor,
        geometry: Geometry,
        l1_weight: float,
        kl_weight: float,
        with_gradient: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the loss and its gradient towards `q_sr`; both arguments may be overwritten.

        The first result is float64 `[2]` (float32 on a device without float64): the weighted L1 and KL parts,
        each summed over the M rows of the mean over a row's entries (eq. 4 and 5 times M). The second is the
        gradient `[S*S, M]` of their sum, or None if `with_gradient` is false.
        """
        ...

    def graph_backward(self, padded: Tensor, grad_q: Tensor, pixels: Pixels, geometry: Geometry) -> Tensor:
        """Return the gradient towards `padded`, of its shape, given the gradient towards q; may overwrite it."""
        ...
