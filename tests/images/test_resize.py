import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode

from selfsr.errors import InputError
from selfsr.images import resize
from selfsr.images.resize import HALO_LR_PX, bicubic_lr, imresize, mod_crop, round_to_bits, symmetric_index


def keys(x: Fraction) -> Fraction:
    """Keys 1981, equation 15 with a = -1/2, in exact arithmetic."""
    x = abs(x)
    if x <= 1:
        return Fraction(3, 2) * x**3 - Fraction(5, 2) * x**2 + 1
    if x < 2:
        return Fraction(-1, 2) * x**3 + Fraction(5, 2) * x**2 - 4 * x + 2
    return Fraction(0)


def response(n: int, scale: float, at: int) -> np.ndarray:
    """Weights with which output `at` takes in `n` inputs: one impulse per input."""
    impulses = torch.eye(n, dtype=torch.float64).reshape(n, 1, 1, n).expand(n, 1, 8, n)
    return imresize(impulses.contiguous(), scale=scale)[:, 0, 1, at].numpy()


def test_imresize_weights_of_one_half_are_the_published_ones():
    half = [-0.01171875, -0.03515625, 0.11328125, 0.43359375]
    assert response(24, 0.5, 5)[7:15].tolist() == half + half[::-1]
    assert np.count_nonzero(response(24, 0.5, 5)) == 8


@pytest.mark.parametrize(("factor", "phase"), [(2, Fraction(1, 2)), (4, Fraction(1, 2)), (3, Fraction(0))])
def test_imresize_weights_are_the_stretched_keys_kernel(factor, phase):
    expected = [keys((k + phase) / factor) / factor for k in range(-2 * factor - 1, 2 * factor + 2)]
    expected = np.array([float(weight) for weight in expected if weight != 0])
    weights = response(20 * factor, 1 / factor, 10)
    weights = weights[np.flatnonzero(np.abs(weights) > 1e-15)]
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-15)


def test_imresize_by_two_interpolates_at_quarters():
    expected = [float(keys(Fraction(k, 4))) for k in (-5, -1, 3, 7)]
    assert response(12, 2.0, 11)[4:8].tolist() == pytest.approx(expected, abs=1e-15)
    # The published taps of the cubic at 1/4, in 1/128.
    assert [128 * w for w in expected] == [-9.0, 111.0, 29.0, -3.0]


def definition(image: np.ndarray, size: tuple[int, int], scales: tuple[float, float]) -> np.ndarray:
    """imresize written out: every output pixel sums over the infinite mirrored image, one axis after the other."""

    def along_rows(rows: np.ndarray, n_out: int, scale: float) -> np.ndarray:
        n_in = len(rows)
        out = np.zeros((n_out, *rows.shape[1:]))
        shrink = min(scale, 1.0)
        reach = math.ceil(2 / shrink) + 1
        for o in range(n_out):
            u = (o + 1) / scale + 0.5 * (1 - 1 / scale)  # MATLAB counts from 1
            total = 0.0
            for j in range(math.floor(u) - reach, math.ceil(u) + reach + 1):
                x = abs(u - j) * shrink
                near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
                weight = near if x <= 1 else far if x < 2 else 0.0
                period = (j - 1) % (2 * n_in)
                out[o] += weight * rows[period if period < n_in else 2 * n_in - 1 - period]
                total += weight
            out[o] /= total
        return out

    tall = along_rows(image, size[0], scales[0])
    return along_rows(tall.swapaxes(0, 1), size[1], scales[1]).swapaxes(0, 1)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    scale=st.sampled_from([0.25, 1 / 3, 0.5, 0.75, 1.0, 1.7, 2.0, 3.0, 4.0, 0.6, 0.13]),
    seed=st.integers(0, 9),
)
def test_imresize_equals_the_definition_at_any_scale(height, width, scale, seed):
    image = np.random.default_rng(seed).random((height, width))
    size = (math.ceil(round(height * scale, 9)), math.ceil(round(width * scale, 9)))
    expected = definition(image, size, (scale, scale))
    result = imresize(torch.from_numpy(image)[None, None], scale=scale)[0, 0].numpy()
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 14), st.integers(1, 14), st.integers(1, 30), st.integers(1, 30))
def test_imresize_equals_the_definition_at_any_size(height, width, out_height, out_width):
    image = np.random.default_rng(height * 31 + width).random((height, width))
    expected = definition(image, (out_height, out_width), (out_height / height, out_width / width))
    result = imresize(torch.from_numpy(image)[None, None], size=(out_height, out_width))[0, 0].numpy()
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("scale", [0.25, 1 / 3, 0.5, 2.0, 3.0, 4.0])
def test_imresize_in_float32_is_close_to_float64(scale, device):
    image = torch.rand(2, 3, 60, 48, generator=torch.Generator().manual_seed(1))
    exact = imresize(image.double(), scale=scale)
    error = (imresize(image.to(device), scale=scale).cpu().double() - exact).abs().max()
    assert error < 1e-6


