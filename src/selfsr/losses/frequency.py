"""The focal frequency loss: a difference of spectra that weights large errors most.

Source: Jiang et al., "Focal Frequency Loss for Image Reconstruction and Synthesis", ICCV 2021, section 3.
"""

from typing import cast

import torch
from torch import Tensor

from selfsr.errors import InputError
from selfsr.losses._images import prepare_images

# Published exponent of the weight.
ALPHA = 1.0


def focal_frequency_loss(sr: Tensor, hr: Tensor, *, alpha: float = ALPHA) -> Tensor:
    """Return the weighted squared difference of the spectra, `mean w |D|^2`.

    D is the orthonormal 2-D Fourier transform of `sr - hr`, and

        w = |D|^alpha / max |D|^alpha

    with the maximum over the frequencies of each image and channel. The weight has no gradient. With alpha = 0 this is
    the mean squared difference of the images (Parseval). Half-precision images are computed in float32.

    Args:
        sr: super-resolved images, float `[N, C, H, W]` in [0, 1].
        hr: ground truth, like `sr`.
        alpha: exponent of the weight, at least 0; larger values focus on the largest errors.

    Returns:
        A scalar.

    Raises:
        InputError: the images differ in shape or device, or alpha is negative.

    >>> hr = torch.rand(2, 3, 8, 8)
    >>> focal_frequency_loss(hr, hr).item()
    0.0
    """
    caller = "focal_frequency_loss"
    sr, hr = prepare_images(caller, sr=sr, hr=hr)
    if alpha < 0:
        raise InputError(f"{caller}: alpha must be 0 or more, got {alpha}; 1 is published.")
    spectrum = cast(Tensor, torch.fft.fft2(sr - hr, norm="ortho"))  # pyright: ignore[reportUnknownMemberType]
    squared = torch.view_as_real(spectrum).square().sum(dim=-1)
    with torch.no_grad():
        peak = squared.amax(dim=(2, 3), keepdim=True)
        # Equal images have a peak of 0: avoid 0 / 0.
        weight = (squared / torch.where(peak > 0, peak, 1.0)) ** (alpha / 2)
    return (weight * squared).mean()
