"""The self-similarity graph of an image, and the loss between two graphs as a function and a module.

The mathematics, with the equation numbers used here, is in docs/selfsim.md. Source of the method: "SSL: A
Self-similarity Loss for Improving Generative Image Super-resolution", ACM Multimedia 2024.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from selfsr.errors import InputError, RangeCheck, check_choice, check_images, check_mask
from selfsr.masks import STRIDE, THRESHOLD, edge_mask
from selfsr.selfsim.contract import Geometry, default_memory_mb
from selfsr.selfsim.operator import graph_op, loss_op

__all__ = ["SelfSimilarityLoss", "self_similarity_graph", "self_similarity_loss"]


def self_similarity_graph(
    image: Tensor,
    mask: Tensor,
    *,
    search_px: int = Geometry.search_px,
    window_px: int = Geometry.window_px,
    sigma: float = Geometry.sigma,
    normalize: bool = Geometry.normalize,
    backend: str = "auto",
    memory_mb: float | None = None,
) -> Tensor:
    r"""Return the self-similarity of each masked pixel to every position of its search area.

    For a pixel p and a displacement d (eq. 1 to 3), with S = `search_px`, k = `window_px` and the image I
    extended by reflection,

        q(p, d) = 1/(C k^2) sum_{c, o} (I_c(p + o) - [p + d + o inside p's search area] I_c(p + d + o))^2
        s(p, d) = exp(-q(p, d) / sigma), divided by its sum over d if `normalize`.

    Differentiable in `image`, once. Computes in float32 (float64 for a float64 image), even under autocast.
    Inside torch.compile the number of rows depends on the mask, so `fullgraph=True` needs
    `torch._dynamo.config.capture_dynamic_output_shape_ops`.

    Args:
        image: float `[N, C, H, W]`, any C, H and W above `search_px // 2`. `sigma` is meant for values in [0, 1];
            others are used unchanged. NaN in a pixel's search area gives a row of NaN.
        mask: bool `[N, 1, H, W]`, the pixels that get a row.
        search_px: side S of the square search area, odd.
        window_px: side k of the compared windows, odd, at most `search_px`.
        sigma: bandwidth of the similarity `exp(-q / sigma)`, above 0.
        normalize: divide each row by its sum.
        backend: "auto", "cpu", "triton" or "eager".
        memory_mb: MiB of working memory in addition to the images and the result. None is 256 on a CPU, else 1024.

    Returns:
        `[M, S*S]`: a row for each masked pixel, by image, row, column; entries by dy, then dx, from -(S//2).

    Raises:
        InputError: an argument is not as described, the backend cannot run or the budget is too small.

    Example:
        >>> image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> mask = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
        >>> mask[..., 10, 20] = True
        >>> self_similarity_graph(image, mask).shape
        torch.Size([1, 625])
    """
    caller = "self_similarity_graph"
    check_images(caller, image=image)
    check_mask(caller, mask, image)
    _check_geometry(caller, image, search_px, window_px, sigma)
    image = image.to(torch.promote_types(image.dtype, torch.float32))
    budget = default_memory_mb(image) if memory_mb is None else memory_mb
    return graph_op(image, mask, search_px, window_px, sigma, normalize, backend, budget)


def self_similarity_loss(
    sr: Tensor,
    hr: Tensor,
    mask: Tensor | None = None,
    *,
    search_px: int = Geometry.search_px,
    window_px: int = Geometry.window_px,
    sigma: float = Geometry.sigma,
    normalize: bool = Geometry.normalize,
    l1_weight: float = 1.0,
    kl_weight: float = 1.0,
    reduction: Literal["mean", "sum"] = "mean",
    backend: str = "auto",
    memory_mb: float | None = None,
    max_pixels: int | None = None,
    row_counts: Tensor | None = None,
) -> Tensor:
    r"""Return the distance between the self-similarity graphs X of `sr` and Y of `hr`.

    With M masked pixels in the batch and S*S entries in each row (eq. 4 and 5),

        l1_weight * mean |X - Y| + kl_weight * mean Y' (ln Y' - ln X'),   X' = max(X, 1e-10), Y' = max(Y, 1e-10)

    The gradient goes to `sr` only and is computed together with the value. There are no second derivatives.
    Computes in float32 (float64 for float64 images), even under autocast. The result is the same bit for bit each
    time. On a GPU the host waits once, for the number of masked pixels; see `max_pixels` and `row_counts`.

    Args:
        sr: the network's output, float `[N, C, H, W]`, H and W above `search_px // 2`. `sigma` is meant for values
            in [0, 1]; others are used unchanged, without clamping. NaN or infinity near a masked pixel gives NaN,
            so that a training loop can stop.
        hr: the ground truth, of the same shape.
        mask: bool `[N, 1, H, W]`, the pixels that count; None is `selfsr.edge_mask(hr, stride=3)`, as published. With
            an empty mask the loss and its gradient are 0. Images without a masked pixel add nothing.
        search_px: side S of the square search area, odd.
        window_px: side k of the compared windows, odd, at most `search_px`.
        sigma: bandwidth of the similarity `exp(-q / sigma)`, above 0.
        normalize: divide each row of the graph by its sum.
        l1_weight: weight of the L1 part. Published recipes use 1000 or 500 for both weights.
        kl_weight: weight of the KL part.
        reduction: "mean" over masked pixels and entries, so that a pixel weighs the same in every image of the
            batch; or "sum" over masked pixels of the mean over entries, for a caller that divides by itself.
        backend: "auto", "cpu", "triton" or "eager".
        memory_mb: MiB of working memory in addition to the images and the gradient; the batch is split into chunks
            to stay within it. None is 256 on a CPU, else 1024.
        max_pixels: an upper bound of the number of masked pixels, needed only if the host must not wait for the
            device, as in a CUDA graph. The list of pixels then has this length and is padded with pixels that do
            not count. Time and memory depend on this number instead of the mask. The batch is one chunk, which
            `memory_mb` must allow. If more pixels are masked, only the first `max_pixels` count.
        row_counts: the number of masked pixels in each row of each image, integers `[N, H]` on the CPU, for a caller
            that has counted them before the forward pass, so that the host need not wait. They must be those of
            `mask`, which is not checked.

    Returns:
        The loss, a scalar in float32 or float64.

    Raises:
        InputError: an argument is not as described, the backend cannot run or the budget is too small.

    Example:
        >>> sr, hr = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> loss = 1000 * self_similarity_loss(sr.requires_grad_(), hr)
        >>> loss.backward()
    """
    caller = "self_similarity_loss"
    check_images(caller, sr=sr, hr=hr)
    _check_geometry(caller, sr, search_px, window_px, sigma)
    check_choice(caller, "reduction", reduction, ("mean", "sum"))
    if max_pixels is not None and max_pixels < 1:
        raise InputError(f"{caller}: max_pixels must be 1 or more, got {max_pixels}; pass None to count them.")
    pixels = edge_mask(hr, stride=STRIDE) if mask is None else mask
    check_mask(caller, pixels, hr)
    _check_row_counts(caller, row_counts, pixels)
    dtype = torch.promote_types(torch.promote_types(sr.dtype, hr.dtype), torch.float32)
    total, _ = loss_op(
        sr.to(dtype),
        hr.detach().to(dtype),
        pixels,
        search_px,
        window_px,
        sigma,
        normalize,
        l1_weight,
        kl_weight,
        sr.requires_grad and torch.is_grad_enabled(),
        backend,
        default_memory_mb(sr) if memory_mb is None else memory_mb,
        max_pixels,
        row_counts,
    )
    return total if reduction == "sum" else total / pixels.sum().clamp(1, max_pixels)


class SelfSimilarityLoss(nn.Module):
    """Compute `self_similarity_loss` as a module that stores the options.

    Args:
        search_px: side S of the square search area, odd.
        window_px: side k of the compared windows, odd, at most `search_px`.
        sigma: bandwidth of the similarity `exp(-q / sigma)`, for images in [0, 1].
        normalize: divide each row of the graph by its sum.
        l1_weight: weight of the L1 part. Published recipes use 1000 or 500 for both weights.
        kl_weight: weight of the KL part.
        reduction: "mean" or "sum", see `self_similarity_loss`.
        backend: "auto", "cpu", "triton" or "eager".
        memory_mb: see `self_similarity_loss`.
        max_pixels: see `self_similarity_loss`.
        threshold: threshold of the edge mask of `hr`, which `forward` uses if it gets no mask; see `edge_mask`, also
            for the next two options. These three have the names and defaults of the term of a recipe.
        stride: keep every `stride`-th diagonal of that mask; 1 keeps all edges, with three times the pixels.
        two_sided: whether that mask has both sides of an edge.

    Attributes:
        options: the options of `self_similarity_loss`, by name.
        mask_options: the options of `edge_mask`, by name.
        check_range: warns at the first call if the images are not in [0, 1].

    Example:
        >>> criterion = SelfSimilarityLoss(l1_weight=1000, kl_weight=1000)
        >>> sr, hr = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> criterion(sr.requires_grad_(), hr).backward()
    """

    def __init__(
        self,
        *,
        search_px: int = Geometry.search_px,
        window_px: int = Geometry.window_px,
        sigma: float = Geometry.sigma,
        normalize: bool = Geometry.normalize,
        l1_weight: float = 1.0,
        kl_weight: float = 1.0,
        reduction: Literal["mean", "sum"] = "mean",
        backend: str = "auto",
        memory_mb: float | None = None,
        max_pixels: int | None = None,
        threshold: float = THRESHOLD,
        stride: int = STRIDE,
        two_sided: bool = False,
    ):
        super().__init__()
        self.options: dict[str, Any] = {
            "search_px": search_px,
            "window_px": window_px,
            "sigma": sigma,
            "normalize": normalize,
            "l1_weight": l1_weight,
            "kl_weight": kl_weight,
            "reduction": reduction,
            "backend": backend,
            "memory_mb": memory_mb,
            "max_pixels": max_pixels,
        }
        self.mask_options: dict[str, Any] = {
            "threshold": threshold,
            "stride": stride,
            "two_sided": two_sided,
        }
        self.check_range: RangeCheck = RangeCheck(type(self).__name__)

    def forward(self, sr: Tensor, hr: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the loss of `sr` against `hr`, both `[N, C, H, W]`; without a mask, at the edges of `hr`."""
        if mask is None:
            mask = edge_mask(hr, **self.mask_options)
        check_images("self_similarity_loss", sr=sr, hr=hr)
        self.check_range(sr, hr)
        return self_similarity_loss(sr, hr, mask, **self.options)

    def extra_repr(self) -> str:
        """Return the options, for `repr`."""
        return ", ".join(f"{name}={value!r}" for name, value in (self.options | self.mask_options).items())


def _check_row_counts(caller: str, row_counts: Tensor | None, mask: Tensor) -> None:
    if row_counts is None:
        return
    size = (mask.shape[0], mask.shape[2])
    if row_counts.is_floating_point() or row_counts.device.type != "cpu" or row_counts.shape != size:
        raise InputError(
            f"{caller}: row_counts must be integers {list(size)} on the CPU, got {row_counts.dtype} "
            f"{list(row_counts.shape)} on {row_counts.device}; pass mask.sum((1, 3)).cpu()."
        )


def _check_geometry(caller: str, image: Tensor, search_px: int, window_px: int, sigma: float) -> None:
    for name, side in (("search_px", search_px), ("window_px", window_px)):
        if side < 1 or side % 2 == 0:
            raise InputError(
                f"{caller}: {name} must be odd and positive, got {side}; pass {max(side - 1, 1)} or {max(side + 1, 3)}."
            )
    if window_px > search_px:
        raise InputError(
            f"{caller}: window_px must be at most search_px, got {window_px} and {search_px}; "
            "pass a smaller window or a larger search area."
        )
    if not sigma > 0:
        raise InputError(f"{caller}: sigma must be above 0, got {sigma}; pass {Geometry.sigma} as published.")
    shortest = min(image.shape[2:])
    if search_px // 2 >= shortest:
        raise InputError(
            f"{caller}: images must be larger than search_px // 2 = {search_px // 2} px to reflect the search area, "
            f"got {list(image.shape)}; pass larger crops or a search_px of at most {2 * shortest - 1}."
        )
