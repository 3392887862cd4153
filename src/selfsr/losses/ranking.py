"""RankSRGAN: a network that ranks images as a perceptual metric would, taken for a loss.

Source: Zhang et al., "RankSRGAN: Generative Adversarial Networks with Ranker for Image Super-Resolution", ICCV 2019.
"""

from collections.abc import Callable

from torch import Tensor

from selfsr.errors import InputError
from selfsr.losses._images import prepared


def rank_loss(sr: Tensor, ranker: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the mean rank of the images, `mean_n sigmoid(R(sr_n))`; a lower rank is a better image.

    The published code adds up over the images in place of the mean: its weight 0.03 for a sum over B images is
    0.03 B for this mean. In the code published with the self-similarity loss R runs without a gradient, so that the
    loss is a constant; here the gradient reaches `sr` through R.

    Args:
        sr: super-resolved images, float `[N, C, H, W]` in [0, 1].
        ranker: R, gives one number per image, `[N, 1]` or `[N]`. Frozen (`requires_grad_(False)`), or its weights
            get a gradient, too; in evaluation mode, or its batch norm would let each image's rank depend on the others.

    Returns:
        A scalar from 0 to 1.

    Raises:
        InputError: `sr` is no such image, the ranker is in training mode or does not give one number per image.

    >>> import torch
    >>> rank_loss(torch.zeros(2, 3, 8, 8), lambda image: image.mean(dim=(1, 2, 3))).item()
    0.5
    """
    where = "rank_loss"
    (sr,) = prepared(where, sr=sr)
    if getattr(ranker, "training", False):
        raise InputError(f"{where}: the ranker must be in evaluation mode, it is in training mode; call ranker.eval().")
    rank = ranker(sr)
    if rank.numel() != sr.shape[0]:
        raise InputError(
            f"{where}: the ranker must give one number for each of {sr.shape[0]} images, got {list(rank.shape)}."
        )
    return rank.float().sigmoid().mean() if rank.element_size() < 4 else rank.sigmoid().mean()
