"""Metrics for outputs with invented detail: self-similarity distance, LPIPS and DISTS.

They compare images that are rounded to 8 bits and have no border, as the protocol asks for.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from selfsr import edge_mask, self_similarity_loss
from selfsr.errors import InputError
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


def load_lpips(device: torch.device) -> Callable[[Tensor, Tensor], float]:
    """Load LPIPS (Zhang et al., CVPR 2018) with AlexNet, computed by torchmetrics with the weights of torchvision.

    Raises:
        InputError: torchmetrics is not installed, or the weights are neither on disk nor downloadable.
    """
    net = _load_network("lpips", "alexnet-owt-7be5be79.pth", device)
    return lambda sr, hr: float(net(sr.float(), hr.float()))


def load_dists(device: torch.device) -> Callable[[Tensor, Tensor], float]:
    """Load DISTS (Ding et al., TPAMI 2020) with VGG16, computed by torchmetrics with the weights of torchvision.

    Raises:
        InputError: torchmetrics is not installed, or the weights are neither on disk nor downloadable.
    """
    net = _load_network("dists", "vgg16-397923af.pth", device)
    return lambda sr, hr: float(net(sr.float(), hr.float()))


def _load_network(name: Literal["lpips", "dists"], weights: str, device: torch.device) -> Any:
    try:
        # Not torchmetrics' own DISTS metric: it builds and loads the network again for every image.
        from torchmetrics.functional.image.dists import DISTSNetwork
        from torchmetrics.image import LearnedPerceptualImagePatchSimilarity
    except ImportError as error:
        raise InputError(
            f"metrics: {name} needs torchmetrics with torchvision, which are not installed; "
            'install them with pip install "selfsr[train,metrics]" or leave the metric out.'
        ) from error
    try:
        if name == "lpips":
            net = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)
        else:
            net = DISTSNetwork()
    except (OSError, RuntimeError) as error:  # no network, or half a file
        path = Path(torch.hub.get_dir()) / "checkpoints" / weights
        raise InputError(
            f"metrics: {name} needs the weights {weights} of torchvision, which are not at {path} and could not be "
            f"downloaded ({error}); put the file there or leave the metric out."
        ) from error
    return net.to(device).eval().requires_grad_(False)
