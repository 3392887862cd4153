"""MATLAB's bicubic `imresize`, the resampler that makes the low-resolution images of the literature.

The kernel is Keys' cubic with a = -1/2 (Keys, "Cubic convolution interpolation for digital image processing", 1981,
eq. 15). When an axis shrinks by `scale` < 1, the kernel is stretched by 1 / scale and acts as low-pass filter
("antialiasing"). Beyond the border the image is mirrored, with the edge pixel repeated (symmetric padding).
"""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import _disable_current_modes

from selfsr.errors import InputError

# The stretched kernel extends 2 low-resolution pixels beyond the center of an output pixel.
HALO_LR_PX = 2


def imresize(image: Tensor, scale: float | None = None, size: tuple[int, int] | None = None) -> Tensor:
    """Resize images like MATLAB's bicubic `imresize`, with antialiasing when an axis shrinks.

    It computes in the dtype of `image` (float16 and bfloat16: in float32) and on its device, independent of autocast
    and TF32 settings. It is deterministic, differentiable any number of times, and needs a host sync only at the first
    call for a size.

    Args:
        image: float `[N, C, H, W]`, any range; the result may overshoot that range.
        scale: factor for both axes; the output has ceil(H * scale) by ceil(W * scale) pixels.
        size: `(height, width)` of the output, instead of `scale`; each axis then has its own factor.

    Returns:
        The resized image, dtype and device of `image`.

    Raises:
        InputError: not exactly one of `scale` and `size`; not a float image with four axes; a size below 1.

    Example:
        >>> imresize(torch.full((1, 3, 8, 12), 0.5), scale=1 / 4).shape
        torch.Size([1, 3, 2, 3])
    """
    if image.ndim != 4 or not image.is_floating_point():
        raise InputError(
            f"imresize: image must be a float tensor [N, C, H, W], got {image.dtype} {list(image.shape)}; "
            "convert 8-bit images with image.float() / 255."
        )
    if (scale is None) == (size is None):
        raise InputError(
            f"imresize: expected exactly one of scale and size, got scale={scale} and size={size}; pass one."
        )
    height, width = image.shape[-2:]
    if scale is not None:
        if not (math.isfinite(scale) and scale > 0):
            raise InputError(f"imresize: scale must be a positive number, got {scale}; pass the factor of the size.")
        factors = (float(scale), float(scale))
        # The subtraction compensates the rounding of the product: 70 * 0.1 is 7.000000000000001.
        size = (math.ceil(height * scale - 1e-9), math.ceil(width * scale - 1e-9))
    else:
        assert size is not None
        if min(size) < 1:
            raise InputError(
                f"imresize: size must be at least 1 x 1, got {size[0]} x {size[1]}; pass (height, width) in pixels."
            )
        factors = (size[0] / height, size[1] / width)

    work = image if image.dtype in (torch.float32, torch.float64) else image.float()
    axes = ((2, height, size[0], factors[0]), (3, width, size[1], factors[1]))
    # The axis that shrinks most comes first, as in MATLAB: this leaves less work for the other.
    for axis, n_in, n_out, factor in sorted(axes, key=lambda a: a[3]):
        if n_in != n_out or factor != 1:
            work = _resize_axis(work, axis, n_in, n_out, factor)
    return work.to(image.dtype).contiguous()


def mod_crop(image: Tensor, scale: int) -> Tensor:
    """Crop `[..., H, W]` at the bottom and right so that both sides are multiples of `scale`.

    Raises:
        InputError: a side is shorter than `scale`.
    """
    height, width = image.shape[-2:]
    if min(height, width) < scale:
        raise InputError(
            f"mod_crop: the image must have at least {scale} x {scale} pixels, got {height} x {width} "
            "(height x width); leave the image out or use a smaller scale."
        )
    return image[..., : height - height % scale, : width - width % scale]


def bicubic_lr(hr: Tensor, scale: int, *, bits: int | None = 8, halo_px: int = 0) -> Tensor:
    """Make the LR image as in published LR files: bicubic by 1 / scale, clipped and rounded.

    Args:
        hr: float `[N, C, H, W]` in [0, 1], H and W multiples of `scale`.
        scale: factor of the super-resolution task.
        bits: bits per sample to which the result is rounded (half up); None: neither rounded nor clipped.
        halo_px: pixels of `hr` at each side that are context only and have no counterpart in the result; a multiple of
            `scale`. With at least `HALO_LR_PX * scale` pixels of the image around a crop, mirrored at the border of the
            image as by `symmetric_index`, the result is the crop of the complete image's LR.

    Returns:
        float `[N, C, (H - 2 halo_px) / scale, (W - 2 halo_px) / scale]`.
    """
    height, width = hr.shape[-2:]
    assert all(px % scale == 0 for px in (height, width, halo_px)), (height, width, halo_px, scale)
    lr = imresize(hr, scale=1 / scale)
    trim = halo_px // scale
    lr = lr[..., trim : lr.shape[-2] - trim, trim : lr.shape[-1] - trim]
    return lr if bits is None else round_to_bits(lr, bits)


def round_to_bits(image: Tensor, bits: int = 8) -> Tensor:
    """Clip an image to [0, 1] and round it (half up) to the levels of a file with `bits` per sample."""
    peak = 2**bits - 1
    return (image * peak + 0.5).floor().clamp(0, peak) / peak


