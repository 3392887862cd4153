"""Batched degradations equal the same steps of one image, with any sizes and parameters, and NaN as padding."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
import pytest
import torch
from scipy import stats
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from selfsr.degrade.batched import jpeg as batched_jpeg
from selfsr.degrade.batched import merge_plans, padding, sharpen
from selfsr.degrade.batched.plan import _BATCHED_STEPS
from selfsr.degrade.blur import Blur
from selfsr.degrade.blur import sharpen as sharpen_one
from selfsr.degrade.jpeg import Jpeg
from selfsr.degrade.kernels import GaussianKernel, SincKernel
from selfsr.degrade.noise import CorrelatedNoise, GaussianNoise, PoissonNoise
from selfsr.degrade.plan import DegradationPlan, Step, apply_plan
from selfsr.degrade.presets import PRESETS, get_preset
from selfsr.degrade.resample import Resize, Subsample
from selfsr.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")

# What float32 sums in another order leave, of images in [0, 1].
ROUNDING = 4e-6


def make_image(height: int, width: int, seed: int, contrast: float = 3.0) -> np.ndarray:
    noise = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 1.0).reshape(noise.shape)
    return np.clip((smooth - 0.5) * contrast + 0.5, 0, 1).astype(np.float32)


def pad_batch(images: Sequence[np.ndarray], device: torch.device, padding_px: int = 0) -> torch.Tensor:
    """Return the images in the upper left of planes that are otherwise full of NaN."""
    height, width = (max(image.shape[axis] for image in images) + padding_px for axis in (0, 1))
    out = torch.full((len(images), 3, height, width), float("nan"))
    for plane, image in zip(out, images, strict=True):
        plane[:, : image.shape[0], : image.shape[1]] = torch.from_numpy(image).permute(2, 0, 1)
    return out.to(device)


def run(
    plans: Sequence[DegradationPlan],
    images: Sequence[np.ndarray],
    device: torch.device,
    seeds=None,
    padding_px: int = 0,
):
    """Return each image after its plan."""
    batched_plan = merge_plans(
        plans, [image.shape[:2] for image in images], range(len(plans)) if seeds is None else seeds
    )
    out = batched_plan(pad_batch(images, device, padding_px)).cpu()
    cut = [plane[:, :height, :width] for plane, (height, width) in zip(out, batched_plan.sizes.tolist(), strict=True)]
    return [plane.permute(1, 2, 0).numpy() for plane in cut]


def distances(steps: Sequence[Step], images: Sequence[np.ndarray], device: torch.device) -> list[float]:
    """Return the largest difference of each batched result from that of a single image, clipped as plans are."""
    results = run([(step,) for step in steps], images, device, padding_px=3)
    truths = [apply_plan((step,), image, np.random.default_rng(0)) for step, image in zip(steps, images, strict=True)]
    assert [x.shape for x in results] == [x.shape for x in truths]
    return [float(np.abs(x - truth).max()) for x, truth in zip(results, truths, strict=True)]


def sides(count: int, low: int = 1, high: int = 70, seed: int = 0) -> list[tuple[int, int]]:
    return [tuple(pair) for pair in np.random.default_rng(seed).integers(low, high, (count, 2)).tolist()]


# --- JPEG --------------------------------------------------------------------------------------------------------


def make_jpeg_images() -> list[np.ndarray]:
    """Return a hundred images: tiny and odd sizes; smooth, noisy, black and white, beyond [0, 1]."""
    tiny = [(h, w) for h in (1, 2, 3, 4, 5, 7, 8) for w in (1, 2, 3, 4, 5, 6, 7, 8, 9)][::2]
    images = []
    for i, (height, width) in enumerate([*tiny, *sides(100 - len(tiny))]):
        noise = np.random.default_rng(i).random((height, width, 3)).astype(np.float32)
        kinds = (make_image(height, width, i), noise, np.rint(noise), noise * 3 - 1)
        images.append(kinds[i % 4])
    return images


def test_batched_jpeg_equals_libjpeg_at_every_quality(device):
    images = make_jpeg_images()
    order = np.random.default_rng(1).permutation(100)
    assert max(distances([Jpeg(int(q) + 1) for q in order], images, device)) == 0
    order = np.random.default_rng(2).permutation(100)
    assert max(distances([Jpeg(int(q) + 1) for q in order], images, device)) == 0


def test_batched_jpeg_with_a_wrong_dct_constant_differs(device, monkeypatch):
    images = [make_image(48, 48, seed) for seed in range(20)]
    steps = [Jpeg(100)] * 20
    assert max(distances(steps, images, device)) == 0
    rows = [list(row) for row in batched_jpeg._DCT_MATRIX]
    rows[6][1] += 1  # -10704 becomes -10703, to which the exact cosine rounds
    monkeypatch.setattr(batched_jpeg, "_DCT_MATRIX", rows)
    assert max(distances(steps, images, device)) > 0


# --- blur --------------------------------------------------------------------------------------------------------


KERNELS = [
    GaussianKernel(21, (2.0, 2.0)),
    GaussianKernel(21, (0.01, 0.0)),
    GaussianKernel(15, (1.5, 0.7), 0.6),
    GaussianKernel(7, (2.0, 1.0), -1.0, "generalized", 0.5),
    GaussianKernel(9, (2.0, 1.0), 2.0, "plateau", 1.5),
    GaussianKernel(25, (1.0, 1.0), shift_px=1.5),
    SincKernel(21, 1.1),
    SincKernel(7, math.pi),
]


def test_batched_blur_equals_blur(device):
    steps = [Blur(KERNELS[i % len(KERNELS)]) for i in range(24)]
    images = [make_image(*size, i) for i, size in enumerate(sides(24, low=2))]  # smaller than most kernels, some
    assert max(distances(steps, images, device)) < ROUNDING
    # The mutant that takes the next sample's kernel.
    results = run([(step,) for step in steps[1:] + steps[:1]], images, device)
    assert np.abs(results[0] - Blur(KERNELS[0])(images[0], np.random.default_rng(0))).max() > 1e-2


def test_batched_sharpen_equals_sharpen(device):
    images = [make_image(90, 76, seed) for seed in range(2)]
    results = sharpen(pad_batch(images, device)).cpu().permute(0, 2, 3, 1).numpy()
    truth = np.stack([sharpen_one(image) for image in images])
    assert np.abs(results - truth).max() < ROUNDING
    assert np.abs(truth - np.stack(images)).max() > 0.02


# --- resampling --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["area", "bilinear", "bicubic", "opencv_area", "matlab_bicubic"])
def test_batched_resample_equals_resize(device, mode):
    targets = sides(40, high=100, seed=1)
    images = [make_image(*size, i) for i, size in enumerate(sides(40, low=3))]
    targets[:3] = [images[0].shape[:2], (images[1].shape[0], 9), (2 * images[2].shape[0], 2 * images[2].shape[1])]
    steps = [Resize(*target, mode, clip=bool(i % 2)) for i, target in enumerate(targets)]
    # OpenCV before 5 keeps the positions of taps in float32.
    tolerance = 2e-5 if mode in ("bilinear", "bicubic") else ROUNDING
    assert max(distances(steps, images, device)) < tolerance


def test_all_modes_sizes_and_subsampling_share_one_round(device):
    modes = ("area", "bilinear", "bicubic", "opencv_area", "matlab_bicubic")
    steps = [Resize(*target, modes[i % 5]) for i, target in enumerate(sides(20, seed=4))]
    steps += [Subsample(n) for n in (1, 2, 3, 4)]
    images = [make_image(*size, i) for i, size in enumerate(sides(24, low=5, seed=5))]
    assert len(merge_plans([(step,) for step in steps], [image.shape[:2] for image in images], range(24)).rounds) == 1
    assert max(distances(steps, images, device)) < 2e-5


def test_batched_resample_clips_each_image_or_not(device):
    image = np.zeros((20, 20, 3), np.float32)
    image[8:12] = 1
    plans = [(Resize(30, 30, "bicubic", clip=clip), Resize(20, 20, "bilinear")) for clip in (False, True)]
    results = run(plans, [image, image], device)
    truth = [apply_plan(plan, image, np.random.default_rng(0)) for plan in plans]
    assert np.abs(np.stack(results) - np.stack(truth)).max() < 2e-5
    assert np.abs(results[0] - results[1]).max() > 1e-3


# --- noise -------------------------------------------------------------------------------------------------------


FLAT = np.full((160, 150, 3), 0.5, np.float32)
COUNT = FLAT.shape[0] * FLAT.shape[1]
COVARIANCE = ((60.0, 30.0, 10.0), (30.0, 50.0, -12.0), (10.0, -12.0, 40.0))


def test_batched_normal_noise_has_the_moments_of_each_image(device):
    steps = [GaussianNoise(12.0, False), GaussianNoise(5.0, True), CorrelatedNoise(COVARIANCE)]
    results = [(x - FLAT) * 255 for x in run([(step,) for step in steps], [FLAT] * 3, device)]
    expected = [144 * np.eye(3), np.full((3, 3), 25.0), np.array(COVARIANCE)]
    for noise, covariance in zip(results, expected, strict=True):
        largest = covariance.max()
        assert np.abs(np.cov(noise.reshape(-1, 3).T) - covariance).max() < 5 * largest * math.sqrt(2 / COUNT)
        assert np.abs(noise.reshape(-1, 3).mean(axis=0)).max() < 4.5 * math.sqrt(largest / COUNT)
    assert stats.kstest(results[0].ravel()[::7] / 12, "norm").pvalue > 1e-3
    assert np.array_equal(results[1][..., 0], results[1][..., 2])
    assert abs(np.corrcoef(results[0][..., 0].ravel(), results[1][..., 0].ravel())[0, 1]) < 4.5 / math.sqrt(COUNT)


@pytest.mark.parametrize("gray", [False, True])
def test_batched_shot_noise_is_poisson_with_the_levels_of_each_image(device, gray):
    # Four gray levels, so that the published peak is 4 in color and in gray; the other image has two.
    shades = np.array([51, 102, 153, 204], np.float32) / 255
    four = np.repeat(np.repeat(shades, 80)[None, :, None], 200, 0).repeat(3, 2)
    two = np.repeat(np.repeat(shades[1:3], 100)[None, :, None], 300, 0).repeat(3, 2)
    scale = 0.02  # nothing is clipped
    results = run([(PoissonNoise(scale, gray),)] * 2, [four, two], device)
    for image, noisy, peak, width in ((four, results[0], 4, 80), (two, results[1], 2, 100)):
        noise = noisy - image
        assert np.allclose(noise[..., 0], noise[..., 1], atol=1e-6) == gray
        for left in range(0, image.shape[1], width):
            patch, shade = noise[:, left : left + width, : 1 if gray else 3], image[0, left, 0]
            counts = np.rint((patch / scale + shade) * peak)
            assert np.abs(patch - scale * (counts / peak - shade)).max() < 1e-6
            values = np.arange(12)
            seen = np.bincount(counts.astype(int).ravel(), minlength=12)
            expected = stats.poisson.pmf(values, peak * shade) * counts.size
            common = expected > 10
            chi2 = ((seen[:12][common] - expected[common]) ** 2 / expected[common]).sum()
            assert stats.chi2.sf(chi2, common.sum() - 1) > 1e-4


def test_all_kinds_of_noise_share_one_round_and_are_clipped(device):
    image = np.stack([np.zeros((50, 50)), np.ones((50, 50)), np.full((50, 50), 0.5)], 2).astype(np.float32)
    steps = [GaussianNoise(80, False), CorrelatedNoise(COVARIANCE), PoissonNoise(3.0, False), PoissonNoise(3.0, True)]
    assert len(merge_plans([(step,) for step in steps], [(50, 50)] * 4, range(4)).rounds) == 1
    for noisy in run([(step,) for step in steps], [image] * 4, device):
        assert (noisy.min(), noisy.max()) >= (0, 0)
        assert noisy.max() <= 1
        assert (noisy != image).any()


def test_batched_noise_depends_on_the_seed(device):
    plan = (GaussianNoise(20.0, False), Jpeg(90), PoissonNoise(1.0, True))
    image = make_image(40, 50, 0)
    first = run([plan] * 3, [image] * 3, device, seeds=(1, 2, 1))
    again = run([plan] * 2, [image] * 2, device, seeds=(2, 1))
    assert np.array_equal(first[0], first[2])
    assert not np.array_equal(first[0], first[1])
    assert np.array_equal(first[0], again[1])
    assert np.array_equal(first[1], again[0])


# --- plans -------------------------------------------------------------------------------------------------------


def drawn(name: str, count: int, side: int = 96, seed: int = 0) -> tuple[list[DegradationPlan], list[np.ndarray]]:
    """Return plans of a preset with images of differing sizes."""
    plans, images = [], []
    for i in range(count):
        rng = np.random.default_rng((seed, i))
        height, width = (side - 4 * int(rng.integers(8)) for _ in range(2))
        plans.append(get_preset(name).sample(rng, height, width, 4))
        images.append(make_image(height, width, 100 * seed + i))
    return plans, images


@pytest.mark.parametrize("name", PRESETS)
def test_batched_plan_equals_its_samples_one_by_one(device, name, poisoned_memory):
    plans, images = drawn(name, 8)
    whole = run(plans, images, device)
    for x in whole:
        assert np.isfinite(x).all()
    for i in (0, 3, 7):
        (one,) = run(plans[i : i + 1], images[i : i + 1], device, seeds=[i], padding_px=5)
        assert np.array_equal(one, whole[i])
    half = run(plans[4:], images[4:], device, seeds=range(4, 8))
    assert all(map(np.array_equal, half, whole[4:]))


@pytest.mark.parametrize("name", PRESETS)
def test_batched_plan_without_noise_equals_apply_plan(device, name):
    plans, images = drawn(name, 16)
    plans = [tuple(step for step in plan if not step.name.endswith("noise")) for plan in plans]
    results = run(plans, images, device)
    truths = [apply_plan(plan, image, np.random.default_rng(0)) for plan, image in zip(plans, images, strict=True)]
    assert [x.shape for x in results] == [x.shape for x in truths]
    # Most are the same but for float32's last bits. A level that lies halfway can be rounded the other way; JPEG then
    # spreads it over its blocks.
    change = [255 * np.abs(x - truth) for x, truth in zip(results, truths, strict=True)]
    assert sum(x.max() < 0.01 for x in change) >= 11
    assert max(np.sqrt(np.square(x).mean()) for x in change) < 1.5
    # The mutant that leaves out the last step but keeps the sizes.
    shorter = [(*plan[:-1], Jpeg(90)) for plan in plans if plan[-1].name == "jpeg" and plan[-1].quality != 90]
    kept = [i for i, plan in enumerate(plans) if plan[-1].name == "jpeg" and plan[-1].quality != 90]
    wrong = run(shorter, [images[i] for i in kept], device)
    assert sum(255 * np.abs(x - truths[i]).max() < 0.01 for x, i in zip(wrong, kept, strict=True)) < len(kept) / 2


def test_merge_plans_keeps_the_order_of_steps():
    plans, images = drawn("bsrgan", 12)
    batched_plan = merge_plans(plans, [image.shape[:2] for image in images], range(12))
    for i, plan in enumerate(plans):
        kinds = [type(round_.step) for round_ in batched_plan.rounds if i in round_.samples]
        assert kinds == [_BATCHED_STEPS[type(step)] for step in plan]
    longest = max(map(len, plans))
    assert longest <= len(batched_plan.rounds) < 3 * longest
    assert batched_plan.sizes.tolist() == [[image.shape[0] // 4, image.shape[1] // 4] for image in images]
    assert len(merge_plans(plans[:1] * 5, [images[0].shape[:2]] * 5, range(5)).rounds) == len(plans[0])


def test_merge_plans_separates_much_smaller_images():
    sizes = [(700, 650), (90, 100), (80, 80), (650, 700), (100, 30), (60, 70)]
    blur, jpeg = Blur(KERNELS[0]), Jpeg(80)
    rounds = merge_plans([(blur, jpeg)] * 6, sizes, range(6)).rounds
    assert [turn.samples.tolist() for turn in rounds] == [[1, 2, 4, 5], [0, 3]] * 2
    assert [round_.input_size for round_ in rounds] == [(100, 100), (700, 700)] * 2
    for alike in ([(700, 700)] * 6, [(9, 9), (90, 90)] * 3, [(400, 700)]):  # nothing or too little to spare
        assert len(merge_plans([(blur,)] * len(alike), alike, range(len(alike))).rounds) == 1
    images = [make_image(*size, i) for i, size in enumerate(sizes)]
    results = run([(blur, jpeg)] * 6, images, torch.device("cpu"))
    for x, image in zip(results, images, strict=True):
        assert 255 * np.abs(x - apply_plan((blur, jpeg), image, np.random.default_rng(0))).mean() < 0.01


def test_batched_plan_leaves_its_input_unchanged(device):
    plans, images = drawn("bsrgan", 6)
    batch = pad_batch(images, device)
    kept = batch.clone()
    merge_plans(plans, [image.shape[:2] for image in images], range(6))(batch)
    assert torch.equal(batch.nan_to_num(-1), kept.nan_to_num(-1))


class Unseeded:
    """A generator that can be made for a device that is not there."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def manual_seed(self, seed: int) -> "Unseeded":
        return self


