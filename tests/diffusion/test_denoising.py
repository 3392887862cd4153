"""The denoising method: zero at the truth, gates and crops that change no counts, splits that change nothing."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from factories import make_batch, recipe_error
from run_folders import assert_resumes, read_checkpoint, read_log, train
from sampled_nets import TINY, make_net, save_autoencoder
from selfsr.errors import InputError, RangeWarning
from selfsr.methods import MethodSetup
from selfsr.methods.denoising import Denoising, DenoisingSpec
from selfsr.nets.diffusion.noise import draw_training_noise, draw_training_steps
from selfsr.nets.diffusion.residual_shifting import ResidualShifting
from selfsr.recipe import dump_recipe, parse_recipe
from selfsr.step import GENERATOR, Batch, Clock, MaskedSum, Update
from selfsr.training.loop import losses_to_backward

CLOCK = Clock(3, 10, 20)
SEED = 5
SIMILARITY = {"kind": "self_similarity", "search_px": 9, "window_px": 5, "weight": 100.0}
TERMS: dict[str, Any] = {"pixel": {"kind": "l1"}, "similarity": SIMILARITY, "structure": {"kind": "ssim"}}
# Noise of the default schedule: 0.1, 0.56, 0.78, 0.99.
LOW_NOISE = 0.6


def build(net: ResidualShifting, **options: Any) -> Denoising:
    spec = DenoisingSpec(**{"terms": copy.deepcopy(TERMS), **options})
    setup = MethodSetup(net, torch.device("cpu"), channels=3, crop_px=32, ema_forward=None, seed=SEED)
    return spec.build(setup)


def update_of(method: Denoising, batch: Batch, clock: Clock = CLOCK) -> Update:
    (update,) = method.updates(batch, clock)
    return update


def gradient(method: Denoising, batches: list[Batch]) -> dict[str, Tensor]:
    """Return the gradient of a step over micro-batches, as the loop computes it."""
    counts = [method.count_masked_pixels(batch) for batch in batches]
    totals = {name: torch.stack([count[name] for count in counts]).sum() for name in counts[0]}
    method.nets.zero_grad()
    for batch in batches:
        losses = losses_to_backward(update_of(method, batch), totals, len(batches), 1)
        torch.stack(list(losses.values())).sum().backward()
    return {name: parameter.grad for name, parameter in method.nets.named_parameters() if parameter.grad is not None}


def split(batch: Batch) -> list[Batch]:
    return [
        Batch(batch.hr[k : k + 1], batch.lr[k : k + 1], first_slot=batch.first_slot + k) for k in range(len(batch.hr))
    ]


class Perfect(torch.nn.Module):
    """Predicts the ground truth of a batch, plus a parameter that is 0."""

    def __init__(self, x0: Tensor) -> None:
        super().__init__()
        self.x0 = x0
        self.offset = torch.nn.Parameter(torch.zeros_like(x0))

    def forward(self, x: Tensor, index: Tensor):
        class Output:
            sample = self.x0 - x[:, x.shape[1] // 2 :] + self.offset

        return Output()


def test_a_perfect_prediction_has_no_loss_and_no_gradient() -> None:
    net, batch = make_net(), make_batch(4)
    net.unet = Perfect(net.space.encode(batch.hr))
    method = build(net)
    update = update_of(method, batch)
    losses = losses_to_backward(update, {}, 1, 1)
    assert set(losses) == {*TERMS, "denoising"}
    # The prediction is x0 up to float32 rounding of y + (x0 - y).
    assert max(loss.abs().item() for loss in losses.values()) < 1e-4
    assert losses["denoising"].item() < 1e-13
    similarity = losses["similarity"]
    similarity.backward()
    assert net.unet.offset.grad.abs().max() < 1e-3


def test_the_range_bug_of_the_published_code_would_be_seen() -> None:
    net, batch = make_net(), make_batch(4)
    net.unet = Perfect(net.space.encode(batch.hr))
    net.space.decode = lambda values, checkpointing=False: values  # in [-1, 1], as published
    with pytest.warns(RangeWarning, match="map sr from"):
        losses = losses_to_backward(update_of(build(net), batch), {}, 1, 1)
    assert losses["pixel"].item() > 0.1


def test_the_denoising_loss_is_the_mean_squared_error_of_the_prediction() -> None:
    net, batch = make_net(), make_batch(4)
    update = update_of(build(net, terms={}), batch)
    x0, y = 2 * batch.hr - 1, net.condition(batch.lr)
    index = draw_training_steps(SEED, CLOCK.step, 0, 4, 4)
    noise = draw_training_noise(SEED, CLOCK.step, 0, x0.shape, torch.device("cpu"))
    expected = []
    for k, i in enumerate(index.tolist()):
        x = x0[k] + net.schedule.eta[i] * (y[k] - x0[k]) + net.schedule.noise_std[i] * noise[k]
        expected.append((net(y[k : k + 1], x[None].float(), index[k : k + 1]) - x0[k]).square().mean())
    loss = update.losses["denoising"]
    assert isinstance(loss, Tensor)
    assert loss.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)


def test_the_loss_is_logged_by_thirds_of_the_steps() -> None:
    net, batch = make_net(shift={"steps": 6}), make_batch(8)
    update = update_of(build(net, terms={}), batch)
    scalars = {name: value for name, value in update.scalars.items() if isinstance(value, MaskedSum)}
    assert set(scalars) == {f"denoising/{name}_noise" for name in ("low", "middle", "high")}
    index = draw_training_steps(SEED, CLOCK.step, 0, 8, 6)
    assert scalars["denoising/low_noise"].count == (index < 2).sum()
    total = torch.stack([value.total for value in scalars.values()]).sum() / 8
    assert isinstance(update.losses["denoising"], Tensor)
    assert total.item() == pytest.approx(update.losses["denoising"].item(), rel=1e-5)


def test_a_gate_leaves_out_noisy_samples_and_keeps_the_counts() -> None:
    net, batch = make_net(), make_batch(8)
    index = draw_training_steps(SEED, CLOCK.step, 0, 8, 4)
    chosen = (index <= 1).nonzero()[:, 0]
    assert 0 < len(chosen) < 8
    method = build(net, image_loss={"max_noise": LOW_NOISE})
    gated, full = update_of(method, batch), update_of(build(net), batch)
    assert gated.losses.keys() == full.losses.keys()
    similarity = gated.losses["similarity"]
    assert isinstance(similarity, MaskedSum)
    full_similarity = full.losses["similarity"]
    assert isinstance(full_similarity, MaskedSum)
    assert similarity.count == method.count_masked_pixels(batch)["similarity"] == full_similarity.count
    # The gated losses are those of the chosen samples, each alone with its own step and noise.
    parts = [update_of(build(net), split(batch)[k]).losses for k in chosen.tolist()]
    for name in ("pixel", "structure"):
        alone = torch.stack([part[name] for part in parts]).sum() / 8
        assert gated.losses[name].item() == pytest.approx(alone.item(), rel=1e-4), name
    alone = torch.stack([part["similarity"].total for part in parts]).sum()
    assert similarity.total.item() == pytest.approx(alone.item(), rel=1e-4)
    share = gated.scalars["denoising/decoded_share"]
    assert isinstance(share, Tensor)
    assert share.item() == len(chosen) / 8


def test_a_batch_of_noisy_samples_has_losses_of_zero_under_the_same_names() -> None:
    net = make_net()
    method = build(net, image_loss={"max_noise": LOW_NOISE})
    slot = int((draw_training_steps(SEED, CLOCK.step, 0, 50, 4) == 3).nonzero()[0])
    batch = replace(make_batch(1), first_slot=slot)
    update = update_of(method, batch)
    assert set(update.losses) == {*TERMS, "denoising"}
    losses = losses_to_backward(update, {}, 1, 1)
    assert [losses[name].item() for name in TERMS] == [0.0, 0.0, 0.0]
    assert losses["denoising"].item() > 0
    assert update.losses["similarity"].count == method.count_masked_pixels(batch)["similarity"] > 0
    torch.stack(list(losses.values())).sum().backward()


@pytest.mark.parametrize(
    "image_loss", [{}, {"max_noise": LOW_NOISE}, {"weigh": "snr"}, {"crop_px": 64, "max_noise": LOW_NOISE}], ids=str
)
def test_micro_batches_sum_to_the_batch(image_loss: dict) -> None:
    batch = make_batch(4, side_px=80)
    method = build(make_net(), image_loss=image_loss)
    whole, parts = gradient(method, [batch]), gradient(method, split(batch))
    for name, value in whole.items():
        assert (parts[name] - value).abs().max() <= 1e-4 * value.abs().max() + 1e-8, name


def test_snr_weights_bound_the_gradient_and_leave_the_values() -> None:
    net, batch = make_net(), make_batch(1)
    for slot in range(6):
        sample = replace(batch, first_slot=slot)
        i = int(draw_training_steps(SEED, CLOCK.step, slot, 1, 4))
        values, norms = [], []
        for weigh in ("none", "snr"):
            method = build(net, terms={"pixel": {"kind": "l1"}}, image_loss={"weigh": weigh})
            loss = update_of(method, sample).losses["pixel"]
            assert isinstance(loss, Tensor)
            net.zero_grad()
            loss.backward()
            values.append(loss.item())
            norms.append(net.unet.conv_out.weight.grad.norm().item())
        eta, std = net.schedule.eta[i], net.schedule.noise_std[i]
        assert values[0] == values[1]
        assert norms[1] / norms[0] == pytest.approx(min(1.0, (1 - eta) / std), rel=1e-4)


def test_a_crop_has_the_part_with_the_most_edges_and_its_losses() -> None:
    hr = torch.full((1, 3, 128, 128), 0.5)
    hr[..., 72:120:4, 60:116] = 0.9
    batch = Batch(hr, torch.nn.functional.avg_pool2d(hr, 2))
    method = build(make_net(), image_loss={"crop_px": 64})
    part, windows = method.parts.crop(batch)
    assert windows is not None
    window = windows[0]
    assert window.top <= 72
    assert window.top + 64 >= 118
    assert window.left <= 60
    assert window.left + 64 >= 116
    assert torch.equal(part.hr, hr[..., window.top : window.top + 64, window.left : window.left + 64])
    top, left = window.top // 2, window.left // 2
    assert torch.equal(part.lr, batch.lr[..., top : top + 32, left : left + 32])
    assert method.count_masked_pixels(batch)["similarity"] == method.objective.count_masked_pixels(part)["similarity"]


def test_a_decoded_crop_is_the_crop_of_the_decoded_image_up_to_the_margin(tmp_path: Path) -> None:
    net = make_net(space={"autoencoder": str(save_autoencoder(tmp_path, "AutoencoderTiny"))})
    batch = make_batch(2, side_px=128)
    method = build(net, image_loss={"crop_px": 64})
    _, windows = method.parts.crop(batch)
    assert windows is not None
    values = net.space.encode(batch.hr)
    whole = net.space.decode(values)
    parts = method.parts.decode(values, windows)
    for k, window in enumerate(windows):
        assert (parts[k] - window.cut(whole[k])).abs().max() < 1e-5


@pytest.fixture
def document(tiny: dict) -> dict[str, Any]:
    terms = copy.deepcopy(TERMS)
    terms["similarity"]["weight"] = {"match": "largest", "calibrate_steps": 3, "factor": 0.3}
    method = {"kind": "denoising", "terms": terms, "image_loss": {"max_noise": LOW_NOISE, "weigh": "snr"}}
    return {**tiny, "network": TINY, "method": method, "evaluate": {**tiny["evaluate"], "every_steps": 6}}


def test_a_run_that_stops_and_resumes_equals_one_straight_through(document: dict, tmp_path: Path) -> None:
    assert_resumes(document, tmp_path)


def test_a_run_in_latents_trains_and_keeps_the_autoencoder(document: dict, tmp_path: Path) -> None:
    folder = save_autoencoder(tmp_path / "vae", "AutoencoderKL")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    document["network"] = {**TINY, "space": {"autoencoder": str(folder)}}
    run = train(document, tmp_path / "run")
    assert read_log(run)[-1]["grad_norm"][GENERATOR] > 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert not any("decoder" in name for name in read_checkpoint(run)["nets"][GENERATOR])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"method": {"kind": "regression", "terms": {"pixel": {"kind": "l1"}}}},
            "method.kind must be one of denoising, shift_distillation for network residual_shifting, got regression",
        ),
        (
            {"network": {"kind": "edsr", "features": 8, "blocks": 2}},
            "method.kind must be one of regression, gan for network edsr, got denoising",
        ),
        (
            {"method": {"kind": "denoising", "terms": TERMS, "image_loss": {"max_noise": 0.01}}},
            "method.image_loss.max_noise must be at least 0.1, the noise of the first diffusion step, got 0.01: no "
            "sample would have image losses; raise it or remove the terms",
        ),
        (
            {"method": {"kind": "denoising", "image_loss": {"weigh": "snr"}}},
            "method.image_loss.weigh does nothing without method.terms, got snr; add a term or remove it",
        ),
        (
            {"network": {**TINY, "one_step": True}},
            "network.one_step must be false for method denoising, which trains every step, got true; use method "
            "shift_distillation",
        ),
        (
            {"method": {"kind": "denoising", "terms": TERMS, "image_loss": {"crop_px": 64}}},
            "method.image_loss.crop_px must be at most crop_px 32 and a multiple of the scale 2, got 64",
        ),
    ],
)
def test_recipes_that_cannot_train_are_refused(document: dict, change: dict, message: str) -> None:
    assert message in recipe_error({**document, **change})


@pytest.mark.parametrize(
    "method", [{"kind": "denoising"}, {"kind": "shift_distillation", "teacher": "teacher.safetensors"}], ids=str
)
def test_a_run_without_terms_can_read_the_recipe_that_it_wrote(document: dict, method: dict) -> None:
    network = {**TINY, "one_step": method["kind"] == "shift_distillation"}
    recipe = parse_recipe({**document, "network": network, "method": method}, "test")
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe)), "test") == recipe


def test_a_crop_that_the_network_would_have_to_pad_is_refused(document: dict, tmp_path: Path) -> None:
    document["network"] = {**TINY, "unet": {"channels": [4, 4, 4, 4], "groups": 4}}
    document["crop_px"] = 36
    with pytest.raises(InputError) as error:
        train(document, tmp_path)
    assert str(error.value) == (
        "crop_px: expected a multiple of 8 for this network, which halves the sides of its input, got 36; change it."
    )


def test_a_dry_run_decodes_every_sample(document: dict) -> None:
    method = parse_recipe(document, "test").method.with_costliest_step()
    assert isinstance(method, DenoisingSpec)
    assert method.image_loss.max_noise is None
