"""SSIM and MS-SSIM as losses: scikit-image and scipy as oracles, gradients, properties, mistakes."""

import re

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity
from torch.nn import functional

from selfsr.errors import InputError
from selfsr.losses import ms_ssim_loss, ssim_loss
from selfsr.losses.structural import SCALE_WEIGHTS

THREE = SCALE_WEIGHTS[:3]


def images(height: int = 48, width: int = 53) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(11)
    rough, noise = torch.rand(2, 2, 3, height, width, generator=generator, dtype=torch.float64)
    hr = functional.avg_pool2d(rough, 5, 1, 2)
    return (hr + 0.15 * (noise - 0.3)).clamp(0, 1), hr


def test_ssim_loss_equals_scikit_image() -> None:
    sr, hr = images()
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    expected = [structural_similarity(sr[n].numpy(), hr[n].numpy(), channel_axis=0, **options) for n in range(2)]
    assert np.mean(expected) < 0.9
    assert 1 - ssim_loss(sr, hr).item() == pytest.approx(np.mean(expected), rel=1e-10)


def test_ms_ssim_loss_equals_its_definition() -> None:
    sr, hr = images()

    def blurred(plane: np.ndarray) -> np.ndarray:
        return gaussian_filter(plane, 1.5, truncate=3.5)[5:-5, 5:-5]

    values = []
    for x, y in zip(sr.flatten(0, 1).numpy(), hr.flatten(0, 1).numpy(), strict=True):
        value = 1.0
        for scale, weight in enumerate(THREE):
            a, b = blurred(x), blurred(y)
            contrast = (2 * (blurred(x * y) - a * b) + 9e-4) / (blurred(x * x) - a * a + blurred(y * y) - b * b + 9e-4)
            brightness = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
            value *= (contrast * brightness if scale == 2 else contrast).mean() ** weight
            height, width = x.shape
            x, y = (
                p[: height // 2 * 2, : width // 2 * 2].reshape(height // 2, 2, width // 2, 2).mean((1, 3))
                for p in (x, y)
            )
        values.append(value)
    assert 1 - ms_ssim_loss(sr, hr, scale_weights=THREE).item() == pytest.approx(np.mean(values), rel=1e-10)


def test_ms_ssim_with_one_scale_equals_ssim() -> None:
    sr, hr = images()
    assert ms_ssim_loss(sr, hr, scale_weights=[1.0]).item() == pytest.approx(ssim_loss(sr, hr).item(), rel=1e-12)


def test_gradients_equal_numerical_ones() -> None:
    sr, hr = (image[:1, :1, :23, :24] for image in images())
    for loss in (ssim_loss, lambda x, y: ms_ssim_loss(x, y, scale_weights=(0.6, 0.4))):
        x = sr.clone().requires_grad_()
        (slope,) = torch.autograd.grad(loss(x, hr), x)
        direction = torch.rand(sr.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64) - 0.5
        step = 1e-5 * direction
        result = (loss(sr + step, hr) - loss(sr - step, hr)) / 2e-5
        assert result.item() == pytest.approx((slope * direction).sum().item(), rel=1e-6)


LOSSES = {"ssim": ssim_loss, "ms_ssim": lambda sr, hr: ms_ssim_loss(sr, hr, scale_weights=THREE)}
each = pytest.mark.parametrize("loss", LOSSES.values(), ids=list(LOSSES))


@each
def test_equal_images_have_no_loss_and_no_gradient(loss) -> None:
    hr = images()[1]
    x = hr.clone().requires_grad_()
    value = loss(x, hr)
    value.backward()
    assert abs(value.item()) < 1e-12
    assert x.grad.abs().max() < 1e-12


@each
def test_opposite_images_have_a_finite_gradient(loss) -> None:
    x = (1 - images()[1]).requires_grad_()
    loss(x, images()[1]).backward()
    assert x.grad.isfinite().all()


@each
def test_loss_is_the_mean_over_images_and_invariant_to_flips(loss) -> None:
    sr, hr = (image[..., :48, :48] for image in images())
    mean = (loss(sr[:1], hr[:1]) + loss(sr[1:], hr[1:])) / 2
    assert loss(sr, hr).item() == pytest.approx(mean.item(), rel=1e-12)
    for axis in (2, 3):
        assert loss(sr.flip(axis), hr.flip(axis)).item() == pytest.approx(mean.item(), rel=1e-12)


@each
def test_float32_is_close_to_float64_and_half_is_computed_in_float32(loss) -> None:
    sr, hr = images()
    single = loss(sr.float(), hr.float())
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(loss(sr, hr).item(), rel=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = loss(sr.bfloat16(), hr.bfloat16())
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, loss(sr.bfloat16().float(), hr.bfloat16().float()))


MISTAKES = {
    "ssim_loss: images must be at least 11 px on each side, got [2, 3, 10, 48]; pass larger crops.": lambda x: (
        ssim_loss(x[:, :, :10], x[:, :, :10])
    ),
    "ms_ssim_loss: images must be at least 176 px on each side for 5 scales, got [2, 3, 48, 48]; pass larger crops or "
    "fewer scale_weights.": lambda x: ms_ssim_loss(x, x),
    "ms_ssim_loss: scale_weights must be one or more positive numbers, got [].": lambda x: ms_ssim_loss(
        x, x, scale_weights=[]
    ),
    "ssim_loss: sr and hr must have one shape, got [2, 3, 48, 48] and [1, 3, 48, 48].": lambda x: ssim_loss(x, x[:1]),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistake_raises_one_sentence(message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        MISTAKES[message](torch.rand(2, 3, 48, 48))
