"""The one path from images to loss and gradient: the three stages of a backend over chunks, as torch.library nodes.

The loss is a scalar whose only differentiable input is the super-resolved image, so its gradient is computed
together with its value and kept as one image-sized tensor; nothing of the size of a graph outlives a chunk.
"""

import contextlib
from collections.abc import Iterator
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsr._ops import backends, register
from selfsr.selfsim.chunks import check_budget, cut, is_masked
from selfsr.selfsim.contract import Geometry, sum_dtype


def load_backend(where: str, requested: str, image: Tensor) -> ModuleType:
    """Import and return the backend module for `image`; see `selfsr._ops.backends.choose`."""
    name = backends.choose(where, requested, image)
    if name == "cpu":
        from selfsr.selfsim.cpu import backend as cpu

        return cpu
    if name == "triton":
        from selfsr.selfsim.triton import backend as kernels

        return kernels
    from selfsr.selfsim import eager

    return eager


def loss_and_gradient(
    sr: Tensor,
    hr: Tensor,
    mask: Tensor,
    geometry: Geometry,
    l1_weight: float,
    kl_weight: float,
    with_gradient: bool,
    backend: str,
    memory_mb: float,
    max_pixels: int | None,
) -> tuple[Tensor, Tensor]:
    """Return the loss summed over the masked pixels and, if asked for, its gradient towards `sr` (else empty)."""
    where, h = "self_similarity_loss", geometry.half_search
    stages = load_backend(where, backend, sr)
    check_budget(where, sr, geometry, memory_mb, max_pixels)
    padded_sr, padded_hr = _pad(sr, h), _pad(hr, h)
    total = torch.zeros((), dtype=sum_dtype(sr), device=sr.device)
    gradient = torch.zeros_like(padded_sr) if with_gradient else None
    for chunk, pixels in cut(mask, geometry, sr.element_size(), memory_mb, max_pixels):
        band, band_hr = (chunk.of(padded, h).contiguous() for padded in (padded_sr, padded_hr))
        # NaN for NaN and infinity: an infinite difference alone would be no more than a similarity of 0.
        total += 0 * (band.sum() + band_hr.sum())
        q_sr = stages.graph_sums(band, pixels, geometry)
        q_hr = stages.graph_sums(band_hr, pixels, geometry)
        unused = None if max_pixels is None else is_masked(pixels, mask).logical_not_()
        if unused is not None:
            # Pixels that only fill up the list: equal rows have no loss.
            q_sr.masked_fill_(unused, 0)
            q_hr.masked_fill_(unused, 0)
        parts, grad_q = stages.row_pass(q_sr, q_hr, geometry, l1_weight, kl_weight, with_gradient)
        total += parts.sum()
        del q_sr, q_hr, band_hr
        if gradient is not None:
            assert grad_q is not None, "asked for the gradient, the backend gave none"
            if unused is not None:
                grad_q.masked_fill_(unused, 0)
            chunk.of(gradient, h).add_(stages.graph_backward(_finite(band), grad_q, pixels, geometry))
    return total.to(sr.dtype), sr.new_empty(0) if gradient is None else _fold(gradient, h)


def _pad(image: Tensor, h: int) -> Tensor:
    image = image.contiguous()
    return F.pad(image, (h, h, h, h), mode="reflect") if h and image.numel() else image


def _finite(band: Tensor) -> Tensor:
    """Return `band` with 0 for NaN and infinity: a backend multiplies differences with weights that may be 0.

    Where a pixel has seen one, its gradient towards q is NaN (or 0, at an infinite distance) and says so. Without
    this, 0 * NaN would reach neighbors that have not, and in a batch laid out as one array the next image.
    """
    return torch.nan_to_num(band, nan=0.0, posinf=0.0, neginf=0.0)


def _fold(padded: Tensor, h: int) -> Tensor:
    """Add what lies on the reflected border to the pixels it mirrors; the transpose of `_pad`.

    torch's own backward of reflect padding adds with atomics on a GPU, in no fixed order.
    """
    if h == 0 or not padded.numel():
        return padded
    height, width = padded.shape[2] - 2 * h, padded.shape[3] - 2 * h
    padded[..., h + 1 : 2 * h + 1] += padded[..., :h].flip(-1)
    padded[..., width - 1 : width + h - 1] += padded[..., h + width :].flip(-1)
    columns = padded[..., h : h + width]
    columns[:, :, h + 1 : 2 * h + 1] += columns[:, :, :h].flip(-2)
    columns[:, :, height - 1 : height + h - 1] += columns[:, :, h + height :].flip(-2)
    return columns[:, :, h : h + height].contiguous()


@contextlib.contextmanager
def _plain_arithmetic(image: Tensor) -> Iterator[None]:
    """Compute on the tensor's own device, in the dtype given, whatever is set around."""
    device = torch.cuda.device(image.device) if image.is_cuda else contextlib.nullcontext()
    with device, torch.autocast(image.device.type, enabled=False):
        yield


