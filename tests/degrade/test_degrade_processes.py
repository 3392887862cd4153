"""Real-ESRGAN and BSRGAN: the distributions of sampled plans, and the images that plans make."""

import json
import math
from collections import Counter
from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from selfsr.degrade.blur import Blur
from selfsr.degrade.jpeg import Jpeg
from selfsr.degrade.kernels import GaussianKernel, SincKernel
from selfsr.degrade.noise import CorrelatedNoise, GaussianNoise, PoissonNoise
from selfsr.degrade.plan import DegradationPlan, apply_plan, plan_to_json
from selfsr.degrade.presets import PRESETS, Degradation, degrade_image, get_preset
from selfsr.degrade.resample import Resize, Subsample

COUNT = 2500
SIDE, SCALE = 480, 4
REAL = [name for name, kind in PRESETS.items() if kind == "real_esrgan"]
BSR = [name for name, kind in PRESETS.items() if kind == "bsrgan"]


@cache
def plans(name: str) -> list[DegradationPlan]:
    spec = get_preset(name)
    return [spec.sample(np.random.default_rng((7, i)), SIDE, SIDE, SCALE) for i in range(COUNT)]


def parse(document) -> Degradation:
    return TypeAdapter(Degradation).validate_python(document)


def assert_share(count: int, total: int, share: float) -> None:
    """Assert that a count is within five standard deviations of the binomial distribution."""
    assert total > 30
    deviation = math.sqrt(total * share * (1 - share))
    assert abs(count - total * share) <= 5 * deviation + 1e-9, (count, total, share)


def assert_uniform(values: list[float], low: float, high: float) -> None:
    """Assert that values are uniform between the bounds: inside, near both ends, with the mean in the middle."""
    assert min(values) >= low - 1e-9
    assert max(values) <= high + 1e-9
    width = high - low
    assert np.mean(values) == pytest.approx((low + high) / 2, abs=5 * width / math.sqrt(12 * len(values)) + 1e-9)
    assert min(values) <= low + 10 * width / len(values) + 1e-9
    assert max(values) >= high - 10 * width / len(values) - 1e-9


def steps_of(plan: DegradationPlan, kind: type | tuple[type, ...]) -> list:
    return [step for step in plan if isinstance(step, kind)]


# --- Real-ESRGAN -------------------------------------------------------------------------------------------------


def kind_of(kernel: GaussianKernel | SincKernel) -> str:
    if isinstance(kernel, SincKernel):
        return "sinc"
    round_ = kernel.rotation == 0 and kernel.sigma_px[0] == kernel.sigma_px[1]
    return ("" if kernel.profile == "gaussian" else f"{kernel.profile}_") + ("iso" if round_ else "aniso")


def check_kernels(kernels: list, part) -> None:
    kinds = Counter(kind_of(kernel) for kernel in kernels)
    assert_share(kinds["sinc"], len(kernels), part.sinc)
    for kind, share in part.kernels.items():
        assert_share(kinds[kind], len(kernels), (1 - part.sinc) * share)
    sizes = Counter(kernel.size_px for kernel in kernels)
    assert set(sizes) == set(part.kernel_px)
    for count in sizes.values():
        assert_share(count, len(kernels), 1 / len(part.kernel_px))
    bells = [kernel for kernel in kernels if isinstance(kernel, GaussianKernel)]
    assert_uniform([bell.sigma_px[0] for bell in bells], *part.sigma_px)
    aniso = [bell for bell in bells if kind_of(bell).endswith("aniso")]
    assert_uniform([bell.sigma_px[1] for bell in aniso], *part.sigma_px)
    assert_uniform([bell.rotation for bell in aniso], -math.pi, math.pi)
    for profile in ("generalized", "plateau"):
        betas = [bell.beta for bell in bells if bell.profile == profile]
        low, high = getattr(part, f"beta_{profile}")
        if betas:
            assert min(betas) >= low
            assert max(betas) <= high
            if low < 1 < high:
                assert_share(sum(beta < 1 for beta in betas), len(betas), 0.5)
    for sinc in (kernel for kernel in kernels if isinstance(kernel, SincKernel)):
        assert math.pi / (3 if sinc.size_px < 13 else 5) <= sinc.cutoff <= math.pi