def test_batched_plan_reads_no_value_back(monkeypatch):
    """On tensors that have a device but no values, a GPU's here, both are errors."""
    normal, shot = torch.randn, torch.poisson
    monkeypatch.setattr(padding, "to_device", lambda tensor, device: tensor.to(device))
    monkeypatch.setattr(torch, "Generator", Unseeded)
    monkeypatch.setattr(torch, "randn", lambda *size, generator, device: normal(*size, device=device))
    monkeypatch.setattr(torch, "poisson", lambda mean, generator: shot(mean))
    plans, images = drawn("ssl_test", 8)
    batched_plan = merge_plans(plans, [image.shape[:2] for image in images], range(8))
    with FakeTensorMode(allow_non_fake_inputs=True):
        batch = torch.empty(8, 3, 96, 96, device="cuda")
        lr = batched_plan(sharpen(batch))
        assert lr.device.type == "cuda"
        assert lr.shape == (8, 3, *batched_plan.sizes.max(axis=0))
        with pytest.raises(DataDependentOutputException):
            lr.sum().item()


def test_batched_plan_on_mps_is_refused():
    batched_plan = merge_plans([(Jpeg(90),)], [(8, 8)], [0])
    with FakeTensorMode(), pytest.raises(InputError, match=r"data\.degrade_on: expected loader on mps, .* float64"):
        batched_plan(torch.empty(1, 3, 8, 8, device="mps"))


def test_batched_plan_never_waits_for_the_gpu(device):
    if device.type != "cuda":
        pytest.skip("needs --device cuda")
    plans, images = drawn("ssl_test", 8)
    batched_plan = merge_plans(plans, [image.shape[:2] for image in images], range(8))
    batch = pad_batch(images, device)
    batched_plan(batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        batched_plan(sharpen(batch))
    finally:
        torch.cuda.set_sync_debug_mode("default")
