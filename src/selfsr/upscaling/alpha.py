"""Colors of transparent pixels, which a network must not see as they are."""

import torch
from torch import Tensor
from torch.nn import functional


def fill_unknown(colors: Tensor, known: Tensor) -> Tensor:
    """Replace unknown colors by those nearby, coarser with the distance ("push-pull").

    Gortler, Grzeszczuk, Szeliski and Cohen, "The lumigraph", 1996, section 3.4.

    Args:
        colors: `[N, C, H, W]`.
        known: bool `[N, 1, H, W]`, true where a color is kept. If no color is known, nothing changes.
    """
    if bool(known.all()) or not bool(known.any()):
        return colors
    weight = known.to(colors.dtype)
    known_share = functional.avg_pool2d(weight, 2, ceil_mode=True)
    coarse = functional.avg_pool2d(colors * weight, 2, ceil_mode=True) / known_share.clamp_min(1e-6)
    coarse = fill_unknown(coarse, known_share > 0)
    size = (colors.shape[2], colors.shape[3])
    return torch.where(known, colors, functional.interpolate(coarse, size, mode="bilinear"))
