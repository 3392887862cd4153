"""PSNR and SSIM by the protocol of the super-resolution literature: on luma and on RGB, borders cropped.

Every number depends on five choices, and papers are comparable only where all five agree; these are the ones
that the literature since SRCNN shares (the text of EDSR, section 4, and the code of BasicSR):

* both images are rounded to 8 bit first (`to_levels`); for networks of luma alone see `luma_scores`;
* luma is BT.601 in studio range, `Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255`, not rounded (`luma`);
* the peak is 255, also for luma, which only spans 16 to 235: a full-range luma gives 1.32 dB less;
* a border of `border_px` (by convention the scale) is left out on every side;
* SSIM has an 11x11 Gaussian window of sigma 1.5 that stays inside the image (Wang et al. 2004, section III-C).

All sums are in float64. A number is never averaged over a batch here: one image, one number.
"""

import math

import torch
from torch import Tensor

from selfsr.errors import InputError

WINDOW_PX = 11
SIGMA_PX = 1.5


_ROWS_AT_ONCE = 64  # bounds the memory of SSIM and keeps its maps in the cache


def to_levels(image: Tensor, peak: int = 255) -> Tensor:
    """Round an image in [0, 1] to the whole numbers that a file would hold.

    Args:
        image: float, any shape; values outside [0, 1] are clamped.
        peak: 255 for 8 bit, 65535 for 16 bit.

    Returns:
        Whole numbers of 0 to `peak`, in the dtype of `image`; halves are rounded up.
    """
    return (image.clamp(0, 1) * peak + 0.5).floor()


def luma(image: Tensor, peak: int = 255) -> Tensor:
    """Return BT.601 luma in studio range, not rounded: `16/255 peak + (65.481 R + 128.553 G + 24.966 B) / 255`.

    Args:
        image: `[N, 3, H, W]` RGB or `[N, 1, H, W]` gray (taken as R = G = B), 0 to `peak`.
        peak: the value of white.

    Returns:
        `[N, 1, H, W]` float64, from 16/255 to 235/255 of `peak`.
    """
    image = image.to(torch.float64)
    if image.shape[1] == 1:
        return image * (219 / 255) + 16 / 255 * peak
    weights = image.new_tensor([65.481, 128.553, 24.966]) / 255
    return (image * weights.view(1, 3, 1, 1)).sum(1, keepdim=True) + 16 / 255 * peak


def psnr(sr: Tensor, hr: Tensor, border_px: int, *, channel: str = "rgb", peak: int = 255) -> Tensor:
    """Return the peak signal-to-noise ratio, `10 log10(peak^2 / mean((sr - hr)^2))`.

    Args:
        sr: `[N, C, H, W]`, C 1 or 3, whole numbers of 0 to `peak` in any dtype.
        hr: like `sr`.
        border_px: width of the border that is left out on every side.
        channel: "rgb" for the mean over all channels, "y" for luma.
        peak: the value of white.

    Returns:
        `[N]` float64, in dB; infinite where the images are identical.

    Raises:
        InputError: the shapes differ, the values are not whole numbers in range, or nothing is left to compare.
    """
    sr, hr = _prepared("psnr", sr, hr, border_px, channel, peak, least_px=1)
    return _psnr(sr, hr, peak)


def _psnr(sr: Tensor, hr: Tensor, peak: int) -> Tensor:
    return 10 * torch.log10(peak**2 / (sr - hr).square().mean((1, 2, 3)))


def ssim(sr: Tensor, hr: Tensor, border_px: int, *, channel: str = "rgb", peak: int = 255) -> Tensor:
    """Return the mean structural similarity, Wang et al. 2004, equation 13 with C1 = (0.01 peak)^2, C2 = (0.03 peak)^2.

    Args:
        sr: `[N, C, H, W]`, C 1 or 3, whole numbers of 0 to `peak` in any dtype.
        hr: like `sr`.
        border_px: width of the border that is left out on every side, before the windows are placed.
        channel: "rgb" for the mean over the channels' SSIM, "y" for luma.
        peak: the value of white.

    Returns:
        `[N]` float64, at most 1.

    Raises:
        InputError: as for `psnr`, and where less than one window of 11x11 pixels is left.
    """
    sr, hr = _prepared("ssim", sr, hr, border_px, channel, peak, least_px=WINDOW_PX)
    return _mean_ssim(sr, hr, peak)


def _mean_ssim(sr: Tensor, hr: Tensor, peak: int) -> Tensor:
    windows = (sr.shape[-2] - WINDOW_PX + 1) * (sr.shape[-1] - WINDOW_PX + 1)
    total = sr.new_zeros(sr.shape[0])
    for top in range(0, sr.shape[-2] - WINDOW_PX + 1, _ROWS_AT_ONCE):
        rows = slice(top, top + _ROWS_AT_ONCE + WINDOW_PX - 1)
        for c in range(sr.shape[1]):
            total += _ssim_map(sr[:, c : c + 1, rows], hr[:, c : c + 1, rows], peak).sum((1, 2, 3))
    return total / (windows * sr.shape[1])