def check_stage(resizes: list[Resize], side: float, noises: list, jpegs: list[Jpeg], part) -> None:
    factors = [step.height / side for step in resizes]
    up = [f for f in factors if f > 1 + 1.5 / side]
    down = [f for f in factors if f < 1 - 1.5 / side]
    # Factors within a pixel of 1 look as if the size was kept.
    blind = 3 / side / (part.resize_range[1] - 1), 3 / side / (1 - part.resize_range[0])
    for found, direction, slack in ((up, "up", blind[0]), (down, "down", blind[1])):
        share = part.resize[direction]
        spread = 5 * math.sqrt(share * (1 - share) / len(factors))
        assert share * (1 - slack) - spread <= len(found) / len(factors) <= share + spread
    assert min(factors) >= part.resize_range[0] - 1 / side
    assert max(factors) <= part.resize_range[1]
    modes = Counter(step.mode for step in resizes)
    for mode in ("area", "bilinear", "bicubic"):
        assert_share(modes[mode], len(resizes), 1 / 3)
    gaussian = [step for step in noises if isinstance(step, GaussianNoise)]
    poisson = [step for step in noises if isinstance(step, PoissonNoise)]
    assert len(gaussian) + len(poisson) == len(noises)
    assert_share(len(gaussian), len(noises), part.gaussian)
    assert_share(sum(step.gray for step in noises), len(noises), part.gray)
    assert_uniform([step.sigma for step in gaussian], *part.gaussian_sigma)
    assert_uniform([step.scale for step in poisson], *part.poisson_scale)
    low, high = part.jpeg_quality
    qualities = Counter(step.quality for step in jpegs)
    assert set(qualities) == set(range(low, high + 1))
    for count in qualities.values():
        assert_share(count, len(jpegs), 1 / (high - low + 1))


