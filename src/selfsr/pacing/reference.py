"""The definition of SSIM map, weight and loss for tests: slow and simple, in float64.

Equation numbers are those of docs/pacing.md.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def window(tap_dtype: torch.dtype = torch.float64) -> Tensor:
    """Return the window `[11, 11]` of eq. 1 as float64, computed in `tap_dtype`.

    The published code computes its window in float32; with that window this module reproduces its values exactly.
    """
    k = torch.arange(-5, 6, dtype=tap_dtype)
    g = torch.exp(-(k**2) / (2 * 1.5**2))
    g = g / g.sum()
    return (g[:, None] @ g[None, :]).double()


def pad(image: Tensor, padding: str) -> Tensor:
    """Return `image` with 5 more pixels on each side."""
    if padding == "zero":
        return F.pad(image, (5, 5, 5, 5))
    for axis in (2, 3):
        size = image.shape[axis]
        if padding == "replicate":
            source = [min(max(i, 0), size - 1) for i in range(-5, size + 5)]
        else:
            # One period of a reflection that does not repeat the border: 0 1 2 3 2 1.
            period = [*range(size), *range(size - 2, 0, -1)]
            source = [period[i % len(period)] for i in range(-5, size + 5)]
        image = image.index_select(axis, torch.tensor(source))
    return image


def ssim(x: Tensor, y: Tensor, *, data_range: float = 1.0, padding: str = "zero", taps: Tensor | None = None) -> Tensor:
    """Return the SSIM map `[N, C, H, W]` of eq. 3; `taps` overrides the window."""
    x, y = pad(x.double(), padding), pad(y.double(), padding)
    taps = window() if taps is None else taps
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2

    def mean(values: Tensor) -> Tensor:
        # Each output pixel is a plain sum over its 121 neighbors.
        return (values.unfold(2, 11, 1).unfold(3, 11, 1) * taps).sum((-1, -2))

    # eq. 2
    mu_x, mu_y = mean(x), mean(y)
    var_x, var_y = mean(x * x) - mu_x**2, mean(y * y) - mu_y**2
    cov = mean(x * y) - mu_x * mu_y
    # eq. 3
    s = (2 * mu_x * mu_y + c1) * (2 * cov + c2) / ((mu_x**2 + mu_y**2 + c1) * (var_x + var_y + c2))
    return s.clamp(-1, 1)


def weight(s: Tensor, sigma: float, peak: float = 2.0) -> Tensor:
    """Return the weight of eq. 4 for an SSIM map."""
    if sigma == 0:
        return torch.where(s == -1, peak, 0.0).double()
    return peak * torch.exp(-(((s + 1) / sigma) ** 2))


def loss(sr: Tensor, hr: Tensor, w: Tensor, name: str, eps: float = 1e-3) -> Tensor:
    """Return each element's loss (eq. 5): the difference of the weighted images."""
    difference = sr * w - hr * w
    if name == "l1":
        return difference.abs()
    if name == "l2":
        return difference**2
    return torch.sqrt(difference**2 + eps**2)


def normalized_weight(s: Tensor, sigma: float) -> Tensor:
    """Return the weight of eq. 15 for an SSIM map: that of eq. 4 over its mean, by torch's softmax."""
    return s.numel() * torch.softmax(-(((s + 1) / sigma) ** 2).flatten(), 0).view_as(s)


def normalized_loss(sr: Tensor, hr: Tensor, v: Tensor, name: str, eps: float = 1e-3) -> Tensor:
    """Return each element's loss with normalized weights (eq. 15): the weight multiplies the loss."""
    return v * loss(sr, hr, torch.ones_like(v), name, eps)
