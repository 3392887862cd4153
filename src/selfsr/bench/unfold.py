"""The baseline: the published formulation of the self-similarity loss, with `unfold` and autograd.

Implements docs/selfsim.md, eq. 1 to 5, in the steps of the published code: it unfolds all search areas of an image,
selects those of masked pixels, unfolds all windows of each, and differentiates by autograd. A masked pixel takes
C k^2 S^2 values in each of the tensors of the second unfold, several of which exist at once. Images are processed one
by one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsr.selfsim import reference


def unfold_graph(
    image: Tensor, mask: Tensor, *, search_px: int, window_px: int, sigma: float, normalize: bool
) -> Tensor:
    """Return the graph `[M, S*S]` of one image `[1, C, H, W]` at the pixels of `mask` `[1, 1, H, W]`."""
    h, f, channels = search_px // 2, window_px // 2, image.shape[1]
    padded = F.pad(image, (h, h, h, h), mode="reflect")
    areas = F.unfold(padded, search_px)[0].t()[mask.flatten()]
    areas = areas.view(-1, channels, search_px, search_px)
    # Windows read zeros beyond the search area.
    windows = F.unfold(areas, window_px, padding=f)
    center = windows[:, :, search_px**2 // 2, None]
    q = (windows - center).square().sum(1) / (channels * window_px**2)
    return reference.similarities(q, sigma, normalize)


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
    """Return the loss of the output's graph `x` against the ground truth's `y`, `[M, S*S]` (eq. 4, 5)."""
    l1, kl = reference.compare_graphs(x, y)
    return l1_weight * l1 + kl_weight * kl


def unfold_bytes(pixels: int, channels: int, search_px: int, window_px: int) -> int:
    """Estimate the peak memory of `unfold_loss` with its gradient in float32 for `pixels` masked pixels."""
    return 4 * 4 * pixels * channels * window_px**2 * search_px**2
