"""LDL: a map of where the generator draws artifacts, and the loss that is weighted by it.

Source: Liang, Zeng, Zhang, "Details or Artifacts: A Locally Discriminative Learning Approach to Realistic Image
Super-Resolution", CVPR 2022, section 3.
"""

import torch
from torch import Tensor

from selfsr.losses._images import prepared, windowed_variance

# The side of the windows, and the power of the variance of a whole image, as published.
WINDOW_PX = 7
POWER = 1 / 5


def artifact_map(sr: Tensor, hr: Tensor, ema_sr: Tensor | None = None, *, window_px: int = WINDOW_PX) -> Tensor:
    """Return how likely each pixel is an artifact: large where the residual varies around it and grew lately.

    With the residuals r = sum_c |hr - sr| of the output and r' of the averaged generator's output,

        A = Var(r)^(1/5) * Var_window(r),    and A = 0 where r < r',

    the first variance over a whole image, the second in the window around each pixel (mirrored at the border), both
    unbiased. Differentiable in `sr`; where r is the same all over an image, both are 0, and so is the gradient (the
    power by itself would make it NaN). Half-precision images are computed in float32.

    Args:
        sr: super-resolved images, float `[N, C, H, W]` in [0, 1], H and W above `window_px // 2`.
        hr: ground truth, like `sr`.
        ema_sr: what the averaged generator (EMA) made of the same input, like `sr`; None keeps the map as it is.
        window_px: side of the windows, odd.

    Returns:
        `[N, 1, H, W]`, at least 0.

    Raises:
        InputError: the images are not alike, or the window does not fit them.

    >>> hr = torch.zeros(1, 3, 8, 8)
    >>> sr = hr.clone()
    >>> sr[0, :, 4, 4] = 0.1
    >>> artifact_map(sr, hr)[0, 0, 4, 4].item() > 0
    True
    >>> artifact_map(sr, hr, average=1.5 * sr)[0, 0, 4, 4].item()  # it gets better there
    0.0
    """
    where = "artifact_map"
    if ema_sr is None:
        sr, hr = prepared(where, sr=sr, hr=hr)
    else:
        sr, hr, ema_sr = prepared(where, sr=sr, hr=hr, ema_sr=ema_sr)
    residual = (hr - sr).abs().sum(dim=1, keepdim=True)
    whole = residual.var(dim=(1, 2, 3), keepdim=True)
    varies = whole > 0
    # Where nothing varies the power's slope is infinite and would make 0 * inf of the gradient: keep it out.
    power = torch.where(varies, torch.where(varies, whole, 1.0) ** POWER, 0.0)
    weight = power * windowed_variance(where, residual, window_px)
    if ema_sr is None:
        return weight
    averaged = (hr - ema_sr.detach()).abs().sum(dim=1, keepdim=True)
    return torch.where(residual < averaged, 0.0, weight)


def artifact_loss(
    sr: Tensor,
    hr: Tensor,
    ema_sr: Tensor | None = None,
    *,
    window_px: int = WINDOW_PX,
    detach_map: bool = False,
) -> Tensor:
    """Return LDL's loss `mean(A |sr - hr|)`, with A the `artifact_map`, over batch, channels and pixels.

    As in the published code the gradient flows through the map's variances, too: of degree 3.4 in the residual, the
    loss is minimized as it stands. `detach_map` takes the map for a constant instead.

    Args:
        sr: super-resolved images, float `[N, C, H, W]` in [0, 1].
        hr: ground truth, like `sr`.
        ema_sr: what the averaged generator made of the same input, like `sr`; gets no gradient.
        window_px: side of the windows, odd.
        detach_map: no gradient through the map.

    Returns:
        A scalar.

    Raises:
        InputError: the images are not alike, or the window does not fit them.

    >>> hr = torch.rand(2, 3, 16, 16)
    >>> artifact_loss(hr, hr).item()
    0.0
    """
    weight = artifact_map(sr, hr, ema_sr, window_px=window_px)
    sr, hr = prepared("artifact_loss", sr=sr, hr=hr)
    return ((weight.detach() if detach_map else weight) * (sr - hr).abs()).mean()
