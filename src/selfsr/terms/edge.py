"""Terms at edges: their mask, and the L1 loss at edges."""

from typing import ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from selfsr import edge_mask
from selfsr.losses.edge import edge_l1_loss
from selfsr.masks import STRIDE, THRESHOLD, stride_mask
from selfsr.step import Batch, Clock, Edges, MaskedSum, Outputs
from selfsr.terms.base import TermSpec


class EdgeTermSpec(TermSpec):
    """A term at edges. The mask comes from the data if they have masks; otherwise it is computed from `hr`."""

    takes_masks: ClassVar[bool] = True

    threshold: PositiveFloat = Field(
        THRESHOLD,
        description="Laplacian response above which a pixel is an edge, in gray levels of 0 to 255; lower it for more "
        "pixels",
    )
    stride: PositiveInt = Field(
        STRIDE, description="keep every n-th diagonal of the mask, to save time; 1 keeps all edges"
    )
    two_sided: bool = Field(False, description="also count pixels that are brighter than their neighbors as edges")

    def edges(self, batch: Batch) -> Edges:
        """Return the pixels that the loss sees; terms with the same options share them."""
        key = (self.threshold, self.stride, self.two_sided)
        if key not in batch.edges:
            batch.edges[key] = Edges(self._find_mask(batch))
        return batch.edges[key]

    def mask(self, batch: Batch) -> Tensor:
        """Return the mask of the pixels that the loss sees, bool `[N, 1, H, W]`."""
        return self.edges(batch).mask

    def _find_mask(self, batch: Batch) -> Tensor:
        if batch.mask is not None:
            if self.stride == 1:
                return batch.mask
            return batch.mask & stride_mask(*batch.mask.shape[2:], stride=self.stride, device=batch.mask.device)
        return edge_mask(batch.hr, threshold=self.threshold, stride=self.stride, two_sided=self.two_sided)

    def count(self, batch: Batch) -> Tensor:
        """Return the number of masked pixels."""
        return self.edges(batch).count


class EdgeL1Term(EdgeTermSpec):
    """L1 at the edges, the control of the self-similarity loss: more weight on edges, and nothing else."""

    kind: Literal["edge_l1"] = "edge_l1"

    @property
    def minimum_px(self) -> int:
        """Two pixels for an edge."""
        return 2

    def __call__(self, outputs: Outputs, batch: Batch, clock: Clock) -> MaskedSum:
        """Return the sum over the masked pixels and their number."""
        edges = self.edges(batch)
        return MaskedSum(edge_l1_loss(outputs.sr, batch.hr, edges.mask, reduction="sum"), edges.count)
