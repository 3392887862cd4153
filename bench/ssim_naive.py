"""The usual implementation of the SSIM map and the self-paced loss: the baseline of bench/pacing.py.

Five depthwise 11 x 11 convolutions compute E[x], E[y], E[x^2], E[y^2] and E[xy]; variances are differences of those.
This is the form of the published self-paced code and of most SSIM losses, in float32 as they run it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def make_window(channels: int, dtype: torch.dtype = torch.float32, device: torch.device | None = None) -> Tensor:
    """Return the depthwise Gaussian window `[channels, 1, 11, 11]` with a standard deviation of 1.5 px."""
    k = torch.arange(-5, 6, dtype=dtype, device=device)
    g = torch.exp(-(k**2) / (2 * 1.5**2))
    g = g / g.sum()
    return (g[:, None] * g[None, :]).expand(channels, 1, 11, 11).contiguous()


def ssim_map(x: Tensor, y: Tensor, taps: Tensor, data_range: float = 1.0) -> Tensor:
    """Return the SSIM map `[N, C, H, W]` with zero padding."""

    def mean(values: Tensor) -> Tensor:
        return F.conv2d(values, taps, padding=5, groups=values.shape[1])

    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mu_x, mu_y = mean(x), mean(y)
    mu_x2, mu_y2, mu_xy = mu_x * mu_x, mu_y * mu_y, mu_x * mu_y
    var_x, var_y = mean(x * x) - mu_x2, mean(y * y) - mu_y2
    cov = mean(x * y) - mu_xy
    return ((2 * mu_xy + c1) * (2 * cov + c2)) / ((mu_x2 + mu_y2 + c1) * (var_x + var_y + c2))


def self_paced_l1(sr: Tensor, hr: Tensor, sigma: float, taps: Tensor, peak: float = 2.0) -> Tensor:
    """Return the self-paced L1 loss, differentiable in `sr` by autograd."""
    with torch.no_grad():
        s = ssim_map(sr, hr, taps)
        w = peak * torch.exp(-(((s + 1) / sigma) ** 2))
    return F.l1_loss(sr * w, hr * w)
