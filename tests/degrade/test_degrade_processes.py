"""What Real-ESRGAN's and BSRGAN's processes draw, by counting plans; and what carrying one out gives."""

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
from selfsr.degrade.kernels import Bell, Sinc
from selfsr.degrade.noise import CorrelatedNoise, GaussianNoise, PoissonNoise
from selfsr.degrade.plan import Plan, carry_out, described
from selfsr.degrade.presets import PRESETS, Degradation, degraded, preset
from selfsr.degrade.resample import Resize, Subsample
from selfsr.errors import InputError

COUNT = 2500
SIDE, SCALE = 480, 4
REAL = [name for name, kind in PRESETS.items() if kind == "real_esrgan"]
BSR = [name for name, kind in PRESETS.items() if kind == "bsrgan"]


@cache
def plans(name: str) -> list[Plan]:
    spec = preset(name)
    return [spec.draw(np.random.default_rng((7, i)), SIDE, SIDE, SCALE) for i in range(COUNT)]


def parse(document) -> Degradation:
    return TypeAdapter(Degradation).validate_python(document)


def assert_share(found: int, of: int, share: float) -> None:
    """Within five standard deviations of the binomial distribution."""
    assert of > 30
    assert abs(found - of * share) <= 5 * math.sqrt(of * share * (1 - share)) + 1e-9, (found, of, share)


def assert_even(values: list[float], low: float, high: float) -> None:
    """Uniform between the bounds: inside, near both ends, and with the mean in the middle."""
    assert min(values) >= low - 1e-9
    assert max(values) <= high + 1e-9
    width = high - low
    assert np.mean(values) == pytest.approx((low + high) / 2, abs=5 * width / math.sqrt(12 * len(values)) + 1e-9)
    assert min(values) <= low + 10 * width / len(values) + 1e-9
    assert max(values) >= high - 10 * width / len(values) - 1e-9


def steps_of(plan: Plan, kind: type | tuple[type, ...]) -> list:
    return [step for step in plan if isinstance(step, kind)]


# --- the numbers of the published settings, written down a second time -------------------------------------------

SIX = {"iso": 0.45, "aniso": 0.25, "generalized_iso": 0.12, "generalized_aniso": 0.03, "plateau_iso": 0.12}
SIX["plateau_aniso"] = 0.03
TWO = {"iso": 0.7, "aniso": 0.3}

# up, down, keep; range; Gaussian sigma; Poisson scale; gray; JPEG; sizes; kinds; sinc; sigma; generalized; plateau
FIRST = {
    "real_esrgan": (
        *((0.2, 0.7, 0.1), (0.15, 1.5), (1, 30), (0.05, 3), 0.4, (30, 95)),
        *((7, 21), SIX, 0.1, (0.2, 3), (0.5, 4), (1, 2)),
    ),
    "real_esrgan_ssl": (
        *((0.1, 0.85, 0.05), (0.9, 1.1), (1, 8), (0.05, 0.5), 0.2, (85, 95)),
        *((3, 7), TWO, 0.01, (0.1, 0.6), (0.1, 2), (0.1, 1)),
    ),
    "real_esrgan_ssl_test": (
        *((0.1, 0.85, 0.05), (0.8, 1.1), (1, 8), (0.05, 0.5), 0.2, (87, 95)),
        *((3, 7), TWO, 0.01, (0.1, 0.4), (0.1, 0.7), (0.1, 0.7)),
    ),
    "stablesr_ssl": (
        *((0.2, 0.7, 0.1), (0.3, 1.5), (1, 15), (0.05, 2), 0.4, (60, 95)),
        *((3, 21), SIX, 0.1, (0.2, 1.5), (0.5, 2), (1, 1.5)),
    ),
}
SECOND = {
    "real_esrgan": (
        *((0.3, 0.4, 0.3), (0.3, 1.2), (1, 25), (0.05, 2.5), 0.4, (30, 95)),
        *((7, 21), SIX, 0.1, (0.2, 1.5), (0.5, 4), (1, 2)),
    ),
    "real_esrgan_ssl": (
        *((0.1, 0.85, 0.05), (0.9, 1.1), (0, 4), (0, 0.3), 0.2, (87, 95)),
        *((3, 5), TWO, 0.01, (0.1, 0.4), (0.1, 2), (0.1, 1)),
    ),
    "real_esrgan_ssl_test": (
        *((0.1, 0.85, 0.05), (0.8, 1.1), (0, 5), (0, 0.4), 0.2, (90, 95)),
        *((3, 5), TWO, 0.01, (0.1, 0.3), (0.1, 0.5), (0.1, 0.5)),
    ),
    "stablesr_ssl": (
        *((0.3, 0.4, 0.3), (0.6, 1.2), (1, 12), (0.05, 1), 0.4, (60, 100)),
        *((3, 11), SIX, 0.1, (0.2, 1), (0.5, 2), (1, 1.5)),
    ),
}
# usm, clean, second stage, second blur, final sinc
WHOLE = {
    "real_esrgan": (True, 0, 1, 0.8, 0.8),
    "real_esrgan_ssl": (False, 0, 1, 0.8, 0.1),
    "real_esrgan_ssl_test": (False, 0, 0.2, 0.8, 0.1),
    "stablesr_ssl": (False, 0.01, 1, 0.5, 0.8),
}


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("stage", ["first", "second"])
def test_real_esrgans_presets_are_the_published_ones(name, stage):
    spec = preset(name)
    part = getattr(spec, stage)
    resize, bounds, sigma, poisson, gray, jpeg, sizes, kinds, sinc, blur, generalized, plateau = (
        FIRST if stage == "first" else SECOND
    )[name]
    assert (part.resize["up"], part.resize["down"], part.resize["keep"]) == resize
    assert (part.resize_range, part.gaussian_sigma, part.poisson_scale) == (bounds, sigma, poisson)
    assert (part.gaussian, part.gray, part.jpeg_quality) == (0.5, gray, jpeg)
    assert part.kernel_px == tuple(range(sizes[0], sizes[1] + 1, 2))
    assert (part.kernels, part.sinc, part.sigma_px) == (kinds, sinc, blur)
    assert (part.beta_generalized, part.beta_plateau) == (generalized, plateau)
    whole = (spec.usm, spec.clean, spec.second_stage, spec.second.blur, spec.final_sinc)
    assert whole == WHOLE[name]
    assert spec.first.blur == 1
    assert spec.final_sinc_px == spec.second.kernel_px


