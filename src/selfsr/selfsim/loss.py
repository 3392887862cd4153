"""The self-similarity operator: the graph of an image, the loss between two graphs, and the loss as a module.

The mathematics, with the equation numbers used here, is in docs/selfsim.md. Source of the method: "SSL: A
Self-similarity Loss for Improving Generative Image Super-resolution", ACM Multimedia 2024.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from selfsr.errors import InputError, check_images, check_mask
from selfsr.masks import THRESHOLD, edge_mask
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
    r"""Return how similar each masked pixel's window is to every window of the search area around it.

    For a pixel p and a displacement d (eq. 1 to 3), with S = `search_px`, k = `window_px` and the image I
    extended by reflection,

        q(p, d) = 1/(C k^2) sum_{c, o} (I_c(p + o) - [p + d + o inside p's search area] I_c(p + d + o))^2
        s(p, d) = exp(-q(p, d) / sigma), divided by its sum over d if `normalize`.

    Differentiable in `image`, once. Computes in float32 (float64 for a float64 image), also under autocast.
    Inside torch.compile the number of rows depends on the mask, so `fullgraph=True` needs
    `torch._dynamo.config.capture_dynamic_output_shape_ops`.

    Args:
        image: float `[N, C, H, W]`, meant to be in [0, 1] (`sigma` is made for that; other values are taken as
            they are), any C, H and W above `search_px // 2`. NaN in a pixel's search area gives a row of NaN.
        mask: bool `[N, 1, H, W]`, which pixels get a row.
        search_px: side S of the square search area, odd.
        window_px: side k of the compared windows, odd, at most `search_px`.
        sigma: bandwidth of the similarity, above 0.
        normalize: divide each row by its sum.
        backend: "auto", or one of "cpu", "triton", "eager" by name.
        memory_mb: MiB of working memory beside the images and the result; None takes 256 on a CPU, else 1024.

    Returns:
        `[M, S*S]`: a row for each masked pixel, by image, row, column; entries by dy, then dx, from -(S//2).

    Raises:
        InputError: if an argument is not as described, the backend cannot run here or the budget is too small.
    """
    where = "self_similarity_graph"
    check_images(where, image=image)
    check_mask(where, mask, image)
    _check_geometry(where, image, search_px, window_px, sigma)
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
) -> Tensor:
    r"""Return how far the self-similarity graph X of `sr` is from the graph Y of `hr` at the masked pixels.

    With M masked pixels in the whole batch and S*S entries in each row (eq. 4 and 5),

        l1_weight * mean |X - Y| + kl_weight * mean Y' (ln Y' - ln X'),   X' = max(X, 1e-10), Y' = max(Y, 1e-10)

    The gradient goes to `sr` only and is computed together with the value; second derivatives are not
    available. Computes in float32 (float64 for float64 images), also under autocast. Gives the same bits each
    time. On a GPU the host waits once, for the number of masked pixels; see `max_pixels`.

    Args:
        sr: float `[N, C, H, W]`, meant to be in [0, 1] (`sigma` is made for that); values outside are taken as
            they are, nothing is clamped. NaN or infinity near a masked pixel gives NaN, so that a training loop can
            stop. H and W must exceed `search_px // 2`.
        hr: the ground truth, of the same shape.
        mask: bool `[N, 1, H, W]`, the pixels that count; None takes `selfsr.edge_mask(hr)`. Where it is empty
            the loss and its gradient are 0; images without a masked pixel add nothing.
        search_px: side S of the square search area, odd.
        window_px: side k of the compared windows, odd, at most `search_px`.
        sigma: bandwidth of the similarity `exp(-q / sigma)`, above 0.
        normalize: divide each row of the graph by its sum.
        l1_weight: weight of the L1 part. Published recipes use 1000 or 500 for both weights.
        kl_weight: weight of the KL part.
        reduction: "mean" over masked pixels and entries, so that a pixel weighs the same in every image of the
            batch; or "sum" over masked pixels of the mean over entries, for losses that are divided elsewhere.
        backend: "auto", or one of "cpu", "triton", "eager" by name.
        memory_mb: MiB of working memory beside the images and the gradient; work is cut to stay within it. None
            takes 256 on a CPU, else 1024.
        max_pixels: the most masked pixels there can be, where the host must not wait for the device, as in a CUDA
            graph. Their list has this length, the rest of it is filled with other pixels whose rows count for
            nothing, and what is computed and allocated depends on it alone: in one piece, which `memory_mb` must
            allow, at the price of `max_pixels` pixels. Of more masked pixels only the first `max_pixels` count.

    Returns:
        The loss, a scalar in float32 or float64.

    Raises:
        InputError: if an argument is not as described, the backend cannot run here or the budget is too small.

    Example:
        >>> sr, hr = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> loss = 1000 * self_similarity_loss(sr.requires_grad_(), hr)
        >>> loss.backward()
    """
    where = "self_similarity_loss"
    check_images(where, sr=sr, hr=hr)
    _check_geometry(where, sr, search_px, window_px, sigma)
    if reduction not in ("mean", "sum"):
        raise InputError(f"{where}: reduction must be 'mean' or 'sum', got {reduction!r}; take one of the two.")
    if max_pixels is not None and max_pixels < 1:
        raise InputError(f"{where}: max_pixels must be 1 or more, got {max_pixels}; None lets the mask decide.")
    pixels = edge_mask(hr) if mask is None else mask
    check_mask(where, pixels, hr)
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
    )
    return total if reduction == "sum" else total / pixels.sum().clamp(1, max_pixels)


class SelfSimilarityLoss(nn.Module):
    """`self_similarity_loss` with its options kept, as a module.

    Args:
        search_px: side S of the square search area, odd.
        window_px: side k of the compared windows, odd, at most `search_px`.
        sigma: bandwidth of the similarity, for images in [0, 1].
        normalize: divide each row of the graph by its sum.
        l1_weight: weight of the L1 part. Published recipes use 1000 or 500 for both weights.
        kl_weight: weight of the KL part.
        reduction: "mean" or "sum", see `self_similarity_loss`.
        backend: "auto", or one of "cpu", "triton", "eager" by name.
        memory_mb: see `self_similarity_loss`.
        max_pixels: see `self_similarity_loss`.
        mask_threshold: of the edge mask that is made from `hr` when `forward` gets none; see `edge_mask`, also
            for the next two.
        mask_stride: keep every `mask_stride`-th diagonal of that mask.
        two_sided: whether that mask has both sides of an edge.
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
        mask_threshold: float = THRESHOLD,
        mask_stride: int = 1,
        two_sided: bool = False,
    ):
        super().__init__()
        self.search_px = search_px
        self.window_px = window_px
        self.sigma = sigma
        self.normalize = normalize
        self.l1_weight = l1_weight
        self.kl_weight = kl_weight
        self.reduction: Literal["mean", "sum"] = reduction
        self.backend = backend
        self.memory_mb = memory_mb
        self.max_pixels = max_pixels
        self.mask_threshold = mask_threshold
        self.mask_stride = mask_stride
        self.two_sided = two_sided

    def forward(self, sr: Tensor, hr: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the loss of `sr` `[N, C, H, W]` against `hr`; with no mask, at the edges of `hr`."""
        if mask is None:
            mask = edge_mask(hr, threshold=self.mask_threshold, stride=self.mask_stride, two_sided=self.two_sided)
        return self_similarity_loss(
            sr,
            hr,
            mask,
            search_px=self.search_px,
            window_px=self.window_px,
            sigma=self.sigma,
            normalize=self.normalize,
            l1_weight=self.l1_weight,
            kl_weight=self.kl_weight,
            reduction=self.reduction,
            backend=self.backend,
            memory_mb=self.memory_mb,
            max_pixels=self.max_pixels,
        )

    def extra_repr(self) -> str:
        """Name the options that `repr` of the module shows."""
        shown = ("search_px", "window_px", "sigma", "normalize", "l1_weight", "kl_weight", "reduction", "backend")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)


def _check_geometry(where: str, image: Tensor, search_px: int, window_px: int, sigma: float) -> None:
    for name, side in (("search_px", search_px), ("window_px", window_px)):
        if side < 1 or side % 2 == 0:
            raise InputError(
                f"{where}: {name} must be odd and positive, got {side}; a square has a center pixel only then."
            )
    if window_px > search_px:
        raise InputError(
            f"{where}: window_px must be at most search_px, got {window_px} and {search_px}; "
            "take a smaller window or a larger search area."
        )
    if not sigma > 0:
        raise InputError(f"{where}: sigma must be above 0, got {sigma}; the published value is {Geometry.sigma}.")
    shortest = min(image.shape[2:])
    if search_px // 2 >= shortest:
        raise InputError(
            f"{where}: images must be larger than search_px // 2 = {search_px // 2} px to reflect the search area, "
            f"got {list(image.shape)}; pass larger crops or a search_px of at most {2 * shortest - 1}."
        )
