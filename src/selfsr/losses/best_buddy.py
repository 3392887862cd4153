"""Beby-GAN: the best-buddy loss, the back-projection loss, and the mask of flat regions.

Source: Li et al., "Best-Buddy GANs for Highly Detailed Image Super-Resolution", AAAI 2022 (arXiv 2103.15295),
section 3.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from selfsr.errors import InputError
from selfsr.losses._images import local_variance, prepare_images
from selfsr.losses.pixel import Criterion, pixel_loss
from selfsr.masks import LUMA_MATLAB

# Side of a patch, and the scales of hr that buddies are searched in, as published.
PATCH_PX = 3
SCALES = (1.0, 0.5, 0.25)
# MiB for the distances between patches.
MEMORY_MB = 256.0
# Side of the window and standard deviation of luma in [0, 1] below which a pixel is flat, as published.
FLAT_WINDOW_PX = 11
FLAT_THRESHOLD = 0.025


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

    The patches p_i of `sr` and g_i of `hr` form a grid from the top left without overlap; pixels left over at the
    bottom and right are ignored. The candidates c_j are the patches of `hr` and of its bicubically reduced versions.
    Then

        b(i) = argmin_j alpha ||g_i - c_j||^2 + beta ||p_i - c_j||^2,    L = mean_i l(p_i, c_b(i)).

    The gradient flows through p_i and not through the choice. All candidates are compared, in chunks that fit into
    `memory_mb`. The sum of squares is smallest for the c_j nearest to (alpha g_i + beta p_i) / (alpha + beta), which
    one matrix product finds. Half-precision images are computed in float32.

    Args:
        sr: super-resolved images, float `[N, C, H, W]` in [0, 1], H and W at least `patch_px`.
        hr: ground truth, like `sr`.
        criterion: "l1" (published), "l2" or "charbonnier".
        alpha: weight of the distance to the ground truth's patch.
        beta: weight of the distance to the output's patch.
        patch_px: side of a patch.
        scales: scales of `hr` to search in, including 1; scales at which `hr` is smaller than a patch are skipped.
        memory_mb: MiB for the distances between patches.

    Returns:
        A scalar.

    Raises:
        InputError: the images differ in shape or device or are smaller than a patch, or an option is out of range.

    >>> hr = torch.rand(2, 3, 12, 12)
    >>> best_buddy_loss(hr, hr).item()  # each patch is its own buddy
    0.0
    """
    caller = "best_buddy_loss"
    sr, hr = prepare_images(caller, sr=sr, hr=hr)
    compare = pixel_loss(caller, criterion)
    if patch_px < 1 or patch_px > min(sr.shape[2:]):
        raise InputError(f"{caller}: patch_px must be at least 1 and fit images of {list(sr.shape)}, got {patch_px}.")
    if min(alpha, beta) < 0 or alpha + beta <= 0:
        raise InputError(f"{caller}: alpha and beta must be 0 or more and not both 0, got {alpha} and {beta}.")
    if 1 not in scales or not all(0 < scale <= 1 for scale in scales):
        raise InputError(f"{caller}: scales must be in (0, 1] and include 1, got {list(scales)}.")
    patches = _split_patches(sr, patch_px)
    with torch.no_grad():
        targets = (alpha * _split_patches(hr, patch_px) + beta * patches) / (alpha + beta)
        buddies = _find_buddies(targets, hr, patch_px, scales, memory_mb)
    return compare(patches, buddies, reduction="mean")


def back_projection_loss(
    sr: Tensor,
    lr: Tensor,
    downscale: Callable[[Tensor], Tensor],
    *,
    criterion: Criterion = "l1",
) -> Tensor:
    """Return the difference between the downscaled output and the input, `mean l(downscale(sr), lr)`.

    Args:
        sr: super-resolved images, float `[N, C, s*h, s*w]` in [0, 1].
        lr: their low-resolution inputs, float `[N, C, h, w]` in [0, 1].
        downscale: maps `sr` to `[N, C, h, w]`, differentiably, as `lr` was made from the ground truth. Published:
            MATLAB's bicubic `imresize`, here `selfsr.images.resize.imresize` (`pip install "selfsr[train]"`).
        criterion: "l1" (published), "l2" or "charbonnier".

    Returns:
        A scalar.

    Raises:
        InputError: `downscale(sr)` and `lr` differ in size, or the criterion is unknown.

    >>> lr = torch.rand(2, 3, 4, 4)
    >>> sr = lr.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    >>> back_projection_loss(sr, lr, lambda image: torch.nn.functional.avg_pool2d(image, 2)).item()
    0.0
    """
    caller = "back_projection_loss"
    (sr,) = prepare_images(caller, sr=sr)
    downscaled, lr = prepare_images(caller, **{"downscale(sr)": downscale(sr), "lr": lr})
    return pixel_loss(caller, criterion)(downscaled, lr, reduction="mean")


