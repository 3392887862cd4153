"""Evaluation of networks that sample: means over seeds, their spread, and what a run and a command make of them."""

import json
import math
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from selfsr.errors import InputError
from selfsr.evaluation.benchmark import SetScores, describe_protocol, evaluate_set, make_bicubic_upscaler
from selfsr.evaluation.metrics import METRICS, list_seed_metrics, list_standard_metrics
from selfsr.evaluation.psnr_ssim import score_luma_output, to_levels
from selfsr.evaluation.seeds import Sampler, psnr_y_of_mean, seed_spread
from selfsr.images.color import rgb_to_luma
from selfsr.images.files import DecodedImage, image_to_tensor, read_image, write_image
from selfsr.images.resize import bicubic_lr, imresize

CPU = torch.device("cpu")
SEEDS = (0, 3, 8)


class StandIn:
    """Adds a pattern of the seed to bicubic, so that an output can be computed by hand."""

    def __init__(self) -> None:
        self.seed = 99
        self.calls: list[tuple[int, int]] = []

    def choose(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, lr: Tensor) -> Tensor:
        self.calls.append((self.seed, lr.shape[-1]))
        return self.sample(lr, self.seed)

    @staticmethod
    def sample(lr: Tensor, seed: int) -> Tensor:
        sr = imresize(lr, 2)
        noise = torch.rand(sr.shape, generator=torch.Generator().manual_seed(seed))
        return sr + 0.1 * (noise - 0.5)

    @property
    def sampler(self) -> Sampler:
        return Sampler(SEEDS, self.choose)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Return two images of different sizes."""
    for number, (height, width) in enumerate([(30, 26), (24, 40)]):
        noise = torch.rand(1, 3, 6, 5, generator=torch.Generator().manual_seed(number))
        pixels = imresize(noise, size=(height, width))[0].clamp(0, 1).mul(255).round().byte()
        write_image(tmp_path / f"{number}.png", DecodedImage(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())))
    return [tmp_path / "0.png", tmp_path / "1.png"]


def evaluate(paths: list[Path], upscale: object, **options: object) -> SetScores:
    return evaluate_set(upscale, "x", paths, scale=2, device=CPU, **options)


def read(path: Path) -> Tensor:
    return image_to_tensor(read_image(path))


def levels(image: Tensor) -> np.ndarray:
    return np.floor(np.clip(image.double().numpy(), 0, 1) * 255 + 0.5)


def test_scores_are_means_over_seeds_with_their_spread(paths: list[Path]) -> None:
    stand_in = StandIn()
    result = evaluate(paths, stand_in, sampler=stand_in.sampler)
    assert stand_in.calls == [(seed, width) for width in (13, 20) for seed in SEEDS]
    single = [evaluate(paths, lambda lr, seed=seed: StandIn.sample(lr, seed)) for seed in SEEDS]
    for name in list_standard_metrics():
        for image, row in result.images.items():
            assert row[name] == pytest.approx(np.mean([scores.images[image][name] for scores in single]), abs=1e-12)
        means = [scores.mean[name] for scores in single]
        assert result.mean[name] == pytest.approx(np.mean(means), abs=1e-12)
        assert result.spread[name] == pytest.approx(np.std(means, ddof=1), abs=1e-12)
        assert result.spread[name] > 0
    assert {seed: scores.mean for seed, scores in result.by_seed.items()} == {
        seed: scores.mean for seed, scores in zip(SEEDS, single, strict=True)
    }


def test_seed_spread_and_psnr_of_mean_are_those_by_hand(paths: list[Path]) -> None:
    """In float64 with numpy: the deviation of each value over seeds; the luma of the mean, rounded to 8 bits."""
    stand_in = StandIn()
    result = evaluate(paths, stand_in, sampler=stand_in.sampler)
    for path in paths:
        hr = read(path)
        samples = [StandIn.sample(bicubic_lr(hr, 2), seed).clamp(0, 1) for seed in SEEDS]
        rounded = np.stack([levels(sample)[0, :, 2:-2, 2:-2] for sample in samples])
        row = result.images[path.stem]
        assert row["seed_spread"] == pytest.approx(rounded.std(axis=0, ddof=1).mean(), abs=1e-9)
        assert 5 < row["seed_spread"] < 9  # 25.5 / sqrt(12) = 7.4 levels
        mean = np.floor(np.mean([sample.double().numpy() for sample in samples], axis=0) * 255 + 0.5)
        weights = np.array([65.481, 128.553, 24.966]).reshape(3, 1, 1) / 255
        error = ((mean - levels(hr))[0] * weights).sum(axis=0)[2:-2, 2:-2]
        assert row["psnr_y_of_mean"] == pytest.approx(10 * math.log10(255**2 / (error**2).mean()), abs=1e-6)
        assert row["psnr_y_of_mean"] > row["psnr_y"] + 3  # a third of the variance of the noise is 4.8 dB
    assert result.mean["seed_spread"] == pytest.approx(np.mean([row["seed_spread"] for row in result.images.values()]))
    assert set(result.spread) == set(result.mean) - {*list_seed_metrics()}


def test_json_of_several_seeds_has_spread_and_the_mean_of_each_seed(paths: list[Path]) -> None:
    stand_in = StandIn()
    result = evaluate(paths, stand_in, sampler=stand_in.sampler)
    record = json.loads(json.dumps(result.as_json(), allow_nan=False))
    assert list(record) == ["mean", "spread", "seeds", "images"]
    assert record["mean"] == result.mean
    assert list(record["mean"])[-2:] == ["psnr_y_of_mean", "seed_spread"]
    assert list(record["seeds"]) == ["0", "3", "8"]
    of_seeds = [means["psnr_y"] for means in record["seeds"].values()]
    assert record["spread"]["psnr_y"] == pytest.approx(statistics.stdev(of_seeds), abs=1e-12)
    assert record["images"]["0"] == result.images["0"]


def test_one_seed_has_the_scores_of_its_output_and_nothing_else(paths: list[Path]) -> None:
    stand_in = StandIn()
    result = evaluate(paths, stand_in, sampler=Sampler((3,), stand_in.choose))
    plain = evaluate(paths, lambda lr: StandIn.sample(lr, 3))
    assert [seed for seed, _ in stand_in.calls] == [3, 3]
    assert result.as_json() == plain.as_json()
    assert list(plain.as_json()) == ["mean", "images"]
    assert list(plain.mean) == list(list_standard_metrics())
    assert plain.spread == {}


def test_samples_that_are_equal_have_no_spread(paths: list[Path]) -> None:
    result = evaluate(paths, make_bicubic_upscaler(2), sampler=Sampler(SEEDS, lambda _: None))
    assert result.mean["seed_spread"] == 0.0
    assert result.mean["psnr_y_of_mean"] == pytest.approx(result.mean["psnr_y"], abs=1e-9)
    assert set(result.spread.values()) == {0.0}


def test_perfect_outputs_are_null_in_json(paths: list[Path]) -> None:
    """The mean over seeds is infinite if one is; its deviation is undefined."""
    hr = [to_levels(read(path)) / 255 for path in paths[:1]]
    seed = [0]
    stand_in = StandIn()

    def upscale(lr: Tensor) -> Tensor:
        return hr[0] if seed[0] == 0 else stand_in.sample(lr, seed[0])

    result = evaluate(paths[:1], upscale, sampler=Sampler((0, 1), lambda number: seed.__setitem__(0, number)))
    assert result.mean["psnr_y"] == math.inf
    record = result.as_json()
    assert record["mean"]["psnr_y"] is None
    assert record["spread"]["psnr_y"] is None
    assert record["spread"]["ssim_y"] > 0
    assert record["seeds"]["0"]["psnr_y"] is None
    assert record["seeds"]["1"]["psnr_y"] > 20


def test_extra_metrics_of_images_and_of_sets_are_means_over_seeds(paths: list[Path]) -> None:
    """A metric of a set gets the outputs of one seed at a time."""

    class Total:
        def __init__(self) -> None:
            self.values: list[float] = []

        def add(self, sr: Tensor, hr: Tensor) -> None:
            self.values.append(float((sr - hr).abs().mean()))

        def compute(self) -> float:
            assert len(self.values) == len(paths)
            return sum(self.values)

    class TotalMetric:
        def start(self) -> Total:
            return Total()

    extra = {"error": lambda sr, hr: float((sr - hr).abs().mean()), "total": TotalMetric()}
    stand_in = StandIn()
    result = evaluate(paths, stand_in, sampler=stand_in.sampler, extra=extra)
    single = [evaluate(paths, lambda lr, seed=seed: StandIn.sample(lr, seed), extra=extra).mean for seed in SEEDS]
    for name in extra:
        values = [means[name] for means in single]
        assert result.mean[name] == pytest.approx(np.mean(values), abs=1e-12)
        assert result.spread[name] == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    assert result.mean["total"] == pytest.approx(2 * result.mean["error"], abs=1e-12)


def test_an_undefined_score_is_left_out_of_the_mean(paths: list[Path]) -> None:
    calls: list[float] = []

    def sometimes(sr: Tensor, hr: Tensor) -> float:
        calls.append(float(len(calls)))
        return math.nan if len(calls) in (1, 4, 5, 6) else 2.0 * len(calls)

    stand_in = StandIn()
    result = evaluate(paths, stand_in, sampler=stand_in.sampler, extra={"odd": sometimes})
    assert result.images["0"]["odd"] == 5.0  # of 4 and 6
    assert math.isnan(result.images["1"]["odd"])
    assert result.mean["odd"] == 5.0
    assert math.isnan(result.spread["odd"])  # one seed has none
    assert result.as_json()["spread"]["odd"] is None


def test_a_network_with_one_channel_is_scored_by_its_luma(paths: list[Path]) -> None:
    stand_in = StandIn()
    result = evaluate(paths[:1], stand_in, sampler=stand_in.sampler, luma_only=True)
    hr = read(paths[0])
    lr = rgb_to_luma(bicubic_lr(hr, 2))
    luma = [StandIn.sample(lr, seed).clamp(0, 1) for seed in SEEDS]
    scores = [score_luma_output(255 * y, 255 * hr, 2) for y in luma]
    of_mean = score_luma_output(255 * (luma[0] + luma[1] + luma[2]) / 3, 255 * hr, 2)
    row = result.images["0"]
    assert row["psnr_y"] == pytest.approx(np.mean([each["psnr_y"] for each in scores]), abs=1e-9)
    assert row["psnr_y_of_mean"] == pytest.approx(of_mean["psnr_y"], abs=1e-4)
    assert row["psnr_y_of_mean"] > row["psnr_y"] + 3


def test_an_image_that_fails_for_one_seed_has_no_scores(paths: list[Path]) -> None:
    stand_in = StandIn()

    def upscale(lr: Tensor) -> Tensor:
        return stand_in(lr) * (math.nan if stand_in.seed == 8 and lr.shape[-1] == 13 else 1)

    failures: list[str] = []
    result = evaluate(paths, upscale, sampler=stand_in.sampler, on_failure=failures.append)
    assert failures == [f"{paths[0]}: expected a finite output, got NaN or infinity; use another model."]
    assert list(result.images) == ["1"]
    assert {tuple(scores.images) for scores in result.by_seed.values()} == {("1",)}
    with pytest.raises(InputError, match="finite output"):
        evaluate(paths, upscale, sampler=stand_in.sampler)


def test_the_image_that_is_shown_is_that_of_the_first_seed(paths: list[Path]) -> None:
    stand_in, shown = StandIn(), []
    evaluate(paths[:1], stand_in, sampler=stand_in.sampler, on_image=lambda _, lr, sr, hr: shown.append((lr, sr)))
    ((lr, sr),) = shown
    assert torch.equal(sr, to_levels(StandIn.sample(lr, 0)) / 255)


def test_seed_metrics_leave_the_border_out_and_know_their_formula() -> None:
    samples = torch.full((2, 3, 16, 16), 100 / 255)
    samples[1] += 3 / 255
    samples[1, :, 0] = 1
    hr = torch.full((1, 3, 16, 16), 100.0)
    assert seed_spread(samples, hr, 1).item() == pytest.approx(3 / math.sqrt(2), abs=1e-6)
    assert seed_spread(samples, hr, 0).item() > 3
    # the mean is 101.5, which is rounded up: 2 levels of 219 / 255 in luma
    expected = 20 * math.log10(255 / (2 * 219 / 255))
    assert psnr_y_of_mean(samples, hr, 1).item() == pytest.approx(expected, abs=1e-6)


def test_the_protocol_states_how_the_network_samples() -> None:
    sampling = {"seeds": [0, 1, 2], "steps": 4, "deterministic": False, "color_fix": "wavelet"}
    protocol = describe_protocol(4, sampling=sampling)
    assert protocol["sampling"] == sampling
    assert protocol["spread"] == "standard deviation (n - 1) of the mean of a set over the seeds"
    assert "gray levels of 255" in protocol["seed_spread"]
    assert protocol["better"]["seed_spread"] == "lower"
    one = describe_protocol(4, sampling={**sampling, "seeds": [7]})
    assert one["sampling"]["seeds"] == [7]
    assert not {"spread", "seeds", "seed_spread"} & set(one)
    assert set(describe_protocol(4)) == set(one) - {"sampling"}
    assert METRICS["seed_spread"].unit == "levels"
