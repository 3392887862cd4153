"""The focal frequency loss: spectra compared, the frequencies that are furthest off counting most.

Source: Jiang et al., "Focal Frequency Loss for Image Reconstruction and Synthesis", ICCV 2021,
section 3.
"""

import torch
from torch import Tensor

from selfsr.errors import InputError
from selfsr.losses._images import prepared

# How much more the frequencies count that are far off; published.
ALPHA = 1.0


def focal_frequency_loss(sr: Tensor, hr: Tensor, *, alpha: float = ALPHA) -> Tensor:
    """Return the weighted squared difference of the spectra, `mean w |D|^2`.

    D is the orthonormal 2-D Fourier transform of `sr - hr`, which is the difference of the two transforms, and

        w = |D|^alpha / max |D|^alpha,

    the maximum over the frequencies of each image and channel. The weight is a constant for differentiation. With
    alpha = 0 this is the mean squared difference of the images (Parseval). Half-precision images are computed in
    float32.

    Args:
        sr: super-resolved images, float `[N, C, H, W]` in [0, 1].
        hr: ground truth, like `sr`.
        alpha: 0 or more.

    Returns:
        A scalar.

    Raises:
        InputError: the images are not alike, or alpha is negative.

    >>> hr = torch.rand(2, 3, 8, 8)
    >>> focal_frequency_loss(hr, hr).item()
    0.0
    """
    where = "focal_frequency_loss"
    sr, hr = prepared(where, sr=sr, hr=hr)
    if alpha < 0:
        raise InputError(f"{where}: alpha must be 0 or more, got {alpha}; 1 is published.")
    spectrum = torch.view_as_real(torch.fft.fft2(sr - hr, norm="ortho"))
    squared = spectrum.square().sum(dim=-1)
    with torch.no_grad():
        peak = squared.amax(dim=(2, 3), keepdim=True)
        # Where the images are equal there is nothing to weigh: 0 / 0 must not get in.
        weight = (squared / torch.where(peak > 0, peak, 1.0)) ** (alpha / 2)
    return (weight * squared).mean()
