"""LPIPS as a term."""

from typing import Literal

from pydantic import Field

from selfsr.losses.feature_weights import WeightsSource
from selfsr.losses.lpips import LpipsLoss, LpipsNetwork, lpips_minimum_px
from selfsr.terms.features import FeatureTermSpec


class LpipsTerm(FeatureTermSpec):
    """LPIPS, the learned distance of features (Zhang et al., CVPR 2018); needs torchmetrics for its weights."""

    kind: Literal["lpips"] = "lpips"
    network: LpipsNetwork = Field(
        "vgg",
        description="network of the features: vgg, which its authors advise as a loss, alex, which the metric lpips "
        "has, or squeeze, the smallest",
    )

    @property
    def minimum_px(self) -> int:
        """Smallest side that leaves a pixel at the deepest layer."""
        return lpips_minimum_px(self.network)

    def make_loss(self, weights: WeightsSource) -> LpipsLoss:
        """Return the loss with `weights`, or with torchvision's."""
        return LpipsLoss(self.network, weights=weights)
