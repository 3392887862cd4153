"""Each stage of the degradations against its definition, or against another library."""

import io
import math
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, special, stats
from torch.nn import functional

from selfsr.degrade.blur import Blur, convolve, sharpen
from selfsr.degrade.jpeg import Jpeg, compress_jpeg, to_uint8
from selfsr.degrade.kernels import GaussianKernel, SincKernel
from selfsr.degrade.noise import CorrelatedNoise, GaussianNoise, PoissonNoise, sample_poisson
from selfsr.degrade.resample import Resize, Subsample, resize
from selfsr.images.resize import imresize


def make_image(height: int = 61, width: int = 48, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return cv2.GaussianBlur(rng.random((height, width, 3)).astype(np.float32), (0, 0), 1.0)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- kernels -----------------------------------------------------------------------------------------------------


KERNELS = [
    GaussianKernel(21, (2.0, 2.0)),
    GaussianKernel(21, (0.01, 0.0)),
    GaussianKernel(15, (1.5, 0.7), 0.6),
    GaussianKernel(21, (2.0, 1.0), -1.0, "generalized", 0.5),
    GaussianKernel(21, (2.0, 1.0), 2.0, "plateau", 1.5),
    GaussianKernel(25, (1.0, 1.0), shift_px=1.5),
    SincKernel(21, 1.1),
    SincKernel(7, math.pi),
]


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_kernels_sum_to_one_and_have_their_size(kernel):
    weights = kernel.weights()
    assert weights.shape == (kernel.size_px, kernel.size_px)
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert np.isfinite(weights).all()
    if not getattr(kernel, "shift_px", 0):
        assert np.allclose(weights, weights[::-1, ::-1], atol=1e-15)


@pytest.mark.parametrize(("sigma", "rotation"), [((1.5, 1.5), 0.0), ((2.0, 1.0), 0.0), ((2.2, 0.9), 0.7)])
def test_gaussian_kernel_has_its_covariance(sigma, rotation):
    size = 31  # wide enough that nothing is cut off
    weights = GaussianKernel(size, sigma, rotation).weights()
    y, x = np.mgrid[:size, :size] - size // 2
    axes = np.array([[math.cos(rotation), -math.sin(rotation)], [math.sin(rotation), math.cos(rotation)]])
    expected = axes @ np.diag(np.square(sigma)) @ axes.T
    found = [[(weights * a * b).sum() for b in (x, y)] for a in (x, y)]
    assert np.allclose(found, expected, rtol=2e-4, atol=2e-4)


def test_kernel_profiles_equal_their_formulas():
    y, x = np.mgrid[:9, :9] - 4
    q = (x**2 + y**2) / 1.3**2
    generalized = np.exp(-(q**0.8) / 2)
    plateau = 1 / (1 + q**1.7)
    for profile, beta, expected in (("generalized", 0.8, generalized), ("plateau", 1.7, plateau)):
        weights = GaussianKernel(9, (1.3, 1.3), 0.0, profile, beta).weights()
        assert np.allclose(weights, expected / expected.sum(), atol=1e-14)


def test_sinc_kernel_equals_its_formula_and_has_its_cutoff():
    y, x = np.mgrid[:7, :7] - 3
    r = np.hypot(x, y)
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = np.where(r == 0, 1.4**2 / (4 * math.pi), 1.4 * special.j1(1.4 * r) / (2 * math.pi * r))
    assert np.allclose(SincKernel(7, 1.4).weights(), expected / expected.sum(), atol=1e-12)

    cutoff, n = 1.2, 256
    response = np.abs(np.fft.fft2(SincKernel(101, cutoff).weights(), (n, n)))
    frequency = np.fft.fftfreq(n) * 2 * math.pi
    radius = np.hypot(frequency[:, None], frequency[None, :])
    assert response[radius < 0.8 * cutoff].min() > 0.8
    assert response[radius > 1.2 * cutoff].max() < 0.2
    assert response[np.abs(radius - cutoff) < 0.02].mean() == pytest.approx(0.5, abs=0.06)


def test_shift_px_moves_the_peak_to_the_upper_left():
    weights = GaussianKernel(25, (1.2, 1.2), shift_px=1.5).weights()
    y, x = np.mgrid[:25, :25] - 12
    assert (weights * x).sum() == pytest.approx(-1.5, abs=1e-6)
    assert (weights * y).sum() == pytest.approx(-1.5, abs=1e-6)


# --- blur --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_convolve_reflects_at_the_border(kernel):
    image = make_image()
    expected = ndimage.convolve(image.astype(np.float64), kernel.weights()[:, :, None], mode="mirror")
    blurred = Blur(kernel)(image, rng())
    assert blurred.dtype == np.float32
    assert np.abs(blurred - expected).max() < 3e-6
    # and mutants: no flip, another border
    if getattr(kernel, "shift_px", 0):
        flipped = ndimage.correlate(image.astype(np.float64), kernel.weights()[:, :, None], mode="mirror")
        assert np.abs(blurred - flipped).max() > 1e-2
    if kernel.size_px > 7 and max(getattr(kernel, "sigma_px", (1,))) > 0.1:
        edge = ndimage.convolve(image.astype(np.float64), kernel.weights()[:, :, None], mode="nearest")
        assert np.abs(blurred - edge).max() > 1e-3


def test_convolve_with_a_kernel_larger_than_the_image_reflects_repeatedly():
    image, weights = make_image(6, 9), GaussianKernel(21, (3.0, 2.0), 0.5).weights()
    expected = ndimage.convolve(image.astype(np.float64), weights[:, :, None], mode="mirror")
    assert np.abs(convolve(image, weights) - expected).max() < 3e-6


def test_sharpen_equals_its_definition():
    image = make_image(80, 90)
    image[30:50, 40:60] = 1.0  # an edge, so that there is something to sharpen
    axis = np.arange(51) - 25
    taps = np.exp(-(axis**2) / (2 * 8.0**2))
    taps /= taps.sum()

    def smooth(x):
        return ndimage.convolve1d(ndimage.convolve1d(x, taps, 0, mode="mirror"), taps, 1, mode="mirror")

    wide = image.astype(np.float64)
    residual = wide - smooth(wide)
    soft = smooth((np.abs(residual) * 255 > 10).astype(float))
    expected = soft * np.clip(wide + 0.5 * residual, 0, 1) + (1 - soft) * wide
    assert np.abs(sharpen(image) - expected).max() < 1e-5
    assert np.abs(expected - wide).max() > 0.02


# --- resampling --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["area", "bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(55, 44), (70, 53), (15, 12), (9, 47), (61, 48), (122, 96)])
def test_resize_equals_torch_interpolate(mode, size):
    image = make_image()
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    expected = functional.interpolate(planes, size=size, mode=mode)[0].permute(1, 2, 0).numpy()
    out = resize(image, size, mode)
    assert out.shape == (*size, 3)
    assert out.dtype == np.float32
    # OpenCV keeps the positions of taps in float32.
    assert np.abs(out - expected).max() < (1e-6 if mode == "area" else 2e-5)


def test_opencv_area_is_weighted_by_the_covered_area():
    image, size = make_image(12, 10), (8, 4)

    def shares(n_in, n_out):
        edges = np.arange(n_out + 1) * n_in / n_out
        return np.array([[max(0, min(b, k + 1) - max(a, k)) for k in range(n_in)] for a, b in pairwise(edges)]) / (
            n_in / n_out
        )

    expected = np.einsum("ai,ijc,bj->abc", shares(12, 8), image, shares(10, 4))
    assert np.abs(resize(image, size, "opencv_area") - expected).max() < 1e-6
    assert np.abs(resize(image, size, "area") - expected).max() > 1e-3


def test_matlab_bicubic_equals_imresize():
    image = make_image(40, 48)
    planes = torch.from_numpy(image).permute(2, 0, 1)[None]
    expected = imresize(planes, scale=0.5)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(resize(image, (20, 24), "matlab_bicubic"), expected)


def test_resize_clips_if_asked_and_subsample_takes_the_first_of_each_block():
    image = np.zeros((20, 20, 3), np.float32)
    image[8:12] = 1.0
    assert Resize(30, 30, "bicubic")(image, rng()).max() > 1.01
    assert Resize(30, 30, "bicubic", clip=True)(image, rng()).max() == 1.0
    picked = Subsample(4)(make_image(21, 16), rng())
    assert np.array_equal(picked, make_image(21, 16)[[0, 4, 8, 12, 16, 20]][:, [0, 4, 8, 12]])


def test_shifted_blur_and_subsample_keep_a_ramp_in_place():
    ramp = np.broadcast_to((np.arange(64, dtype=np.float32) / 64)[:, None, None], (64, 64, 3)).copy()
    small = Subsample(4)(convolve(ramp, GaussianKernel(25, (1.0, 1.0), shift_px=1.5).weights()), rng())
    centers = (np.arange(16) * 4 + 1.5) / 64  # of the blocks of four
    assert np.abs(small[4:12, 8, 0] - centers[4:12]).max() < 1e-4


# --- JPEG --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quality", [10, 30, 75, 95, 100])
def test_compress_jpeg_equals_pillow(quality):
    image = to_uint8(make_image(45, 39))
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    expected = np.asarray(Image.open(file))
    assert np.array_equal(compress_jpeg(image, quality), expected)
    step = Jpeg(quality)(image.astype(np.float32) / 255, rng())
    assert np.array_equal(step, expected.astype(np.float32) / 255)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:4:4")
    assert not np.array_equal(compress_jpeg(image, quality), np.asarray(Image.open(file)))


def test_to_uint8_clips_and_rounds_to_nearest():
    values = np.array([[[-0.2, 0.4999 / 255, 0.5001 / 255]], [[1.3, 254.4 / 255, 254.6 / 255]]], np.float32)
    assert to_uint8(values).tolist() == [[[0, 0, 1]], [[255, 254, 255]]]


# --- noise -------------------------------------------------------------------------------------------------------


FLAT = np.full((160, 160, 3), 0.5, np.float32)
COUNT = FLAT.shape[0] * FLAT.shape[1]


@pytest.mark.parametrize("gray", [False, True])
def test_gaussian_noise_has_its_mean_sigma_and_color(gray):
    noise = (GaussianNoise(12.0, gray)(FLAT, rng(1)) - FLAT) * 255
    samples = noise[..., :1] if gray else noise
    assert np.array_equal(noise[..., 0], noise[..., 2]) == gray
    assert samples.mean() == pytest.approx(0, abs=4 * 12 / math.sqrt(samples.size))
    assert samples.std() == pytest.approx(12, rel=4 / math.sqrt(2 * samples.size))
    assert stats.kstest(samples.ravel()[::7] / 12, "norm").pvalue > 1e-3
    if not gray:
        assert abs(np.corrcoef(noise.reshape(-1, 3).T)[0, 1]) < 4 / math.sqrt(COUNT)


def test_correlated_noise_has_its_covariance():
    covariance = np.array([[60.0, 30.0, 10.0], [30.0, 50.0, -12.0], [10.0, -12.0, 40.0]])
    noise = (CorrelatedNoise(tuple(map(tuple, covariance)))(FLAT, rng(2)) - FLAT) * 255
    found = np.cov(noise.reshape(-1, 3).T)
    assert np.abs(found - covariance).max() < 5 * 60 * math.sqrt(2 / COUNT)
    assert np.abs(noise.reshape(-1, 3).mean(axis=0)).max() < 4 * 8 / math.sqrt(COUNT)


def test_noise_is_clipped_to_0_and_1():
    image = np.stack([np.zeros((50, 50)), np.ones((50, 50)), np.full((50, 50), 0.5)], 2).astype(np.float32)
    for step in (GaussianNoise(80, False), CorrelatedNoise(((900.0, 0, 0), (0, 900.0, 0), (0, 0, 900.0))), poissons()):
        noisy = step(image, rng())
        assert noisy.min() >= 0
        assert noisy.max() <= 1
        assert (noisy != image).any()


def poissons() -> PoissonNoise:
    return PoissonNoise(3.0, gray=False)


@pytest.mark.parametrize("peak", [2, 16, 256])
@pytest.mark.parametrize("level", [0, 1, 20, 128, 255])
def test_sample_poisson_has_the_poisson_distribution(peak, level):
    count = 60_000
    drawn = sample_poisson(np.full(count, level, np.uint8), peak, rng(level + peak))
    mean = peak * level / 255
    if level == 0:
        assert not drawn.any()
        return
    assert drawn.mean() == pytest.approx(mean, abs=4.5 * math.sqrt(mean / count))
    spread = math.sqrt((mean + 2 * mean**2) / count)  # of the sample variance: fourth moment mean + 3 mean^2
    assert drawn.var() == pytest.approx(mean, abs=4.5 * spread)
    values = np.arange(int(mean + 12 * math.sqrt(mean) + 12))
    expected = stats.poisson.pmf(values, mean) * count
    seen = np.bincount(drawn.astype(int), minlength=len(values))
    common = expected > 10
    chi2 = ((seen[common] - expected[common]) ** 2 / expected[common]).sum()
    assert stats.chi2.sf(chi2, max(common.sum() - 1, 1)) > 1e-4


def test_sample_poisson_keeps_levels_apart():
    x = np.tile(np.arange(256, dtype=np.uint8), 400).reshape(400, 256)
    means = sample_poisson(x, 256, rng(5)).mean(axis=0)
    expected = 256 * np.arange(256) / 255
    assert (np.abs(means - expected) <= 5 * np.sqrt(np.maximum(expected, 1) / 400)).all()


@pytest.mark.parametrize("gray", [False, True])
def test_poisson_noise_grows_with_the_signal(gray):
    # Four gray levels, so that the published peak is 4 in color and in gray.
    shades = np.array([51, 102, 153, 204], np.float32) / 255
    image = np.repeat(np.repeat(shades, 80)[None, :, None], 200, 0).repeat(3, 2)
    scale = 0.1
    noise = PoissonNoise(scale, gray)(image, rng(3)) - image
    assert np.allclose(noise[..., 0], noise[..., 1], atol=1e-6) == gray
    for i, shade in enumerate(shades):
        patch = noise[:, 80 * i : 80 * i + 80, : 1 if gray else 3]
        variance = scale**2 * shade / 4
        assert patch.var() == pytest.approx(variance, rel=0.08)
        assert patch.mean() == pytest.approx(0, abs=5 * math.sqrt(variance / patch.size))


@pytest.mark.parametrize(("distinct", "peak"), [(1, 1), (3, 4), (4, 4), (5, 8), (200, 256)])
def test_poisson_peak_is_the_level_count_rounded_up_to_a_power_of_two(distinct, peak):
    image = np.resize(np.arange(distinct, dtype=np.float32) + 30, 300 * 300).reshape(300, 300, 1).repeat(3, 2) / 255
    noise = (PoissonNoise(0.05, gray=False)(image, rng(4)) - image)[..., 0]
    assert noise.var() == pytest.approx(0.05**2 * image.mean() / peak, rel=0.08)
