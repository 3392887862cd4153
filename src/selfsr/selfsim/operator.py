"""The torch operators: they run the three stages of a backend over the chunks of a batch.

The loss is a scalar, and its only differentiable input is the super-resolved image. Its gradient is computed together
with its value and kept as one tensor of the image's size. Graphs live only as long as their chunk.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsr._ops import register
from selfsr._ops.dispatch import disable_autocast, load_backend
from selfsr.selfsim.chunks import check_budget, is_masked, split_into_chunks
from selfsr.selfsim.contract import Geometry, sum_dtype

# The backends are modules of this package.
PACKAGE = "selfsr.selfsim"


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
    row_counts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the loss summed over masked pixels, and its gradient with respect to `sr` (empty if not requested)."""
    caller, h = "self_similarity_loss", geometry.half_search
    stages = load_backend(PACKAGE, caller, backend, sr)
    check_budget(caller, sr, geometry, memory_mb, max_pixels)
    padded_sr, padded_hr = _pad_reflect(sr, h), _pad_reflect(hr, h)
    total = torch.zeros((), dtype=sum_dtype(sr), device=sr.device)
    gradient = torch.zeros_like(padded_sr) if with_gradient else None
    for chunk, pixels in split_into_chunks(mask, geometry, sr.element_size(), memory_mb, max_pixels, row_counts):
        band, band_hr = (chunk.select(padded, h).contiguous() for padded in (padded_sr, padded_hr))
        # NaN for NaN and infinity: an infinite difference would only be a similarity of 0.
        total += 0 * (band.sum() + band_hr.sum())
        q_sr = stages.window_distances(band, pixels, geometry)
        q_hr = stages.window_distances(band_hr, pixels, geometry)
        unused = None if max_pixels is None else is_masked(pixels, mask).logical_not_()
        if unused is not None:
            # Pixels that pad the list: equal rows have no loss.
            q_sr.masked_fill_(unused, 0)
            q_hr.masked_fill_(unused, 0)
        loss_parts, grad_q = stages.loss_and_row_gradient(q_sr, q_hr, geometry, l1_weight, kl_weight, with_gradient)
        total += loss_parts.sum()
        del q_sr, q_hr, band_hr
        if gradient is not None:
            assert grad_q is not None, "the backend returned no gradient"
            if unused is not None:
                grad_q.masked_fill_(unused, 0)
            band_gradient = stages.window_distances_backward(_zero_nonfinite(band), grad_q, pixels, geometry)
            chunk.select(gradient, h).add_(band_gradient)
    return total.to(sr.dtype), sr.new_empty(0) if gradient is None else _pad_reflect_backward(gradient, h)


def _pad_reflect(image: Tensor, h: int) -> Tensor:
    image = image.contiguous()
    return F.pad(image, (h, h, h, h), mode="reflect") if h and image.numel() else image


def _zero_nonfinite(band: Tensor) -> Tensor:
    """Return `band` with 0 for NaN and infinity.

    A backend multiplies differences with weights that may be 0, and 0 * NaN would reach neighbors whose search areas
    are clean, and the next image of a flat batch. A pixel with NaN in its search area still has a gradient of NaN
    with respect to q (0 at an infinite distance).
    """
    return torch.nan_to_num(band, nan=0.0, posinf=0.0, neginf=0.0)


def _pad_reflect_backward(padded: Tensor, h: int) -> Tensor:
    """Add the gradient of the reflected border to the pixels that it repeats.

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


def _fake_loss(sr, hr, mask, *options):  # noqa: ARG001  (fakes have the operator's arguments)
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
    row_counts: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Register `loss_and_gradient` as a torch operator."""
    geometry = Geometry(search_px, window_px, sigma, normalize)
    with disable_autocast(sr):
        return loss_and_gradient(
            sr, hr, mask, geometry, l1_weight, kl_weight, with_gradient, backend, memory_mb, max_pixels, row_counts
        )


def _save_gradient(ctx, inputs, output) -> None:
    ctx.has_gradient = inputs[9]
    ctx.save_for_backward(output[1])
    ctx.set_materialize_grads(False)


def _scale_gradient(ctx, grad_total, grad_gradient):
    # The gradient is an output of the operator, so that a second derivative arrives here instead of being lost.
    if grad_gradient is not None:
        raise RuntimeError("self_similarity_loss has no second derivatives; do not differentiate its gradient.")
    assert ctx.has_gradient, "a backward pass needs with_gradient"
    (gradient,) = ctx.saved_tensors
    return (None if grad_total is None else grad_total * gradient, *(None,) * 13)


register.register_gradient("self_similarity_loss", _scale_gradient, _save_gradient)


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
    caller = "self_similarity_graph"
    geometry = Geometry(search_px, window_px, sigma, normalize)
    h = geometry.half_search
    with disable_autocast(image):
        stages = load_backend(PACKAGE, caller, backend, image)
        check_budget(caller, image, geometry, memory_mb, None)
        padded = _pad_reflect(image, h)
        rows = [image.new_empty(0, geometry.entries)]
        for chunk, pixels in split_into_chunks(mask, geometry, image.element_size(), memory_mb, None):
            s = stages.window_distances(chunk.select(padded, h).contiguous(), pixels, geometry).div_(-sigma).exp_()
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
    """Return the gradient with respect to `image`, given that of its graph `[M, S*S]` (eq. 10 to 12)."""
    geometry = Geometry(search_px, window_px, sigma, normalize)
    h = geometry.half_search
    with disable_autocast(image):
        stages = load_backend(PACKAGE, "self_similarity_graph", backend, image)
        padded = _pad_reflect(image, h)
        gradient = torch.zeros_like(padded)
        first = 0
        for chunk, pixels in split_into_chunks(mask, geometry, image.element_size(), memory_mb, None):
            x = graph[first : first + chunk.pixels]
            grad_q = x * grad[first : first + chunk.pixels]
            if normalize:
                grad_q -= x * grad_q.sum(1, keepdim=True)
            grad_q = grad_q.div_(-sigma).t().contiguous()
            band = chunk.select(padded, h).contiguous()
            band_gradient = stages.window_distances_backward(_zero_nonfinite(band), grad_q, pixels, geometry)
            chunk.select(gradient, h).add_(band_gradient)
            first += chunk.pixels
        return _pad_reflect_backward(gradient, h)


def _save_graph(ctx, inputs, output) -> None:
    ctx.save_for_backward(output, *inputs[:2])
    ctx.options = inputs[2:]


def _backpropagate_graph(ctx, grad):
    graph, image, mask = ctx.saved_tensors
    return graph_backward_op(grad, graph, image, mask, *ctx.options), *(None,) * 7


register.register_gradient("self_similarity_graph", _backpropagate_graph, _save_graph)
