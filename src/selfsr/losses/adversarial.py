"""What a generator and its discriminator play for (docs/gan.md): objectives, their relativistic form, gradient penalties.

Logits are what a discriminator returns, `[N, 1]` or a map `[N, 1, h, w]`, large for real. All means are over the whole tensor.
"""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from selfsr.errors import InputError, check_choice

AdversarialObjective = Literal["vanilla", "least_squares", "hinge", "wasserstein"]
AdversarialForm = Literal["standard", "relativistic"]


def generator_loss(
    real: Tensor,
    fake: Tensor,
    *,
    objective: AdversarialObjective,
    form: AdversarialForm,
    mean: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Return what the generator makes small, a scalar.

    Standard form (eq. 1): vanilla `mean softplus(-f)` (Goodfellow et al., NeurIPS 2014, the non-saturating loss,
    which is binary cross-entropy with label 1), least squares `mean (f - 1)^2` (Mao et al., ICCV 2017), hinge
    (Lim and Ye, 2017) and Wasserstein (Arjovsky et al., ICML 2017) `-mean f`.

    Relativistic average form (eq. 2; Jolicoeur-Martineau, ICLR 2019): half of
    `mean real_side(f - mean r) + mean fake_side(r - mean f)`, the discriminator's two sides with the roles exchanged.

    Args:
        real: logits `r` of ground truths; a constant here. The standard form does not look at them.
        fake: logits `f` of outputs.
        objective: "vanilla", "least_squares", "hinge" or "wasserstein".
        form: "standard", or "relativistic", which Wasserstein does not have.
        mean: takes logits to the mean that the relativistic form subtracts: that of several processes, say. None takes
            their own.

    Raises:
        InputError: the objective or the form is unknown, or they do not go together.
    """
    _check("generator_loss", objective, form)
    mean = mean or torch.mean
    if form == "standard":
        if objective in ("hinge", "wasserstein"):
            return -fake.mean()
        return _real_side(fake, objective).mean()
    real = real.detach()
    behind = _real_side(fake - mean(real), objective).mean()
    ahead = _fake_side(real - mean(fake), objective, form).mean()
    return 0.5 * (ahead + behind)


def discriminator_losses(
    real: Tensor,
    fake: Tensor,
    *,
    objective: AdversarialObjective,
    form: AdversarialForm,
    mean: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the two scalars whose sum the discriminator makes small: its loss on ground truths, and on outputs.

    Standard form (eq. 3): `mean real_side(r)` and `mean fake_side(f)`, where the sides are `softplus(-x)` and
    `softplus(x)` for vanilla, `(x - 1)^2` and `x^2` for least squares, `relu(1 - x)` and `relu(1 + x)` for hinge, and
    `-x` and `x` for Wasserstein. Relativistic average form (eq. 4): half of the sides of `r - mean f` and
    `f - mean r`, with the means as constants; least squares then aims at 1 and -1, as relativistic logits are
    differences.

    Args:
        real: logits `r` of ground truths.
        fake: logits `f` of outputs, which must not lead back to the generator.
        objective: as for `generator_loss`.
        form: as for `generator_loss`.
        mean: as for `generator_loss`.

    Raises:
        InputError: as for `generator_loss`.
    """
    _check("discriminator_losses", objective, form)
    mean = mean or torch.mean
    if form == "standard":
        return _real_side(real, objective).mean(), _fake_side(fake, objective, form).mean()
    above = _real_side(real - mean(fake.detach()), objective).mean()
    below = _fake_side(fake - mean(real.detach()), objective, form).mean()
    return 0.5 * above, 0.5 * below


def r1_penalty(logits: Tensor, real: Tensor) -> Tensor:
    """Return `mean |grad D(x)|^2 / 2` over ground truths (Mescheder et al., ICML 2018, eq. 9, for gamma 1).

    `D(x)`, a number for each image, is the mean of its logits, as in the objectives.

    Args:
        logits: what the discriminator returned for `real`.
        real: ground truths `[N, C, H, W]`, which require a gradient.
    """
    return 0.5 * _input_gradient(logits, real).square().sum(dim=1).mean()


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """Return `mean (|grad D(x)| - 1)^2` between ground truths and outputs (Gulrajani et al., NeurIPS 2017, eq. 3).

    `x = u * real + (1 - u) * fake` with one random `u` in [0, 1) for each image; `D(x)` is the mean of an image's
    logits, and the norm is over all of the image's pixels and channels.

    Args:
        discriminator: takes images to logits.
        real: ground truths `[N, C, H, W]`.
        fake: outputs of the same shape.
    """
    share = torch.rand(real.shape[0], 1, 1, 1, device=real.device, dtype=real.dtype)
    between = torch.lerp(fake.detach(), real.detach(), share).requires_grad_()
    norms = torch.linalg.vector_norm(_input_gradient(discriminator(between), between), dim=1)
    return (norms - 1).square().mean()


def _input_gradient(logits: Tensor, images: Tensor) -> Tensor:
    values = logits.flatten(1).mean(dim=1)
    (gradient,) = torch.autograd.grad(values.sum(), images, create_graph=True)
    return gradient.flatten(1)


def _real_side(x: Tensor, objective: str) -> Tensor:
    if objective == "vanilla":
        return functional.softplus(-x)
    if objective == "least_squares":
        return (x - 1).square()
    return functional.relu(1 - x) if objective == "hinge" else -x


def _fake_side(x: Tensor, objective: str, form: str) -> Tensor:
    if objective == "vanilla":
        return functional.softplus(x)
    if objective == "least_squares":
        return x.square() if form == "standard" else (x + 1).square()
    return functional.relu(1 + x) if objective == "hinge" else x


def _check(where: str, objective: str, form: str) -> None:
    check_choice(where, "objective", objective, get_args(AdversarialObjective))
    check_choice(where, "form", form, get_args(AdversarialForm))
    if objective == "wasserstein" and form == "relativistic":
        raise InputError(
            f"{where}: the wasserstein objective has no relativistic form (it is one already: means are compared), "
            "got form relativistic; set form to standard."
        )
