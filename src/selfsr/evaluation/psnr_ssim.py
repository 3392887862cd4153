"""PSNR and SSIM by the protocol of the super-resolution literature, on luma and on RGB.

Every number depends on five choices, and papers are comparable only where all five agree. These are the choices of
the literature since SRCNN (the text of EDSR, section 4, and the code of BasicSR):

* Both images are rounded to 8 bits first (`to_levels`); for networks with one channel see `score_luma_output`.
* Luma is BT.601 in studio range, not rounded (`rgb_to_y_studio`).
* The peak is 255, also for luma, which only spans 16 to 235. A full-range luma gives 1.32 dB less.
* A border of `border_px` (by convention the scale) is left out on every side.
* SSIM has an 11x11 Gaussian window of sigma 1.5 that stays inside the image (Wang et al. 2004, section III-C).

All sums are in float64. Nothing is averaged over a batch: each image has its own number.
"""

import torch
from torch import Tensor

from selfsr.errors import InputError
from selfsr.images.color import rgb_to_y_studio
from selfsr.losses.structural import WINDOW_PX, gaussian_taps

_ROWS_AT_ONCE = 64  # bounds the memory of SSIM and keeps its maps in the cache


def to_levels(image: Tensor, peak: int = 255) -> Tensor:
    """Round an image in [0, 1] to the whole numbers of a file.

    Args:
        image: float, any shape; values outside [0, 1] are clamped.
        peak: 255 for 8 bits, 65535 for 16 bits.

    Returns:
        Whole numbers from 0 to `peak`, in the dtype of `image`; halves are rounded up.

    Example:
        >>> to_levels(torch.tensor([-0.1, 0.5, 1.0]))
        tensor([  0., 128., 255.])
    """
    return (image.clamp(0, 1) * peak + 0.5).floor()


def psnr(sr: Tensor, hr: Tensor, border_px: int, *, channel: str = "rgb", peak: int = 255) -> Tensor:
    """Return the peak signal-to-noise ratio, `10 log10(peak^2 / mean((sr - hr)^2))`.

    Args:
        sr: `[N, C, H, W]`, C 1 or 3, whole numbers from 0 to `peak` in any dtype.
        hr: like `sr`.
        border_px: pixels at each side that are left out.
        channel: "rgb" for the mean over all channels, "y" for luma.
        peak: the value of white.

    Returns:
        `[N]` float64, in dB; infinite if the images are identical.

    Raises:
        InputError: the shapes differ, the values are not whole numbers in range, or nothing is left to compare.

    Example:
        >>> hr = torch.full((1, 3, 16, 16), 100)
        >>> psnr(hr + 1, hr, border_px=2)
        tensor([48.1308], dtype=torch.float64)
    """
    sr, hr = _select_pixels("psnr", sr, hr, border_px, channel, peak, least_px=1)
    return _psnr(sr, hr, peak)


def _psnr(sr: Tensor, hr: Tensor, peak: int) -> Tensor:
    return 10 * torch.log10(peak**2 / (sr - hr).square().mean((1, 2, 3)))


def ssim(sr: Tensor, hr: Tensor, border_px: int, *, channel: str = "rgb", peak: int = 255) -> Tensor:
    """Return the mean structural similarity, Wang et al. 2004, equation 13 with C1 = (0.01 peak)^2, C2 = (0.03 peak)^2.

    Args:
        sr: `[N, C, H, W]`, C 1 or 3, whole numbers from 0 to `peak` in any dtype.
        hr: like `sr`.
        border_px: pixels at each side that are left out, before the windows are placed.
        channel: "rgb" for the mean over the channels' SSIM, "y" for luma.
        peak: the value of white.

    Returns:
        `[N]` float64, at most 1.

    Raises:
        InputError: as for `psnr`, or less than one window of 11x11 pixels is left.

    Example:
        >>> hr = torch.arange(16 * 16).view(1, 1, 16, 16)
        >>> ssim(hr, hr, border_px=2)
        tensor([1.], dtype=torch.float64)
    """
    sr, hr = _select_pixels("ssim", sr, hr, border_px, channel, peak, least_px=WINDOW_PX)
    return _mean_ssim(sr, hr, peak)


def _mean_ssim(sr: Tensor, hr: Tensor, peak: int) -> Tensor:
    windows = (sr.shape[-2] - WINDOW_PX + 1) * (sr.shape[-1] - WINDOW_PX + 1)
    total = sr.new_zeros(sr.shape[0])
    for top in range(0, sr.shape[-2] - WINDOW_PX + 1, _ROWS_AT_ONCE):
        rows = slice(top, top + _ROWS_AT_ONCE + WINDOW_PX - 1)
        for c in range(sr.shape[1]):
            total += _ssim_map(sr[:, c : c + 1, rows], hr[:, c : c + 1, rows], peak).sum((1, 2, 3))
    return total / (windows * sr.shape[1])


