"""What every backend of the self-similarity operator provides, and the words they share.

A backend is a module with three functions of the names and signatures in `Backend`. Rows of the graph are
kept displacement-major, `[search_px**2, M]` for M masked pixels: each pass over one displacement then reads
and writes memory in order, and sums over a row run over the outer axis.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor


@dataclass(frozen=True)
class Geometry:
    """Sizes and constants of a graph (docs/selfsim.md, eq. 1 to 3).

    Attributes:
        search_px: side S of the square search area around a pixel, odd.
        window_px: side k of the compared windows, odd, at most `search_px`.
        sigma: bandwidth of the similarity `exp(-q / sigma)`, for images in [0, 1].
        normalize: whether each row is divided by its sum.
    """

    search_px: int
    window_px: int
    sigma: float
    normalize: bool

    @property
    def half_search(self) -> int:
        """h: how far the search area reaches from its centre; also the width of the reflected border."""
        return self.search_px // 2

    @property
    def half_window(self) -> int:
        """f: how far a window reaches from its centre."""
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


class Backend(Protocol):
    """The three stages of the operator; `padded` is `[N, C, H + 2h, W + 2h]`, contiguous, float32 or float64."""

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

        The first result is float64 `[2]`: the weighted L1 and KL parts, each summed over the M rows of the
        mean over a row's entries (eq. 4 and 5 times M). The second is the gradient `[S*S, M]` of their sum,
        or None if `with_gradient` is false.
        """
        ...

    def graph_backward(self, padded: Tensor, grad_q: Tensor, pixels: Pixels, geometry: Geometry) -> Tensor:
        """Return the gradient towards `padded`, of its shape, given the gradient towards q; may overwrite it."""
        ...