def scores(sr: Tensor, hr: Tensor, border_px: int, peak: int = 255) -> dict[str, float]:
    """Return `psnr_y`, `ssim_y`, `psnr_rgb`, `ssim_rgb` of one image.

    Args:
        sr: `[1, C, H, W]`, whole numbers of 0 to `peak`.
        hr: like `sr`.
        border_px: width of the border that is left out on every side.
        peak: the value of white.
    """
    assert sr.shape[0] == 1, "one image, one score"
    return {
        f"{metric.__name__}_{channel}": float(metric(sr, hr, border_px, channel=channel, peak=peak))
        for channel in ("y", "rgb")
        for metric in (psnr, ssim)
    }


def luma_scores(sr: Tensor, hr: Tensor, border_px: int, peak: int = 255) -> dict[str, float]:
    """Return `psnr_y`, `ssim_y` of a network of luma alone, as those were published.

    The network's Y, clamped to black and white, is rounded to whole numbers, the ground truth's Y is not. (`scores`
    takes the luma of both from images that were rounded in RGB, which the output of such a network need never be.)

    Args:
        sr: `[1, 1, H, W]` gray in full range, whole or not, 0 to `peak`: black becomes 16 and white 235 of 255.
        hr: `[1, 3, H, W]`, whole numbers of 0 to `peak`.
        border_px: width of the border that is left out on every side.
        peak: the value of white.
    """
    _, truth = _prepared("luma_scores", hr, hr, border_px, "y", peak, least_px=WINDOW_PX)
    assert sr.shape == (1, 1, *hr.shape[-2:]), (sr.shape, hr.shape)
    height, width = sr.shape[-2:]
    inner = sr[..., border_px : height - border_px, border_px : width - border_px].to(truth).clamp(0, peak)
    made = (luma(inner, peak) + 0.5).floor()
    return {"psnr_y": float(_psnr(made, truth, peak)), "ssim_y": float(_mean_ssim(made, truth, peak))}


def _prepared(
    where: str, sr: Tensor, hr: Tensor, border_px: int, channel: str, peak: int, least_px: int
) -> tuple[Tensor, Tensor]:
    """Check two images; return them cropped, in float64, as luma or RGB."""
    if sr.shape != hr.shape or sr.ndim != 4 or sr.shape[1] not in (1, 3):
        raise InputError(
            f"{where}: sr and hr must have one shape [N, C, H, W] with C = 1 or 3, "
            f"got {list(sr.shape)} and {list(hr.shape)}."
        )
    if channel not in ("y", "rgb"):
        raise InputError(f'{where}: channel must be "y" or "rgb", got {channel!r}.')
    height, width = sr.shape[-2:]
    if border_px < 0:
        raise InputError(f"{where}: border_px must be 0 or more, got {border_px}.")
    if min(height, width) - 2 * border_px < least_px:
        raise InputError(
            f"{where}: an image of {width}x{height} px less {border_px} px on every side is too small, "
            f"{least_px}x{least_px} px must be left; leave the image out or crop less."
        )
    prepared = []
    for name, image in (("sr", sr), ("hr", hr)):
        if image.device.type == "mps":  # has no float64
            image = image.cpu()
        image = image[..., border_px : height - border_px, border_px : width - border_px].to(torch.float64)
        if not bool(((image == image.round()) & (image >= 0) & (image <= peak)).all()):
            raise InputError(
                f"{where}: {name} must hold whole numbers from 0 to {peak}, got values from {float(image.min()):g} "
                f"to {float(image.max()):g}; use selfsr.evaluation.psnr_ssim.to_levels() on an image in [0, 1]."
            )
        prepared.append(luma(image, peak) if channel == "y" else image)
    return prepared[0], prepared[1]


def _ssim_map(x: Tensor, y: Tensor, peak: int) -> Tensor:
    """SSIM at every position of the window inside `[N, 1, H, W]`, equation 13 of Wang et al. 2004."""
    # The two variances only occur as their sum, so four moments do.
    moments = _windowed(torch.cat([x, y, x * x + y * y, x * y], 1), axis=-1)
    mean_x, mean_y, square, product = _windowed(moments, axis=-2).chunk(4, 1)
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    squared_means, product_of_means = mean_x.square() + mean_y.square(), mean_x * mean_y
    luminance = (2 * product_of_means + c1) / (squared_means + c1)
    return luminance * (2 * (product - product_of_means) + c2) / (square - squared_means + c2)


def _windowed(x: Tensor, axis: int) -> Tensor:
    """Return the Gaussian mean along an axis at every position of the window inside; float64 conv2d is 7x slower."""
    reach = WINDOW_PX // 2
    taps = [math.exp(-(k**2) / (2 * SIGMA_PX**2)) for k in range(reach + 1)]
    whole = taps[0] + 2 * sum(taps[1:])
    length = x.shape[axis] - 2 * reach
    mean = x.narrow(axis, reach, length) * (taps[0] / whole)
    for k in range(1, reach + 1):
        pair = x.narrow(axis, reach - k, length) + x.narrow(axis, reach + k, length)
        mean.add_(pair, alpha=taps[k] / whole)
    return mean
