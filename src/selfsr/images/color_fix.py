"""Give an image the colors of a reference: the color fixes of diffusion super-resolution (docs/diffusion.md, eq. 9)."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from selfsr.images.color import rgb_to_luma

ColorFix = Literal["wavelet", "adain", "ycbcr", "none"]

# The low pass of five dilated binomial filters reaches 1 + 2 + 4 + 8 + 16 pixels to each side.
WAVELET_REACH_PX = 31
_LEVELS = 5
# Added to the variance by adain, as published.
VARIANCE_EPS = 1e-5


def fix_colors(image: Tensor, reference: Tensor, fix: ColorFix) -> Tensor:
    """Return an image with colors of the reference.

    "wavelet" replaces the low frequencies (Wang et al., "StableSR", IJCV 2024): the result is
    image - low(image) + low(reference), where `low` is `low_pass`. "adain" gives each channel the mean and the standard
    deviation of the reference over the complete image (Huang and Belongie, ICCV 2017, eq. 8). "ycbcr" keeps the luma of
    the image and takes the color differences of the reference. "none" changes nothing.

    Args:
        image: float `[N, C, H, W]` in [0, 1].
        reference: of the same shape.
        fix: which one.

    Returns:
        `[N, C, H, W]`, not clamped.

    Example:
        >>> gray, reference = torch.full((1, 3, 8, 8), 0.5), torch.full((1, 3, 8, 8), 0.25)
        >>> fix_colors(gray, reference, "wavelet").mean().item()
        0.25
    """
    assert image.shape == reference.shape, (image.shape, reference.shape)
    if fix == "wavelet":
        return image + low_pass(reference - image)
    if fix == "adain":
        return _match_moments(image, reference)
    if fix == "ycbcr" and image.shape[1] == 3:
        return reference + (rgb_to_luma(image) - rgb_to_luma(reference))
    return image


def low_pass(image: Tensor) -> Tensor:
    """Blur by five 3 x 3 binomial filters with dilations 1, 2, 4, 8 and 16; borders are replicated.

    The kernel covers 63 x 63 pixels and has a standard deviation of 13.06 pixels along an axis.
    """
    channels = image.shape[1]
    taps = torch.tensor([0.25, 0.5, 0.25], dtype=image.dtype, device=image.device)
    for level in range(_LEVELS):
        reach = 2**level
        for axis_taps, pad in ((taps[:, None], (0, 0, reach, reach)), (taps[None], (reach, reach, 0, 0))):
            kernel = axis_taps.expand(channels, 1, *axis_taps.shape)
            padded = functional.pad(image, pad, mode="replicate")
            image = functional.conv2d(padded, kernel, dilation=reach, groups=channels)
    return image


def _match_moments(image: Tensor, reference: Tensor) -> Tensor:
    def moments(x: Tensor) -> tuple[Tensor, Tensor]:
        variance, mean = torch.var_mean(x, dim=(-2, -1), keepdim=True)
        return mean, (variance + VARIANCE_EPS).sqrt()

    mean, std = moments(image)
    reference_mean, reference_std = moments(reference)
    return (image - mean) / std * reference_std + reference_mean
