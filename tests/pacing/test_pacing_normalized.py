"""Weights with mean 1 against the definition in float64, above all in the first steps, where all weights underflow."""

import pytest
import torch
from torch import Tensor

from selfsr import SelfPacedLoss, self_paced_weight, ssim_map
from selfsr.errors import InputError
from selfsr.pacing import reference
from selfsr.pacing.normalized import normalize_weights

# From the first step of an epoch of 1000 steps, where the largest weight is about exp(-20,000), to the end.
AGES = [1e-3, 5e-3, 0.03, 0.3, 1.0, 20.0]
LOSSES = ["l1", "l2", "charbonnier"]


def compute_definition(sr: Tensor, hr: Tensor, age: float, loss: str, padding: str = "zero") -> tuple[float, Tensor]:
    x, y = sr.detach().cpu().double().requires_grad_(), hr.cpu().double()
    v = reference.normalized_weight(reference.ssim(x.detach(), y, padding=padding), age)
    value = reference.normalized_loss(x, y, v, loss).mean()
    (gradient,) = torch.autograd.grad(value, x)
    return value.item(), gradient


def compute_loss(sr: Tensor, hr: Tensor, age: float | Tensor, module: SelfPacedLoss) -> tuple[float, Tensor]:
    x = sr.detach().requires_grad_()
    value = module(x, hr, age)
    (gradient,) = torch.autograd.grad(value, x)
    return value.item(), gradient.detach().cpu().double()


