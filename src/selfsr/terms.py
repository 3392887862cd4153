"""The loss entries of a recipe: what a term of the objective is, and how it is computed in a step.

A term is called with the output, the batch and the clock. It returns its weighted loss: a mean over the batch,
or, where a mask chooses the pixels, a `Ratio` that the loop divides by the count over all processes.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from selfsr import SelfPacedLoss, edge_mask, self_similarity_loss
from selfsr.data.batch import Batch
from selfsr.losses.pixel import CHARBONNIER_EPS, charbonnier, l1, l2
from selfsr.masks import THRESHOLD
from selfsr.methods import Clock, Ratio
from selfsr.pacing import ALPHA, BETA, PEAK
from selfsr.selfsim.contract import MEMORY_MB, Geometry
from selfsr.spec import Spec


class Pace(Spec):
    """Self-paced pixel weighting (docs/pacing.md, eq. 3 and 4): a pixel weighs `peak * exp(-((ssim + 1) / sigma)^2)`.

    `sigma = alpha * epoch + beta` grows with the fractional epoch of the clock, whose length is the recipe's
    `steps_per_epoch`: that number sets the speed of the curriculum.
    """

    alpha: float = Field(ALPHA, ge=0, description="growth of sigma in an epoch")
    beta: float = Field(BETA, ge=0, description="sigma at the start")
    peak: PositiveFloat = Field(PEAK, description="largest weight")
    data_range: PositiveFloat = Field(1.0, description="range of the SSIM constants; 1/255 is the published code's")
    padding: Literal["zero", "reflect", "replicate"] = Field("zero", description="border of the SSIM map")

    @model_validator(mode="after")
    def _moves(self) -> "Pace":
        if self.alpha == 0 and self.beta == 0:
            raise ValueError("alpha and beta must not both be 0: every weight would be 0 and nothing would train")
        return self


class _PixelTerm(Spec):
    weight: PositiveFloat = Field(1.0, description="what the loss is multiplied by")
    pace: Pace | None = Field(None, description="weigh the pixels by the self-paced schedule")

    def count(self, batch: Batch) -> Tensor | None:  # noqa: ARG002 - terms share one signature
        """Return None: the loss is a plain mean."""
        return None

    def __call__(self, sr: Tensor, batch: Batch, clock: Clock) -> Tensor:
        """Return the weighted mean over the batch."""
        plain = self._plain(sr, batch.hr) if self.pace is None else self._paced(self.pace)(sr, batch.hr, clock.epoch)
        return self.weight * plain

    def _plain(self, sr: Tensor, hr: Tensor) -> Tensor:
        raise NotImplementedError

    def _paced(self, pace: Pace) -> SelfPacedLoss:
        raise NotImplementedError


class L1Term(_PixelTerm):
    """Mean absolute difference."""

    kind: Literal["l1"] = "l1"

    def _plain(self, sr: Tensor, hr: Tensor) -> Tensor:
        return l1(sr, hr, reduction="mean")

    def _paced(self, pace: Pace) -> SelfPacedLoss:
        return SelfPacedLoss("l1", **pace.model_dump())


class L2Term(_PixelTerm):
    """Mean squared difference. With `pace` the weight enters squared, as published."""

    kind: Literal["l2"] = "l2"

    def _plain(self, sr: Tensor, hr: Tensor) -> Tensor:
        return l2(sr, hr, reduction="mean")

    def _paced(self, pace: Pace) -> SelfPacedLoss:
        return SelfPacedLoss("l2", **pace.model_dump())


class CharbonnierTerm(_PixelTerm):
    """Mean of `sqrt(difference^2 + eps^2)` (Charbonnier et al., ICIP 1994)."""

    kind: Literal["charbonnier"] = "charbonnier"
    eps: PositiveFloat = Field(CHARBONNIER_EPS, description="where the square turns into the absolute value, of [0, 1]")

    def _plain(self, sr: Tensor, hr: Tensor) -> Tensor:
        return charbonnier(sr, hr, eps=self.eps, reduction="mean")

    def _paced(self, pace: Pace) -> SelfPacedLoss:
        return SelfPacedLoss("charbonnier", eps=self.eps, **pace.model_dump())


class SelfSimilarityTerm(Spec):
    """Self-similarity loss (docs/selfsim.md, eq. 1 to 5): the output's graph is pulled to the ground truth's at edges.

    The mask is the batch's own where the data bring one, else it is made from `hr` on the device.
    """

    kind: Literal["self_similarity"] = "self_similarity"
    weight: PositiveFloat = Field(1000.0, description="what both parts are multiplied by")
    l1_weight: float = Field(1.0, ge=0, description="weight of the L1 part")
    kl_weight: float = Field(1.0, ge=0, description="weight of the KL part")
    search_px: PositiveInt = Field(Geometry.search_px, description="side of the search area, odd")
    window_px: PositiveInt = Field(
        Geometry.window_px, description="side of the compared windows, odd, at most search_px"
    )
    sigma: PositiveFloat = Field(Geometry.sigma, description="bandwidth of the similarity, for images in [0, 1]")
    normalize: bool = Field(Geometry.normalize, description="divide each row of the graph by its sum")
    threshold: PositiveFloat = Field(THRESHOLD, description="Laplacian response that makes an edge, of 255 grey levels")
    stride: PositiveInt = Field(3, description="keep every stride-th diagonal of the mask; 1 keeps all")
    two_sided: bool = Field(False, description="count pixels brighter than their neighbours as edges, too")
    backend: Literal["auto", "eager", "cpu", "triton"] = Field("auto", description="which implementation runs")
    memory_mb: PositiveFloat = Field(MEMORY_MB, description="budget of the operator's working memory")

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

    def mask(self, batch: Batch) -> Tensor:
        """Return which pixels enter the graph, bool `[N, 1, H, W]`."""
        if batch.mask is not None:
            return batch.mask
        return edge_mask(batch.hr, threshold=self.threshold, stride=self.stride, two_sided=self.two_sided)

    def count(self, batch: Batch) -> Tensor:
        """Return how many pixels enter the graph."""
        return self.mask(batch).sum()

    def __call__(self, sr: Tensor, batch: Batch, clock: Clock) -> Ratio:  # noqa: ARG002 - terms share one signature
        """Return the weighted sum over the masked pixels, with their number."""
        mask = self.mask(batch)
        total = self_similarity_loss(
            sr,
            batch.hr,
            mask,
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
        return Ratio(self.weight * total, mask.sum())


Term = Annotated[L1Term | L2Term | CharbonnierTerm | SelfSimilarityTerm, Field(discriminator="kind")]


def weigh(terms: dict[str, Term], sr: Tensor, batch: Batch, clock: Clock) -> dict[str, Tensor | Ratio]:
    """Return every term's loss by name, computed in float32 whatever the network ran in."""
    with torch.autocast(sr.device.type, enabled=False):
        sr = sr.float()
        return {name: term(sr, batch, clock) for name, term in terms.items()}


def counts(terms: dict[str, Term], batch: Batch) -> dict[str, Tensor]:
    """Return the count of every masked term by name."""
    counted = {name: term.count(batch) for name, term in terms.items()}
    return {name: count for name, count in counted.items() if count is not None}
