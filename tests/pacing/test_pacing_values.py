"""Values and gradients against the definition, an independent implementation, and what must hold for any images."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from selfsr import SelfPacedLoss, self_paced_weight, ssim_map
from selfsr.pacing import cpu, eager, reference
from selfsr.pacing.contract import SsimOptions

AGE = 0.7
SHAPES = [(2, 3, 70, 25), (1, 1, 5, 3), (3, 4, 11, 10), (1, 3, 1, 1), (1, 1, 12, 140)]
PADDINGS = ["zero", "reflect", "replicate"]
LOSSES = ["l1", "l2", "charbonnier"]


def compute_definition(sr: Tensor, hr: Tensor, loss: str, padding: str = "zero") -> tuple[float, Tensor]:
    """Value and gradient by autograd of the definition, the weight being a constant."""
    x, y = sr.detach().cpu().double().requires_grad_(), hr.cpu().double()
    w = reference.weight(reference.ssim(x.detach(), y, padding=padding), AGE)
    value = reference.loss(x, y, w, loss).mean()
    (gradient,) = torch.autograd.grad(value, x)
    return value.item(), gradient


def compute_loss(sr: Tensor, hr: Tensor, loss: SelfPacedLoss) -> tuple[float, Tensor]:
    x = sr.detach().requires_grad_()
    value = loss(x, hr, AGE)
    (gradient,) = torch.autograd.grad(value, x)
    return value.item(), gradient.detach().cpu().double()


def rms(values: Tensor) -> float:
    return values.square().mean().sqrt().item()


def check(value: float, gradient: Tensor, truth: tuple[float, Tensor], tolerance: SimpleNamespace) -> None:
    """Compare with the definition; the gradient's error and size are root mean squares."""
    assert value == pytest.approx(truth[0], rel=tolerance.value)
    assert rms(gradient - truth[1]) <= tolerance.gradient * rms(truth[1]), "gradient"


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_map_equals_the_definition(
    shape: tuple, padding: str, dtype: torch.dtype, backend: str, pair, tolerance
) -> None:
    sr, hr = pair(*shape, dtype=dtype)
    s = ssim_map(sr, hr, padding=padding, backend=backend)
    assert s.dtype == dtype
    assert s.shape == sr.shape
    truth = reference.ssim(sr.cpu(), hr.cpu(), padding=padding)
    assert (s.cpu() - truth).abs().max().item() <= tolerance(dtype).ssim


@pytest.mark.parametrize("data_range", [0.1, 1.0, 255.0])
def test_data_range_scales_with_the_images(data_range: float, backend: str, pair) -> None:
    sr, hr = pair(1, 3, 20, 20, dtype=torch.float64)
    truth = ssim_map(sr, hr, backend=backend)
    s = ssim_map(sr * data_range, hr * data_range, data_range=data_range, backend=backend)
    torch.testing.assert_close(s, truth, rtol=0, atol=1e-11)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_loss_and_gradient_equal_the_definition(
    shape: tuple, loss: str, dtype: torch.dtype, backend: str, pair, tolerance
) -> None:
    sr, hr = pair(*shape, dtype=dtype)
    check(
        *compute_loss(sr, hr, SelfPacedLoss(loss, backend=backend)), compute_definition(sr, hr, loss), tolerance(dtype)
    )


@pytest.mark.parametrize("padding", PADDINGS[1:])
def test_loss_with_other_paddings_equals_the_definition(
    padding: str, dtype: torch.dtype, backend: str, pair, tolerance
) -> None:
    sr, hr = pair(2, 3, 9, 31, dtype=dtype)
    module = SelfPacedLoss("l1", padding=padding, backend=backend)
    check(*compute_loss(sr, hr, module), compute_definition(sr, hr, "l1", padding), tolerance(dtype))