def symmetric_index(index: np.ndarray, n: int) -> np.ndarray:
    """Map any integer index to `0 .. n - 1` by mirroring with the edge repeated: -1 to 0, n to n - 1."""
    index = index % (2 * n)
    return np.where(index < n, index, 2 * n - 1 - index)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -1/2."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


@lru_cache(maxsize=64)
def compute_taps(n_in: int, n_out: int, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Compute the taps of `imresize` along one axis: output[o] = sum over t of weight[o, t] * input[index[o, t]].

    Args:
        n_in: length of the input.
        n_out: length of the output.
        factor: of the size.

    Returns:
        (index, weight), both `[n_out, taps]`, int64 and float64.
    """
    stretch = min(factor, 1.0)
    reach = 2 / stretch
    # Pixel o covers [o, o + 1] / factor of the input; this is its center, in input pixels counted from 0.
    center = (np.arange(n_out) + 0.5) / factor - 0.5
    first = np.floor(center - reach).astype(np.int64)
    position = first[:, None] + np.arange(math.ceil(2 * reach) + 2)
    weight = _cubic((center[:, None] - position) * stretch)
    weight /= weight.sum(axis=1, keepdims=True)
    used = (weight != 0).any(axis=0)
    return symmetric_index(position[:, used], n_in), weight[:, used]


@lru_cache(maxsize=64)
def _transposed_taps(n_in: int, n_out: int, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the taps of the transposed matrix, both `[n_in, taps]`, rows padded with weight 0."""
    index, weight = compute_taps(n_in, n_out, factor)
    # At the mirrored edge an input can occur twice in a row: merge them, so that each pair is one tap.
    pair, inverse = np.unique(index * n_out + np.arange(n_out)[:, None], return_inverse=True)
    merged = np.bincount(inverse.ravel(), weights=weight.ravel())
    row, column = np.divmod(pair[merged != 0], n_out)
    count = np.bincount(row, minlength=n_in)
    start = np.concatenate(([0], np.cumsum(count)[:-1]))
    slot = np.arange(len(row)) - start[row]
    out_index = np.zeros((n_in, max(1, int(count.max()))), np.int64)
    out_weight = np.zeros(out_index.shape)
    out_index[row, slot] = column
    out_weight[row, slot] = merged[merged != 0]
    return out_index, out_weight


def _taps_on(
    n_in: int, n_out: int, factor: float, transposed: bool, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the taps as tensors, which are constants of a compiled graph: their values decide their sizes."""
    return _cached_taps_on(n_in, n_out, factor, transposed, dtype, device)


# What torch.compiler.assume_constant_result sets; that function would import the compiler.
_taps_on._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]


@lru_cache(maxsize=128)
def _cached_taps_on(
    n_in: int, n_out: int, factor: float, transposed: bool, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the taps as tensors; cached, so that a training step neither computes nor copies them."""
    index, weight = (_transposed_taps if transposed else compute_taps)(n_in, n_out, factor)
    # A cached inference tensor could not be used in training, nor one without data after an estimate of memory.
    with torch.inference_mode(False), _disable_current_modes():
        return torch.from_numpy(index).to(device), torch.from_numpy(weight).to(device=device, dtype=dtype)


class _Resample(torch.autograd.Function):
    """Multiply axis 0 of `[n, K]` by the banded matrix of one axis; the derivative is the transposed matrix."""

    @staticmethod
    def forward(ctx, rows: Tensor, key: tuple[int, int, float], transposed: bool) -> Tensor:
        ctx.key, ctx.transposed = key, transposed
        index, weight = _taps_on(*key, transposed, rows.dtype, rows.device)
        return weighted_sums(rows, index, weight)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _Resample.apply(grads[0].contiguous(), ctx.key, not ctx.transposed), None, None


def weighted_sums(rows: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Return weighted sums of rows, `[M, K]`: row m is the sum over t of weight[m, t] * rows[index[m, t]].

    Args:
        rows: `[N, K]`.
        index: `[M, taps]`, integers below N.
        weight: `[M, taps]`, dtype of `rows`.
    """
    if rows.device.type in ("cpu", "cuda"):
        # A gather fused with the sum: on CPUs 2 to 3 times faster than a dense product or a loop over taps and,
        # unlike a product, independent of autocast and TF32.
        return functional.embedding_bag(index, rows, per_sample_weights=weight, mode="sum")
    total = rows.new_zeros(index.shape[0], rows.shape[1])
    for tap in range(index.shape[1]):
        total += rows.index_select(0, index[:, tap]) * weight[:, tap, None]
    return total


def _resize_axis(image: Tensor, axis: int, n_in: int, n_out: int, factor: float) -> Tensor:
    # The other axes keep their order in memory in any layout: rows are then copied in long runs.
    order = [axis, *sorted((d for d in range(4) if d != axis), key=lambda d: -image.stride(d))]
    axis_first = image.permute(order)
    out = _Resample.apply(axis_first.reshape(n_in, -1).contiguous(), (n_in, n_out, factor), False)
    assert isinstance(out, Tensor)
    return out.reshape(n_out, *axis_first.shape[1:]).permute([order.index(d) for d in range(4)])
