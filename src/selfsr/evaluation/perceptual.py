"""Scores beyond PSNR and SSIM, for outputs that invent detail: self-similarity distance, LPIPS and DISTS.

They take what is scored as the protocol leaves it: rounded to 8 bit, borders cropped.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from selfsr import edge_mask, self_similarity_loss
from selfsr.errors import InputError
from selfsr.selfsim.contract import Geometry

ExtraMetric = Literal["self_similarity", "lpips", "dists"]
Score = Callable[[Tensor, Tensor], float]

# Brings the distance to the size that the published recipes give the loss.
_DISTANCE_WEIGHT = 1000.0


def self_similarity_distance(sr: Tensor, hr: Tensor) -> float:
    """Return how far the self-similarity graph of `sr` is from that of `hr` at the edges of `hr`; 0 is best.

    `1000 (mean |X - Y| + KL(Y || X) / S^2)` over all edge pixels, docs/selfsim.md eq. 1 to 5 with the published sizes
    and no stride: the loss as the recipes of SSL (ACM MM 2024) weigh it, as a score. NaN where an image is too small
    for the search area or has no edge.

    Args:
        sr: `[1, C, H, W]` in [0, 1].
        hr: like `sr`.
    """
    if min(hr.shape[-2:]) <= Geometry.search_px // 2:
        return float("nan")
    with torch.no_grad():
        mask = edge_mask(hr)
        if not bool(mask.any()):
            return float("nan")
        return float(self_similarity_loss(sr, hr, mask, l1_weight=_DISTANCE_WEIGHT, kl_weight=_DISTANCE_WEIGHT))


def load_metrics(names: Iterable[str], device: torch.device) -> Mapping[str, Score]:
    """Return the scores by name, each a function of `[1, 3, H, W]` images in [0, 1], their networks on `device`.

    LPIPS (Zhang et al., CVPR 2018) has its usual AlexNet, DISTS (Ding et al., TPAMI 2020) its VGG16, both by
    torchmetrics; their backbones' weights are torchvision's and are fetched on first use.

    Raises:
        InputError: a name is unknown, torchmetrics is not installed, or the weights can neither be found nor fetched.
    """
    makers = {"self_similarity": _similarity, "lpips": _lpips, "dists": _dists}
    unknown = [name for name in names if name not in makers]
    if unknown:
        raise InputError(f"metrics: expected some of {', '.join(makers)}, got {unknown[0]!r}.")
    return {name: makers[name](device) for name in names}


def _similarity(device: torch.device) -> Score:  # noqa: ARG001 - makers share one signature
    return self_similarity_distance


def _lpips(device: torch.device) -> Score:
    net = _network("lpips", "alexnet-owt-7be5be79.pth", device)
    return lambda sr, hr: float(net(sr.float(), hr.float()))


def _dists(device: torch.device) -> Score:
    net = _network("dists", "vgg16-397923af.pth", device)
    return lambda sr, hr: float(net(sr.float(), hr.float()))


def _network(name: Literal["lpips", "dists"], weights: str, device: torch.device) -> Any:
    try:
        # Not torchmetrics' own DISTS metric: that one builds and loads the network anew for every picture.
        from torchmetrics.functional.image.dists import DISTSNetwork
        from torchmetrics.image import LearnedPerceptualImagePatchSimilarity
    except ImportError as error:
        raise InputError(
            f"metrics: {name} needs torchmetrics with torchvision, which are not installed; "
            'install them with pip install "selfsr[train,metrics]" or leave the score out.'
        ) from error
    try:
        if name == "lpips":
            net = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)
        else:
            net = DISTSNetwork()
    except (OSError, RuntimeError) as error:  # no network, or half a file
        place = Path(torch.hub.get_dir()) / "checkpoints" / weights
        raise InputError(
            f"metrics: {name} needs the weights {weights} of torchvision, which are not at {place} and could not be "
            f"fetched ({error}); put the file there or leave the score out."
        ) from error
    return net.to(device).eval().requires_grad_(False)
