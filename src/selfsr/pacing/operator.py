"""The operators as torch sees them: dispatch to a backend, and the torch.library nodes with their gradients.

Backends are chosen inside the nodes, where torch.compile does not look. The weight is a constant for
differentiation, so the derivative by `sr` is elementwise and known as soon as the loss is: the forward pass writes
it, and it is the one tensor that is kept.
"""

import contextlib
from collections.abc import Iterator
from types import ModuleType
from typing import cast

import torch
from torch import Tensor

from selfsr._ops import backends, register
from selfsr.pacing.contract import LossName, Pace, Padding, Reduction, Ssim, compute_dtype


def _load_backend(where: str, requested: str, image: Tensor) -> ModuleType:
    """Import and return the backend module for `image`; see `selfsr._ops.backends.choose`."""
    name = backends.choose(where, requested, image)
    if name == "cpu":
        from selfsr.pacing import cpu

        return cpu
    if name == "triton":
        from selfsr.pacing import triton as kernels

        return kernels
    from selfsr.pacing import eager

    return eager


@contextlib.contextmanager
def _plain_arithmetic(image: Tensor) -> Iterator[None]:
    """Compute on the image's own device, in the dtype given, whatever is set around."""
    device = torch.cuda.device(image.device) if image.is_cuda else contextlib.nullcontext()
    with device, torch.autocast(image.device.type, enabled=False):
        yield


def _fake_map(x, y, *options):  # noqa: ARG001  (the operators' arguments)
    return torch.empty_like(x, dtype=compute_dtype(x, y))


def _fake_loss(sr, hr, sigma, c1, c2, padding, peak, loss, eps, reduction, with_gradient, backend):  # noqa: ARG001
    dtype = compute_dtype(sr, hr)
    value = sr.new_empty((), dtype=dtype) if reduction == "mean" else torch.empty_like(sr, dtype=dtype)
    return value, torch.empty_like(sr) if with_gradient else sr.new_empty(0)


@register.operator("ssim_map", fake=_fake_map)
def ssim_op(x: Tensor, y: Tensor, c1: float, c2: float, padding: str, backend: str) -> Tensor:
    """Return the SSIM map of eq. 3."""
    with _plain_arithmetic(x):
        return _load_backend("ssim_map", backend, x).ssim(x, y, Ssim(c1, c2, cast(Padding, padding)))


@register.operator("self_paced_weight", fake=_fake_map)
def weight_op(
    sr: Tensor, hr: Tensor, sigma: Tensor, c1: float, c2: float, padding: str, peak: float, backend: str
) -> Tensor:
    """Return the weight of eq. 4."""
    options = Ssim(c1, c2, cast(Padding, padding))
    with _plain_arithmetic(sr):
        module = _load_backend("self_paced_weight", backend, sr)
        return module.weight(sr, hr, sigma, options, Pace(peak, "l1", 0.0))


@register.operator("self_paced_loss", fake=_fake_loss)
def loss_op(
    sr: Tensor,
    hr: Tensor,
    sigma: Tensor,
    c1: float,
    c2: float,
    padding: str,
    peak: float,
    loss: str,
    eps: float,
    reduction: str,
    with_gradient: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Return the loss of eq. 5 and the derivative of each element (eq. 6), empty unless asked for."""
    options = Ssim(c1, c2, cast(Padding, padding))
    pace = Pace(peak, cast(LossName, loss), eps)
    with _plain_arithmetic(sr):
        module = _load_backend("SelfPacedLoss", backend, sr)
        return module.loss(sr, hr, sigma, options, pace, cast(Reduction, reduction), with_gradient)


def _keep_gradient(ctx, inputs, output) -> None:
    value, gradient = output
    ctx.save_for_backward(gradient)
    ctx.divisor = inputs[0].numel() if value.ndim == 0 else 1
    ctx.set_materialize_grads(False)


def _scale_gradient(ctx, grad_value, grad_gradient):
    if grad_gradient is not None:
        raise RuntimeError("SelfPacedLoss has no second derivatives; do not differentiate its gradient.")
    if grad_value is None:
        return (None,) * 12
    (gradient,) = ctx.saved_tensors
    assert gradient.ndim == 4, "the gradient was not asked for in forward"
    # The division comes last and in the wider dtype: 1/n would be lost in half precision.
    scaled = gradient.to(grad_value.dtype) * (grad_value / ctx.divisor)
    return scaled.to(gradient.dtype), *(None,) * 11


register.register_gradient("self_paced_loss", _scale_gradient, _keep_gradient)