@pytest.fixture
def alike(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return images of equal tiles that differ by about 1e-6: in the first steps their pixels share the weight."""
    generator = torch.Generator().manual_seed(4)
    hr, sr = torch.rand(2, 1, 1, 16, 16, generator=generator).repeat(1, 2, 3, 4, 3)
    sr = sr + 1e-6 * torch.randn(sr.shape, generator=generator)
    return sr.to(device), hr.to(device)


def relative_error(found: Tensor, truth: Tensor) -> float:
    return ((found - truth).norm() / truth.norm()).item()


@pytest.mark.parametrize("age", AGES)
def test_weights_equal_the_definition_and_have_mean_1(age: float, dtype: torch.dtype, backend: str, pair) -> None:
    sr, hr = pair(2, 3, 70, 45, dtype=dtype)
    found = self_paced_weight(sr, hr, age, normalize=True, backend=backend)
    assert found.dtype == dtype
    truth = reference.normalized_weight(reference.ssim(sr.cpu(), hr.cpu()), age)
    assert relative_error(found.cpu().double(), truth) < (1e-7 if dtype == torch.float32 else 1e-9 + 1e-11 / age**2)
    assert found.double().mean().item() == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("age", AGES)
def test_loss_and_gradient_equal_the_definition(age: float, loss: str, backend: str, pair) -> None:
    sr, hr = pair(2, 3, 40, 37)
    assert age > 0.03 or not self_paced_weight(sr, hr, age, backend=backend).any(), "these weights should underflow"
    value, gradient = compute_loss(sr, hr, age, SelfPacedLoss(loss, normalize=True, backend=backend))
    truth = compute_definition(sr, hr, age, loss)
    assert value == pytest.approx(truth[0], rel=2e-6)
    assert relative_error(gradient, truth[1]) < 2e-6
    assert truth[1].abs().sum() > 0.01  # the first steps have a gradient


@pytest.mark.parametrize("age", AGES[:3])
def test_weights_of_alike_pixels_equal_the_definition(age: float, backend: str, alike) -> None:
    sr, hr = alike
    truth = reference.normalized_weight(reference.ssim(sr.cpu(), hr.cpu()), age)
    assert (truth > 0.01 * truth.max()).sum() > 10
    found = self_paced_weight(sr, hr, age, normalize=True, backend=backend)
    assert relative_error(found.cpu().double(), truth) < 1e-6
    value, gradient = compute_loss(sr, hr, age, SelfPacedLoss("l1", normalize=True, backend=backend))
    expected, expected_gradient = compute_definition(sr, hr, age, "l1")
    assert value == pytest.approx(expected, rel=2e-6)
    assert relative_error(gradient, expected_gradient) < 2e-6


@pytest.mark.parametrize("age", AGES[:3])
def test_the_tolerance_rejects_a_map_in_float32(age: float, alike) -> None:
    sr, hr = (image.cpu() for image in alike)
    distance = 1 + ssim_map(sr, hr, backend="eager").double()
    found, _ = normalize_weights(distance, torch.tensor(age, dtype=torch.float64))
    truth = reference.normalized_weight(reference.ssim(sr, hr), age)
    assert relative_error(found, truth) > 5e-6


def test_the_sum_is_that_of_the_weights_before() -> None:
    distance = torch.rand(2, 3, 8, 9, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 0.2
    for sigma in (0.1, 1.0, 50.0):
        _, log_sum = normalize_weights(distance, torch.tensor(sigma, dtype=torch.float64))
        assert log_sum.item() == pytest.approx(torch.exp(-((distance / sigma) ** 2)).sum().log().item(), rel=1e-12)
    # exp(-40,000) cannot be a float64; the logarithm is nearly that of the largest weight.
    _, log_sum = normalize_weights(distance, torch.tensor(1e-3, dtype=torch.float64))
    assert log_sum.item() == pytest.approx(-((distance.min().item() / 1e-3) ** 2), rel=1e-6)


@pytest.mark.parametrize("epoch", [0, 1e-20])
def test_sigma_of_nearly_0_gives_all_weight_to_the_least_similar_elements(epoch: float, backend: str, pair) -> None:
    sr, hr = pair(1, 3, 20, 20)
    found = self_paced_weight(sr, hr, epoch, normalize=True, backend=backend)
    s = ssim_map(sr.double(), hr.double(), backend=backend)
    assert torch.equal(found > 0, s == s.min())
    assert found.max().item() == pytest.approx(1200 / (s == s.min()).sum().item(), rel=1e-6)


def test_other_options_reach_the_weight(backend: str, pair) -> None:
    sr, hr = pair(1, 3, 20, 21, dtype=torch.float64)
    options = {"alpha": 0.5, "beta": 0.01, "padding": "reflect", "data_range": 0.5}
    found = self_paced_weight(sr, hr, 0.1, normalize=True, backend=backend, **options)
    s = reference.ssim(sr.cpu(), hr.cpu(), padding="reflect", data_range=0.5)
    torch.testing.assert_close(found.cpu(), reference.normalized_weight(s, 0.06), rtol=1e-6, atol=1e-12)
    module = SelfPacedLoss("charbonnier", eps=0.1, normalize=True, backend=backend, **options)
    expected = (found * ((sr - hr) ** 2 + 0.01).sqrt()).mean().item()
    assert module(sr, hr, 0.1).item() == pytest.approx(expected, rel=1e-12)


def test_reduction_none_and_a_callable_equal_the_mean(backend: str, pair) -> None:
    sr, hr = pair(2, 3, 20, 17)
    mean = compute_loss(sr, hr, 0.3, SelfPacedLoss("l2", normalize=True, backend=backend))
    own = SelfPacedLoss(lambda a, b: (a - b) ** 2, normalize=True, backend=backend)
    by_call = compute_loss(sr, hr, 0.3, own)
    assert by_call[0] == pytest.approx(mean[0], rel=1e-6)
    torch.testing.assert_close(by_call[1], mean[1], rtol=1e-5, atol=1e-12)
    each = SelfPacedLoss("l2", normalize=True, reduction="none", backend=backend)(sr, hr, 0.3)
    assert each.shape == sr.shape
    assert each.mean().item() == pytest.approx(mean[0], rel=1e-6)


@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_late_loss_is_the_plain_loss(loss: str, backend: str, pair) -> None:
    sr, hr = pair(1, 3, 30, 30)
    plain = (sr - hr).abs().mean() if loss == "l1" else (sr - hr).square().mean()
    module = SelfPacedLoss(loss, normalize=True, backend=backend)
    assert module(sr, hr, 1e4).item() == pytest.approx(plain.item(), rel=1e-5)


def test_the_size_of_the_loss_does_not_grow_with_age(backend: str, pair) -> None:
    sr, hr = pair(2, 3, 40, 37)
    growing, steady = (SelfPacedLoss("l1", normalize=flag, backend=backend) for flag in (False, True))
    assert growing(sr, hr, 0.01) == 0
    assert growing(sr, hr, 20) > 100 * growing(sr, hr, 0.4)
    values = [steady(sr, hr, age).item() for age in AGES]
    assert max(values) < 20 * min(values)


def test_half_precision_is_computed_in_float32(backend: str, pair) -> None:
    sr, hr = pair(1, 3, 30, 20)
    sr = sr.bfloat16()
    module = SelfPacedLoss("l1", normalize=True, backend=backend)
    value, gradient = compute_loss(sr, hr, 0.01, module)
    expected, expected_gradient = compute_loss(sr.float(), hr, 0.01, module)
    assert value == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-2, atol=1e-6)


def test_an_empty_batch_has_no_weights(device: torch.device, backend: str) -> None:
    x = torch.empty(0, 3, 8, 8, device=device)
    assert self_paced_weight(x, x, 1, normalize=True, backend=backend).shape == x.shape


def test_nan_is_not_hidden(backend: str, pair) -> None:
    sr, hr = pair(1, 1, 20, 20)
    sr[0, 0, 3, 4] = float("nan")
    assert SelfPacedLoss("l1", normalize=True, backend=backend)(sr, hr, 1).isnan()


def test_torch_compile_makes_one_graph(backend: str, pair) -> None:
    sr, hr = pair(1, 3, 24, 20)
    module = SelfPacedLoss("l1", normalize=True, backend=backend)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    for age in (0.01, 3.0):
        epoch = torch.tensor(age, device=sr.device)
        for found, expected in zip(
            compute_loss(sr, hr, epoch, compiled), compute_loss(sr, hr, epoch, module), strict=True
        ):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    torch.compiler.reset()


def test_peak_without_an_effect_is_refused() -> None:
    image = torch.rand(1, 3, 16, 16)
    for call in (
        lambda: SelfPacedLoss(peak=3, normalize=True),
        lambda: self_paced_weight(image, image, 1, peak=3, normalize=True),
    ):
        with pytest.raises(InputError, match=r": peak has no effect with normalize=True, got 3; leave it out\.$"):
            call()