@pytest.mark.parametrize("scale", [0.25, 1 / 3, 0.5, 2.0, 3.0])
def test_imresize_equals_pillow_inside(scale):
    # Pillow has the same kernel and stretch, but renormalizes at the border in place of mirroring.
    image = np.random.default_rng(2).random((60, 72)).astype(np.float32)
    size = (round(72 * scale), round(60 * scale))
    pillow = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    ours = imresize(torch.from_numpy(image)[None, None], scale=scale)[0, 0].numpy()
    edge = math.ceil(2 * max(scale, 1)) + 1
    inside = (slice(edge, -edge), slice(edge, -edge))
    np.testing.assert_allclose(ours[inside], pillow[inside], rtol=0, atol=2e-6)
    assert np.abs(ours - pillow).max() > 1e-3, "the border is expected to differ"


def test_back_projection_golden_values():
    b, c, i, j = np.meshgrid(np.arange(2), np.arange(3), np.arange(24), np.arange(20), indexing="ij")
    hr = (
        0.5
        + 0.3 * np.sin(0.7 * i + 1.3 * c + 0.9 * b) * np.cos(0.45 * j - 0.6 * c)
        + 0.15 * np.sin(0.11 * i * j + 0.4 * b)
    )
    sr = torch.from_numpy(hr + 0.06 * np.sin(1.9 * i - 0.8 * j + c + 0.5 * b))
    lr = imresize(sr, scale=0.25)
    assert lr.shape == (2, 3, 6, 5)
    # The values come from an implementation that agrees with MATLAB to 4e-7.
    assert lr.mean().item() == pytest.approx(0.511058007, abs=4e-7)
    assert lr[0, 0, 0, 0].item() == pytest.approx(0.654211462, abs=4e-7)
    assert lr[1, 2, 3, 2].item() == pytest.approx(0.435565382, abs=4e-7)


@pytest.mark.parametrize(
    ("side", "scale", "expected"), [(9, 0.5, 5), (10, 1 / 3, 4), (12, 1 / 3, 4), (70, 0.1, 7), (5, 2.5, 13), (3, 1, 3)]
)
def test_imresize_rounds_the_output_size_up(side, scale, expected):
    assert imresize(torch.zeros(1, 1, side, side), scale=scale).shape == (1, 1, expected, expected)


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_imresize_divides_multiples_exactly(factor):
    assert all(math.ceil(k * factor * (1 / factor) - 1e-9) == k for k in range(1, 20_000))


def test_imresize_keeps_images_and_channels_apart():
    image = torch.rand(2, 3, 12, 16, dtype=torch.float64)
    whole = imresize(image, scale=0.5)
    for n in range(2):
        for c in range(3):
            single = imresize(image[n : n + 1, c : c + 1], scale=0.5)
            assert torch.equal(whole[n, c], single[0, 0])


@pytest.mark.parametrize("scale", [0.5, 1 / 3, 2.0])
def test_imresize_commutes_with_flips_and_transposes(scale):
    image = torch.rand(1, 2, 12, 18, dtype=torch.float64)
    result = imresize(image, scale=scale)
    torch.testing.assert_close(imresize(image.flip(-1), scale=scale), result.flip(-1), rtol=0, atol=1e-14)
    torch.testing.assert_close(imresize(image.flip(-2), scale=scale), result.flip(-2), rtol=0, atol=1e-14)
    torch.testing.assert_close(imresize(image.mT, scale=scale), result.mT, rtol=0, atol=1e-14)


def test_imresize_ignores_layout_dtype_and_autocast(device):
    image = torch.rand(2, 3, 16, 20, device=device)
    result = imresize(image, scale=0.5)
    assert result.is_contiguous()
    assert torch.equal(imresize(image.contiguous(memory_format=torch.channels_last), scale=0.5), result)
    assert torch.equal(imresize(image[:, :, ::2], scale=0.5), imresize(image[:, :, ::2].contiguous(), scale=0.5))
    with torch.autocast(device.type, torch.bfloat16):
        assert torch.equal(imresize(image, scale=0.5), result)
    half = imresize(image.bfloat16(), scale=0.5)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, imresize(image.bfloat16().float(), scale=0.5).bfloat16())


@pytest.mark.parametrize("how", [{"scale": 0.5}, {"scale": 1 / 3}, {"scale": 2.0}, {"size": (13, 4)}])
def test_imresize_has_first_and_second_derivatives(how):
    image = torch.rand(1, 2, 7, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: imresize(x, **how), image)
    assert torch.autograd.gradgradcheck(lambda x: imresize(x, **how), image)