@settings(max_examples=25, deadline=None)
@given(shape=st.tuples(*(st.integers(1, top) for top in (3, 4, 150, 280))), padding=st.sampled_from(PADDINGS))
def test_cpu_backend_equals_eager_for_any_size(shape: tuple, padding: str) -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.rand(2, *shape, generator=generator, dtype=torch.float64)
    options = SsimOptions(1e-4, 9e-4, padding)
    torch.testing.assert_close(cpu.ssim(x, y, options), eager.ssim(x, y, options), rtol=0, atol=1e-11)


def _shift(gradient: Tensor) -> Tensor:
    return gradient.roll(1, 3)


def _lose_last_row(gradient: Tensor) -> Tensor:
    gradient[:, :, -1] = 0
    return gradient


MUTANTS = {
    "gradient x 0.99999": lambda v, g, sr, hr: (v, g * 0.99999),
    "no gradient": lambda v, g, sr, hr: (v, g * 0),
    "gradient one pixel off": lambda v, g, sr, hr: (v, _shift(g)),
    "last row without gradient": lambda v, g, sr, hr: (v, _lose_last_row(g)),
    "divided by pixels instead of elements": lambda v, g, sr, hr: (v * 3, g * 3),
    "reflected border": lambda v, g, sr, hr: compute_definition(sr, hr, "l2", "reflect"),
    "weight not squared": lambda v, g, sr, hr: unsquared(sr, hr),
    "map one pixel off": lambda v, g, sr, hr: from_map(reference.ssim(sr, hr).roll(1, 2), sr, hr),
    "unbiased variances": lambda v, g, sr, hr: from_map(reference.ssim(sr * (121 / 120) ** 0.5, hr), sr, hr),
    "window a little wider": lambda v, g, sr, hr: from_map(reference.ssim(sr, hr, taps=wide()), sr, hr),
}


def from_map(s: Tensor, sr: Tensor, hr: Tensor) -> tuple[float, Tensor]:
    w = reference.weight(s, AGE)
    return ((w * (sr - hr)) ** 2).mean().item(), (2 * w**2 * (sr - hr) / sr.numel()).double()


def unsquared(sr: Tensor, hr: Tensor) -> tuple[float, Tensor]:
    w = reference.weight(reference.ssim(sr, hr), AGE)
    return (w * (sr - hr) ** 2).mean().item(), (2 * w * (sr - hr) / sr.numel()).double()


def wide() -> Tensor:
    k = torch.arange(-5, 6).double()
    g = torch.exp(-(k**2) / (2 * 1.501**2))
    return (g / g.sum())[:, None] * (g / g.sum())


@pytest.mark.parametrize("name", MUTANTS)
def test_float32_tolerance_rejects_the_mutant(name: str, pair, tolerance) -> None:
    sr, hr = (image.cpu() for image in pair(2, 3, 40, 37))
    truth = compute_definition(sr, hr, "l2")
    check(*compute_loss(sr, hr, SelfPacedLoss("l2", backend="eager")), truth, tolerance(torch.float32))
    mutant = MUTANTS[name](truth[0], truth[1].clone(), sr, hr)
    with pytest.raises(AssertionError):
        check(*mutant, truth, tolerance(torch.float32))


def test_map_inside_the_border_equals_scikit_image(backend: str, pair) -> None:
    from skimage.metrics import structural_similarity

    sr, hr = pair(2, 3, 40, 37, dtype=torch.float64)
    s = ssim_map(sr, hr, backend=backend).cpu().numpy()
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    for n in range(2):
        for c in range(3):
            _, expected = structural_similarity(sr[n, c].cpu().numpy(), hr[n, c].cpu().numpy(), full=True, **options)
            inner = np.s_[5:-5, 5:-5]
            np.testing.assert_allclose(s[n, c][inner], expected[inner], rtol=0, atol=1e-11)


def test_flips_and_transposition_commute(backend: str, pair) -> None:
    sr, hr = pair(2, 3, 70, 45)
    truth = self_paced_weight(sr, hr, AGE, backend=backend)
    for turn in (lambda t: t.flip(2), lambda t: t.flip(3), lambda t: t.transpose(2, 3)):
        turned = self_paced_weight(turn(sr), turn(hr), AGE, backend=backend)
        torch.testing.assert_close(turned, turn(truth), rtol=1e-5, atol=1e-7)


