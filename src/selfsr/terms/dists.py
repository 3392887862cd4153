"""DISTS as a term."""

from typing import Literal

from selfsr.losses.dists import DistsLoss
from selfsr.losses.feature_weights import WeightsSource
from selfsr.terms.features import FeatureTermSpec


class DistsTerm(FeatureTermSpec):
    """DISTS, the distance of means and covariances of VGG16 features (Ding et al., TPAMI 2022); needs torchmetrics."""

    kind: Literal["dists"] = "dists"

    def make_loss(self, weights: WeightsSource) -> DistsLoss:
        """Return the loss with `weights`, or with torchvision's."""
        return DistsLoss(weights=weights)