def test_bsrgans_presets_are_the_published_ones():
    keys = ("halve", "anisotropic", "variance_max", "sigma_max", "kernel_px", "resize", "resize_max", "resize_uniform")
    keys += ("shifted_px", "shifted_sigma_min", "shifted_sigma_max", "noise_level", "noise", "jpeg", "jpeg_quality")
    kinds = {"color": 0.4, "gray": 0.4, "correlated": 0.2}
    wide, small = tuple(range(7, 26, 2)), (3, 5, 7, 9)
    expected = {
        "bsrgan": (
            *(0.25, 0.5, (4, 1), (2, 0.2), wide, 0.75, (0, 2), "divisor"),
            *((25,), 0.1, (0, 0.6), (2, 25), kinds, 0.9, (30, 95)),
        ),
        "bsrgan_ssl": (
            *(0.25, 0.3, (0.2, 0.2), (0.2, 0.2), small, 0.75, (1 / 0.85, 0), "divisor"),
            *(small, 0.1, (0, 0.25), (1, 12), kinds, 0.9, (75, 95)),
        ),
        "bsrgan_ssl_test": (
            *(0.25, 0.3, (0.2, 0.2), (0.2, 0.2), (*small, 11), 0.75, (1 / 0.75, 0), "factor"),
            *(small, 0.1, (0, 0.25), (1, 10), kinds, 0.9, (85, 95)),
        ),
    }
    assert {name: tuple(getattr(preset(name), key) for key in keys) for name in BSR} == expected


# --- Real-ESRGAN -------------------------------------------------------------------------------------------------


def kind_of(kernel: Bell | Sinc) -> str:
    if isinstance(kernel, Sinc):
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
    bells = [kernel for kernel in kernels if isinstance(kernel, Bell)]
    assert_even([bell.sigma_px[0] for bell in bells], *part.sigma_px)
    aniso = [bell for bell in bells if kind_of(bell).endswith("aniso")]
    assert_even([bell.sigma_px[1] for bell in aniso], *part.sigma_px)
    assert_even([bell.rotation for bell in aniso], -math.pi, math.pi)
    for profile in ("generalized", "plateau"):
        betas = [bell.beta for bell in bells if bell.profile == profile]
        low, high = getattr(part, f"beta_{profile}")
        if betas:
            assert min(betas) >= low
            assert max(betas) <= high
            if low < 1 < high:
                assert_share(sum(beta < 1 for beta in betas), len(betas), 0.5)
    for sinc in (kernel for kernel in kernels if isinstance(kernel, Sinc)):
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
    assert_even([step.sigma for step in gaussian], *part.gaussian_sigma)
    assert_even([step.scale for step in poisson], *part.poisson_scale)
    low, high = part.jpeg_quality
    qualities = Counter(step.quality for step in jpegs)
    assert set(qualities) == set(range(low, high + 1))
    for count in qualities.values():
        assert_share(count, len(jpegs), 1 / (high - low + 1))