@pytest.mark.parametrize("name", REAL)
def test_real_esrgan_samples_follow_the_preset(name):
    spec, drawn = get_preset(name), plans(name)
    dirty = [plan for plan in drawn if len(plan) > 1]
    if spec.clean:
        assert_share(COUNT - len(dirty), COUNT, spec.clean)
    else:
        assert len(dirty) == COUNT
    noise = (GaussianNoise, PoissonNoise)
    # The first stage is the first four steps: blur, resize, noise, JPEG.
    assert {tuple(step.name for step in plan[:2]) for plan in dirty} == {("blur", "resize")}
    assert {plan[3].name for plan in dirty} == {"jpeg"}
    check_kernels([plan[0].kernel for plan in dirty], spec.first)
    check_stage(
        *([plan[1] for plan in dirty], SIDE, [plan[2] for plan in dirty], [plan[3] for plan in dirty], spec.first)
    )
    rest = [plan[4:] for plan in dirty if len(plan) > 5]
    if spec.second_probability < 1:
        assert_share(len(rest), len(dirty), spec.second_probability)
        assert {plan[4].mode == plan[1].mode for plan in dirty if len(plan) == 5} == {True}
    else:
        assert len(rest) == len(dirty)
    blurs = [plan[0] for plan in rest if plan[0].name == "blur"]
    assert_share(len(blurs), len(rest), spec.second.blur)
    if len(blurs) > 1000:
        check_kernels([blur.kernel for blur in blurs], spec.second)
        resizes = [steps_of(plan, Resize)[0] for plan in rest]
        noises = [steps_of(plan, noise)[0] for plan in rest]
        check_stage(resizes, SIDE / SCALE, noises, [steps_of(plan, Jpeg)[0] for plan in rest], spec.second)
    endings = [plan[2 + (plan[0].name == "blur") :] for plan in rest]
    names = Counter(tuple(step.name for step in ending) for ending in endings)
    sinc_first = names["resize", "blur", "jpeg"] + names["resize", "jpeg"]
    assert sinc_first + names["jpeg", "resize", "blur"] + names["jpeg", "resize"] == len(rest)
    assert_share(sinc_first, len(rest), 0.5)
    sincs = [step.kernel for ending in endings for step in steps_of(ending, Blur)]
    assert_share(len(sincs), len(rest), spec.final_sinc)
    assert all(isinstance(kernel, SincKernel) for kernel in sincs)
    assert min(kernel.cutoff for kernel in sincs) >= math.pi / 3
    assert all(steps_of(plan, Resize)[-1].height == SIDE // SCALE for plan in drawn)


# --- BSRGAN ------------------------------------------------------------------------------------------------------


def operations(plan: DegradationPlan) -> tuple[list, int]:
    """Return the shuffled part of a plan, and the scale that is left after the halving."""
    halved = isinstance(plan[0], Resize) and plan[0].height == SIDE // 2
    # Without halving, the first resize of this size is downsample 2 by just a half: too rare to matter, but possible.
    halved = halved and len(steps_of(plan, (Resize, Subsample))) == 3
    return list(plan[1 if halved else 0 : -1]), 2 if halved else 4


@pytest.mark.parametrize("name", BSR)
def test_bsrgan_samples_follow_the_preset(name):
    spec, drawn = get_preset(name), plans(name)
    parts = [operations(plan) for plan in drawn]
    assert_share(sum(scale == 2 for _, scale in parts), COUNT, spec.halve)
    halving = [plan[0].mode for plan, (_, scale) in zip(drawn, parts, strict=True) if scale == 2]
    assert_share(halving.count("matlab_bicubic"), len(halving), 0.5)
    assert all(isinstance(plan[-1], Jpeg) for plan in drawn)
    qualities = Counter(step.quality for plan in drawn for step in steps_of(plan, Jpeg))
    low, high = spec.jpeg_quality
    assert set(qualities) == set(range(low, high + 1))
    assert_share(sum(len(steps_of(tuple(steps), Jpeg)) for steps, _ in parts), COUNT, spec.jpeg)
    noises = [step for plan in drawn for step in steps_of(plan, (GaussianNoise, CorrelatedNoise))]
    assert len(noises) == COUNT
    assert_share(sum(isinstance(step, CorrelatedNoise) for step in noises), COUNT, spec.noise["correlated"])
    gaussian = [step for step in noises if isinstance(step, GaussianNoise)]
    assert_share(sum(step.gray for step in gaussian), COUNT, spec.noise["gray"])
    assert {step.sigma for step in gaussian} == set(range(spec.noise_level[0], spec.noise_level[1] + 1))
    for step in noises:
        if isinstance(step, CorrelatedNoise):
            covariance = np.array(step.covariance)
            assert np.allclose(covariance, covariance.T)
            assert np.linalg.eigvalsh(covariance).min() > -1e-6
            assert np.trace(covariance) <= 3 * 3 * spec.noise_level[1] ** 2
    for scale in (2, 4):
        check_bsrgan_kernels([steps for steps, left in parts if left == scale], scale, spec)


def check_bsrgan_kernels(parts: list[list], scale: int, spec) -> None:
    kernels = [step.kernel for steps in parts for step in steps_of(tuple(steps), Blur)]
    shifted = [kernel for kernel in kernels if kernel.shift_px]
    subsampled = sum(bool(steps_of(tuple(steps), Subsample)) for steps in parts)
    assert len(shifted) == subsampled
    assert len(kernels) == 2 * len(parts) + subsampled
    assert_share(subsampled, len(parts), 1 - spec.resize)
    assert {kernel.shift_px for kernel in shifted} == {(scale - 1) / 2}
    top = spec.shifted_sigma_max[0] + spec.shifted_sigma_max[1] * scale
    assert_uniform([kernel.sigma_px[0] for kernel in shifted], spec.shifted_sigma_min, top)
    plain = [kernel for kernel in kernels if not kernel.shift_px]
    assert {kernel.size_px for kernel in plain} == set(spec.kernel_px)
    aniso = [kernel for kernel in plain if kernel.sigma_px[0] != kernel.sigma_px[1]]
    assert_share(len(aniso), len(plain), spec.anisotropic)
    variance = spec.variance_max[0] + spec.variance_max[1] * scale
    for axis in (0, 1):
        assert_uniform([kernel.sigma_px[axis] ** 2 for kernel in aniso], 0, variance)
    assert_uniform([kernel.rotation for kernel in aniso], 0, math.pi)
    sigma = spec.sigma_max[0] + spec.sigma_max[1] * scale
    assert_uniform([k.sigma_px[0] for k in plain if k.sigma_px[0] == k.sigma_px[1]], 0, sigma)
    before = SIDE * scale // 4
    divisors = [
        before / steps_of(tuple(steps), Resize)[0].height for steps in parts if not steps_of(tuple(steps), Subsample)
    ]
    most = spec.resize_max[0] + spec.resize_max[1] * scale
    assert min(divisors) >= 1
    assert max(divisors) <= most * 1.03  # sizes are rounded down to pixels
    values = [1 / d for d in divisors] if spec.resize_uniform == "factor" else divisors
    middle = (1 / most + 1) / 2 if spec.resize_uniform == "factor" else (1 + most) / 2
    assert np.mean(values) == pytest.approx(middle, rel=0.05)


def test_bsrgan_order_is_random_with_downsample2_before_downsample3():
    spec = parse({"kind": "bsrgan", "halve": 0.0, "jpeg": 1.0, "resize": 1.0, "resize_max": [1.5, 0]})
    orders = Counter()
    for i in range(6000):
        plan = spec.sample(np.random.default_rng((8, i)), SIDE, SIDE, SCALE)[:-1]
        sizes = [step.height for step in steps_of(plan, Resize)]
        assert len(sizes) == 2
        assert sizes[1] == SIDE // SCALE
        assert sizes[0] >= SIDE / 1.5 - 1
        names = ["noise" if step.name.endswith("noise") else step.name for step in plan]
        orders[tuple(names)] += 1
    # Two equal blurs and two resizes in a fixed order among six: 6! / (2 * 2) orders, equally likely.
    assert len(orders) == 180
    chi2 = sum((count - 6000 / 180) ** 2 / (6000 / 180) for count in orders.values())
    assert chi2 < 179 + 5 * math.sqrt(2 * 179)


def test_ssl_test_is_the_published_mixture():
    spec = get_preset("ssl_test")
    parts = [(part.share, part.degrade) for part in spec.parts]
    assert parts == [(0.6, get_preset("real_esrgan_ssl_test")), (0.4, get_preset("bsrgan_ssl_test"))]
    modes = [{step.mode for step in steps_of(plan, Resize)} for plan in plans("ssl_test")]
    # Only Real-ESRGAN has "area"; a plan has it in its first resize with probability 1/3.
    real = sum(isinstance(plan[1], Resize) and plan[1].mode == "area" for plan in plans("ssl_test"))
    assert_share(real, COUNT, 0.6 / 3)
    assert not any("area" in found and found & {"opencv_area", "matlab_bicubic"} for found in modes)
    with pytest.raises(ValidationError, match="expected shares of parts that sum to 1, got"):
        parse({"kind": "mixture", "parts": [{"share": 0.3, "degrade": {"kind": "bsrgan"}}]})
    two = [{"share": 0.5, "degrade": {"kind": kind}} for kind in ("bsrgan", "real_esrgan")]
    with pytest.raises(ValidationError, match="expected the same usm in all parts"):
        parse({"kind": "mixture", "parts": two})


# --- applying a plan ---------------------------------------------------------------------------------------------


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    image = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
    return np.clip(cv2.GaussianBlur(image, (0, 0), 2) * 2 - 0.5, 0, 1)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize(("height", "width", "scale"), [(64, 88, 4), (66, 48, 2), (63, 51, 3), (128, 64, 8)])
def test_lr_is_exactly_scale_times_smaller(name, height, width, scale):
    for i in range(4):
        lr = degrade_image(get_preset(name), photo(height, width), scale, np.random.default_rng(i))
        assert lr.shape == (height // scale, width // scale, 3)
        assert lr.dtype == np.float32
        assert np.isfinite(lr).all()
        assert lr.min() >= 0
        assert lr.max() <= 1


@pytest.mark.parametrize("name", PRESETS)
def test_lr_is_not_shifted_against_hr(name):
    """The mean of many draws is the blurred image: no shift, no flip, no swapped channels."""
    image = cv2.GaussianBlur(np.random.default_rng(4).random((160, 160, 3)).astype(np.float32), (0, 0), 7)
    image = np.clip((image - image.mean()) * 10 + 0.5, 0, 1)
    mean = np.mean(
        [degrade_image(get_preset(name), image, 4, np.random.default_rng((1, i))) for i in range(30)], axis=0
    )
    expected = cv2.resize(cv2.GaussianBlur(image, (0, 0), 2), (40, 40), interpolation=cv2.INTER_AREA)

    def agreement(other: np.ndarray) -> float:
        inner = slice(3, -3)
        return float(np.corrcoef(mean[inner, inner].ravel(), other[inner, inner].ravel())[0, 1])

    mutants: list[Callable[[np.ndarray], np.ndarray]] = [
        *(lambda x, s=s, a=a: np.roll(x, s, a) for s in (-1, 1) for a in (0, 1)),
        lambda x: x[:, ::-1],
        lambda x: x[:, :, ::-1],
    ]
    best = agreement(expected)
    assert best > 0.85
    found = [agreement(mutant(expected)) for mutant in mutants]
    assert max(found) < best - 0.02
    # One pixel up is as wrong as one down: in the middle to a small part of a pixel.
    assert abs(found[0] - found[2]) < 0.015
    assert abs(found[1] - found[3]) < 0.015


@pytest.mark.parametrize("name", ["real_esrgan", "bsrgan"])
def test_degrade_image_depends_on_the_generator_only(name):
    spec, image = get_preset(name), photo(64, 64)
    kept = image.copy()
    first, again, other = (degrade_image(spec, image, 4, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(image, kept)
    rng = np.random.default_rng(5)
    plan = spec.sample(rng, 64, 64, 4)
    assert np.array_equal(apply_plan(plan, image, rng), first)


@pytest.mark.parametrize("name", PRESETS)
def test_plan_to_json_can_be_saved_as_json(name):
    for plan in plans(name)[:50]:
        steps = json.loads(json.dumps(plan_to_json(plan)))
        assert [step["step"] for step in steps] == [step.name for step in plan]
        assert all(len(step) > 1 for step in steps)
