"""The self-similarity graph and loss as defined: slow, float64, read by tests and by the benchmark's judge only.

Equation numbers are those of docs/selfsim.md. Nothing here is clever, so that it can be believed.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# The floor under both graphs in eq. 5, as published.
FLOOR = 1e-10


def graph(image: Tensor, mask: Tensor, *, search_px: int, window_px: int, sigma: float, normalize: bool) -> Tensor:
    """Return the graph `[M, search_px**2]` of `image` `[N, C, H, W]` at the pixels of `mask` `[N, 1, H, W]`."""
    h, f = search_px // 2, window_px // 2
    channels = image.shape[1]
    padded = F.pad(image, (h, h, h, h), mode="reflect")
    n, y, x = mask[:, 0].nonzero(as_tuple=True)
    # areas[m, c, i, j] = I~_c(p_m + (i - h, j - h)): the search area of each masked pixel.
    areas = padded.unfold(2, search_px, 1).unfold(3, search_px, 1)[n, :, y, x]
    # Outside its search area a window sees zeros: the factor 1[|d + o| <= h] of eq. 1.
    walled = F.pad(areas, (f, f, f, f))
    center = areas[:, :, h - f : h + f + 1, h - f : h + f + 1]
    rows = []
    for dy in range(-h, h + 1):
        for dx in range(-h, h + 1):
            window = walled[:, :, h + dy : h + dy + window_px, h + dx : h + dx + window_px]
            # eq. 1
            rows.append((center - window).square().sum((1, 2, 3)) / (channels * window_px**2))
    q = torch.stack(rows, 1)
    # eq. 2
    s = torch.exp(-q / sigma)
    # eq. 3
    return s / s.sum(1, keepdim=True) if normalize else s


def loss_parts(
    sr: Tensor,
    hr: Tensor,
    mask: Tensor,
    *,
    search_px: int,
    window_px: int,
    sigma: float,
    normalize: bool,
    l1_weight: float = 1.0,
    kl_weight: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Return the weighted L1 and KL parts (eq. 4 and 5), each the mean over masked pixels and entries."""
    options = {"search_px": search_px, "window_px": window_px, "sigma": sigma, "normalize": normalize}
    x = graph(sr, mask, **options)
    y = graph(hr, mask, **options)
    # eq. 4
    l1 = (x - y).abs().mean()
    # eq. 5
    x_floored, y_floored = x.clamp(min=FLOOR), y.clamp(min=FLOOR)
    kl = (y_floored * (y_floored.log() - x_floored.log())).mean()
    return l1_weight * l1, kl_weight * kl
