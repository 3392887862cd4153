"""Adversarial losses: golden values, the definitions by hand, which side gets a gradient, the penalties."""

import pytest
import torch
from torch.nn import functional

from selfsr.errors import InputError
from selfsr.losses.adversarial import discriminator_losses, generator_loss, gradient_penalty, r1_penalty

REAL = torch.tensor([1.2, 0.3, -0.4], dtype=torch.float64)
FAKE = torch.tensor([-0.7, 0.1, 0.9], dtype=torch.float64)


@pytest.mark.parametrize(
    ("objective", "form", "generator", "discriminator"),
    [
        ("vanilla", "relativistic", 0.886491365, 0.619824698),
        ("vanilla", "standard", 0.696245528, 1.373129849),
        ("least_squares", "standard", 1.236666667, 1.266666667),
        # By hand. Hinge: -mean f; mean(0, 0.7, 1.4) + mean(0.3, 1.1, 1.9).
        ("hinge", "standard", -0.1, 0.7 + 1.1),
        ("wasserstein", "standard", -0.1, -1.1 / 3 + 0.1),
        # By hand, with r - mean f = (1.1, 0.2, -0.5) and f - mean r = (-3.2, -0.8, 1.6) / 3.
        ("hinge", "relativistic", (2.1 + 1.2 + 0.5 + (6.2 + 3.8 + 1.4) / 3) / 6, (0.8 + 1.5 + (2.2 + 4.6) / 3) / 6),
    ],
)
def test_golden_values(objective: str, form: str, generator: float, discriminator: float) -> None:
    options = {"objective": objective, "form": form}
    assert generator_loss(REAL, FAKE, **options).item() == pytest.approx(generator, abs=5e-10)
    assert sum(discriminator_losses(REAL, FAKE, **options)).item() == pytest.approx(discriminator, abs=5e-10)


def test_relativistic_losses_equal_their_definitions() -> None:
    r, f = REAL - FAKE.mean(), FAKE - REAL.mean()
    bce, one, zero = functional.binary_cross_entropy_with_logits, torch.ones(3).double(), torch.zeros(3).double()
    vanilla = {"objective": "vanilla", "form": "relativistic"}
    assert generator_loss(REAL, FAKE, **vanilla) == pytest.approx(float(bce(r, zero) + bce(f, one)) / 2)
    real, fake = discriminator_losses(REAL, FAKE, **vanilla)
    assert (real, fake) == (pytest.approx(float(bce(r, one)) / 2), pytest.approx(float(bce(f, zero)) / 2))
    squares = {"objective": "least_squares", "form": "relativistic"}
    assert generator_loss(REAL, FAKE, **squares) == pytest.approx(float(((r + 1) ** 2 + (f - 1) ** 2).mean()) / 2)
    real, fake = discriminator_losses(REAL, FAKE, **squares)
    assert (real, fake) == (
        pytest.approx(float(((r - 1) ** 2).mean()) / 2),
        pytest.approx(float(((f + 1) ** 2).mean()) / 2),
    )


@pytest.mark.parametrize("objective", ["vanilla", "least_squares", "hinge"])
def test_relativistic_means_get_gradients_only_for_the_generator(objective: str) -> None:
    real, fake = REAL.clone().requires_grad_(), FAKE.clone().requires_grad_()
    options = {"objective": objective, "form": "relativistic"}
    on_real, on_fake = discriminator_losses(real, fake, **options)
    assert torch.autograd.grad(on_real, [real, fake], allow_unused=True)[1] is None
    assert torch.autograd.grad(on_fake, [real, fake], allow_unused=True)[0] is None
    loss = generator_loss(real, fake, **options)
    to_real, to_fake = torch.autograd.grad(loss, [real, fake], allow_unused=True)
    assert to_real is None
    # The generator's loss depends on differences alone, so a shift of all outputs acts through both of its halves.
    step = 1e-6
    slope = (generator_loss(real, fake + step, **options) - generator_loss(real, fake - step, **options)) / (2 * step)
    assert to_fake.sum().item() == pytest.approx(slope.item(), rel=1e-6)


def test_mean_option_replaces_the_mean_over_the_batch() -> None:
    whole = generator_loss(REAL, FAKE, objective="vanilla", form="relativistic")

    def mean(logits: torch.Tensor) -> torch.Tensor:
        return (REAL if any(bool((logits == value).all()) for value in REAL) else FAKE).mean()

    parts = [
        generator_loss(REAL[i : i + 1], FAKE[i : i + 1], objective="vanilla", form="relativistic", mean=mean)
        for i in range(3)
    ]
    assert torch.stack(parts).mean().item() == pytest.approx(whole.item(), rel=1e-12)


def test_large_logits_have_a_finite_loss_and_gradient() -> None:
    fake = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = generator_loss(fake.detach(), fake, objective="vanilla", form="standard")
    loss.backward()
    assert loss.item() == 5e3
    assert fake.grad.tolist() == [-0.5, 0.0]


def quadratic(x: torch.Tensor) -> torch.Tensor:
    """Return D(x) = sum x^2 / 2 for each image, whose gradient is x itself."""
    return 0.5 * x.square().flatten(1).sum(dim=1, keepdim=True)


def test_r1_is_half_the_mean_squared_gradient_at_ground_truths() -> None:
    real = torch.rand(3, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    expected = 0.5 * real.detach().square().sum(dim=(1, 2, 3)).mean()
    assert r1_penalty(quadratic(real), real).item() == pytest.approx(expected.item())
    # A map of logits counts as its mean: twice the same logit changes nothing.
    assert r1_penalty(quadratic(real).repeat(1, 2), real).item() == pytest.approx(expected.item())


def test_gradient_penalty_pulls_the_norm_to_one_between_the_images() -> None:
    real, fake = (torch.rand(3, 2, 4, 5, dtype=torch.float64) for _ in range(2))
    torch.manual_seed(5)
    penalty = gradient_penalty(quadratic, real, fake)
    torch.manual_seed(5)
    share = torch.rand(3, 1, 1, 1, dtype=torch.float64)
    norms = (share * real + (1 - share) * fake).flatten(1).norm(dim=1)
    assert penalty.item() == pytest.approx((norms - 1).square().mean().item())

    slope = torch.rand(2 * 4 * 5, dtype=torch.float64)
    slope /= slope.norm()
    assert gradient_penalty(lambda x: x.flatten(1) @ slope[:, None], real, fake).item() == pytest.approx(0, abs=1e-20)


def test_penalties_train_the_discriminator() -> None:
    real = torch.rand(2, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(16, 1, dtype=torch.float64, requires_grad=True)
    r1_penalty(real.flatten(1) @ weight, real).backward()
    torch.testing.assert_close(weight.grad, weight.detach())
    weight.grad = None
    gradient_penalty(lambda x: x.flatten(1) @ weight, real, real + 1).backward()
    norm = weight.detach().norm()
    torch.testing.assert_close(weight.grad, 2 * (norm - 1) / norm * weight.detach())


def test_wrong_options_raise() -> None:
    message = "form must be standard for the wasserstein objective.*, got relativistic; set form to standard"
    with pytest.raises(InputError, match=f"^generator_loss: {message}"):
        generator_loss(REAL, FAKE, objective="wasserstein", form="relativistic")
    with pytest.raises(InputError, match=r"discriminator_losses: objective must be one of .*did you mean 'hinge'"):
        discriminator_losses(REAL, FAKE, objective="hing", form="standard")
