"""PSNR and SSIM: golden values, scikit-image as oracle, and refused inputs."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsr.errors import InputError
from selfsr.evaluation.metrics import score_image
from selfsr.evaluation.psnr_ssim import psnr, ssim, to_levels
from selfsr.images.color import rgb_to_y_studio

structural_similarity = pytest.importorskip("skimage.metrics").structural_similarity


def golden_pair(height: int = 64, width: int = 72) -> tuple[torch.Tensor, torch.Tensor]:
    """The inputs of the specification's golden values (0-based c, i = row, j = column, radians)."""
    c = torch.arange(3, dtype=torch.float64).view(1, 3, 1, 1)
    i = torch.arange(height, dtype=torch.float64).view(1, 1, -1, 1)
    j = torch.arange(width, dtype=torch.float64).view(1, 1, 1, -1)
    hr = 0.5 + 0.3 * torch.sin(0.7 * i + 1.3 * c) * torch.cos(0.45 * j - 0.6 * c) + 0.15 * torch.sin(0.11 * i * j)
    sr = hr + 0.06 * torch.sin(1.9 * i - 0.8 * j + c)
    return to_levels(sr), to_levels(hr)


def noise_pair(seed: int, height: int, width: int, peak: int = 255) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(seed)
    a = random.integers(0, peak + 1, (1, 3, height, width))
    b = np.clip(a + random.integers(-peak // 8, peak // 8, a.shape), 0, peak)
    return torch.from_numpy(a), torch.from_numpy(b)


@pytest.mark.parametrize(
    ("name", "expected", "tolerance"),
    [
        ("ssim_y", 0.96992856, 1e-8),
        ("psnr_rgb", 27.44283871, 1e-8),
        ("ssim_rgb", 0.96869156, 1e-8),
        ("psnr_y", 30.43779502, 2e-7),  # computed from float32 luma, see the next test
    ],
)
def test_score_image_has_golden_values_of_basicsr(name, expected, tolerance):
    sr, hr = golden_pair()
    assert score_image(sr, hr, border_px=4)[name] == pytest.approx(expected, abs=tolerance)


def test_golden_luma_psnr_with_float32_luma_agrees():
    """BasicSR keeps luma in float32, which moves this PSNR by 1.7e-7 dB; with the same rounding the digits agree."""
    y_sr, y_hr = (rgb_to_y_studio((x / 255).float(), peak=1).float() * 255 for x in golden_pair())
    error = (y_sr - y_hr)[..., 4:-4, 4:-4].double().square().mean()
    assert float(10 * torch.log10(255**2 / error)) == pytest.approx(30.43779502, abs=1e-8)


def test_psnr_rgb_with_border_10_is_golden_value_of_pspl():
    assert float(psnr(*golden_pair(), 10)) == pytest.approx(27.44156420, abs=1e-8)


def test_psnr_y_of_bgr_is_different():
    sr, hr = golden_pair()
    assert float(psnr(sr.flip(1), hr.flip(1), 4, channel="y")) == pytest.approx(30.43911876, abs=2e-7)


@pytest.mark.parametrize(
    ("height", "width", "border_px", "peak"), [(11, 11, 0, 255), (40, 300, 3, 255), (290, 13, 1, 65535)]
)
def test_ssim_agrees_with_scikit_image(height, width, border_px, peak):
    a, b = noise_pair(0, height, width, peak)
    arrays = [
        x[0, :, border_px : height - border_px, border_px : width - border_px].numpy().astype(float) for x in (a, b)
    ]
    # scikit-image pads and then leaves out the padded rim, which is the valid region
    options = {
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
        "data_range": peak,
        "win_size": 11,
    }
    expected = structural_similarity(*arrays, channel_axis=0, **options)
    assert float(ssim(a, b, border_px, peak=peak)) == pytest.approx(expected, abs=1e-9)
    gray = [np.tensordot([65.481 / 255, 128.553 / 255, 24.966 / 255], x, 1) + 16 / 255 * peak for x in arrays]
    expected = structural_similarity(*gray, **options)
    assert float(ssim(a, b, border_px, channel="y", peak=peak)) == pytest.approx(expected, abs=1e-9)


def test_rgb_to_y_studio_spans_studio_range():
    black_white = torch.tensor([0.0, 255.0]).view(2, 1, 1, 1)
    expected = torch.tensor([16.0, 235.0], dtype=torch.float64)
    assert torch.allclose(rgb_to_y_studio(black_white.expand(2, 3, 1, 1)).flatten(), expected, atol=1e-12)
    assert torch.allclose(rgb_to_y_studio(black_white).flatten(), expected, atol=1e-12)
    assert torch.allclose(rgb_to_y_studio(black_white * 257, 65535).flatten(), expected * 257, atol=1e-9)


def test_psnr_and_ssim_do_not_depend_on_dtype_or_batch():
    a, b = noise_pair(1, 30, 40)
    c, d = noise_pair(2, 30, 40)
    for metric in (psnr, ssim):
        both = metric(torch.cat([a, c]), torch.cat([b, d]), 2)
        assert both[0] == metric(a.to(torch.uint8), b.float(), 2)[0]
        assert both[1] == metric(c.double(), d.half(), 2)[0]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(19, 30), st.integers(19, 30), st.integers(0, 4))
def test_score_image_is_symmetric(seed, height, width, border_px):
    a, b = noise_pair(seed, height, width)
    first = score_image(a, b, border_px)
    for other in (score_image(b, a, border_px), score_image(a.flip(-1).mT, b.flip(-1).mT, border_px)):
        assert other == pytest.approx(first, abs=1e-10)


def test_psnr_and_ssim_ignore_the_border():
    a, b = noise_pair(3, 30, 30)
    c = a.clone()
    c[..., 4:-4, 4:-4] = b[..., 4:-4, 4:-4]
    for metric in (psnr, ssim):
        assert metric(a, c, 4) == metric(a, b, 4)
        assert metric(a, c, 3) != metric(a, b, 3)


def test_score_image_of_identical_images_is_infinite_or_one():
    a, _ = noise_pair(4, 20, 20)
    assert score_image(a, a, 2) == {"psnr_y": math.inf, "ssim_y": 1.0, "psnr_rgb": math.inf, "ssim_rgb": 1.0}
    assert tuple(score_image(a, a, 2)) == ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb")


def test_to_levels_rounds_halves_up_and_clamps():
    values = torch.tensor([-0.3, 0.0, 0.5 / 255, 1.4999 / 255, 254.5 / 255, 1.7], dtype=torch.float64)
    assert to_levels(values).tolist() == [0, 0, 1, 1, 255, 255]
    assert float(to_levels(torch.tensor(0.5), 65535)) == 32768


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda a, b: (a / 255, b),
            "psnr: sr must have whole numbers from 0 to 255, got values from 0 to 1; "
            "use selfsr.evaluation.psnr_ssim.to_levels() on an image in [0, 1].",
        ),
        (
            lambda a, b: (a, b * float("nan")),
            "psnr: hr must have whole numbers from 0 to 255, got values from nan to nan; "
            "use selfsr.evaluation.psnr_ssim.to_levels() on an image in [0, 1].",
        ),
        (
            lambda a, b: (a[..., :-1], b),
            "psnr: sr and hr must have one shape [N, C, H, W] with C = 1 or 3, got [1, 3, 20, 23] and [1, 3, 20, 24]; "
            "crop or resize one of them.",
        ),
        (
            lambda a, b: (a[..., :8, :], b[..., :8, :]),
            "psnr: at least 1 x 1 pixels inside the border are needed, got an image of 8 x 24 (height x width) with a "
            "border of 4; leave it out or use a smaller border.",
        ),
    ],
)
def test_psnr_refuses_wrong_inputs(change, message):
    a, b = noise_pair(5, 20, 24)
    a[0, 0, 10, 10], a[0, 0, 10, 11] = 0, 255
    with pytest.raises(InputError) as error:
        psnr(*change(a, b), 4)
    assert str(error.value) == message


def test_psnr_and_ssim_refuse_wrong_options():
    a, b = noise_pair(6, 20, 24)
    with pytest.raises(
        InputError, match=r"^ssim: at least 11 x 11 pixels inside the border .* of 20 x 24 .* border of 5;"
    ):
        ssim(a, b, 5)
    with pytest.raises(InputError, match=r'^psnr: channel must be "y" or "rgb", got \'Y\'; pass one of them\.$'):
        psnr(a, b, 0, channel="Y")
    with pytest.raises(InputError, match=r"^ssim: border_px must be 0 or more, got -1; pass 0 for no border\.$"):
        ssim(a, b, -1)
