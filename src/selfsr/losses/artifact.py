"""LDL: a map of likely artifacts, and an L1 loss weighted by it.

Source: Liang, Zeng, Zhang, "Details or Artifacts: A Locally Discriminative Learning Approach to Realistic Image
Super-Resolution", CVPR 2022, section 3.
"""

import torch
from torch import Tensor

from selfsr.losses._images import local_variance, prepare_images

# Side of the windows and power of the image's variance, as published.
WINDOW_PX = 7
POWER = 1 / 5


def artifact_map(sr: Tensor, hr: Tensor, ema_sr: Tensor | None = None, *, window_px: int = WINDOW_PX) -> Tensor:
    """Return LDL's artifact map, which is large where the residual varies locally.

    With the residuals r = sum_c |hr - sr| of the output and r' of the EMA generator's output,

        A = Var(r)^(1/5) * Var_window(r),    and A = 0 where r < r'.

    The first variance is over the full image, the second in the window around each pixel (reflected at the border);
    both are unbiased. The map is differentiable in `sr`. For a constant residual, map and gradient are 0 (without
    that, the power would make the gradient NaN). Half-precision images are computed in float32.

    Args:
        sr: super-resolved images, float `[N, C, H, W]` in [0, 1], H and W above `window_px // 2`.
        hr: ground truth, like `sr`.
        ema_sr: output of the EMA generator for the same input, like `sr`; None skips the comparison with r'.
        window_px: side of the windows, odd.

    Returns:
        `[N, 1, H, W]`, at least 0.

    Raises:
        InputError: the images differ in shape or device, or the window does not fit them.

    >>> hr = torch.zeros(1, 3, 8, 8)
    >>> sr = hr.clone()
    >>> sr[0, :, 4, 4] = 0.1
    >>> artifact_map(sr, hr)[0, 0, 4, 4].item() > 0
    True
    >>> artifact_map(sr, hr, ema_sr=1.5 * sr)[0, 0, 4, 4].item()  # better than the EMA
    0.0
    """
    caller = "artifact_map"
    if ema_sr is None:
        sr, hr = prepare_images(caller, sr=sr, hr=hr)
    else:
        sr, hr, ema_sr = prepare_images(caller, sr=sr, hr=hr, ema_sr=ema_sr)
    residual = (hr - sr).abs().sum(dim=1, keepdim=True)
    image_variance = residual.var(dim=(1, 2, 3), keepdim=True)
    varies = image_variance > 0
    # At 0 the power has an infinite slope, and the gradient would be 0 * inf = NaN.
    power = torch.where(varies, torch.where(varies, image_variance, 1.0) ** POWER, 0.0)
    artifacts = power * local_variance(caller, residual, window_px)
    if ema_sr is None:
        return artifacts
    ema_residual = (hr - ema_sr.detach()).abs().sum(dim=1, keepdim=True)
    return torch.where(residual < ema_residual, 0.0, artifacts)


def artifact_loss(
    sr: Tensor,
    hr: Tensor,
    ema_sr: Tensor | None = None,
    *,
    window_px: int = WINDOW_PX,
    detach_map: bool = False,
) -> Tensor:
    """Return LDL's loss `mean(A |sr - hr|)` over batch, channels and pixels, with A the `artifact_map`.

    As in the published code, the gradient also flows through the variances of the map; the loss is of degree 3.4 in
    the residual. With `detach_map` the map is a constant.

    Args:
        sr: super-resolved images, float `[N, C, H, W]` in [0, 1].
        hr: ground truth, like `sr`.
        ema_sr: output of the EMA generator for the same input, like `sr`; gets no gradient.
        window_px: side of the windows, odd.
        detach_map: stop the gradient through the map.

    Returns:
        A scalar.

    Raises:
        InputError: the images differ in shape or device, or the window does not fit them.

    >>> hr = torch.rand(2, 3, 16, 16)
    >>> artifact_loss(hr, hr).item()
    0.0
    """
    artifacts = artifact_map(sr, hr, ema_sr, window_px=window_px)
    sr, hr = prepare_images("artifact_loss", sr=sr, hr=hr)
    return ((artifacts.detach() if detach_map else artifacts) * (sr - hr).abs()).mean()