def test_imresize_gradient_is_the_transposed_matrix():
    image = torch.rand(1, 1, 3, 40, dtype=torch.float64, requires_grad=True)
    matrix = torch.autograd.functional.jacobian(lambda x: imresize(x, scale=0.25), image).reshape(10, 120)
    weight = torch.rand(1, 1, 1, 10, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((imresize(image, scale=0.25) * weight).sum(), image)
    torch.testing.assert_close(gradient.ravel(), weight.ravel() @ matrix, rtol=0, atol=1e-15)


def test_imresize_in_inference_mode_first_allows_training_later():
    with torch.inference_mode():
        imresize(torch.rand(1, 1, 23, 29), scale=0.5)
    image = torch.rand(1, 1, 23, 29, requires_grad=True)
    imresize(image, scale=0.5).sum().backward()
    assert image.grad is not None


def test_imresize_after_one_without_data_has_data():
    image = torch.rand(1, 3, 11, 13)
    resize._cached_taps_on.cache_clear()
    with FakeTensorMode(allow_non_fake_inputs=True):
        imresize(torch.empty(1, 3, 11, 13), 2)
    assert type(imresize(image, 2)) is torch.Tensor


def test_imresize_weight_caches_are_bounded():
    for cache in (resize.compute_taps, resize._transposed_taps, resize._cached_taps_on):
        assert 0 < cache.cache_info().maxsize <= 128


@settings(max_examples=60, deadline=None)
@given(data=st.data(), scale=st.sampled_from([2, 3, 4]))
def test_bicubic_lr_of_a_crop_with_halo_is_the_crop_of_the_lr(data, scale):
    rows, columns = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    side = data.draw(st.integers(1, min(rows, columns)))
    top, left = data.draw(st.integers(0, rows - side)), data.draw(st.integers(0, columns - side))
    image = np.random.default_rng(rows * 13 + columns).random((rows * scale, columns * scale)).astype(np.float32)
    complete = bicubic_lr(torch.from_numpy(image)[None, None], scale, bits=None)

    halo = HALO_LR_PX * scale
    around = [
        symmetric_index(np.arange(start * scale - halo, (start + side) * scale + halo), n)
        for start, n in ((top, rows * scale), (left, columns * scale))
    ]
    crop = torch.from_numpy(image[np.ix_(*around)])[None, None]
    lr = bicubic_lr(crop, scale, bits=None, halo_px=halo)
    torch.testing.assert_close(lr, complete[..., top : top + side, left : left + side], rtol=0, atol=1e-6)
    if side < min(rows, columns):
        bare = image[top * scale : (top + side) * scale, left * scale : (left + side) * scale]
        without = bicubic_lr(torch.from_numpy(bare)[None, None], scale, bits=None)
        assert (without - lr).abs().max() > 1e-5, "without its halo a crop gives another LR"


def test_bicubic_lr_is_rounded_half_up():
    values = torch.tensor([0.0, 0.49 / 255, 0.5 / 255, 1.5 / 255, 254.6 / 255, 1.2, -0.3], dtype=torch.float64)
    assert (round_to_bits(values) * 255).tolist() == pytest.approx([0, 0, 1, 2, 255, 255, 0], abs=1e-9)
    lr = bicubic_lr(torch.rand(1, 3, 16, 16), 2) * 255
    torch.testing.assert_close(lr, lr.round(), rtol=0, atol=1e-4)


def test_mod_crop_keeps_the_top_left():
    image = torch.arange(7 * 11).reshape(1, 1, 7, 11)
    assert torch.equal(mod_crop(image, 3), image[..., :6, :9])
    assert torch.equal(mod_crop(image, 1), image)
    with pytest.raises(InputError, match=r"mod_crop: .*at least 8 x 8 pixels, got 7 x 11 .*smaller scale"):
        mod_crop(image, 8)


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (torch.zeros(3, 4, 4), {"scale": 0.5}, r"float tensor \[N, C, H, W\], got torch.float32 \[3, 4, 4\]"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), {"scale": 0.5}, r"got torch.uint8 .*image.float\(\) / 255"),
        (
            torch.zeros(1, 3, 4, 4),
            {},
            "expected exactly one of scale and size, got scale=None and size=None; pass one.",
        ),
        (torch.zeros(1, 3, 4, 4), {"scale": 2, "size": (2, 2)}, "exactly one of scale and size"),
        (torch.zeros(1, 3, 4, 4), {"scale": 0.0}, "scale must be a positive number, got 0.0"),
        (torch.zeros(1, 3, 4, 4), {"scale": float("nan")}, "scale must be a positive number, got nan"),
        (torch.zeros(1, 3, 4, 4), {"size": (0, 2)}, "size must be at least 1 x 1, got 0 x 2"),
    ],
)
def test_wrong_arguments_are_refused(image, options, message):
    with pytest.raises(InputError, match=message):
        imresize(image, **options)
