"""Normalized pacing in a recipe: values by hand, and batches that are split, resumed or repeated."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from factories import make_batch, make_generator, recipe_error
from run_folders import assert_resumes, read_checkpoint, read_log, train
from selfsr import ssim_map
from selfsr.methods import MethodSetup
from selfsr.methods.regression import Regression, RegressionSpec
from selfsr.recipe import parse_recipe
from selfsr.runfolder.log import Meter
from selfsr.step import Batch, Clock, Outputs
from selfsr.terms.base import WeightedMean
from selfsr.terms.pace import PixelPace
from selfsr.terms.pixel import CharbonnierTerm, L1Term, L2Term
from selfsr.training.assemble import TrainingRun, assemble
from selfsr.training.guard import FiniteGuard
from selfsr.training.loop import take_step

# Epoch 0.02, the fiftieth part of the run: no weight is above exp(-2,500).
CLOCK = Clock(step=2, steps_per_epoch=100, steps=100)


def images() -> tuple[Tensor, Tensor]:
    hr, sr = torch.rand(2, 2, 3, 20, 24, generator=torch.Generator().manual_seed(7))
    return sr.requires_grad_(), hr


def define_weights(sr: Tensor, hr: Tensor, *, order: str = "hard_first", ssim: str = "channel", sigma: float) -> Tensor:
    """Return n softmax(-(d / sigma)^2), in float64."""
    s = ssim_map(sr.detach().double(), hr.double(), backend="eager")
    if ssim != "channel":
        s = s.mean(1 if ssim == "pixel" else (1, 2, 3), keepdim=True).expand_as(s)
    d = 1 - s if order == "easy_first" else 1 + s
    return d.numel() * torch.softmax(-((d / sigma) ** 2).flatten(), 0).view_as(d)


VARIANTS = {
    "published": ({}, 0.02),
    "easy_first": ({"order": "easy_first"}, 0.02),
    "pixel": ({"ssim": "pixel"}, 0.02),
    "image": ({"ssim": "image"}, 0.02),
    "run": ({"clock": "run", "alpha": 3, "beta": 0.01}, 0.07),
}


@pytest.mark.parametrize("term", [L1Term, L2Term, CharbonnierTerm])
@pytest.mark.parametrize("name", VARIANTS)
def test_value_and_gradient_by_hand(name: str, term: type) -> None:
    options, sigma = VARIANTS[name]
    sr, hr = images()
    spec = term(pace=PixelPace(normalize=True, **options))
    loss = spec(Outputs(sr), Batch(hr=hr, lr=hr[..., ::2, ::2]), CLOCK)
    assert isinstance(loss, WeightedMean)
    (found,) = torch.autograd.grad(loss.mean, sr)

    d = sr.detach().double() - hr.double()
    w = define_weights(sr, hr, sigma=sigma, **{key: options[key] for key in ("order", "ssim") if key in options})
    value, slope = {
        L1Term: (d.abs(), d.sign()),
        L2Term: (d**2, 2 * d),
        CharbonnierTerm: ((d**2 + 1e-6).sqrt(), d / (d**2 + 1e-6).sqrt()),
    }[term]
    assert loss.mean.item() == pytest.approx((w * value).mean().item(), rel=1e-5)
    truth = w * slope / d.numel()
    assert (found.double() - truth).norm() < 1e-5 * truth.norm()
    assert truth.norm() > 1e-4


def recipe(tiny: dict, terms: dict | None = None, **options: Any) -> dict:
    """Return `tiny` with normalized weights; in its first step, at sigma = 0.001, all weights underflow."""
    document = copy.deepcopy(tiny)
    document["method"]["terms"] = terms or {
        "pixel": {"kind": "l1", "pace": {"normalize": True, "alpha": 0.003}},
        "similarity": {**tiny["method"]["terms"]["similarity"], "weight": {"match": "largest", "calibrate_steps": 2}},
    }
    # Adam with this eps is tolerant to rounding: gradients of up to 1e-2 move weights in proportion.
    return {**document, "optimizers": {"g": {"kind": "adam", "lr": 1e-2, "eps": 1e-2}}, **options}


@pytest.mark.parametrize("accumulate", [2, 4])
def test_a_run_with_micro_batches_equals_one_without(accumulate: int, tiny: dict, tmp_path: Path) -> None:
    whole = train(recipe(tiny), tmp_path / "whole")
    split = train(recipe(tiny, accumulate=accumulate), tmp_path / "split")
    for record, expected in zip(read_log(split), read_log(whole), strict=True):
        assert record["loss"]["g"] == pytest.approx(expected["loss"]["g"], rel=2e-4)
        assert record["weight"] == pytest.approx(expected["weight"], rel=2e-3)
    first = read_log(whole)[0]["loss"]["g"]["pixel"]
    assert 0.01 < first < 1
    weights, expected_weights = (read_checkpoint(run)["nets"]["g"] for run in (split, whole))
    for name, value in expected_weights.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=2e-5)


def take_split_step(run: TrainingRun, batches: list[Batch]) -> dict[str, Tensor]:
    """Take one step; return the gradients from before the optimizer."""
    gradients = {}
    optimizer = run.optimizers["g"]
    step = optimizer.step
    optimizer.step = lambda: (
        gradients.update({name: p.grad.clone() for name, p in run.generator.named_parameters()}),
        step(),
    )
    take_step(run, batches, CLOCK, Meter(), FiniteGuard())
    return gradients


def cut(batch: Batch, *sizes: int) -> list[Batch]:
    pairs = zip(batch.hr.split(sizes), batch.lr.split(sizes), strict=True)
    return [Batch(hr=hr, lr=lr) for hr, lr in pairs]


def start(tiny: dict, folder: Path, **options: Any) -> TrainingRun:
    document = recipe(tiny, {"pixel": {"kind": "charbonnier", "pace": {"normalize": True}}}, clip_norm=None, **options)
    run = assemble(parse_recipe(document, "test"), folder, device="cpu", resume=False)
    run.loader.close()
    return run


def test_gradients_of_unequal_parts_are_those_of_the_batch(tiny: dict, tmp_path: Path) -> None:
    batch = make_batch(4)
    whole = take_split_step(start(tiny, tmp_path), cut(batch, 4))
    split = take_split_step(start(tiny, tmp_path), cut(batch, 1, 3))
    apart = [take_split_step(start(tiny, tmp_path), [part]) for part in cut(batch, 1, 3)]
    for name, gradient in whole.items():
        torch.testing.assert_close(split[name], gradient, rtol=1e-4, atol=1e-7)
    # Without the sum over the batch each part would count alike.
    name = max(whole, key=lambda name: whole[name].norm())
    mean = sum(gradients[name] for gradients in apart) / 2
    assert (mean - whole[name]).norm() > 0.05 * whole[name].norm()


class Restless(torch.nn.Module):
    """A generator with batch norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.BatchNorm2d(3), torch.nn.Dropout2d(0.5), make_generator(), torch.nn.BatchNorm2d(3)
        )

    def forward(self, lr: Tensor) -> Tensor:
        return self.body(lr)


