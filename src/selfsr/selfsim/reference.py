"""The definition of the self-similarity graph and loss: slow, used by tests and benchmarks only.

Equation numbers are those of docs/selfsim.md. The code is plain, so that it can be checked by reading.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# The floor under both graphs in eq. 5, as published.
FLOOR = 1e-10


def graph(image: Tensor, mask: Tensor, *, search_px: int, window_px: int, sigma: float, normalize: bool) -> Tensor:
    """Return the graph `[M, S*S]` of `image` `[N, C, H, W]` at the pixels of `mask` `[N, 1, H, W]`."""
    h, f = search_px // 2, window_px // 2
    channels = image.shape[1]
    padded = F.pad(image, (h, h, h, h), mode="reflect")
    n, y, x = mask[:, 0].nonzero(as_tuple=True)
    # areas[m, c, i, j] = I~_c(p_m + (i - h, j - h)): the search area of each masked pixel.
    areas = padded.unfold(2, search_px, 1).unfold(3, search_px, 1)[n, :, y, x]
    # Outside the search area a window reads zeros: the factor 1[|d + o| <= h] of eq. 1.
    zero_padded = F.pad(areas, (f, f, f, f))
    center = areas[:, :, h - f : h + f + 1, h - f : h + f + 1]
    rows = []
    for dy in range(-h, h + 1):
        for dx in range(-h, h + 1):
            window = zero_padded[:, :, h + dy : h + dy + window_px, h + dx : h + dx + window_px]
            # eq. 1
            rows.append((center - window).square().sum((1, 2, 3)) / (channels * window_px**2))
    return similarities(torch.stack(rows, 1), sigma, normalize)


def similarities(q: Tensor, sigma: float, normalize: bool) -> Tensor:
    """Return the graph `[M, S*S]` of the window distances q `[M, S*S]` (eq. 2 and 3)."""
    s = torch.exp(-q / sigma)
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
    l1, kl = compare_graphs(x, y)
    return l1_weight * l1, kl_weight * kl


def compare_graphs(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the L1 and KL parts (eq. 4, 5) of graph x of the output against y of the ground truth."""
    l1 = (x - y).abs().mean()
    x_floored, y_floored = x.clamp(min=FLOOR), y.clamp(min=FLOOR)
    kl = (y_floored * (y_floored.log() - x_floored.log())).mean()
    return l1, kl
