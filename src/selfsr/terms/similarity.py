"""The self-similarity loss as a term."""

from typing import ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from selfsr import edge_mask, self_similarity_loss
from selfsr.masks import THRESHOLD, stride_tile
from selfsr.selfsim.contract import Geometry
from selfsr.step import Batch, Clock, MaskedSum, Outputs
from selfsr.terms.base import TermSpec
from selfsr.terms.loss_weights import Weight
from selfsr.terms.pace import Pace


class SelfSimilarityTerm(TermSpec):
    """Self-similarity loss (docs/selfsim.md, eq. 1 to 5): the output's graph is pulled to the ground truth's at edges.

    The edges are the batch's own where the data bring them, else they are found in `hr` on the device; `stride` thins
    both.
    """

    takes_masks: ClassVar[bool] = True

    kind: Literal["self_similarity"] = "self_similarity"
    weight: Weight = Field(1000.0, description="what both parts are multiplied by, or how to find that in training")
    l1_weight: float = Field(1.0, ge=0, description="weight of the L1 part")
    kl_weight: float = Field(1.0, ge=0, description="weight of the KL part")
    search_px: PositiveInt = Field(Geometry.search_px, description="side of the search area, odd")
    window_px: PositiveInt = Field(
        Geometry.window_px, description="side of the compared windows, odd, at most search_px"
    )
    sigma: PositiveFloat = Field(Geometry.sigma, description="bandwidth of the similarity, for images in [0, 1]")
    normalize: bool = Field(Geometry.normalize, description="divide each row of the graph by its sum")
    threshold: PositiveFloat = Field(THRESHOLD, description="Laplacian response that makes an edge, of 255 gray levels")
    stride: PositiveInt = Field(3, description="keep every stride-th diagonal of the mask; 1 keeps all")
    two_sided: bool = Field(False, description="count pixels brighter than their neighbors as edges, too")
    pace: Pace | None = Field(
        None, description="leave out pixels whose self-paced weight is below half its peak (docs/pacing.md, eq. 14)"
    )
    backend: Literal["auto", "eager", "cpu", "triton"] = Field("auto", description="which implementation runs")
    memory_mb: PositiveFloat | None = Field(
        None, description="budget of the operator's working memory; null for 256 on a CPU, 1024 on a GPU"
    )

    @model_validator(mode="after")
    def _sizes(self) -> "SelfSimilarityTerm":
        if self.search_px % 2 == 0 or self.window_px % 2 == 0 or self.window_px > self.search_px:
            raise ValueError(
                "search_px and window_px must be odd and window_px at most search_px, "
                f"got {self.search_px} and {self.window_px}"
            )
        if self.l1_weight == 0 and self.kl_weight == 0:
            raise ValueError("l1_weight and kl_weight must not both be 0: the term would do nothing")
        return self

    @property
    def minimum_px(self) -> int:
        """What the search areas of border pixels are mirrored from, and two pixels for an edge."""
        return max(self.search_px // 2 + 1, 2)

    def mask(self, batch: Batch) -> Tensor:
        """Return which pixels enter the graph, bool `[N, 1, H, W]`."""
        if batch.mask is not None:
            if self.stride == 1:
                return batch.mask
            return batch.mask & stride_tile(*batch.mask.shape[2:], stride=self.stride, device=batch.mask.device)
        return edge_mask(batch.hr, threshold=self.threshold, stride=self.stride, two_sided=self.two_sided)

    def count(self, batch: Batch) -> Tensor:
        """Return how many pixels enter the graph."""
        return self.mask(batch).sum()

    def __call__(self, outputs: Outputs, batch: Batch, clock: Clock) -> MaskedSum:
        """Return the sum over the masked pixels, with their number; `pace` leaves it, whatever it leaves out."""
        mask = self.mask(batch)
        admitted = mask
        if self.pace is not None:
            weight = self.pace.weight(outputs.sr, batch.hr, clock).mean(dim=1, keepdim=True)
            admitted = mask & (weight >= self.pace.peak / 2)
        total = self_similarity_loss(
            outputs.sr,
            batch.hr,
            admitted,
            search_px=self.search_px,
            window_px=self.window_px,
            sigma=self.sigma,
            normalize=self.normalize,
            l1_weight=self.l1_weight,
            kl_weight=self.kl_weight,
            reduction="sum",
            backend=self.backend,
            memory_mb=self.memory_mb,
        )
        return MaskedSum(total, mask.sum())
