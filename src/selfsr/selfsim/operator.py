"""The one path from images to loss and gradient: chunks, the three backend stages, and the torch.library nodes.

The loss is a scalar whose only differentiable input is the super-resolved image, so its gradient is computed
together with its value and kept as one image-sized tensor; nothing of the size of the graph outlives a chunk.
"""

import contextlib
from collections.abc import Iterator, Sequence
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsr import _backends
from selfsr._checks import InputError
from selfsr.selfsim.contract import Chunk, Geometry, Pixels, working_bytes


def load_backend(where: str, requested: str, image: Tensor) -> ModuleType:
    """Import and return the backend module for `image`; see `selfsr._backends.choose`."""
    name = _backends.choose(where, requested, image)
    if name == "cpu":
        from selfsr.selfsim import cpu

        return cpu
    if name == "triton":
        from selfsr.selfsim import kernels

        return kernels
    from selfsr.selfsim import eager

    return eager


def check_budget(where: str, image: Tensor, geometry: Geometry, memory_mb: float, max_pixels: int | None) -> None:
    """Check that the smallest piece of work on `image` `[N, C, H, W]` fits the budget."""
    count, _, height, width = image.shape
    itemsize = max(image.element_size(), 4)
    if max_pixels is None:
        what, need = "one row of the image", working_bytes(width, 1, 1, width, geometry, itemsize)
    else:
        what = f"{max_pixels} pixels at once"
        need = working_bytes(max_pixels, count, height, width, geometry, itemsize)
    if need > memory_mb * 2**20:
        raise InputError(
            f"{where}: memory_mb={memory_mb:g} is too small, {what} may need {need / 2**20:.3g} MiB; "
            f"pass memory_mb={need / 2**20 + 1:.0f} or more."
        )


def plan(counts: Sequence[Sequence[int]], width: int, geometry: Geometry, itemsize: int, budget: float) -> list[Chunk]:
    """Cut a batch into chunks whose working memory stays within a budget.

    Args:
        counts: masked pixels in each row of each image, `[N][H]`.
        width: W of the images.
        geometry: sizes of the graph.
        itemsize: bytes of one value.
        budget: bytes that one chunk may take; must suffice for one row of one image.

    Returns:
        Chunks of whole images or, of images that do not fit, bands of rows; without the empty images and rows
        at their rims.
    """
    chunks: list[Chunk] = []
    open_chunk: Chunk | None = None
    for n, rows in enumerate(counts):
        masked = [y for y, pixels in enumerate(rows) if pixels]
        if not masked:
            continue
        whole = Chunk(n, n + 1, masked[0], masked[-1] + 1, sum(rows))
        if open_chunk is not None:
            joined = open_chunk.join(whole)
            if joined.bytes(width, geometry, itemsize) <= budget:
                open_chunk = joined
                continue
            chunks.append(open_chunk)
            open_chunk = None
        if whole.bytes(width, geometry, itemsize) <= budget:
            open_chunk = whole
        else:
            chunks.extend(_bands(n, rows, width, geometry, itemsize, budget))
    return chunks if open_chunk is None else [*chunks, open_chunk]


def _bands(
    n: int, rows: Sequence[int], width: int, geometry: Geometry, itemsize: int, budget: float
) -> Iterator[Chunk]:
    band: Chunk | None = None
    for y, pixels in enumerate(rows):
        if not pixels:
            continue
        row = Chunk(n, n + 1, y, y + 1, pixels)
        longer = row if band is None else band.join(row)
        if band is not None and longer.bytes(width, geometry, itemsize) > budget:
            yield band
            longer = row
        band = longer
    if band is not None:
        yield band


def _list_pixels(mask: Tensor, count: int) -> Pixels:
    """List `count` pixels in order: the masked ones and, if there are fewer, unmasked ones to fill up."""
    # A stable sort puts the masked pixels first, without telling the host how many there are.
    first = torch.argsort(mask.flatten().logical_not().int(), stable=True)[:count]
    return _coordinates(first.sort().values, mask)


