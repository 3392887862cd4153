"""SSIM and its multi-scale form as losses, with a gradient; `selfsr.ssim_map` has none and zeros beyond the border."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from selfsr.errors import InputError
from selfsr.losses._images import prepared

# The window and the constants of Wang et al. 2004, for images in [0, 1].
_WINDOW_PX = 11
_SIGMA_PX = 1.5
_C1 = 0.01**2
_C2 = 0.03**2
# Exponents of the five scales, finest first (Wang et al. 2003).
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
# Under which a mean of contrast and structure is taken for this: a power below 1 has no slope at 0, and none below.
_FLOOR = 1e-4


def minimum_px(scales: int = 1) -> int:
    """Return the smallest side that leaves a window at the coarsest of so many scales, each half of the one before."""
    return _WINDOW_PX * 2 ** (scales - 1)


def ssim_loss(sr: Tensor, hr: Tensor) -> Tensor:
    """Return 1 - SSIM, the mean over batch, channels and all windows that lie inside the image.

    Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE TIP 2004, eq. 13,
    with the 11 x 11 Gaussian window of standard deviation 1.5 and biased moments. Half-precision images are computed
    in float32.

    Args:
        sr: super-resolved images, float `[N, C, H, W]` in [0, 1], 11 px or more on each side.
        hr: ground truth, like `sr`.

    Returns:
        A scalar from 0 to 2.

    Raises:
        InputError: the images are not alike, or smaller than the window.

    >>> hr = torch.rand(2, 3, 16, 16)
    >>> abs(ssim_loss(hr, hr).item()) < 1e-6
    True
    """
    where = "ssim_loss"
    sr, hr = prepared(where, sr=sr, hr=hr)
    if min(sr.shape[2:]) < minimum_px():
        raise InputError(f"{where}: images must be at least {minimum_px()} px on each side, got {list(sr.shape)}.")
    brightness, structure = _similarity(sr, hr)
    return 1 - (brightness * structure).mean()


def ms_ssim_loss(sr: Tensor, hr: Tensor, *, scale_weights: Sequence[float] = SCALE_WEIGHTS) -> Tensor:
    """Return 1 - MS-SSIM: contrast and structure at several scales, brightness at the coarsest.

    With b the mean over an image's channel of SSIM's brightness times structure at the coarsest scale M, and s_k that
    of contrast and structure alone at scale k, where each scale halves the image by means of 2 x 2 pixels,

        MS-SSIM = b^w_M prod_{k < M} s_k^w_k,

    averaged over batch and channels. Wang, Simoncelli, Bovik, "Multiscale structural similarity for image quality
    assessment", Asilomar 2003, eq. 7; as a loss: Zhao et al., "Loss Functions for Image Restoration With Neural
    Networks", IEEE TCI 2017. Means below 1e-4 count as that and have no gradient. Half-precision images are computed
    in float32.

    Args:
        sr: super-resolved images, float `[N, C, H, W]` in [0, 1]; 11 px or more on each side at the coarsest scale,
            which is 176 for five scales.
        hr: ground truth, like `sr`.
        scale_weights: w_k, finest first; their number is that of the scales.

    Returns:
        A scalar from 0 to 1.

    Raises:
        InputError: the images are not alike or too small for so many scales, or a weight is not positive.

    >>> hr = torch.rand(1, 3, 48, 48)
    >>> abs(ms_ssim_loss(hr, hr, scale_weights=SCALE_WEIGHTS[:3]).item()) < 1e-6
    True
    """
    where = "ms_ssim_loss"
    sr, hr = prepared(where, sr=sr, hr=hr)
    if not scale_weights or min(scale_weights) <= 0:
        raise InputError(f"{where}: scale_weights must be positive, at least one of them, got {list(scale_weights)}.")
    need = minimum_px(len(scale_weights))
    if min(sr.shape[2:]) < need:
        raise InputError(
            f"{where}: images must be at least {need} px on each side for {len(scale_weights)} scales, "
            f"got {list(sr.shape)}; pass larger crops or fewer scale_weights."
        )
    product = sr.new_ones(())
    for scale, weight in enumerate(scale_weights, 1):
        brightness, structure = _similarity(sr, hr)
        last = scale == len(scale_weights)
        mean = (brightness * structure if last else structure).mean(dim=(2, 3))
        product = product * mean.clamp_min(_FLOOR) ** weight
        if not last:
            sr, hr = functional.avg_pool2d(sr, 2), functional.avg_pool2d(hr, 2)
    return 1 - product.mean()


def _similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return SSIM's two factors: of brightness, and of contrast and structure, for all windows inside the image."""
    # Around the middle of [0, 1] less cancels in the moments.
    x, y = x - 0.5, y - 0.5
    mean_x, mean_y = _windowed(x), _windowed(y)
    variances = _windowed(x * x + y * y) - mean_x.square() - mean_y.square()
    covariance = _windowed(x * y) - mean_x * mean_y
    mean_x, mean_y = mean_x + 0.5, mean_y + 0.5
    brightness = (2 * mean_x * mean_y + _C1) / (mean_x.square() + mean_y.square() + _C1)
    return brightness, (2 * covariance + _C2) / (variances + _C2)


def _windowed(image: Tensor) -> Tensor:
    """Return the mean under the Gaussian window, `[N, C, H - 10, W - 10]`."""
    taps = torch.arange(_WINDOW_PX, dtype=image.dtype, device=image.device) - _WINDOW_PX // 2
    taps = torch.exp(-taps.square() / (2 * _SIGMA_PX**2))
    taps = taps / taps.sum()
    planes = image.flatten(0, 1)[:, None]
    with torch.autocast(image.device.type, enabled=False):
        planes = functional.conv2d(functional.conv2d(planes, taps[None, None, :, None]), taps[None, None, None, :])
    return planes.reshape(*image.shape[:2], *planes.shape[2:])