def _fake_loss(sr, hr, mask, *options):  # noqa: ARG001  (the operator's arguments, here and below)
    with_gradient = options[6]
    return sr.new_empty(()), sr.new_empty(sr.shape if with_gradient else 0)


def _fake_graph(image, mask, search_px, *options):  # noqa: ARG001
    return image.new_empty(torch.library.get_ctx().new_dynamic_size(), search_px**2)


def _fake_graph_backward(grad, graph, image, *options):  # noqa: ARG001
    return image.new_empty(image.shape)


@register.operator("self_similarity_loss", fake=_fake_loss)
def loss_op(
    sr: Tensor,
    hr: Tensor,
    mask: Tensor,
    search_px: int,
    window_px: int,
    sigma: float,
    normalize: bool,
    l1_weight: float,
    kl_weight: float,
    with_gradient: bool,
    backend: str,
    memory_mb: float,
    max_pixels: int | None,
) -> tuple[Tensor, Tensor]:
    """`loss_and_gradient` as torch sees it."""
    geometry = Geometry(search_px, window_px, sigma, normalize)
    with _plain_arithmetic(sr):
        return loss_and_gradient(
            sr, hr, mask, geometry, l1_weight, kl_weight, with_gradient, backend, memory_mb, max_pixels
        )


def _keep_gradient(ctx, inputs, output) -> None:
    ctx.has_gradient = inputs[9]
    ctx.save_for_backward(output[1])
    ctx.set_materialize_grads(False)


def _scale_gradient(ctx, grad_total, grad_gradient):
    # The gradient is an output of the node, so that a second derivative arrives here instead of being lost.
    if grad_gradient is not None:
        raise RuntimeError("self_similarity_loss has no second derivatives, but they were asked for.")
    assert ctx.has_gradient, "a backward pass needs with_gradient"
    (gradient,) = ctx.saved_tensors
    return (None if grad_total is None else grad_total * gradient, *(None,) * 12)


register.register_gradient("self_similarity_loss", _scale_gradient, _keep_gradient)


@register.operator("self_similarity_graph", fake=_fake_graph)
def graph_op(
    image: Tensor,
    mask: Tensor,
    search_px: int,
    window_px: int,
    sigma: float,
    normalize: bool,
    backend: str,
    memory_mb: float,
) -> Tensor:
    """Return the graph `[M, S*S]` of `image` at the pixels of `mask` (eq. 1 to 3)."""
    where = "self_similarity_graph"
    geometry = Geometry(search_px, window_px, sigma, normalize)
    h = geometry.half_search
    with _plain_arithmetic(image):
        stages = load_backend(where, backend, image)
        check_budget(where, image, geometry, memory_mb, None)
        padded = _pad(image, h)
        rows = [image.new_empty(0, geometry.entries)]
        for chunk, pixels in cut(mask, geometry, image.element_size(), memory_mb, None):
            s = stages.graph_sums(chunk.of(padded, h).contiguous(), pixels, geometry).div_(-sigma).exp_()
            if normalize:
                s /= s.sum(0)
            rows.append(s.t().contiguous())
        return torch.cat(rows)


@register.operator("self_similarity_graph_backward", fake=_fake_graph_backward)
def graph_backward_op(
    grad: Tensor,
    graph: Tensor,
    image: Tensor,
    mask: Tensor,
    search_px: int,
    window_px: int,
    sigma: float,
    normalize: bool,
    backend: str,
    memory_mb: float,
) -> Tensor:
    """Return the gradient towards `image`, given that towards its graph `[M, S*S]` (eq. 10 to 12)."""
    geometry = Geometry(search_px, window_px, sigma, normalize)
    h = geometry.half_search
    with _plain_arithmetic(image):
        stages = load_backend("self_similarity_graph", backend, image)
        padded = _pad(image, h)
        gradient = torch.zeros_like(padded)
        done = 0
        for chunk, pixels in cut(mask, geometry, image.element_size(), memory_mb, None):
            x = graph[done : done + chunk.pixels]
            grad_q = x * grad[done : done + chunk.pixels]
            if normalize:
                grad_q -= x * grad_q.sum(1, keepdim=True)
            grad_q = grad_q.div_(-sigma).t().contiguous()
            band = chunk.of(padded, h).contiguous()
            chunk.of(gradient, h).add_(stages.graph_backward(_finite(band), grad_q, pixels, geometry))
            done += chunk.pixels
        return _fold(gradient, h)


def _keep_graph(ctx, inputs, output) -> None:
    ctx.save_for_backward(output, *inputs[:2])
    ctx.options = inputs[2:]


def _graph_to_image(ctx, grad):
    graph, image, mask = ctx.saved_tensors
    return graph_backward_op(grad, graph, image, mask, *ctx.options), *(None,) * 7


register.register_gradient("self_similarity_graph", _graph_to_image, _keep_graph)
