"""The checkerboard loss: the error of an upscaled image must not depend on the position in the grid of the input.

Networks for a scale s compute s x s output pixels from each input pixel, each by its own weights. If the error differs
between these positions on average, a pattern with a period of s pixels covers the image: checkerboard artifacts (Odena,
Dumoulin, Olah, "Deconvolution and Checkerboard Artifacts", Distill 2016). That article has no such loss; this one
was designed for this project.
"""

from torch import Tensor

from selfsr.errors import InputError
from selfsr.losses._images import prepare_images


def checkerboard_loss(sr: Tensor, hr: Tensor, *, period_px: int, window_px: int | None = None) -> Tensor:
    """Return the mean absolute deviation of the mean error at each position of a period.

    Equation (18) of docs/losses.md. Let `m(p)` be the mean of `sr - hr` over the pixels (y, x) of one window of one
    channel of one image for which `(y mod s, x mod s) = p`, with the period s. Then

        L = mean |m(p) - mean_p m(p)|

    over the s * s positions p, windows, channels and images. An error that is equal at all positions, such as a wrong
    color, costs nothing. Random errors of standard deviation sigma give about `0.8 sigma s / window_px`. Pixels at
    the right and bottom edge that do not fill a window are left out. Half-precision images are computed in float32.

    Args:
        sr: super-resolved images, float `[N, C, H, W]` in [0, 1].
        hr: ground truth, like `sr`.
        period_px: s, usually the scale of the network; at least 2.
        window_px: side of the windows, a multiple of `period_px`. Small windows also find patterns that change over the
            image. None takes the complete image.

    Returns:
        A scalar.

    Raises:
        InputError: the images differ in shape or device or are smaller than a window, `period_px` is below 2, or
            `window_px` is no positive multiple of it.

    >>> import torch
    >>> hr = torch.rand(1, 3, 64, 64)
    >>> pattern = torch.zeros(64, 64)
    >>> pattern[::2, ::2] = 0.04
    >>> round(checkerboard_loss(hr + pattern, hr, period_px=2).item(), 4)
    0.015
    >>> round(checkerboard_loss(hr + 0.1, hr, period_px=2).item(), 4)
    0.0
    """
    caller = "checkerboard_loss"
    sr, hr = prepare_images(caller, sr=sr, hr=hr)
    sizes: dict[str, object] = {"period_px": period_px, "window_px": window_px}
    for name, value in sizes.items():
        if value is not None and not isinstance(value, int):
            raise InputError(f"{caller}: {name} must be an integer, got {value!r}.")
    if period_px < 2:
        raise InputError(f"{caller}: period_px must be 2 or more, got {period_px}; pass the scale of the network.")
    if window_px is not None and (window_px < period_px or window_px % period_px):
        raise InputError(
            f"{caller}: window_px must be a positive multiple of period_px {period_px}, got {window_px}; pass "
            f"{max(1, round(window_px / period_px)) * period_px}."
        )
    images, channels, height, width = sr.shape
    rows_px, columns_px = (
        side // period_px * period_px if window_px is None else window_px for side in (height, width)
    )
    if min(rows_px, columns_px) < period_px or rows_px > height or columns_px > width:
        raise InputError(
            f"{caller}: images must be at least {window_px or period_px} px high and wide, got {list(sr.shape)}; pass "
            "larger crops or a smaller window_px."
        )
    down, across = height // rows_px, width // columns_px
    error = (sr - hr)[:, :, : down * rows_px, : across * columns_px]
    by_position = error.reshape(
        images, channels, down, rows_px // period_px, period_px, across, columns_px // period_px, period_px
    ).mean(dim=(3, 6))  # [N, C, windows down, s, windows across, s]
    return (by_position - by_position.mean(dim=(3, 5), keepdim=True)).abs().mean()
