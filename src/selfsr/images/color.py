"""Convert RGB to luma."""

import torch
from torch import Tensor

from selfsr.masks import LUMA_BT601, LUMA_STUDIO


def rgb_to_luma(image: Tensor) -> Tensor:
    """Return BT.601 luma in full range, not rounded: `0.299 R + 0.587 G + 0.114 B`.

    Networks with one channel see this luma. The Y of the literature, in studio range, is `16 + 219 luma` of 255.

    Args:
        image: float `[N, 3, H, W]` in [0, 1], or `[N, 1, H, W]`, which is returned unchanged.

    Returns:
        `[N, 1, H, W]` in [0, 1].
    """
    if image.shape[1] == 1:
        return image
    weights = torch.tensor(LUMA_BT601, dtype=image.dtype, device=image.device).view(1, 3, 1, 1)
    return (image * weights).sum(1, keepdim=True)


def rgb_to_y_studio(image: Tensor, peak: int = 255) -> Tensor:
    """Return BT.601 luma in studio range, not rounded: `16/255 peak + (65.481 R + 128.553 G + 24.966 B) / 255`.

    The Y of rgb2ycbcr in MATLAB and scikit-image, and of the super-resolution literature.

    Args:
        image: `[N, 3, H, W]` RGB or `[N, 1, H, W]` gray (taken as R = G = B), 0 to `peak`.
        peak: the value of white.

    Returns:
        `[N, 1, H, W]` float64, from 16/255 to 235/255 of `peak`.
    """
    image = image.to(torch.float64)
    if image.shape[1] == 1:
        return image * (219 / 255) + 16 / 255 * peak
    weights = image.new_tensor(LUMA_STUDIO) / 255
    return (image * weights.view(1, 3, 1, 1)).sum(1, keepdim=True) + 16 / 255 * peak