@pytest.mark.parametrize("name", REAL)
def test_real_esrgan_draws_what_its_preset_says(name):
    spec, drawn = preset(name), plans(name)
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
    if spec.second_stage < 1:
        assert_share(len(rest), len(dirty), spec.second_stage)
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
    assert all(isinstance(kernel, Sinc) for kernel in sincs)
    assert min(kernel.cutoff for kernel in sincs) >= math.pi / 3
    assert all(steps_of(plan, Resize)[-1].height == SIDE // SCALE for plan in drawn)


# --- BSRGAN ------------------------------------------------------------------------------------------------------


def operations(plan: Plan) -> tuple[list, int]:
    """Return the shuffled part of a plan, and the scale that is left after the halving."""
    halved = isinstance(plan[0], Resize) and plan[0].height == SIDE // 2
    # Without halving, the first resize of this size is downsample 2 by just a half: too rare to matter, but possible.
    halved = halved and len(steps_of(plan, (Resize, Subsample))) == 3
    return list(plan[1 if halved else 0 : -1]), 2 if halved else 4


@pytest.mark.parametrize("name", BSR)
def test_bsrgan_draws_what_its_preset_says(name):
    spec, drawn = preset(name), plans(name)
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
    assert_even([kernel.sigma_px[0] for kernel in shifted], spec.shifted_sigma_min, top)
    plain = [kernel for kernel in kernels if not kernel.shift_px]
    assert {kernel.size_px for kernel in plain} == set(spec.kernel_px)
    aniso = [kernel for kernel in plain if kernel.sigma_px[0] != kernel.sigma_px[1]]
    assert_share(len(aniso), len(plain), spec.anisotropic)
    variance = spec.variance_max[0] + spec.variance_max[1] * scale
    for axis in (0, 1):
        assert_even([kernel.sigma_px[axis] ** 2 for kernel in aniso], 0, variance)
    assert_even([kernel.rotation for kernel in aniso], 0, math.pi)
    sigma = spec.sigma_max[0] + spec.sigma_max[1] * scale
    assert_even([k.sigma_px[0] for k in plain if k.sigma_px[0] == k.sigma_px[1]], 0, sigma)
    before = SIDE * scale // 4
    divisors = [
        before / steps_of(tuple(steps), Resize)[0].height for steps in parts if not steps_of(tuple(steps), Subsample)
    ]
    most = spec.resize_max[0] + spec.resize_max[1] * scale
    assert min(divisors) >= 1
    assert max(divisors) <= most * 1.03  # sizes are cut to whole pixels
    values = [1 / d for d in divisors] if spec.resize_uniform == "factor" else divisors
    middle = (1 / most + 1) / 2 if spec.resize_uniform == "factor" else (1 + most) / 2
    assert np.mean(values) == pytest.approx(middle, rel=0.05)


def test_bsrgans_order_is_shuffled_with_downsample_2_before_downsample_3():
    spec = parse({"kind": "bsrgan", "halve": 0.0, "jpeg": 1.0, "resize": 1.0, "resize_max": [1.5, 0]})
    orders = Counter()
    for i in range(6000):
        plan = spec.draw(np.random.default_rng((8, i)), SIDE, SIDE, SCALE)[:-1]
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


def test_the_published_test_sets_are_a_mixture():
    spec = preset("ssl_test")
    parts = [(part.share, part.degrade) for part in spec.parts]
    assert parts == [(0.6, preset("real_esrgan_ssl_test")), (0.4, preset("bsrgan_ssl_test"))]
    modes = [{step.mode for step in steps_of(plan, Resize)} for plan in plans("ssl_test")]
    # "area" is Real-ESRGAN's alone; a plan has it in its first resize with probability 1/3.
    real = sum(isinstance(plan[1], Resize) and plan[1].mode == "area" for plan in plans("ssl_test"))
    assert_share(real, COUNT, 0.6 / 3)
    assert not any("area" in found and found & {"opencv_area", "matlab_bicubic"} for found in modes)
    with pytest.raises(ValidationError, match="shares of parts must sum to 1"):
        parse({"kind": "mixture", "parts": [{"share": 0.3, "degrade": {"kind": "bsrgan"}}]})
    two = [{"share": 0.5, "degrade": {"kind": kind}} for kind in ("bsrgan", "real_esrgan")]
    with pytest.raises(ValidationError, match="usm must be the same"):
        parse({"kind": "mixture", "parts": two})


# --- carrying a plan out -----------------------------------------------------------------------------------------


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    image = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
    return np.clip(cv2.GaussianBlur(image, (0, 0), 2) * 2 - 0.5, 0, 1)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize(("height", "width", "scale"), [(64, 88, 4), (66, 48, 2), (63, 51, 3), (128, 64, 8)])
def test_lr_is_exactly_scale_times_smaller(name, height, width, scale):
    for i in range(4):
        lr = degraded(preset(name), photo(height, width), scale, np.random.default_rng(i))
        assert lr.shape == (height // scale, width // scale, 3)
        assert lr.dtype == np.float32
        assert np.isfinite(lr).all()
        assert lr.min() >= 0
        assert lr.max() <= 1


@pytest.mark.parametrize("name", PRESETS)
def test_lr_shows_the_picture_in_its_place(name):
    """The mean of many draws is the blurred picture: no shift, no flip, no swapped channels."""
    image = cv2.GaussianBlur(np.random.default_rng(4).random((160, 160, 3)).astype(np.float32), (0, 0), 7)
    image = np.clip((image - image.mean()) * 10 + 0.5, 0, 1)
    mean = np.mean([degraded(preset(name), image, 4, np.random.default_rng((1, i))) for i in range(30)], axis=0)
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
def test_a_draw_is_a_function_of_its_generator(name):
    spec, image = preset(name), photo(64, 64)
    kept = image.copy()
    first, again, other = (degraded(spec, image, 4, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(image, kept)
    rng = np.random.default_rng(5)
    plan = spec.draw(rng, 64, 64, 4)
    assert np.array_equal(carry_out(plan, image, rng), first)


@pytest.mark.parametrize("name", PRESETS)
def test_plans_can_be_written_down(name):
    for plan in plans(name)[:50]:
        steps = json.loads(json.dumps(described(plan)))
        assert [step["step"] for step in steps] == [step.name for step in plan]
        assert all(len(step) > 1 for step in steps)


# --- settings ----------------------------------------------------------------------------------------------------


def test_a_preset_is_completed_key_by_key():
    spec = parse({"kind": "real_esrgan", "preset": "real_esrgan_ssl", "first": {"jpeg_quality": [40, 50]}})
    published = preset("real_esrgan_ssl")
    assert spec.first.jpeg_quality == (40, 50)
    assert spec.first.model_copy(update={"jpeg_quality": (85, 95)}) == published.first
    assert spec.second == published.second
    assert parse({"kind": "bsrgan"}) == preset("bsrgan")
    assert parse("bsrgan_ssl") == preset("bsrgan_ssl")


@pytest.mark.parametrize("name", PRESETS)
def test_what_is_written_down_is_read_again(name):
    spec = preset(name)
    assert parse(json.loads(json.dumps(spec.model_dump(mode="json")))) == spec


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ("bsrgan_sl", "expected one of"),
        ({"kind": "bsrgan", "preset": "real_esrgan"}, "Input should be"),
        ({"kind": "bsrgan", "noize": {}}, "Extra inputs"),
        ({"kind": "bsrgan", "noise": {"gray": 0.5}}, "sum to 1"),
        ({"kind": "bsrgan", "jpeg_quality": [90, 80]}, "smaller number must come first"),
        ({"kind": "bsrgan", "jpeg_quality": [0, 80]}, "greater than or equal to 1"),
        ({"kind": "bsrgan", "kernel_px": [4]}, "odd and positive"),
        ({"kind": "real_esrgan", "first": {"resize_range": [0, 1]}}, "exceed 0"),
        ({"kind": "real_esrgan", "first": {"blur": 1.2}}, "less than or equal to 1"),
    ],
)
def test_wrong_settings_are_refused(document, told):
    with pytest.raises(ValidationError, match=told):
        parse(document)


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'bsrgan_ssl'"):
        preset("bsrgan_sll")
