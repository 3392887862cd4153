"""Adversarial losses of generator and discriminator, and the gradient penalties (docs/gan.md).

A discriminator returns logits, `[N, 1]` or a map `[N, 1, h, w]`; large logits mean "looks like a ground truth". All
means are over the full tensor.
"""

from collections.abc import Callable
from typing import Literal, cast, get_args

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
    """Return the adversarial loss of the generator.

    Standard form (eq. 1): vanilla `mean softplus(-f)` (Goodfellow et al., NeurIPS 2014, the non-saturating loss,
    which is binary cross-entropy with label 1), least squares `mean (f - 1)^2` (Mao et al., ICCV 2017), hinge
    (Lim and Ye, 2017) and Wasserstein (Arjovsky et al., ICML 2017) `-mean f`.

    Relativistic average form (eq. 2; Jolicoeur-Martineau, ICLR 2019): half of
    `mean real_side(f - mean r) + mean fake_side(r - mean f)`, the discriminator's loss with the roles exchanged.

    Args:
        real: logits `r` of ground truths, without a gradient; unused in the standard form.
        fake: logits `f` of outputs.
        objective: "vanilla", "least_squares", "hinge" or "wasserstein".
        form: "standard", or "relativistic", which is not available for Wasserstein.
        mean: computes the means that the relativistic form subtracts, for example over all processes; None is
            `torch.mean`.

    Returns:
        A scalar.

    Raises:
        InputError: the objective or the form is unknown, or the two cannot be combined.

    >>> fake = torch.tensor([[0.5], [1.0]])
    >>> generator_loss(fake, fake, objective="least_squares", form="standard").item()
    0.125
    """
    _check_options("generator_loss", objective, form)
    mean = mean or torch.mean
    if form == "standard":
        if objective in ("hinge", "wasserstein"):
            return -fake.mean()
        return _real_side(fake, objective).mean()
    real = real.detach()
    fake_as_real = _real_side(fake - mean(real), objective).mean()
    real_as_fake = _fake_side(real - mean(fake), objective, form).mean()
    return 0.5 * (real_as_fake + fake_as_real)


def discriminator_losses(
    real: Tensor,
    fake: Tensor,
    *,
    objective: AdversarialObjective,
    form: AdversarialForm,
    mean: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the discriminator's loss in two parts: on ground truths, and on outputs.

    Standard form (eq. 3): `mean real_side(r)` and `mean fake_side(f)`. The sides are `softplus(-x)` and `softplus(x)`
    for vanilla, `(x - 1)^2` and `x^2` for least squares, `relu(1 - x)` and `relu(1 + x)` for hinge, and `-x` and `x`
    for Wasserstein.

    Relativistic average form (eq. 4): half of the sides of `r - mean f` and `f - mean r`, with the means as constants.
    Least squares then aims at 1 and -1, as relativistic logits are differences.

    Args:
        real: logits `r` of ground truths.
        fake: logits `f` of outputs that are detached from the generator.
        objective: as for `generator_loss`.
        form: as for `generator_loss`.
        mean: as for `generator_loss`.

    Returns:
        Two scalars; the discriminator minimizes their sum.

    Raises:
        InputError: as for `generator_loss`.

    >>> real, fake = torch.tensor([[0.5]]), torch.tensor([[2.0]])
    >>> [part.item() for part in discriminator_losses(real, fake, objective="hinge", form="standard")]
    [0.5, 3.0]
    """
    _check_options("discriminator_losses", objective, form)
    mean = mean or torch.mean
    if form == "standard":
        return _real_side(real, objective).mean(), _fake_side(fake, objective, form).mean()
    real_part = _real_side(real - mean(fake.detach()), objective).mean()
    fake_part = _fake_side(fake - mean(real.detach()), objective, form).mean()
    return 0.5 * real_part, 0.5 * fake_part


def r1_penalty(logits: Tensor, real: Tensor) -> Tensor:
    """Return the R1 penalty `mean |grad D(x)|^2 / 2` over ground truths.

    Mescheder et al., ICML 2018, eq. 9, for gamma 1. `D(x)`, one number for each image, is the mean of its logits, as in
    the adversarial losses.

    Args:
        logits: output of the discriminator for `real`.
        real: ground truths `[N, C, H, W]` that require a gradient.

    Returns:
        A scalar.

    >>> real = torch.ones(2, 1, 2, 2, requires_grad=True)
    >>> r1_penalty(real.square().sum(dim=(1, 2, 3))[:, None], real).item()  # the gradient is 2 at four pixels
    8.0
    """
    return 0.5 * _input_gradient(logits, real).square().sum(dim=1).mean()


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """Return the penalty of WGAN-GP, `mean (|grad D(x)| - 1)^2` between ground truths and outputs.

    Gulrajani et al., NeurIPS 2017, eq. 3. `x = u * real + (1 - u) * fake` with one random `u` in [0, 1) for each image.
    `D(x)` is the mean of an image's logits, and the norm is over all pixels and channels of the image.

    Args:
        discriminator: maps images to logits.
        real: ground truths `[N, C, H, W]`.
        fake: outputs of the same shape.

    Returns:
        A scalar.

    >>> real, fake = torch.rand(2, 3, 1, 2, 2)
    >>> gradient_penalty(lambda image: image.sum(dim=(1, 2, 3))[:, None], real, fake).item()  # (sqrt(4) - 1)^2
    1.0
    """
    share = torch.rand(real.shape[0], 1, 1, 1, device=real.device, dtype=real.dtype)
    between = torch.lerp(fake.detach(), real.detach(), share).requires_grad_()
    gradient = _input_gradient(discriminator(between), between)
    norms = cast(Tensor, torch.linalg.vector_norm(gradient, dim=1))  # pyright: ignore[reportUnknownMemberType]
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


def _check_options(caller: str, objective: str, form: str) -> None:
    check_choice(caller, "objective", objective, get_args(AdversarialObjective))
    check_choice(caller, "form", form, get_args(AdversarialForm))
    if objective == "wasserstein" and form == "relativistic":
        raise InputError(
            f"{caller}: form must be standard for the wasserstein objective, which compares means already, "
            "got relativistic; set form to standard."
        )
