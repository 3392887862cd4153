"""The self-similarity loss as a term."""

import inspect
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from selfsr import self_similarity_loss
from selfsr.selfsim.contract import LOSS_WEIGHT, Geometry
from selfsr.step import Batch, Clock, MaskedSum, Outputs
from selfsr.terms.edge import EdgeTermSpec
from selfsr.terms.loss_weights import Weight
from selfsr.terms.pace import Pace

# Options of the term with the same name and meaning in the public loss; other names are ignored by `model_dump`.
_LOSS_OPTIONS = set(inspect.signature(self_similarity_loss).parameters)


class SelfSimilarityTerm(EdgeTermSpec):
    """Distance of the self-similarity graphs of output and ground truth at edges (docs/selfsim.md, eq. 1 to 5).

    The mask is that of `EdgeTermSpec`.
    """

    kind: Literal["self_similarity"] = "self_similarity"
    weight: Weight = Field(LOSS_WEIGHT, description="factor of both parts, or how to calibrate it in training")
    l1_weight: float = Field(1.0, ge=0, description="weight of the L1 distance of the graphs")
    kl_weight: float = Field(1.0, ge=0, description="weight of the KL divergence of the graphs")
    search_px: PositiveInt = Field(
        Geometry.search_px, description="side of the search area, in pixels, odd; cost grows with its square"
    )
    window_px: PositiveInt = Field(
        Geometry.window_px, description="side of the compared windows, in pixels, odd, at most search_px"
    )
    sigma: PositiveFloat = Field(
        Geometry.sigma,
        description="bandwidth of the similarity, for images in [0, 1]; larger values count less similar windows as "
        "well",
    )
    normalize: bool = Field(
        Geometry.normalize,
        description="divide each row of the graph by its sum; required for a meaningful KL divergence",
    )
    pace: Pace | None = Field(
        None,
        description="leave out pixels whose self-paced weight is below half of its peak (docs/pacing.md, eq. 14); null "
        "keeps all",
    )
    backend: Literal["auto", "eager", "cpu", "triton"] = Field(
        "auto", description="implementation; auto selects the fastest one that is available"
    )
    memory_mb: PositiveFloat | None = Field(
        None,
        description="memory budget of the operator, in MB; null is 256 on a CPU and 1024 on a GPU; lower it if memory "
        "runs out",
    )

    @model_validator(mode="after")
    def _check_options(self) -> "SelfSimilarityTerm":
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
        """Smallest side whose border can be reflected into a search area; at least two pixels for an edge."""
        return max(self.search_px // 2 + 1, 2)

    def __call__(self, outputs: Outputs, batch: Batch, clock: Clock) -> MaskedSum:
        """Return the sum over the masked pixels and their number; `pace` leaves out pixels but keeps the number."""
        edges = self.edges(batch)
        admitted, row_counts = edges.mask, edges.row_counts()
        if self.pace is not None:
            weight = self.pace.weight(outputs.sr, batch.hr, clock).mean(dim=1, keepdim=True)
            admitted, row_counts = edges.mask & (weight >= self.pace.peak / 2), None
        options = self.model_dump(include=_LOSS_OPTIONS)
        total = self_similarity_loss(outputs.sr, batch.hr, admitted, reduction="sum", row_counts=row_counts, **options)
        return MaskedSum(total, edges.count)
