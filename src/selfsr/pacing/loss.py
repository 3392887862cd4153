"""Self-paced pixel weighting: a weight for every pixel from the local SSIM and the age of training.

The method is PSPL (Pixel-Level Self-Paced Learning for Super-Resolution, ICASSP 2020). docs/pacing.md has the
equations that the code cites, and the departures from the published code.
"""

import math
from collections.abc import Callable
from typing import get_args

import torch
from torch import Tensor, nn

from selfsr.errors import InputError, RangeCheck, check_choice, check_images
from selfsr.losses.pixel import CHARBONNIER_EPS, charbonnier, check_eps, l1, l2
from selfsr.pacing.contract import TINY, LossName, PacingReduction, Padding, compute_dtype
from selfsr.pacing.normalized import normalize_weights, widen
from selfsr.pacing.operator import loss_op, ssim_op, weight_op

__all__ = ["SelfPacedLoss", "self_paced_weight", "ssim_map"]

# As published (PSPL, code of April 2020).
ALPHA, BETA, PEAK = 1.0, 0.0, 2.0

_PADDINGS = get_args(Padding)
_REDUCTIONS = get_args(PacingReduction)
_LOSSES = {"l1": l1, "l2": l2, "charbonnier": charbonnier}


def ssim_map(
    x: Tensor, y: Tensor, *, data_range: float = 1.0, padding: Padding = "zero", backend: str = "auto"
) -> Tensor:
    """Return the SSIM of two batches at every pixel of every channel, without a gradient.

    `s = (2 mu_x mu_y + C1) (2 cov + C2) / ((mu_x^2 + mu_y^2 + C1) (var_x + var_y + C2))` with Gaussian windows of
    11 x 11 pixels and a standard deviation of 1.5 pixels (Wang et al., "Image quality assessment: from error
    visibility to structural similarity", IEEE TIP 2004, eq. 13; docs/pacing.md, eq. 3). Unlike the usual float32
    implementation it is accurate for any brightness, range and contrast.

    Args:
        x: float images `[N, C, H, W]` of any size and strides.
        y: float images of the same shape.
        data_range: R, the difference between white and black: `C1 = (0.01 R)^2`, `C2 = (0.03 R)^2`.
        padding: padding at the border, "zero" as published, "reflect" (without repeating the border) or "replicate".
        backend: "auto", "cpu", "triton" or "eager".

    Returns:
        SSIM in [-1, 1], `[N, C, H, W]`; float64 if an image is float64, else float32.

    Raises:
        InputError: the images do not match, `data_range` is not positive, the padding is unknown, or the backend is
            not available.

    >>> x = torch.full((1, 3, 16, 16), 0.5)
    >>> ssim_map(x, x).mean().item()
    1.0
    """
    check_images("ssim_map", x=x, y=y)
    _check_map_options("ssim_map", data_range, padding)
    return ssim_op(x.detach(), y.detach(), *_constants(data_range), padding, backend)


