"""SSIM and MS-SSIM as losses with a gradient, and the Gaussian window of all SSIM in this package.

`selfsr.ssim_map` has no gradient and pads the images; here all windows lie inside the image.
"""

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from selfsr.errors import InputError
from selfsr.losses._images import prepare_images

# The Gaussian window of Wang et al. 2004: its side and its standard deviation.
WINDOW_PX = 11
SIGMA_PX = 1.5
# The constants for images in [0, 1].
_C1 = 0.01**2
_C2 = 0.03**2
# Exponents of the five scales, finest first (Wang et al. 2003).
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
# Smallest mean of contrast and structure: the slope of a power below 1 is infinite at 0, and undefined below.
_FLOOR = 1e-4


@functools.cache
def gaussian_taps() -> tuple[float, ...]:
    """Return one side of the window, from its center outward; the sum of the full window is 1.

    >>> taps = gaussian_taps()
    >>> len(taps), round(taps[0] + 2 * sum(taps[1:]), 12)
    (6, 1.0)
    """
    side = [math.exp(-(k**2) / (2 * SIGMA_PX**2)) for k in range(WINDOW_PX // 2 + 1)]
    total = side[0] + 2 * sum(side[1:])
    return tuple(value / total for value in side)


def minimum_px(scales: int = 1) -> int:
    """Return the smallest image side for SSIM at a number of scales, each half the size of the one before.

    >>> minimum_px(), minimum_px(5)
    (11, 176)
    """
    return WINDOW_PX * 2 ** (scales - 1)


def ssim_loss(sr: Tensor, hr: Tensor) -> Tensor:
    """Return 1 - SSIM, averaged over batch, channels and all windows inside the image.

    Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE TIP 2004, eq. 13,
    with an 11 x 11 Gaussian window of standard deviation 1.5 and biased moments. Half-precision images are computed
    in float32.

    Args:
        sr: super-resolved images, float `[N, C, H, W]` in [0, 1], 11 px or more on each side.
        hr: ground truth, like `sr`.

    Returns:
        A scalar from 0 to 2.

    Raises:
        InputError: the images differ in shape or device, or are smaller than the window.

    >>> hr = torch.rand(2, 3, 16, 16)
    >>> abs(ssim_loss(hr, hr).item()) < 1e-6
    True
    """
    caller = "ssim_loss"
    sr, hr = prepare_images(caller, sr=sr, hr=hr)
    if min(sr.shape[2:]) < minimum_px():
        raise InputError(
            f"{caller}: images must be at least {minimum_px()} px on each side, got {list(sr.shape)}; "
            "pass larger crops."
        )
    luminance, structure = _compare_windows(sr, hr)
    return 1 - (luminance * structure).mean()


def ms_ssim_loss(sr: Tensor, hr: Tensor, *, scale_weights: Sequence[float] = SCALE_WEIGHTS) -> Tensor:
    """Return 1 - MS-SSIM: contrast and structure at several scales, luminance only at the coarsest.

    Each scale halves the image by averaging 2 x 2 pixels. Let s_k be the mean of contrast times structure over one
    channel at scale k, and b the mean of the full SSIM at the coarsest scale M. Then

        MS-SSIM = b^w_M prod_{k < M} s_k^w_k,

    averaged over batch and channels. Wang, Simoncelli, Bovik, "Multiscale structural similarity for image quality
    assessment", Asilomar 2003, eq. 7; as a loss: Zhao et al., "Loss Functions for Image Restoration With Neural
    Networks", IEEE TCI 2017. Means below 1e-4 are clamped and have no gradient. Half-precision images are computed
    in float32.

    Args:
        sr: super-resolved images, float `[N, C, H, W]` in [0, 1]; at least 11 px on each side at the coarsest scale,
            which is 176 px for five scales.
        hr: ground truth, like `sr`.
        scale_weights: w_k, one for each scale, finest first.

    Returns:
        A scalar from 0 to 1.

    Raises:
        InputError: the images differ in shape or device or are too small, or a weight is not positive.

    >>> hr = torch.rand(1, 3, 48, 48)
    >>> abs(ms_ssim_loss(hr, hr, scale_weights=SCALE_WEIGHTS[:3]).item()) < 1e-6
    True
    """
    caller = "ms_ssim_loss"
    sr, hr = prepare_images(caller, sr=sr, hr=hr)
    if not scale_weights or min(scale_weights) <= 0:
        raise InputError(f"{caller}: scale_weights must be one or more positive numbers, got {list(scale_weights)}.")
    need = minimum_px(len(scale_weights))
    if min(sr.shape[2:]) < need:
        raise InputError(
            f"{caller}: images must be at least {need} px on each side for {len(scale_weights)} scales, "
            f"got {list(sr.shape)}; pass larger crops or fewer scale_weights."
        )
    product = sr.new_ones(())
    for scale, weight in enumerate(scale_weights, 1):
        luminance, structure = _compare_windows(sr, hr)
        last = scale == len(scale_weights)
        mean = (luminance * structure if last else structure).mean(dim=(2, 3))
        product = product * mean.clamp_min(_FLOOR) ** weight
        if not last:
            sr, hr = functional.avg_pool2d(sr, 2), functional.avg_pool2d(hr, 2)
    return 1 - product.mean()


def _compare_windows(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return SSIM's two factors for all windows inside the image: luminance, and contrast times structure."""
    # Moments around the middle of [0, 1] lose fewer digits.
    x, y = x - 0.5, y - 0.5
    mean_x, mean_y = _average_windows(x), _average_windows(y)
    variances = _average_windows(x * x + y * y) - mean_x.square() - mean_y.square()
    covariance = _average_windows(x * y) - mean_x * mean_y
    mean_x, mean_y = mean_x + 0.5, mean_y + 0.5
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x.square() + mean_y.square() + _C1)
    return luminance, (2 * covariance + _C2) / (variances + _C2)


def _average_windows(image: Tensor) -> Tensor:
    """Return the mean under the Gaussian window, `[N, C, H - 10, W - 10]`."""
    # The taps are normalized in the dtype of the image, where they have to sum to 1.
    taps = torch.arange(WINDOW_PX, dtype=image.dtype, device=image.device) - WINDOW_PX // 2
    taps = torch.exp(-taps.square() / (2 * SIGMA_PX**2))
    taps = taps / taps.sum()
    planes = image.flatten(0, 1)[:, None]
    with torch.autocast(image.device.type, enabled=False):
        planes = functional.conv2d(functional.conv2d(planes, taps[None, None, :, None]), taps[None, None, None, :])
    return planes.reshape(*image.shape[:2], *planes.shape[2:])