def test_batch_equals_its_images_one_by_one(backend: str, pair) -> None:
    sr, hr = pair(3, 3, 40, 30)
    module = SelfPacedLoss("l1", reduction="none", backend=backend)
    together = module(sr, hr, AGE)
    apart = torch.cat([module(sr[n : n + 1], hr[n : n + 1], AGE) for n in range(3)])
    assert torch.equal(together, apart)


def test_channels_are_weighted_independently(backend: str, pair) -> None:
    sr, hr = pair(1, 3, 30, 30)
    together = self_paced_weight(sr, hr, AGE, backend=backend)
    apart = torch.cat(
        [self_paced_weight(sr[:, c : c + 1], hr[:, c : c + 1], AGE, backend=backend) for c in range(3)], 1
    )
    torch.testing.assert_close(together, apart, rtol=0, atol=0)


@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_equal_images_have_no_loss_and_no_gradient(loss: str, backend: str, pair) -> None:
    _, hr = pair(1, 3, 30, 30)
    value, gradient = compute_loss(hr, hr, SelfPacedLoss(loss, backend=backend))
    assert value == 0
    assert not gradient.any()


def test_late_loss_is_the_unweighted_loss_times_the_peak(backend: str, pair) -> None:
    sr, hr = pair(1, 3, 30, 30)
    for loss, factor in (("l1", 2.0), ("l2", 4.0)):
        plain = (sr - hr).abs().mean() if loss == "l1" else (sr - hr).square().mean()
        assert SelfPacedLoss(loss, backend=backend)(sr, hr, 1e4).item() == pytest.approx(
            factor * plain.item(), rel=1e-5
        )


def test_options_reach_the_weight(backend: str, pair) -> None:
    sr, hr = pair(1, 1, 20, 20, dtype=torch.float64)
    s = reference.ssim(sr.cpu(), hr.cpu())
    w = self_paced_weight(sr, hr, 3.0, alpha=0.5, beta=0.25, peak=3.0, backend=backend)
    torch.testing.assert_close(w.cpu(), reference.weight(s, 1.75, peak=3.0), rtol=1e-9, atol=0)
    module = SelfPacedLoss("l1", alpha=0.5, beta=0.25, peak=3.0, backend=backend)
    expected = ((sr - hr).abs() * w).mean().item()
    assert module(sr, hr, 3.0).item() == pytest.approx(expected, rel=1e-12)
    wider = SelfPacedLoss("charbonnier", eps=0.1, backend=backend)(sr, hr, 1.0).item()
    assert wider > SelfPacedLoss("charbonnier", backend=backend)(sr, hr, 1.0).item() + 0.05


@pytest.mark.parametrize("loss", LOSSES)
def test_reduction_none_equals_the_mean_and_its_gradient(
    loss: str, dtype: torch.dtype, backend: str, pair, tolerance
) -> None:
    sr, hr = pair(2, 3, 20, 17, dtype=dtype)
    sr.requires_grad_()
    each = SelfPacedLoss(loss, reduction="none", backend=backend)(sr, hr, AGE)
    mean = SelfPacedLoss(loss, backend=backend)(sr, hr, AGE)
    assert each.shape == sr.shape
    assert each.double().mean().item() == pytest.approx(mean.item(), rel=tolerance(dtype).value)
    # Any weighing of the elements goes through to the gradient.
    outer = torch.linspace(-1, 2, each.numel(), dtype=dtype, device=sr.device).view_as(each)
    (gradient,) = torch.autograd.grad(each, sr, outer)
    (unit,) = torch.autograd.grad(mean, sr)
    torch.testing.assert_close(gradient, unit * outer * sr.numel(), rtol=1e-5, atol=1e-12)