def self_paced_weight(
    sr: Tensor,
    hr: Tensor,
    epoch: float | Tensor,
    *,
    alpha: float = ALPHA,
    beta: float = BETA,
    peak: float = PEAK,
    data_range: float = 1.0,
    padding: Padding = "zero",
    normalize: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Return the self-paced weight of every pixel and channel, without a gradient.

    `w = peak * exp(-((s + 1) / sigma)^2)` with the SSIM map s and `sigma = alpha * epoch + beta` (PSPL, ICASSP
    2020; docs/pacing.md, eq. 4). Early in training only the least similar pixels have a weight; later all weights
    approach `peak`.

    Args:
        sr: float images `[N, C, H, W]`.
        hr: ground truth of the same shape.
        epoch: age of training in fractional epochs, at least 0, as a number or a scalar tensor. A tensor is read on
            the device, so that compiled steps and CUDA graphs do not depend on its value; a negative sigma counts as 0.
        alpha: growth of sigma per epoch, at least 0.
        beta: sigma at the start, at least 0.
        peak: largest weight M, greater than 0.
        data_range: see `ssim_map`. The published code has images in 0..255 with the constants for [0, 1]; to
            reproduce it, use `data_range=1` with such images or `data_range=1 / 255` with images in [0, 1].
        padding: see `ssim_map`.
        normalize: divide the weights by their mean over all elements (docs/pacing.md, eq. 15), so that weight moves
            between pixels and its sum stays. It works for any sigma, also where all weights underflow.
        backend: see `ssim_map`.

    Returns:
        Weights in [0, peak], `[N, C, H, W]`; float64 if an image is float64, else float32. If sigma is 0, the weight
        is `peak` at s = -1 and 0 elsewhere. With `normalize` the weights are at least 0 and their mean is 1.

    Raises:
        InputError: as for `ssim_map`; or epoch, alpha or beta is negative, peak is not positive, or peak is given with
            `normalize`, where it has no effect.

    >>> x = torch.full((1, 3, 16, 16), 0.5)
    >>> round(self_paced_weight(x, x, epoch=2).mean().item(), 4)  # 2 exp(-1)
    0.7358
    >>> self_paced_weight(x, x, epoch=1e-3, normalize=True).mean().item()
    1.0
    """
    caller = "self_paced_weight"
    check_images(caller, sr=sr, hr=hr)
    _check_map_options(caller, data_range, padding)
    _check_pace(caller, alpha, beta, peak, normalize)
    if normalize:
        x, y = widen(sr), widen(hr)
        s = ssim_op(x, y, *_constants(data_range), padding, backend)
        weight, _ = normalize_weights(1 + s, _compute_sigma(caller, epoch, alpha, beta, x, y))
        return weight.to(compute_dtype(sr, hr))
    sigma = _compute_sigma(caller, epoch, alpha, beta, sr, hr)
    return weight_op(sr.detach(), hr.detach(), sigma, *_constants(data_range), padding, peak, backend)


class SelfPacedLoss(nn.Module):
    """An elementwise loss weighted by `self_paced_weight`, differentiable in `sr`.

    `L = mean(loss(sr * w, hr * w))`, where the weight w has no gradient (PSPL, ICASSP 2020; docs/pacing.md, eq. 5).
    L1 becomes `w |sr - hr|`, L2 becomes `w^2 (sr - hr)^2`. Late in training they are `peak` and `peak^2` times the
    unweighted loss.

    With `normalize` it is `L = mean(w loss(sr, hr)) / mean(w)` (docs/pacing.md, eq. 15), the weighted mean of the loss:
    the curriculum moves weight between pixels and does not make the loss grow. The weight then multiplies the loss and
    not the images, so L2 has the weight itself.

    For a loss given by name and without `normalize`, one pass over the images computes value and gradient, and one
    tensor is saved for backward. Otherwise the loss is differentiated by autograd, which is slower and saves more
    tensors.

    The first call warns with `selfsr.RangeWarning` if the images are not in [0, data_range].

    Args:
        loss: "l1", "l2", "charbonnier", or a callable `(a, b) -> elementwise loss` with the shape of a and b.
        alpha: growth of sigma per epoch, at least 0.
        beta: sigma at the start, at least 0.
        peak: largest weight, greater than 0.
        data_range: see `self_paced_weight`.
        padding: see `ssim_map`.
        eps: constant of the Charbonnier loss, in the units of the images; None is the default of
            `selfsr.losses.charbonnier`. An error with another loss.
        reduction: "mean" over all elements, or "none" for the loss of each element.
        normalize: divide the weights by their mean over the images of the call; `peak` has no effect.
        backend: "auto", "cpu", "triton" or "eager".

    Raises:
        InputError: an option is wrong or has no effect; in `forward`, the images do not match or the epoch is negative.

    >>> loss = SelfPacedLoss("l1")
    >>> sr, hr = torch.rand(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> bool(loss(sr, hr, epoch=0.5) < loss(sr, hr, epoch=5))
    True
    """

    def __init__(
        self,
        loss: LossName | Callable[[Tensor, Tensor], Tensor] = "l1",
        *,
        alpha: float = ALPHA,
        beta: float = BETA,
        peak: float = PEAK,
        data_range: float = 1.0,
        padding: Padding = "zero",
        eps: float | None = None,
        reduction: PacingReduction = "mean",
        normalize: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        caller = type(self).__name__
        if not callable(loss):
            check_choice(caller, "loss", loss, tuple(_LOSSES))
        check_choice(caller, "padding", padding, _PADDINGS)
        check_choice(caller, "reduction", reduction, _REDUCTIONS)
        _check_range(caller, data_range)
        _check_pace(caller, alpha, beta, peak, normalize)
        if eps is not None:
            if loss != "charbonnier":
                raise InputError(f"{caller}: eps is an option of loss='charbonnier', got loss={loss!r}; leave it out.")
            check_eps(caller, eps)
        known = (name for name, function in _LOSSES.items() if function is loss)
        self.loss: str | Callable[[Tensor, Tensor], Tensor] = next(known, loss)
        self.alpha: float = alpha
        self.beta: float = beta
        self.peak: float = peak
        self.data_range: float = data_range
        self.padding: Padding = padding
        self.eps: float = CHARBONNIER_EPS if eps is None else eps
        self.reduction: PacingReduction = reduction
        self.normalize: bool = normalize
        self.backend: str = backend
        self.check_range: RangeCheck = RangeCheck(caller, data_range)

    def forward(self, sr: Tensor, hr: Tensor, epoch: float | Tensor) -> Tensor:
        """Return the loss of `sr` against `hr`; only `sr` gets a gradient.

        Args:
            sr: super-resolved images, float `[N, C, H, W]`.
            hr: ground truth of the same shape.
            epoch: age of training, see `self_paced_weight`.

        Returns:
            A scalar, or `[N, C, H, W]` for reduction "none"; float64 if an image is float64, else float32.

        Raises:
            InputError: the images do not match, or the epoch is negative.
        """
        caller = type(self).__name__
        check_images(caller, sr=sr, hr=hr)
        self.check_range(sr, hr)
        if self.normalize or not isinstance(self.loss, str):
            return self._apply_elementwise(caller, sr, hr.detach(), epoch)
        sigma = _compute_sigma(caller, epoch, self.alpha, self.beta, sr, hr)
        value, _ = loss_op(
            sr,
            hr.detach(),
            sigma,
            *_constants(self.data_range),
            self.padding,
            self.peak,
            self.loss,
            self.eps,
            self.reduction,
            sr.requires_grad and torch.is_grad_enabled(),
            self.backend,
        )
        return value

    def _apply_elementwise(self, caller: str, sr: Tensor, hr: Tensor, epoch: float | Tensor) -> Tensor:
        """Return the loss by an elementwise function: of the weighted images, or weighted itself if normalized."""
        w = self_paced_weight(
            sr,
            hr,
            epoch,
            alpha=self.alpha,
            beta=self.beta,
            peak=self.peak,
            data_range=self.data_range,
            padding=self.padding,
            normalize=self.normalize,
            backend=self.backend,
        )
        factor = 1.0 if self.normalize else w
        values = self._compute_each(sr.to(w.dtype) * factor, hr.to(w.dtype) * factor)
        if values.shape != sr.shape:
            raise InputError(
                f"{caller}: loss must return one value for each element, {list(sr.shape)}, got {list(values.shape)}; "
                "set reduction instead of averaging in it."
            )
        values = values * w if self.normalize else values
        return values.mean() if self.reduction == "mean" else values

    def _compute_each(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Return the loss of each element without a weight."""
        if self.loss == "charbonnier":
            return charbonnier(sr, hr, eps=self.eps)
        loss = _LOSSES[self.loss] if isinstance(self.loss, str) else self.loss
        return loss(sr, hr)

    def extra_repr(self) -> str:
        """Return the options for the module's `repr`."""
        loss = self.loss if isinstance(self.loss, str) else getattr(self.loss, "__qualname__", repr(self.loss))
        return (
            f"loss={loss}, alpha={self.alpha}, beta={self.beta}, peak={self.peak}, data_range={self.data_range}, "
            f"padding={self.padding}, reduction={self.reduction}, normalize={self.normalize}, backend={self.backend}"
        )


def _constants(data_range: float) -> tuple[float, float]:
    """Return C1 and C2 of eq. 3."""
    return (0.01 * data_range) ** 2, (0.03 * data_range) ** 2


def _compute_sigma(caller: str, epoch: float | Tensor, alpha: float, beta: float, sr: Tensor, hr: Tensor) -> Tensor:
    """Return sigma of eq. 4 as a scalar tensor, at least TINY, without a host sync."""
    dtype = compute_dtype(sr, hr)
    if isinstance(epoch, Tensor):
        if epoch.ndim != 0:
            raise InputError(f"{caller}: epoch must be a number or a scalar tensor, got shape {list(epoch.shape)}.")
        return (epoch.detach().to(sr.device, dtype, non_blocking=True) * alpha + beta).clamp(min=TINY)
    if not epoch >= 0:
        raise InputError(f"{caller}: epoch must be at least 0, got {epoch}; pass the age of training in epochs.")
    return torch.full((), max(alpha * epoch + beta, TINY), dtype=dtype, device=sr.device)


def _check_map_options(caller: str, data_range: float, padding: str) -> None:
    _check_range(caller, data_range)
    check_choice(caller, "padding", padding, _PADDINGS)


def _check_range(caller: str, data_range: float) -> None:
    if not (data_range > 0 and math.isfinite(data_range)):
        raise InputError(f"{caller}: data_range must be greater than 0, got {data_range}; use 1 for images in [0, 1].")


def _check_pace(caller: str, alpha: float, beta: float, peak: float, normalize: bool) -> None:
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not value >= 0:
            raise InputError(f"{caller}: {name} must be at least 0, got {value}; sigma = alpha * epoch + beta.")
    if not peak > 0:
        raise InputError(f"{caller}: peak must be greater than 0, got {peak}; 2 is published.")
    if normalize and peak != PEAK:
        raise InputError(f"{caller}: peak has no effect with normalize=True, got {peak}; leave it out.")
