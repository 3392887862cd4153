"""The GPU baseline, like the published operator: a thread for each (pixel, displacement) and atomics.

Implements docs/selfsim.md, eq. 1 to 5, in Triton. Each thread goes through the k x k x C values of its two windows. The
forward pass sums their squared differences. The backward pass adds the gradient of both values of each difference to
the image atomically, so the last bits differ from run to run. Exponentials, row sums, both parts of the loss and their
gradients are computed by torch. Rows are stored pixel by pixel, `[M, S*S]`.
"""

# Names in a kernel are values of Triton's language, which type checkers do not know.
# pyright: reportArgumentType=false, reportIndexIssue=false

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from selfsr._ops import backends
from selfsr.bench.unfold import graph_loss
from selfsr.errors import InputError
from selfsr.selfsim import reference

# Threads of a program, one for each displacement of a pixel.
BLOCK = 256


@triton.jit
def _locate_thread(
    pixel_image, pixel_row, pixel_column, height, width,
    H: tl.constexpr, S: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Return pixel, index and offsets of the displacement, offset of the pixel, and size of a channel."""
    blocks: tl.constexpr = (S * S + BLOCK - 1) // BLOCK
    pixel = (tl.program_id(0) // blocks).to(tl.int64)
    d = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    channel = height.to(tl.int64) * width
    n, y, x = tl.load(pixel_image + pixel), tl.load(pixel_row + pixel), tl.load(pixel_column + pixel)
    center = n * C * channel + (y + H) * width + x + H
    return pixel, d, d // S - H, d % S - H, center, channel


@triton.jit
def distances(
    image, q, pixel_image, pixel_row, pixel_column, height, width,
    H: tl.constexpr, F: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write q `[M, S*S]` (eq. 1) of the padded `image` `[N, C, height, width]`."""
    S: tl.constexpr = 2 * H + 1
    pixel, d, dy, dx, center, channel = _locate_thread(
        pixel_image, pixel_row, pixel_column, height, width, H, S, C, BLOCK
    )
    total = tl.zeros([BLOCK], image.dtype.element_ty)
    for c in range(C):
        for oy in range(-F, F + 1):
            for ox in range(-F, F + 1):
                near = image + center + c * channel + oy * width + ox
                valid = (d < S * S) & (tl.abs(dy + oy) <= H) & (tl.abs(dx + ox) <= H)
                difference = tl.load(near) - tl.load(near + dy * width + dx, mask=valid, other=0.0)
                total += difference * difference
    tl.store(q + pixel * S * S + d, total / (C * (2 * F + 1) * (2 * F + 1)), mask=d < S * S)


@triton.jit
def scatter_gradients(
    image, grad_q, grad, pixel_image, pixel_row, pixel_column, height, width,
    H: tl.constexpr, F: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add the gradient of eq. 1 to `grad`, of the shape of the padded `image`, from that of q."""
    S: tl.constexpr = 2 * H + 1
    pixel, d, dy, dx, center, channel = _locate_thread(
        pixel_image, pixel_row, pixel_column, height, width, H, S, C, BLOCK
    )
    scale = 2.0 / (C * (2 * F + 1) * (2 * F + 1))
    weight = tl.load(grad_q + pixel * S * S + d, mask=d < S * S, other=0.0) * scale
    for c in range(C):
        for oy in range(-F, F + 1):
            for ox in range(-F, F + 1):
                near = center + c * channel + oy * width + ox
                far = near + dy * width + dx
                valid = (d < S * S) & (tl.abs(dy + oy) <= H) & (tl.abs(dx + ox) <= H)
                value = weight * (tl.load(image + near) - tl.load(image + far, mask=valid, other=0.0))
                tl.atomic_add(grad + near + d * 0, value, mask=d < S * S)
                tl.atomic_add(grad + far, -value, mask=valid)


class _Distances(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, padded: Tensor, pixels: tuple[Tensor, ...], search_px: int, window_px: int) -> Tensor:
        height, width = padded.shape[2:]
        constants = {"H": search_px // 2, "F": window_px // 2, "C": padded.shape[1], "BLOCK": BLOCK}
        count = pixels[0].numel()
        q = padded.new_empty(count, search_px**2)
        grid = (count * triton.cdiv(search_px**2, BLOCK),)
        distances[grid](padded, q, *pixels, height, width, **constants)
        ctx.save_for_backward(padded, *pixels)
        ctx.grid, ctx.constants = grid, constants
        return q

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        padded, *pixels = ctx.saved_tensors
        grad = torch.zeros_like(padded)
        scatter_gradients[ctx.grid](padded, grads[0].contiguous(), grad, *pixels, *padded.shape[2:], **ctx.constants)
        return grad, None, None, None


def atomic_loss(
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
    reason = backends.why_not_triton(sr)
    if reason is not None:
        raise InputError(f"bench: the baseline with atomics needs a GPU with Triton, but {reason}; leave it out.")
    pixels = tuple(mask[:, 0].nonzero(as_tuple=True))
    h = search_px // 2

    def graph(image: Tensor) -> Tensor:
        padded = F.pad(image.contiguous(), (h, h, h, h), mode="reflect")
        q: Tensor = _Distances.apply(padded, pixels, search_px, window_px)
        return reference.similarities(q, sigma, normalize)

    x = graph(sr)
    with torch.no_grad():
        y = graph(hr)
    return graph_loss(x, y, l1_weight, kl_weight)
