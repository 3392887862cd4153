"""The baseline: the self-similarity loss as the published torch code computes it, with `unfold` and autograd.

Written from the formulas (docs/selfsim.md, eq. 1 to 5) and from the description of that code's steps: all search
areas of an image are unfolded, those of masked pixels kept, all windows of each are unfolded, and autograd goes back
through everything. Each masked pixel takes C k^2 S^2 values for each tensor of the second unfold, of which several
are alive. Images are computed one after another.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

FLOOR = 1e-10


def unfold_graph(
    image: Tensor, mask: Tensor, *, search_px: int, window_px: int, sigma: float, normalize: bool
) -> Tensor:
    """Return the graph `[M, S*S]` of one image `[1, C, H, W]` at the pixels of `mask` `[1, 1, H, W]`."""
    h, f, channels = search_px // 2, window_px // 2, image.shape[1]
    padded = F.pad(image, (h, h, h, h), mode="reflect")
    areas = F.unfold(padded, search_px)[0].t()[mask.flatten()]
    areas = areas.view(-1, channels, search_px, search_px)
    # Zeros around each search area: what a window reads beyond it.
    windows = F.unfold(areas, window_px, padding=f)
    center = windows[:, :, search_px**2 // 2, None]
    q = (windows - center).square().sum(1) / (channels * window_px**2)
    s = torch.exp(-q / sigma)
    return s / s.sum(1, keepdim=True) if normalize else s


def unfold_loss(
    sr: Tensor,
    hr: Tensor,
    mask: Tensor,
    *,
    search_px: int,
    window_px: int,
    sigma: float,
    normalize: bool = True,
    l1_weight: float = 1.0,
    kl_weight: float = 1.0,
) -> Tensor:
    """Return the loss of `sr` against `hr` `[N, C, H, W]`; see `selfsr.self_similarity_loss`."""
    options = {"search_px": search_px, "window_px": window_px, "sigma": sigma, "normalize": normalize}
    masked = [n for n in range(len(mask)) if mask[n].any()]
    x = torch.cat([unfold_graph(sr[n : n + 1], mask[n : n + 1], **options) for n in masked])
    y = torch.cat([unfold_graph(hr[n : n + 1], mask[n : n + 1], **options) for n in masked])
    return graph_loss(x, y, l1_weight, kl_weight)


def graph_loss(x: Tensor, y: Tensor, l1_weight: float, kl_weight: float) -> Tensor:
    """Return the loss of the output's graph `x` against the ground truth's `y`, both `[M, S*S]` (eq. 4 and 5)."""
    floored_x, floored_y = x.clamp(min=FLOOR), y.clamp(min=FLOOR)
    kl = (floored_y * (floored_y.log() - floored_x.log())).mean()
    return l1_weight * (x - y).abs().mean() + kl_weight * kl


def unfold_bytes(pixels: int, channels: int, search_px: int, window_px: int) -> int:
    """Estimate the peak memory of `unfold_loss` with its gradient in float32 for `pixels` masked pixels."""
    return 4 * 4 * pixels * channels * window_px**2 * search_px**2
