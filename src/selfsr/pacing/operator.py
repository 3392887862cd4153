"""The torch.library operators of self-paced weighting, their dispatch to backends and their gradients.

Backends are chosen inside the operators, where torch.compile does not trace. The weight has no gradient, so the
derivative with respect to `sr` is elementwise. The forward pass computes it together with the loss, and it is the only
tensor saved for backward.
"""

from typing import cast

import torch
from torch import Tensor

from selfsr._ops import register
from selfsr._ops.dispatch import disable_autocast, load_backend
from selfsr.pacing.contract import LossName, PacingOptions, PacingReduction, Padding, SsimOptions, compute_dtype

# The backends are modules of this package.
PACKAGE = "selfsr.pacing"


def _fake_map(x, y, *options):  # noqa: ARG001  (the signature of the operators)
    return torch.empty_like(x, dtype=compute_dtype(x, y))


def _fake_loss(sr, hr, sigma, c1, c2, padding, peak, loss, eps, reduction, with_gradient, backend):  # noqa: ARG001
    dtype = compute_dtype(sr, hr)
    value = sr.new_empty((), dtype=dtype) if reduction == "mean" else torch.empty_like(sr, dtype=dtype)
    return value, torch.empty_like(sr) if with_gradient else sr.new_empty(0)


@register.operator("ssim_map", fake=_fake_map)
def ssim_op(x: Tensor, y: Tensor, c1: float, c2: float, padding: str, backend: str) -> Tensor:
    """Return the SSIM map of eq. 3."""
    with disable_autocast(x):
        return load_backend(PACKAGE, "ssim_map", backend, x).ssim(x, y, SsimOptions(c1, c2, cast(Padding, padding)))


@register.operator("self_paced_weight", fake=_fake_map)
def weight_op(
    sr: Tensor, hr: Tensor, sigma: Tensor, c1: float, c2: float, padding: str, peak: float, backend: str
) -> Tensor:
    """Return the weight of eq. 4."""
    options = SsimOptions(c1, c2, cast(Padding, padding))
    with disable_autocast(sr):
        module = load_backend(PACKAGE, "self_paced_weight", backend, sr)
        return module.weight(sr, hr, sigma, options, PacingOptions(peak, "l1", 0.0))


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
    """Return the loss of eq. 5 and its derivative with respect to `sr` (eq. 6), empty without a gradient."""
    options = SsimOptions(c1, c2, cast(Padding, padding))
    pacing = PacingOptions(peak, cast(LossName, loss), eps)
    with disable_autocast(sr):
        module = load_backend(PACKAGE, "SelfPacedLoss", backend, sr)
        return module.loss(sr, hr, sigma, options, pacing, cast(PacingReduction, reduction), with_gradient)


def _save_gradient(ctx, inputs, output) -> None:
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
    assert gradient.ndim == 4, "forward was called without a gradient"
    # Divide last and in the wider dtype: 1/n would underflow in half precision.
    scaled = gradient.to(grad_value.dtype) * (grad_value / ctx.divisor)
    return scaled.to(gradient.dtype), *(None,) * 11


register.register_gradient("self_paced_loss", _scale_gradient, _save_gradient)