def score_luma_output(sr: Tensor, hr: Tensor, border_px: int, peak: int = 255) -> dict[str, float]:
    """Return `psnr_y` and `ssim_y` of a network with one channel, as such networks were published.

    The Y of the network, clamped to black and white, is rounded to whole numbers; the Y of the ground truth is not.
    (`score_image` computes the luma of both from images that were rounded in RGB.)

    Args:
        sr: `[1, 1, H, W]` gray in full range, any values from 0 to `peak`; black becomes 16 and white 235 of 255.
        hr: `[1, 3, H, W]`, whole numbers from 0 to `peak`.
        border_px: pixels at each side that are left out.
        peak: the value of white.

    Example:
        >>> hr = torch.full((1, 3, 16, 16), 100)
        >>> scores = score_luma_output(torch.full((1, 1, 16, 16), 101.0), hr, border_px=2)
        >>> {name: round(score, 4) for name, score in scores.items()}
        {'psnr_y': 47.1647, 'ssim_y': 0.9999}
    """
    _, y_hr = _select_pixels("score_luma_output", hr, hr, border_px, "y", peak, least_px=WINDOW_PX)
    assert sr.shape == (1, 1, *hr.shape[-2:]), (sr.shape, hr.shape)
    height, width = sr.shape[-2:]
    inner = sr[..., border_px : height - border_px, border_px : width - border_px].to(y_hr).clamp(0, peak)
    y_sr = (rgb_to_y_studio(inner, peak) + 0.5).floor()
    return {"psnr_y": float(_psnr(y_sr, y_hr, peak)), "ssim_y": float(_mean_ssim(y_sr, y_hr, peak))}


def _select_pixels(
    caller: str, sr: Tensor, hr: Tensor, border_px: int, channel: str, peak: int, least_px: int
) -> tuple[Tensor, Tensor]:
    """Check two images; return them without the border, in float64, as luma or RGB."""
    if sr.shape != hr.shape or sr.ndim != 4 or sr.shape[1] not in (1, 3):
        raise InputError(
            f"{caller}: sr and hr must have one shape [N, C, H, W] with C = 1 or 3, "
            f"got {list(sr.shape)} and {list(hr.shape)}; crop or resize one of them."
        )
    if channel not in ("y", "rgb"):
        raise InputError(f'{caller}: channel must be "y" or "rgb", got {channel!r}; pass one of them.')
    height, width = sr.shape[-2:]
    if border_px < 0:
        raise InputError(f"{caller}: border_px must be 0 or more, got {border_px}; pass 0 for no border.")
    if min(height, width) - 2 * border_px < least_px:
        raise InputError(
            f"{caller}: at least {least_px} x {least_px} pixels inside the border are needed, got an image of "
            f"{height} x {width} (height x width) with a border of {border_px}; leave it out or use a smaller border."
        )
    selected = []
    for name, image in (("sr", sr), ("hr", hr)):
        if image.device.type == "mps":  # has no float64
            image = image.cpu()
        image = image[..., border_px : height - border_px, border_px : width - border_px].to(torch.float64)
        if not bool(((image == image.round()) & (image >= 0) & (image <= peak)).all()):
            raise InputError(
                f"{caller}: {name} must have whole numbers from 0 to {peak}, got values from {float(image.min()):g} "
                f"to {float(image.max()):g}; use selfsr.evaluation.psnr_ssim.to_levels() on an image in [0, 1]."
            )
        selected.append(rgb_to_y_studio(image, peak) if channel == "y" else image)
    return selected[0], selected[1]


def _ssim_map(x: Tensor, y: Tensor, peak: int) -> Tensor:
    """Return SSIM at every position of the window inside `[N, 1, H, W]`, equation 13 of Wang et al. 2004."""
    # The two variances only occur as their sum, so four moments do.
    moments = _gaussian_mean(torch.cat([x, y, x * x + y * y, x * y], 1), axis=-1)
    mean_x, mean_y, square, product = _gaussian_mean(moments, axis=-2).chunk(4, 1)
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    squared_means, product_of_means = mean_x.square() + mean_y.square(), mean_x * mean_y
    luminance = (2 * product_of_means + c1) / (squared_means + c1)
    return luminance * (2 * (product - product_of_means) + c2) / (square - squared_means + c2)


def _gaussian_mean(x: Tensor, axis: int) -> Tensor:
    """Return the Gaussian mean along an axis at every inner position of the window."""
    # conv2d in float64 is 7 times slower.
    reach = WINDOW_PX // 2
    taps = gaussian_taps()
    length = x.shape[axis] - 2 * reach
    mean = x.narrow(axis, reach, length) * taps[0]
    for k in range(1, reach + 1):
        pair = x.narrow(axis, reach - k, length) + x.narrow(axis, reach + k, length)
        mean.add_(pair, alpha=taps[k])
    return mean
