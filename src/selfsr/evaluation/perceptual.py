"""Metrics for outputs with generated detail: self-similarity distance, LPIPS and DISTS.

They compare images rounded to 8 bits and without the border, by the protocol.
"""

import torch
from torch import Tensor

from selfsr import edge_mask, self_similarity_loss
from selfsr.evaluation.kinds import ImageMetric
from selfsr.losses import DistsLoss, LpipsLoss
from selfsr.losses._feature_loss import FeatureLoss
from selfsr.selfsim.contract import Geometry

# Scales the distance to the loss of the published recipes.
_DISTANCE_WEIGHT = 1000.0


def self_similarity_distance(sr: Tensor, hr: Tensor) -> float:
    """Return the distance between the self-similarity graphs of two images at the edges of `hr`; 0 is best.

    `1000 (mean |X - Y| + KL(Y || X) / S^2)` over all edge pixels, docs/selfsim.md eq. 1 to 5 with the published sizes
    and no stride: the loss with the weights of the SSL recipes (ACM MM 2024), as a metric.

    Args:
        sr: `[1, C, H, W]` in [0, 1].
        hr: like `sr`.

    Returns:
        The distance; NaN if the image is too small for the search area or has no edge.

    Example:
        >>> hr = torch.zeros(1, 3, 32, 32)
        >>> hr[..., 16:] = 1
        >>> self_similarity_distance(hr, hr)
        0.0
    """
    if min(hr.shape[-2:]) <= Geometry.search_px // 2:
        return float("nan")
    with torch.no_grad():
        mask = edge_mask(hr)
        if not bool(mask.any()):
            return float("nan")
        return float(self_similarity_loss(sr, hr, mask, l1_weight=_DISTANCE_WEIGHT, kl_weight=_DISTANCE_WEIGHT))


def load_lpips(device: torch.device) -> ImageMetric:
    """Load LPIPS with AlexNet (Zhang et al., CVPR 2018), docs/losses.md, eq. 15.

    Raises:
        InputError: torchmetrics is not installed, or the weights are neither on disk nor downloadable.
    """
    return _score_with(LpipsLoss("alex"), device)


def load_dists(device: torch.device) -> ImageMetric:
    """Load DISTS (Ding et al., TPAMI 2022), docs/losses.md, eq. 16.

    Raises:
        InputError: torchmetrics is not installed, or the weights are neither on disk nor downloadable.
    """
    return _score_with(DistsLoss(), device)


def _score_with(loss: FeatureLoss, device: torch.device) -> ImageMetric:
    """Return a loss as a metric of one image; NaN for an image that is too small for its network."""
    loss = loss.to(device)

    def score(sr: Tensor, hr: Tensor) -> float:
        if min(sr.shape[2:]) < loss.minimum_px:
            return float("nan")
        with torch.no_grad():
            return float(loss(sr.float(), hr.float()))

    return score
