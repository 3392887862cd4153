"""The interface of the backends of the self-similarity operator, and the types that they share.

A backend is a module with the three functions of `Backend`. Rows of the graph are stored displacement-major,
`[search_px**2, M]` for M masked pixels. Each pass over one displacement then reads and writes memory in order, and sums
over a row run over the outer axis.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

# The default of `memory_mb`: MiB of working memory in addition to the images. A GPU gets more, so that a batch of 64
# crops of 128 px takes 3 chunks instead of 11, each of which keeps it busy. The default does not depend on free memory,
# which differs between runs: the chunks change the last bits of the gradient.
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
    """Return the default budget in MiB for the device of an image."""
    return MEMORY_MB if image.device.type == "cpu" else GPU_MEMORY_MB


def sum_dtype(image: Tensor) -> torch.dtype:
    """Return the dtype in which sums over pixels are kept: float64 wherever the device has it."""
    return torch.float32 if image.device.type == "mps" else torch.float64


# The published factor of both parts of the loss in most recipes.
LOSS_WEIGHT = 1000.0
# The published floor under both graphs inside the logarithms (eq. 5).
FLOOR = 1e-10

# The most columns of a graph for which `loss_and_row_gradient` has temporary values at once.
ROW_BLOCK = 2048
# Bytes of buffers of fixed size: the compiled kernels have a few for each thread.
FIXED_BYTES = 2**20
# Fewest displacements whose maps are counted: with a tiny search area, gradients and copies of images take more.
_LEAST_MAPS = 8
# A backend may round rows up to full vectors, and put an empty search area between images.
_ROUNDING_PX = 15


def working_bytes(pixels: int, images: int, rows: int, width: int, geometry: Geometry, itemsize: int) -> int:
    """Return the most bytes that a backend may use for a chunk, besides the images and their gradient.

    These are two graphs; maps of S displacements of the padded band (one dy at a time), three more than the window
    has binary digits; and a few blocks of graph columns in `loss_and_row_gradient` or, before it, a few tables of the
    k^2 window offsets of each pixel (eq. 8).
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
    least one, counted in the image without its border. A stage allocates at most `working_bytes`. It never waits for
    the device and returns the same bits each time, for any number of threads.
    """

    def window_distances(self, padded: Tensor, pixels: Pixels, geometry: Geometry) -> Tensor:
        """Return the window distances q `[S*S, M]` of eq. 1, in the dtype of `padded`."""
        ...

    def loss_and_row_gradient(
        self,
        q_sr: Tensor,
        q_hr: Tensor,
        geometry: Geometry,
        l1_weight: float,
        kl_weight: float,
        with_gradient: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the loss and its gradient with respect to `q_sr`; both arguments may be overwritten.

        The first result is float64 `[2]` (float32 on a device without float64): the weighted L1 and KL parts,
        each summed over the M rows of the mean over a row's entries (eq. 4 and 5 times M). The second is the
        gradient `[S*S, M]` of their sum, or None if `with_gradient` is false.
        """
        ...

    def window_distances_backward(self, padded: Tensor, grad_q: Tensor, pixels: Pixels, geometry: Geometry) -> Tensor:
        """Return the gradient with respect to `padded`, given that with respect to q; may overwrite `grad_q`."""
        ...
