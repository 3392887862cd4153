"""Float32 where the published code lost its digits, and the edges of the formulas: sigma 0, NaN, infinity."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor

from selfsr import SelfPacedLoss, self_paced_weight, ssim_map
from selfsr.pacing import contract, eager, reference

NAIVE = Path(__file__).resolve().parents[2] / "bench" / "ssim_naive.py"


def naive_map(x: Tensor, y: Tensor, data_range: float = 1.0) -> Tensor:
    """The map by five convolutions in the dtype of the images, as published."""
    spec = importlib.util.spec_from_file_location("ssim_naive", NAIVE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ssim_map(x, y, module.make_window(x.shape[1], x.dtype, x.device), data_range)


def rms(error: Tensor) -> float:
    return error.square().mean().sqrt().item()


def flat(level: float, noise: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hr = torch.full((1, 3, 48, 48), level)
    return hr + noise * torch.randn(hr.shape, generator=generator), hr + noise * torch.randn(
        hr.shape, generator=generator
    )


def half_black() -> tuple[Tensor, Tensor]:
    """Return flat images, half light gray and half black: no constant centers both halves."""
    sr, hr = flat(250.0, 0.05)
    sr[..., 24:] -= 250.0
    hr[..., 24:] -= 250.0
    return sr, hr


def low_texture() -> tuple[Tensor, Tensor]:
    sr, hr = flat(250.0, 0.25)
    return sr.round(), hr.round()


# On images in 0..255 with constants for [0, 1], as published.
HARD = {"flat 250": lambda: flat(250.0, 0.05), "half black": half_black, "low texture": low_texture}


@pytest.mark.parametrize("name", HARD)
def test_float32_map_is_accurate_where_the_published_form_fails(name: str, backend: str, device: torch.device) -> None:
    sr, hr = (image.to(device) for image in HARD[name]())
    truth = reference.ssim(sr.cpu(), hr.cpu())
    error = (ssim_map(sr, hr, data_range=1.0, backend=backend).cpu() - truth).abs().max().item()
    naive = naive_map(sr, hr).cpu()
    assert error < 1e-3
    assert (naive - truth).abs().max().item() > 0.5, "the demonstration shows nothing"
    if name != "low texture":
        assert naive.abs().max().item() > 10


def test_centering_by_one_mean_is_not_accurate() -> None:
    """Why moments are taken around a near pixel or in float64: one mean for an image leaves its contrast."""
    sr, hr = half_black()
    center = hr.mean()
    error = (naive_map(sr - center, hr - center) - naive_map(sr.double() - center, hr.double() - center)).abs()
    assert error.max().item() > 1e-2


@pytest.mark.parametrize("scale", [1.0, 255.0, 65535.0])
def test_error_is_not_larger_than_that_of_the_naive_form(scale: float, backend: str, pair) -> None:
    sr, hr = (image * scale for image in pair(2, 3, 60, 50))
    truth = reference.ssim(sr.cpu(), hr.cpu(), data_range=scale)
    ours = rms(ssim_map(sr, hr, data_range=scale, backend=backend).cpu() - truth)
    assert ours <= rms(naive_map(sr, hr, scale).cpu() - truth)
    assert ours <= 1e-7 * rms(truth) + 1e-7


def test_eager_backend_without_float64_centers_the_images(monkeypatch: pytest.MonkeyPatch, pair) -> None:
    """What runs on Apple's GPUs, here on the CPU."""
    monkeypatch.setattr(eager, "_moment_dtype", lambda device: torch.float32)
    sr, hr = pair(2, 3, 40, 37)
    for padding in ("zero", "reflect"):
        error = eager.ssim(sr, hr, contract.SsimOptions(1e-4, 9e-4, padding)) - reference.ssim(sr, hr, padding=padding)
        assert error.abs().max().item() < 2e-4
    sr, hr = flat(250.0, 0.05)
    error = eager.ssim(sr, hr, contract.SsimOptions(1e-4, 9e-4, "reflect")) - reference.ssim(sr, hr, padding="reflect")
    assert error.abs().max().item() < 1e-3


def opposite() -> tuple[Tensor, Tensor]:
    """A checkerboard and its negative, of equal local means: with constants of nearly 0 the map is -1."""
    i, j = torch.meshgrid(torch.arange(24), torch.arange(20), indexing="ij")
    texture = (((i + j) % 2) - 0.5)[None, None] / 2
    return 0.5 + texture, 0.5 - texture


def test_sigma_zero_weights_only_opposite_pixels(backend: str, device: torch.device) -> None:
    sr, hr = (image.to(device) for image in opposite())
    options = {"data_range": 1e-6, "padding": "reflect", "backend": backend}
    s = ssim_map(sr, hr, **options)
    assert (s == -1).all()
    assert (self_paced_weight(sr, hr, 0.0, peak=1.5, **options) == 1.5).all()
    # Elsewhere s is greater, and no weight is left.
    assert not self_paced_weight(sr, hr, 0.0, padding="reflect", backend=backend).any()


def test_sigma_zero_has_zero_loss_and_gradient(backend: str, pair) -> None:
    sr, hr = pair(1, 3, 20, 20)
    for epoch in (0.0, torch.tensor(0.0)):
        x = sr.clone().requires_grad_()
        loss = SelfPacedLoss("l1", backend=backend)(x, hr, epoch)
        loss.backward()
        assert loss.item() == 0
        assert not x.grad.any()


def test_tiny_sigma_underflows_to_zero(backend: str, pair) -> None:
    sr, hr = pair(1, 3, 20, 20)
    weight = self_paced_weight(sr, hr, 0.02, backend=backend)
    assert weight.isfinite().all()
    assert (weight == 0).float().mean() > 0.5


def test_infinite_age_is_the_plain_loss(backend: str, pair) -> None:
    sr, hr = pair(1, 3, 20, 20)
    assert (self_paced_weight(sr, hr, float("inf"), backend=backend) == 2).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_give_nan_in_their_windows(bad: float, backend: str, pair) -> None:
    sr, hr = pair(1, 1, 30, 30)
    sr[0, 0, 15, 12] = bad
    s = ssim_map(sr, hr, backend=backend)
    reached = torch.zeros_like(s, dtype=torch.bool)
    reached[0, 0, 10:21, 7:18] = True
    assert s[reached].isnan().all()
    if backend != "eager":
        # A product with a band matrix spreads it to the whole block.
        assert s[~reached].isfinite().all()
    for loss in ("l1", "l2", "charbonnier"):
        assert SelfPacedLoss(loss, backend=backend)(sr, hr, 1.0).isnan()


def test_padding_changes_only_the_border_of_the_map(backend: str, pair) -> None:
    """Padding is a matter of the outer five pixels."""
    sr, hr = pair(1, 3, 30, 26)
    maps = [ssim_map(sr, hr, padding=padding, backend=backend) for padding in ("zero", "reflect", "replicate")]
    for other in maps[1:]:
        torch.testing.assert_close(other[..., 5:-5, 5:-5], maps[0][..., 5:-5, 5:-5], rtol=0, atol=2e-7)
        assert (other - maps[0]).abs().max() > 1e-2


def test_map_stays_in_range(backend: str, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 3, 40, 40, generator=generator).to(device)
    for y in (x, 1 - x, x * 1e-20, x * 1e4):
        for scale in (1e-4, 1.0):
            s = ssim_map(x, y, data_range=scale, backend=backend)
            assert s.min() >= -1
            assert s.max() <= 1