def _coordinates(flat: Tensor, mask: Tensor) -> Pixels:
    height, width = mask.shape[2:]
    return Pixels(flat // (height * width), flat // width % height, flat % width)


def _chunks(
    mask: Tensor, geometry: Geometry, itemsize: int, memory_mb: float, max_pixels: int | None
) -> Iterator[tuple[Chunk, Pixels]]:
    """Yield each chunk with its pixels, their coordinates counted from the chunk's corner."""
    count, _, height, width = mask.shape
    if max_pixels is not None:
        whole = Chunk(0, count, 0, height, min(max_pixels, mask.numel()))
        yield whole, _list_pixels(mask, whole.pixels)
        return
    # The only time the host waits for the device.
    counts = mask.sum((1, 3)).tolist()
    for chunk in plan(counts, width, geometry, itemsize, memory_mb * 2**20):
        part = mask[chunk.first_image : chunk.last_image, :, chunk.first_row : chunk.last_row]
        if part.device.type == "cpu":
            yield chunk, _coordinates(part.flatten().nonzero()[:, 0], part)
        else:
            yield chunk, _list_pixels(part, chunk.pixels)


def _pad(image: Tensor, geometry: Geometry) -> Tensor:
    h = geometry.half_search
    image = image.contiguous()
    return F.pad(image, (h, h, h, h), mode="reflect") if h and image.numel() else image


def _fold(padded: Tensor, geometry: Geometry) -> Tensor:
    """Add what lies on the reflected border to the pixels it mirrors; the transpose of `_pad`.

    torch's own backward of reflect padding adds with atomics on a GPU, in no fixed order.
    """
    h = geometry.half_search
    if h == 0:
        return padded
    height, width = padded.shape[2] - 2 * h, padded.shape[3] - 2 * h
    padded[..., h + 1 : 2 * h + 1] += padded[..., :h].flip(-1)
    padded[..., width - 1 : width + h - 1] += padded[..., h + width :].flip(-1)
    columns = padded[..., h : h + width]
    columns[:, :, h + 1 : 2 * h + 1] += columns[:, :, :h].flip(-2)
    columns[:, :, height - 1 : height + h - 1] += columns[:, :, h + height :].flip(-2)
    return columns[:, :, h : h + height].contiguous()


def _band(padded: Tensor, chunk: Chunk, geometry: Geometry) -> Tensor:
    rows = slice(chunk.first_row, chunk.last_row + 2 * geometry.half_search)
    return padded[chunk.first_image : chunk.last_image, :, rows]


@contextlib.contextmanager
def _plain_arithmetic(image: Tensor) -> Iterator[None]:
    """Compute on the tensor's own device, in the dtype given, whatever is set around."""
    device = torch.cuda.device(image.device) if image.is_cuda else contextlib.nullcontext()
    with device, torch.autocast(image.device.type, enabled=False):
        yield


@torch.library.custom_op("selfsr::self_similarity_loss", mutates_args=())
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
    """Return the loss summed over the masked pixels and, if asked for, its gradient towards `sr`."""
    where = "self_similarity_loss"
    geometry = Geometry(search_px, window_px, sigma, normalize)
    with _plain_arithmetic(sr):
        stages = load_backend(where, backend, sr)
        check_budget(where, sr, geometry, memory_mb, max_pixels)
        padded_sr, padded_hr = _pad(sr, geometry), _pad(hr, geometry)
        total = torch.zeros((), dtype=sum_dtype(sr), device=sr.device)
        gradient = torch.zeros_like(padded_sr) if with_gradient else None
        for chunk, pixels in _chunks(mask, geometry, sr.element_size(), memory_mb, max_pixels):
            band_sr = _band(padded_sr, chunk, geometry).contiguous()
            q_sr = stages.graph_sums(band_sr, pixels, geometry)
            q_hr = stages.graph_sums(_band(padded_hr, chunk, geometry).contiguous(), pixels, geometry)
            unused = None
            if max_pixels is not None:
                # Rows of pixels that only fill up the list: equal graphs have no loss.
                unused = mask.flatten()[_flat_index(pixels, mask)].logical_not()
                q_sr, q_hr = q_sr.masked_fill_(unused, 0), q_hr.masked_fill_(unused, 0)
            parts, grad_q = stages.row_pass(q_sr, q_hr, geometry, l1_weight, kl_weight, with_gradient)
            total += parts.sum()
            del q_sr, q_hr
            if gradient is not None:
                assert grad_q is not None, "asked for the gradient, the backend gave none"
                if unused is not None:
                    grad_q.masked_fill_(unused, 0)
                _band(gradient, chunk, geometry).add_(stages.graph_backward(band_sr, grad_q, pixels, geometry))
        return total.to(sr.dtype), sr.new_empty(0) if gradient is None else _fold(gradient, geometry)


def sum_dtype(image: Tensor) -> torch.dtype:
    """The dtype in which sums over pixels are kept: float64 wherever the device has it."""
    return torch.float32 if image.device.type == "mps" else torch.float64


def _flat_index(pixels: Pixels, mask: Tensor) -> Tensor:
    height, width = mask.shape[2:]
    return (pixels.image * height + pixels.row) * width + pixels.column


@loss_op.register_fake
def _(sr, hr, mask, *options):  # noqa: ARG001  (torch.library's signature, here and below)
    with_gradient = options[6]
    return sr.new_empty(()), sr.new_empty(sr.shape if with_gradient else 0)


def _keep_gradient(ctx, inputs, output) -> None:  # noqa: ARG001
    ctx.save_for_backward(output[1])
    ctx.set_materialize_grads(False)


def _scale_gradient(ctx, grad_total, grad_gradient):
    if grad_gradient is not None:
        raise RuntimeError("self_similarity_loss has no second derivatives; do not differentiate its gradient.")
    (gradient,) = ctx.saved_tensors
    assert gradient.numel() or grad_total is None, "the gradient was not asked for in forward"
    return (None if grad_total is None else grad_total * gradient, *(None,) * 12)


loss_op.register_autograd(_scale_gradient, setup_context=_keep_gradient)


@torch.library.custom_op("selfsr::self_similarity_graph", mutates_args=())
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
    """Return the graph `[M, S*S]` of `image` at the pixels of `mask`."""
    where = "self_similarity_graph"
    geometry = Geometry(search_px, window_px, sigma, normalize)
    with _plain_arithmetic(image):
        stages = load_backend(where, backend, image)
        check_budget(where, image, geometry, memory_mb, None)
        padded = _pad(image, geometry)
        rows = [image.new_empty(0, geometry.entries)]
        for chunk, pixels in _chunks(mask, geometry, image.element_size(), memory_mb, None):
            q = stages.graph_sums(_band(padded, chunk, geometry).contiguous(), pixels, geometry)
            s = q.div_(-sigma).exp_()
            if normalize:
                s /= s.sum(0, dtype=sum_dtype(s)).to(s.dtype)
            rows.append(s.t().contiguous())
        return torch.cat(rows)


@graph_op.register_fake
def _(image, mask, search_px, *options):  # noqa: ARG001
    return image.new_empty(torch.library.get_ctx().new_dynamic_size(), search_px**2)


@torch.library.custom_op("selfsr::self_similarity_graph_backward", mutates_args=())
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
    """Return the gradient towards `image`, given that towards its graph `[M, S*S]`."""
    geometry = Geometry(search_px, window_px, sigma, normalize)
    with _plain_arithmetic(image):
        stages = load_backend("self_similarity_graph", backend, image)
        padded = _pad(image, geometry)
        gradient = torch.zeros_like(padded)
        done = 0
        for chunk, pixels in _chunks(mask, geometry, image.element_size(), memory_mb, None):
            x = graph[done : done + chunk.pixels]
            # docs/selfsim.md, eq. 12
            x_grad = x * grad[done : done + chunk.pixels]
            if normalize:
                x_grad -= x * x_grad.sum(1, keepdim=True)
            grad_q = x_grad.div_(-sigma).t().contiguous()
            band = _band(padded, chunk, geometry).contiguous()
            _band(gradient, chunk, geometry).add_(stages.graph_backward(band, grad_q, pixels, geometry))
            done += chunk.pixels
        return _fold(gradient, geometry)


@graph_backward_op.register_fake
def _(grad, graph, image, *options):  # noqa: ARG001
    return image.new_empty(image.shape)


def _keep_graph(ctx, inputs, output) -> None:
    ctx.save_for_backward(output, *inputs[:2])
    ctx.options = inputs[2:]


def _graph_to_image(ctx, grad):
    graph, image, mask = ctx.saved_tensors
    return graph_backward_op(grad, graph, image, mask, *ctx.options), *(None,) * 7


graph_op.register_autograd(_graph_to_image, setup_context=_keep_graph)
