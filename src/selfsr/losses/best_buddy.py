"""Beby-GAN: patches compared with their best buddy, the result with its input, and where an image is flat.

Source: Li et al., "Best-Buddy GANs for Highly Detailed Image Super-Resolution", AAAI 2022 (arXiv 2103.15295),
section 3.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from selfsr.errors import InputError
from selfsr.losses._images import prepared, windowed_variance
from selfsr.losses.pixel import Criterion, distance

# Side of a patch, and the sizes of hr in which buddies are looked for, as published.
PATCH_PX = 3
SCALES = (1.0, 0.5, 0.25)
# MiB for the table of distances.
MEMORY_MB = 256.0
# Where a window counts as flat, as published: its side, and the deviation of luma of [0, 1] below which it is.
FLAT_WINDOW_PX = 11
FLAT_THRESHOLD = 0.025
# The luma of MATLAB's rgb2gray.
_LUMA = (0.2989, 0.587, 0.114)


def best_buddy_loss(
    sr: Tensor,
    hr: Tensor,
    *,
    criterion: Criterion = "l1",
    alpha: float = 1.0,
    beta: float = 1.0,
    patch_px: int = PATCH_PX,
    scales: Sequence[float] = SCALES,
    memory_mb: float = MEMORY_MB,
) -> Tensor:
    """Return the mean difference between each patch of `sr` and its best buddy in the ground truth.

    Patches p_i of `sr` and g_i of `hr` do not overlap: they lie `patch_px` apart from the top left, and what is left
    over at the bottom and the right is not looked at. Candidates c_j are the patches of `hr` and of its bicubically
    reduced versions. Then

        b(i) = argmin_j alpha ||g_i - c_j||^2 + beta ||p_i - c_j||^2,    L = mean_i l(p_i, c_b(i)).

    The choice has no gradient; p_i does. All candidates are compared, in pieces that fit the memory: the sum of the
    squares is smallest where c_j is next to (alpha g_i + beta p_i) / (alpha + beta), which takes one product of
    matrices. Half-precision images are computed in float32.

    Args:
        sr: super-resolved images, float `[N, C, H, W]` in [0, 1], H and W at least `patch_px`.
        hr: ground truth, like `sr`.
        criterion: "l1" (published), "l2" or "charbonnier".
        alpha: how much a buddy must be like the ground truth's patch.
        beta: how much it must be like the output's patch.
        patch_px: side of a patch.
        scales: sizes of `hr` in which buddies are looked for, 1 among them; one in which it is smaller than a patch
            adds no candidate.
        memory_mb: MiB for the table of distances.

    Returns:
        A scalar.

    Raises:
        InputError: the images are not alike or smaller than a patch, or an option is out of range.

    >>> hr = torch.rand(2, 3, 12, 12)
    >>> best_buddy_loss(hr, hr).item()  # each patch is its own buddy
    0.0
    """
    where = "best_buddy_loss"
    sr, hr = prepared(where, sr=sr, hr=hr)
    compare = distance(where, criterion)
    if patch_px < 1 or patch_px > min(sr.shape[2:]):
        raise InputError(f"{where}: patch_px must be at least 1 and fit images of {list(sr.shape)}, got {patch_px}.")
    if min(alpha, beta) < 0 or alpha + beta <= 0:
        raise InputError(f"{where}: alpha and beta must be 0 or more and not both 0, got {alpha} and {beta}.")
    if 1 not in scales or not all(0 < scale <= 1 for scale in scales):
        raise InputError(f"{where}: scales must be in (0, 1], 1 among them, got {list(scales)}.")
    patches = _patches(sr, patch_px)
    with torch.no_grad():
        sizes = [hr if scale == 1 else _reduced(hr, scale) for scale in scales]
        candidates = torch.cat([_patches(size, patch_px) for size in sizes if min(size.shape[2:]) >= patch_px], dim=1)
        wanted = (alpha * _patches(hr, patch_px) + beta * patches) / (alpha + beta)
        chosen = _nearest(wanted, candidates, memory_mb)
        buddies = candidates.gather(1, chosen[..., None].expand(-1, -1, candidates.shape[2]))
    return compare(patches, buddies, reduction="mean")


def back_projection_loss(
    sr: Tensor,
    lr: Tensor,
    downscale: Callable[[Tensor], Tensor],
    *,
    criterion: Criterion = "l1",
) -> Tensor:
    """Return how far the output, made small again, is from the input: `mean l(downscale(sr), lr)`.

    Args:
        sr: super-resolved images, float `[N, C, s*h, s*w]` in [0, 1].
        lr: what they were made of, float `[N, C, h, w]` in [0, 1].
        downscale: makes `[N, C, h, w]` of `sr`, with a gradient. Published is MATLAB's bicubic `imresize`, which the
            trainer has as `selfsr.images.resize.imresize`; it should be what made `lr`.
        criterion: "l1" (published), "l2" or "charbonnier".

    Returns:
        A scalar.

    Raises:
        InputError: `downscale` gives another size than `lr` has, or the criterion is unknown.

    >>> lr = torch.rand(2, 3, 4, 4)
    >>> sr = lr.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    >>> back_projection_loss(sr, lr, lambda image: torch.nn.functional.avg_pool2d(image, 2)).item()
    0.0
    """
    where = "back_projection_loss"
    (sr,) = prepared(where, sr=sr)
    made, lr = prepared(where, **{"downscale(sr)": downscale(sr), "lr": lr})
    return distance(where, criterion)(made, lr, reduction="mean")


def flat_mask(hr: Tensor, *, window_px: int = FLAT_WINDOW_PX, threshold: float = FLAT_THRESHOLD) -> Tensor:
    """Return where the ground truth is flat: region-aware training shows the discriminator both images without these.

    A pixel is flat if the unbiased standard deviation of luma, 0.2989 R + 0.587 G + 0.114 B, in the window around it
    (mirrored at the border) is below a threshold. To mask an image: `image * ~flat_mask(hr)`.

    Args:
        hr: ground truth, float `[N, C, H, W]` in [0, 1], RGB or gray.
        window_px: side of the window, odd.
        threshold: in units of the image.

    Returns:
        bool `[N, 1, H, W]`.

    Raises:
        InputError: `hr` is no such image, or the window does not fit it.

    >>> flat_mask(torch.full((1, 3, 8, 8), 0.5)).all().item()
    True
    """
    return luma_deviation(hr, window_px=window_px) < threshold


def luma_deviation(hr: Tensor, *, window_px: int = FLAT_WINDOW_PX) -> Tensor:
    """Return the standard deviation of luma by which `flat_mask` decides, float `[N, 1, H, W]`.

    Args:
        hr: ground truth, float `[N, C, H, W]` in [0, 1], RGB or gray.
        window_px: side of the window, odd.

    Raises:
        InputError: `hr` is no such image, or the window does not fit it.
    """
    where = "flat_mask"
    (hr,) = prepared(where, hr=hr.detach())
    if hr.shape[1] not in (1, 3):
        raise InputError(f"{where}: hr must have 1 or 3 channels, got {list(hr.shape)}.")
    luma = hr if hr.shape[1] == 1 else sum(hr[:, c : c + 1] * weight for c, weight in enumerate(_LUMA))
    assert isinstance(luma, Tensor)
    return windowed_variance(where, luma, window_px).sqrt()


def _patches(image: Tensor, side: int) -> Tensor:
    """Return the patches that do not overlap, `[N, patches, C * side * side]`, row by row."""
    return functional.unfold(image, side, stride=side).mT


def _reduced(image: Tensor, scale: float) -> Tensor:
    """Reduce as published: bicubic without antialiasing, so that the small versions stay sharp."""
    if int(min(image.shape[2:]) * scale) < 1:
        return image[:, :, :0, :0]
    return functional.interpolate(image, scale_factor=scale, mode="bicubic", align_corners=False)


def _nearest(wanted: Tensor, candidates: Tensor, memory_mb: float) -> Tensor:
    """Return the index of the nearest candidate `[N, K, D]` of each `[N, P, D]`, int64 `[N, P]`."""
    # Around their mean the squares are small, and little cancels in |c|^2 - 2 c w, which has the same argmin.
    center = candidates.mean(dim=1, keepdim=True)
    wanted, candidates = wanted - center, candidates - center
    length = candidates.square().sum(dim=2)[:, None]
    rows = max(1, int(memory_mb * 2**20 / (length.numel() * length.element_size())))
    with torch.autocast(wanted.device.type, enabled=False):
        return torch.cat(
            [torch.baddbmm(length, part, candidates.mT, alpha=-2).argmin(dim=2) for part in wanted.split(rows, dim=1)],
            dim=1,
        )
