"""Self-paced pixel weighting: an attention weight for every pixel from the local SSIM and the training clock.

The method is PSPL (Pixel-Level Self-Paced Learning for Super-Resolution, ICASSP 2020). docs/pacing.md has the
mathematics, the equations that the code cites, and where the published code is not followed.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from selfsr.errors import InputError, check_choice, check_images
from selfsr.losses.pixel import CHARBONNIER_EPS, check_eps
from selfsr.losses.pixel import charbonnier as _charbonnier
from selfsr.losses.pixel import l1 as _l1
from selfsr.losses.pixel import l2 as _l2
from selfsr.pacing.contract import TINY, LossName, Padding, Reduction, compute_dtype
from selfsr.pacing.operator import loss_op, ssim_op, weight_op

__all__ = ["SelfPacedLoss", "self_paced_weight", "ssim_map"]

# As published (PSPL, the released code of April 2020).
ALPHA, BETA, PEAK = 1.0, 0.0, 2.0

_PADDINGS = ("zero", "reflect", "replicate")
_REDUCTIONS = ("mean", "none")
_LOSSES = {"l1": _l1, "l2": _l2, "charbonnier": _charbonnier}


def ssim_map(
    x: Tensor, y: Tensor, *, data_range: float = 1.0, padding: Padding = "zero", backend: str = "auto"
) -> Tensor:
    """Return the structural similarity of two batches at every pixel of every channel, without a gradient.

    `s = (2 mu_x mu_y + C1) (2 cov + C2) / ((mu_x^2 + mu_y^2 + C1) (var_x + var_y + C2))` with Gaussian windows of
    11 x 11 taps and a standard deviation of 1.5 pixels (Wang et al., "Image quality assessment: from error
    visibility to structural similarity", IEEE TIP 2004, eq. 13; docs/pacing.md, eq. 3). Unlike the usual formula
    in float32 it is accurate for any level, range and contrast of the images.

    Args:
        x: float images `[N, C, H, W]` of any size and strides.
        y: float images of the same shape.
        data_range: R, the distance between black and white: `C1 = (0.01 R)^2`, `C2 = (0.03 R)^2`.
        padding: what lies beyond the border, "zero" as published, "reflect" (without repeating the border) or
            "replicate".
        backend: "auto", "cpu", "triton" or "eager".

    Returns:
        SSIM in [-1, 1], `[N, C, H, W]`; float64 if an image is float64, else float32.

    Raises:
        InputError: wrong shapes or dtypes, `data_range` not positive, an unknown padding, or a backend that
            cannot run here.

    >>> x = torch.full((1, 3, 16, 16), 0.5)
    >>> ssim_map(x, x).mean().item()
    1.0
    """
    check_images("ssim_map", x=x, y=y)
    _check_map("ssim_map", data_range, padding)
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
    backend: str = "auto",
) -> Tensor:
    """Return the self-paced weight of every pixel and channel, without a gradient.

    `w = peak * exp(-((s + 1) / sigma)^2)` with the SSIM map s and `sigma = alpha * epoch + beta` (PSPL, ICASSP
    2020; docs/pacing.md, eq. 4). Early in training only what is least similar weighs anything; later every weight
    comes near `peak`.

    Args:
        sr: float images `[N, C, H, W]`.
        hr: ground truth of the same shape.
        epoch: age of the training in epochs, fractional, at least 0; a number or a scalar tensor. A tensor is read
            on the device, so that neither a compiled nor a captured step depends on its value; a negative one counts
            as 0 there.
        alpha: growth of sigma in an epoch, at least 0.
        beta: sigma at the start, at least 0.
        peak: largest weight M, greater than 0.
        data_range: see `ssim_map`. The published code feeds 0..255 to constants for [0, 1]; `data_range=1` with
            such images, or `data_range=1 / 255` with images in [0, 1], weighs as it does.
        padding: see `ssim_map`.
        backend: see `ssim_map`.

    Returns:
        Weights in [0, peak], `[N, C, H, W]`; float64 if an image is float64, else float32. Where sigma is 0, the
        weight is `peak` at s = -1 and 0 elsewhere.

    Raises:
        InputError: as `ssim_map`; or a negative epoch, alpha or beta, or a peak that is not positive.
    """
    where = "self_paced_weight"
    check_images(where, sr=sr, hr=hr)
    _check_map(where, data_range, padding)
    _check_pace(where, alpha, beta, peak)
    sigma = _sigma(where, epoch, alpha, beta, sr, hr)
    return weight_op(sr.detach(), hr.detach(), sigma, *_constants(data_range), padding, peak, backend)


class SelfPacedLoss(nn.Module):
    """A pixel loss whose every pixel weighs what `self_paced_weight` says, differentiable in `sr`.

    `L = mean(loss(sr * w, hr * w))` with w a constant for differentiation (PSPL, ICASSP 2020; docs/pacing.md,
    eq. 5). L1 becomes `w |sr - hr|`, L2 becomes `w^2 (sr - hr)^2`, and when the schedule has run its course they are
    `peak` and `peak^2` times the plain loss.

    For a loss given by name, value and gradient come from one pass over the images and one tensor is kept for
    backward. A callable is differentiated by autograd, which takes longer and keeps more.

    Args:
        loss: "l1", "l2", "charbonnier", or a callable `(a, b) -> elementwise loss` of the shape of a and b.
        alpha: growth of sigma in an epoch, at least 0.
        beta: sigma at the start, at least 0.
        peak: largest weight, greater than 0.
        data_range: R of `ssim_map`.
        padding: border of `ssim_map`.
        eps: constant of the Charbonnier loss, in the units of the images (`selfsr.losses.charbonnier`'s default if
            None); an error with another loss.
        reduction: "mean" over all elements, or "none" for the loss of each.
        backend: "auto", "cpu", "triton" or "eager".

    Raises:
        InputError: a wrong option; in `forward`, wrong images or a negative epoch.

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
        reduction: Reduction = "mean",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        where = type(self).__name__
        if not callable(loss):
            check_choice(where, "loss", loss, tuple(_LOSSES))
        check_choice(where, "padding", padding, _PADDINGS)
        check_choice(where, "reduction", reduction, _REDUCTIONS)
        _check_range(where, data_range)
        _check_pace(where, alpha, beta, peak)
        if eps is not None:
            if loss != "charbonnier":
                raise InputError(f"{where}: eps is an option of loss='charbonnier', got loss={loss!r}; leave it out.")
            check_eps(where, eps)
        self.loss = next((name for name, function in _LOSSES.items() if function is loss), loss)
        self.alpha, self.beta, self.peak = alpha, beta, peak
        self.data_range = data_range
        self.padding: Padding = padding
        self.eps = CHARBONNIER_EPS if eps is None else eps
        self.reduction, self.backend = reduction, backend

    def forward(self, sr: Tensor, hr: Tensor, epoch: float | Tensor) -> Tensor:
        """Return the loss of `sr` `[N, C, H, W]` against `hr`, at the age `epoch` of `self_paced_weight`.

        The result is float64 if an image is, else float32: a scalar, or `[N, C, H, W]` for reduction "none". The
        gradient goes to `sr` alone.
        """
        where = type(self).__name__
        check_images(where, sr=sr, hr=hr)
        if not isinstance(self.loss, str):
            return self._call(where, sr, hr.detach(), epoch)
        sigma = _sigma(where, epoch, self.alpha, self.beta, sr, hr)
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

    def _call(self, where: str, sr: Tensor, hr: Tensor, epoch: float | Tensor) -> Tensor:
        """Weigh both images and hand them to the callable."""
        assert callable(self.loss)
        w = self_paced_weight(
            sr,
            hr,
            epoch,
            alpha=self.alpha,
            beta=self.beta,
            peak=self.peak,
            data_range=self.data_range,
            padding=self.padding,
            backend=self.backend,
        )
        values = self.loss(sr * w, hr * w)
        if values.shape != sr.shape:
            raise InputError(
                f"{where}: loss must return one value for each element, {list(sr.shape)}, got {list(values.shape)}; "
                "leave the mean to the reduction."
            )
        return values.mean() if self.reduction == "mean" else values

    def extra_repr(self) -> str:
        """Name the options in the module's text."""
        loss = self.loss if isinstance(self.loss, str) else getattr(self.loss, "__qualname__", repr(self.loss))
        return (
            f"loss={loss}, alpha={self.alpha}, beta={self.beta}, peak={self.peak}, data_range={self.data_range}, "
            f"padding={self.padding}, reduction={self.reduction}, backend={self.backend}"
        )


def _constants(data_range: float) -> tuple[float, float]:
    """Return C1 and C2 of eq. 3."""
    return (0.01 * data_range) ** 2, (0.03 * data_range) ** 2


def _sigma(where: str, epoch: float | Tensor, alpha: float, beta: float, sr: Tensor, hr: Tensor) -> Tensor:
    """Return sigma of eq. 4 as a scalar tensor, at least TINY, without waiting for a device."""
    dtype = compute_dtype(sr, hr)
    if isinstance(epoch, Tensor):
        if epoch.ndim != 0:
            raise InputError(f"{where}: epoch must be a number or a scalar tensor, got shape {list(epoch.shape)}.")
        return (epoch.detach().to(sr.device, dtype, non_blocking=True) * alpha + beta).clamp(min=TINY)
    if not epoch >= 0:
        raise InputError(f"{where}: epoch must be at least 0, got {epoch}; it is the training's age in epochs.")
    return torch.full((), max(alpha * epoch + beta, TINY), dtype=dtype, device=sr.device)


def _check_map(where: str, data_range: float, padding: str) -> None:
    _check_range(where, data_range)
    check_choice(where, "padding", padding, _PADDINGS)


def _check_range(where: str, data_range: float) -> None:
    if not (data_range > 0 and math.isfinite(data_range)):
        raise InputError(f"{where}: data_range must be greater than 0, got {data_range}; it is 1 for images in [0, 1].")


def _check_pace(where: str, alpha: float, beta: float, peak: float) -> None:
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not value >= 0:
            raise InputError(f"{where}: {name} must be at least 0, got {value}; sigma = alpha * epoch + beta.")
    if not peak > 0:
        raise InputError(f"{where}: peak must be greater than 0, got {peak}; it is the largest weight.")
