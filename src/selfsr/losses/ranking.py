"""RankSRGAN: a loss from a network that ranks images as a perceptual metric does.

Source: Zhang et al., "RankSRGAN: Generative Adversarial Networks with Ranker for Image Super-Resolution", ICCV 2019.
"""

from collections.abc import Callable

from torch import Tensor

from selfsr.errors import InputError
from selfsr.losses._images import prepare_images


def rank_loss(sr: Tensor, ranker: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the mean rank of the images, `mean_n sigmoid(R(sr_n))`; better images have a lower rank.

    The published code sums over the images instead: its weight 0.03 for a sum over B images is 0.03 B for this mean.
    In the code published with the self-similarity loss, R runs without a gradient and the loss is a constant; here the
    gradient reaches `sr` through R.

    Args:
        sr: super-resolved images, float `[N, C, H, W]` in [0, 1].
        ranker: R, returns one number for each image, `[N, 1]` or `[N]`. It must be in evaluation mode, or batch norm
            would mix the images. Freeze it with `requires_grad_(False)`, or its weights get gradients.

    Returns:
        A scalar from 0 to 1.

    Raises:
        InputError: `sr` is not a float tensor `[N, C, H, W]`, or the ranker is in training mode or does not return
            one number for each image.

    >>> import torch
    >>> rank_loss(torch.zeros(2, 3, 8, 8), lambda image: image.mean(dim=(1, 2, 3))).item()
    0.5
    """
    caller = "rank_loss"
    (sr,) = prepare_images(caller, sr=sr)
    if getattr(ranker, "training", False):
        raise InputError(f"{caller}: ranker must be in evaluation mode, got one in training mode; call ranker.eval().")
    rank = ranker(sr)
    if rank.numel() != sr.shape[0]:
        raise InputError(
            f"{caller}: ranker must return one number for each of {sr.shape[0]} images, got {list(rank.shape)}."
        )
    return rank.float().sigmoid().mean() if rank.element_size() < 4 else rank.sigmoid().mean()
