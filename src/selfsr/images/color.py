"""Gray of color: the luma that networks of one channel see."""

import torch
from torch import Tensor

# Luma of R, G, B by ITU-R BT.601, full range.
LUMA = (0.299, 0.587, 0.114)


def gray(image: Tensor) -> Tensor:
    """Return BT.601 luma in full range, not rounded: `0.299 R + 0.587 G + 0.114 B`.

    The Y of the literature, 16 to 235 of 255, is `16 + 219 gray`: what rgb2ycbcr of MATLAB and scikit-image returns.

    Args:
        image: float `[N, 3, H, W]` in [0, 1], or `[N, 1, H, W]`, which is returned as it is.

    Returns:
        `[N, 1, H, W]` in [0, 1].
    """
    if image.shape[1] == 1:
        return image
    weights = torch.tensor(LUMA, dtype=image.dtype, device=image.device).view(1, 3, 1, 1)
    return (image * weights).sum(1, keepdim=True)