def test_the_extra_pass_leaves_buffers_and_random_numbers_as_they_are(
    tiny: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(tiny, tmp_path)
    net = Restless().train()
    run.method = RegressionSpec.model_validate(run.recipe.method.model_dump()).build(
        MethodSetup(net, torch.device("cpu"), channels=3, crop_px=32, ema_forward=None)
    )
    assert isinstance(run.method, Regression)
    passes: list[Tensor] = []
    net.register_forward_hook(lambda _, inputs, output: passes.append(output.detach().clone()))
    monkeypatch.setattr("selfsr.training.loop._step_optimizer", lambda *_: None)
    run.recipe = run.recipe.model_copy(update={"ema_decay": None})
    torch.manual_seed(5)
    take_step(run, cut(make_batch(4), 2, 2), CLOCK, Meter(), FiniteGuard())
    assert len(passes) == 4  # two to measure, two to train
    assert torch.equal(passes[0], passes[2])
    assert torch.equal(passes[1], passes[3])
    assert net.body[0].num_batches_tracked == 2


def test_a_batch_in_one_part_takes_no_extra_pass(tiny: dict, tmp_path: Path) -> None:
    run = start(tiny, tmp_path)
    passes: list[int] = []
    run.generator.register_forward_hook(lambda *_: passes.append(1))
    take_step(run, cut(make_batch(4), 4), CLOCK, Meter(), FiniteGuard())
    assert len(passes) == 1


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tiny: dict, tmp_path: Path) -> None:
    assert_resumes(recipe(tiny, accumulate=2), tmp_path)


def test_options_without_an_effect_are_refused(tiny: dict) -> None:
    peak = recipe(tiny, {"pixel": {"kind": "l1", "pace": {"normalize": True, "peak": 3}}})
    assert recipe_error(peak) == (
        "my.yaml: method.terms.pixel.pace: peak has no effect with normalize: true, got 3.0; leave it out."
    )
    similarity = recipe(tiny)
    similarity["method"]["terms"]["similarity"]["pace"] = {"normalize": True}
    assert "method.terms.similarity.pace.normalize" in recipe_error(similarity)


def test_a_method_with_random_outputs_is_refused(tiny: dict) -> None:
    document = recipe(tiny, {"pixel": {"kind": "l1", "pace": {"normalize": True}}})
    document["method"]["kind"] = "denoising"
    document["network"] = {"kind": "residual_shifting", "unet": {"channels": [8], "groups": 4}, "shift": {"steps": 2}}
    assert "method.terms.pixel.pace.normalize must be false for method denoising, got true: " in recipe_error(document)


def test_the_recipe_that_a_run_saves_can_be_read_again(tiny: dict) -> None:
    saved = parse_recipe(recipe(tiny), "test").model_dump(mode="json")
    assert saved["method"]["terms"]["pixel"]["pace"]["peak"] == 2
    assert parse_recipe(saved, "saved").model_dump(mode="json") == saved