def flat_mask(hr: Tensor, *, window_px: int = FLAT_WINDOW_PX, threshold: float = FLAT_THRESHOLD) -> Tensor:
    """Return the flat regions of the ground truth.

    Region-aware training hides them from the discriminator: `image * ~flat_mask(hr)`. A pixel is flat if the unbiased
    standard deviation of luma, 0.2989 R + 0.587 G + 0.114 B, in the window around it (reflected at the border) is below
    the threshold.

    Args:
        hr: ground truth, float `[N, C, H, W]` in [0, 1], RGB or gray.
        window_px: side of the window, odd.
        threshold: standard deviation in the units of `hr`.

    Returns:
        bool `[N, 1, H, W]`.

    Raises:
        InputError: `hr` is not a float image with 1 or 3 channels, or the window does not fit it.

    >>> flat_mask(torch.full((1, 3, 8, 8), 0.5)).all().item()
    True
    """
    return luma_deviation(hr, window_px=window_px) < threshold


def luma_deviation(hr: Tensor, *, window_px: int = FLAT_WINDOW_PX) -> Tensor:
    """Return the local standard deviation of luma that `flat_mask` thresholds, float `[N, 1, H, W]`.

    Args:
        hr: ground truth, float `[N, C, H, W]` in [0, 1], RGB or gray.
        window_px: side of the window, odd.

    Raises:
        InputError: `hr` is not a float image with 1 or 3 channels, or the window does not fit it.
    """
    caller = "flat_mask"
    (hr,) = prepare_images(caller, hr=hr.detach())
    if hr.shape[1] not in (1, 3):
        raise InputError(f"{caller}: hr must have 1 or 3 channels, got {list(hr.shape)}.")
    luma = hr
    if hr.shape[1] == 3:
        red, green, blue = (hr[:, c : c + 1] * weight for c, weight in enumerate(LUMA_MATLAB))
        luma = red + green + blue
    return local_variance(caller, luma, window_px).sqrt()


def _find_buddies(targets: Tensor, hr: Tensor, patch_px: int, scales: Sequence[float], memory_mb: float) -> Tensor:
    """Return the patch of `hr` or of its reduced versions that is nearest to each target, like `targets`."""
    pyramid = [hr if scale == 1 else _reduce(hr, scale) for scale in scales]
    candidates = torch.cat(
        [_split_patches(image, patch_px) for image in pyramid if min(image.shape[2:]) >= patch_px], dim=1
    )
    nearest = _find_nearest(targets, candidates, memory_mb)
    return candidates.gather(1, nearest[..., None].expand(-1, -1, candidates.shape[2]))


def _split_patches(image: Tensor, patch_px: int) -> Tensor:
    """Return the patches of a grid without overlap, `[N, patches, C * patch_px^2]`, row by row."""
    return functional.unfold(image, patch_px, stride=patch_px).mT


def _reduce(image: Tensor, scale: float) -> Tensor:
    """Reduce an image as published: bicubic without antialiasing, which keeps it sharp."""
    if int(min(image.shape[2:]) * scale) < 1:
        return image[:, :, :0, :0]
    return functional.interpolate(image, scale_factor=scale, mode="bicubic", align_corners=False)


def _find_nearest(targets: Tensor, candidates: Tensor, memory_mb: float) -> Tensor:
    """Return the index of the candidate `[N, K, D]` nearest to each target `[N, P, D]`, int64 `[N, P]`."""
    # |c|^2 - 2 c t has the same argmin as |c - t|^2; around the mean of the candidates little of it cancels.
    center = candidates.mean(dim=1, keepdim=True)
    targets, candidates = targets - center, candidates - center
    squares = candidates.square().sum(dim=2)[:, None]
    rows = max(1, int(memory_mb * 2**20 / (squares.numel() * squares.element_size())))
    with torch.autocast(targets.device.type, enabled=False):
        chunks: tuple[Tensor, ...] = torch.split(targets, rows, dim=1)
        return torch.cat(
            [torch.baddbmm(squares, chunk, candidates.mT, alpha=-2).argmin(dim=2) for chunk in chunks], dim=1
        )
