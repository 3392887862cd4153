"""Denoising of pretrained bases: loss and weights, the gate by gain, decoders, and splits that change nothing."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from factories import make_batch, recipe_error
from run_folders import assert_resumes, read_checkpoint, read_log
from sampled_nets import save_autoencoder
from selfsr.errors import InputError
from selfsr.methods import MethodSetup
from selfsr.methods.denoising import Denoising, DenoisingSpec
from selfsr.nets.diffusion.latent_diffusion import LatentDiffusion, LatentDiffusionSpec
from selfsr.nets.diffusion.noise import draw_training_noise, draw_training_steps
from selfsr.nets.diffusion.spaces import PixelSpace
from selfsr.step import GENERATOR, Batch, Clock, MaskedSum, Update
from selfsr.training.loop import losses_to_backward

CLOCK = Clock(3, 10, 20)
SEED = 5
SIMILARITY = {"kind": "self_similarity", "search_px": 9, "window_px": 5, "weight": 100.0}
TERMS: dict[str, Any] = {"pixel": {"kind": "l1"}, "similarity": SIMILARITY, "structure": {"kind": "ssim"}}
NETWORKS: dict[str, dict[str, Any]] = {
    "concat": {"lora": {"rank": 2}},
    "controlnet": {"condition": "controlnet"},
}
# Gain of the first 354 times; every time of Stable Diffusion.
DEFAULT, ANY = 1.0, 15.0


def make_net(base: Path, condition: str = "concat", **options: Any) -> LatentDiffusion:
    """Return a tiny network whose adapters and condition are not zero; the same weights at each call."""
    torch.manual_seed(0)
    net = LatentDiffusionSpec(base=base, base_precision="float32", **{**NETWORKS[condition], **options}).build(2)
    assert isinstance(net, LatentDiffusion)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return net.train()


def build(net: LatentDiffusion, **options: Any) -> Denoising:
    spec = DenoisingSpec(**{"terms": copy.deepcopy(TERMS), **options})
    return spec.build(MethodSetup(net, torch.device("cpu"), channels=3, crop_px=32, ema_forward=None, seed=SEED))


def update_of(method: Denoising, batch: Batch) -> Update:
    (update,) = method.updates(batch, CLOCK)
    return update


def mean_of(loss: Tensor | MaskedSum) -> float:
    return (loss.total / loss.count if isinstance(loss, MaskedSum) else loss).item()


def find_slot(low: int, high: int) -> int:
    """Return a place in the batch whose time is in [low, high)."""
    index = draw_training_steps(SEED, CLOCK.step, 0, 200, 1000)
    return int(((index >= low) & (index < high)).nonzero()[0])


class Perfect(nn.Module):
    """Predicts the noise of a batch, plus a parameter that is 0."""

    def __init__(self, noise: Tensor) -> None:
        super().__init__()
        self.noise = noise
        self.offset = nn.Parameter(torch.zeros_like(noise))

    def forward(self, latents: Tensor, **_: Any) -> tuple[Tensor]:
        return (self.noise + self.offset,)


def test_a_perfect_prediction_has_no_loss_and_no_gradient(base: Path) -> None:
    net, batch = make_net(base), replace(make_batch(1), first_slot=find_slot(100, 354))
    net.space = PixelSpace(3)  # an identity autoencoder
    net.unet = Perfect(draw_training_noise(SEED, CLOCK.step, batch.first_slot, (1, 3, 32, 32), torch.device("cpu")))
    update = update_of(build(net), batch)
    losses = losses_to_backward(update, {}, 1, 1)
    assert set(losses) == {*TERMS, "denoising"}
    assert losses["denoising"].item() == 0
    assert max(loss.abs().item() for loss in losses.values()) < 1e-4
    losses["similarity"].backward()
    assert net.unet.offset.grad.abs().max() < 1e-3


@pytest.mark.parametrize("gamma", [None, 5.0])
def test_the_loss_is_the_squared_error_of_the_noise_weighed_by_snr(base: Path, gamma: float | None) -> None:
    net, batch = make_net(base), make_batch(4)
    method = build(net, terms={}, min_snr_gamma=gamma)
    x0, y = net.space.encode(batch.hr), net.condition(batch.lr)
    index = draw_training_steps(SEED, CLOCK.step, 0, 4, 1000)
    noise = draw_training_noise(SEED, CLOCK.step, 0, x0.shape, torch.device("cpu"))
    expected = []
    for k, i in enumerate(index.tolist()):
        alpha, sigma = float(net.schedule.alpha[i]), float(net.schedule.sigma[i])
        noisy = alpha * x0[k : k + 1] + sigma * noise[k : k + 1]
        weight = 1 if gamma is None else min(1, gamma * sigma**2 / alpha**2)
        expected.append(weight * (net(y[k : k + 1], noisy, index[k : k + 1]) - noise[k]).square().mean().item())
    update = update_of(method, batch)
    assert mean_of(update.losses["denoising"]) == pytest.approx(sum(expected) / 4, rel=1e-5)
    assert {f"denoising/{name}_noise" for name in ("low", "middle", "high")} == set(update.scalars)


def test_terms_compare_the_decoded_x0_with_the_ground_truth(base: Path) -> None:
    net, batch = make_net(base), make_batch(2)
    update = update_of(build(net, terms={"pixel": {"kind": "l1"}}, image_loss={"max_gain": ANY}), batch)
    x0 = net.space.encode(batch.hr)
    index = draw_training_steps(SEED, CLOCK.step, 0, 2, 1000)
    noise = draw_training_noise(SEED, CLOCK.step, 0, x0.shape, torch.device("cpu"))
    noisy = net.schedule.add_noise(x0, noise, index)
    with torch.no_grad():
        predicted = net.predict_x0(net(net.condition(batch.lr), noisy, index), noisy, index)
        image = (net.space.net.decode(predicted / 0.5).sample + 1) / 2  # pyright: ignore
    assert mean_of(update.losses["pixel"]) == pytest.approx((image - batch.hr).abs().mean().item(), rel=1e-4)


def test_the_default_gate_lets_the_times_below_354_pass(base: Path) -> None:
    method = build(make_net(base))
    assert method._choose(torch.tensor([0, 353, 354, 999])).tolist() == [0, 1]
    assert build(make_net(base), image_loss={"max_gain": ANY})._choose(torch.tensor([0, 999])).tolist() == [0, 1]


def test_noisy_samples_have_losses_of_zero_under_the_same_names_with_the_same_counts(base: Path) -> None:
    net, batch = make_net(base), replace(make_batch(1), first_slot=find_slot(354, 1000))
    gated, full = (update_of(build(net, image_loss={"max_gain": gain}), batch) for gain in (DEFAULT, ANY))
    assert set(gated.losses) == set(full.losses) == {*TERMS, "denoising"}
    assert gated.scalars.keys() == full.scalars.keys()
    losses = losses_to_backward(gated, {}, 1, 1)
    assert [losses[name].item() for name in TERMS] == [0.0, 0.0, 0.0]
    assert losses["denoising"].item() > 0
    counts = [update.losses["similarity"].count for update in (gated, full)]  # pyright: ignore
    assert counts[0] == counts[1] == build(net).count_masked_pixels(batch)["similarity"] > 0
    assert mean_of(full.losses["pixel"]) > 0
    torch.stack(list(losses.values())).sum().backward()
    assert next(p for p in net.parameters() if p.requires_grad).grad is not None


@pytest.mark.parametrize(
    ("condition", "options"),
    [
        ("concat", {"image_loss": {"crop_px": 64, "max_gain": 2.0, "weigh": "snr"}, "min_snr_gamma": 5.0}),
        ("controlnet", {}),
    ],
)
def test_micro_batches_sum_to_the_batch(base: Path, condition: str, options: dict) -> None:
    batch = make_batch(2, side_px=72 if options else 32)
    parts = [Batch(batch.hr[k : k + 1], batch.lr[k : k + 1], first_slot=k) for k in range(2)]
    method = build(make_net(base, condition), **options)
    chosen = len(method._choose(draw_training_steps(SEED, CLOCK.step, 0, 2, 1000)))
    assert chosen == 1
    gradients = []
    for batches in ([batch], parts):
        counts = [method.count_masked_pixels(each) for each in batches]
        totals = {name: torch.stack([count[name] for count in counts]).sum() for name in counts[0]}
        method.nets.zero_grad()
        for each in batches:
            losses = losses_to_backward(update_of(method, each), totals, len(batches), 1)
            torch.stack(list(losses.values())).sum().backward()
        gradients.append({name: p.grad for name, p in method.nets.named_parameters() if p.grad is not None})
    for name, value in gradients[0].items():
        assert (gradients[1][name] - value).abs().max() <= 1e-4 * value.abs().max() + 1e-7, name


def test_snr_weights_bound_the_growth_from_the_prediction_to_the_image(base: Path) -> None:
    net = make_net(base)
    batch = replace(make_batch(1), first_slot=find_slot(500, 1000))
    index = draw_training_steps(SEED, CLOCK.step, batch.first_slot, 1, 1000)
    values, norms = [], []
    for weigh in ("none", "snr"):
        method = build(net, terms={"pixel": {"kind": "l1"}}, image_loss={"weigh": weigh, "max_gain": ANY})
        loss = update_of(method, batch).losses["pixel"]
        assert isinstance(loss, Tensor)
        net.zero_grad()
        loss.backward()
        values.append(loss.item())
        norms.append(net.unet.conv_in.condition.weight.grad.norm().item())
    assert values[0] == values[1]
    assert norms[1] / norms[0] == pytest.approx(1 / net.schedule.gain[index].item(), rel=1e-4)


def test_matched_weights_measure_gradients_at_the_prediction_of_the_base(base: Path) -> None:
    net, predictions = make_net(base), []
    batch = replace(make_batch(1), first_slot=find_slot(0, 354))
    terms = {"pixel": {"kind": "l1", "weight": {"match": "largest", "calibrate_steps": 2, "factor": 0.5}}}
    method = build(net, terms=terms)
    plain = update_of(build(net, terms={"pixel": {"kind": "l1"}}), batch)  # the weight of the first update is 0
    net.register_forward_hook(lambda *hooked: predictions.append(hooked[2]))
    plain = update_of(build(net, terms={"pixel": {"kind": "l1"}}), batch)
    sizes = {}
    for name, loss in plain.losses.items():
        assert isinstance(loss, Tensor)
        sizes[name] = torch.autograd.grad(loss, predictions[-1], retain_graph=True)[0].norm().item()
    for _ in range(2):
        weight = update_of(method, batch).scalars["weight/pixel"]
    assert isinstance(weight, Tensor)
    assert weight.item() == pytest.approx(0.5 * sizes["denoising"] / sizes["pixel"], rel=1e-4)


def test_a_tiny_decoder_decodes_for_the_terms_alone(base: Path, tmp_path: Path) -> None:
    import diffusers

    net, batch = make_net(base), make_batch(2)
    folder = save_autoencoder(tmp_path, "AutoencoderTiny")
    method = build(net, image_loss={"tiny_decoder": str(folder), "max_gain": ANY})
    values = net.space.encode(batch.hr)
    tiny = diffusers.AutoencoderTiny.from_pretrained(folder)
    with torch.no_grad():
        expected = (tiny.decode(values).sample + 1) / 2
        torch.testing.assert_close(method.parts.decode(values, None), expected)
    other = update_of(build(net, image_loss={"max_gain": ANY}), batch).losses["pixel"]
    assert mean_of(update_of(method, batch).losses["pixel"]) != pytest.approx(mean_of(other), rel=1e-3)
    assert not any("tiny" in name or "decoder" in name for name in method.nets.state_dict())


def test_a_tiny_decoder_for_other_latents_is_refused(base: Path, tmp_path: Path) -> None:
    import diffusers

    net = make_net(base)
    for kind in ("AutoencoderKL", "none"):
        folder = save_autoencoder(tmp_path / kind, kind) if kind != "none" else tmp_path / kind
        with pytest.raises(InputError, match=r"^method\.image_loss\.tiny_decoder: expected") as refused:
            build(net, image_loss={"tiny_decoder": str(folder)})
        assert "\n" not in str(refused.value)
    blocks = {f"{part}_block_out_channels": (8, 8) for part in ("encoder", "decoder")}
    numbers = {f"num_{part}_blocks": (1, 1) for part in ("encoder", "decoder")}
    diffusers.AutoencoderTiny(**blocks, **numbers, latent_channels=3).save_pretrained(tmp_path / "three")
    with pytest.raises(InputError, match="4 channels at 1/2, as the network's latents, got AutoencoderTiny with 3"):
        build(net, image_loss={"tiny_decoder": str(tmp_path / "three")})


def test_a_gate_below_the_first_gain_is_refused(base: Path) -> None:
    with pytest.raises(InputError, match=r"max_gain: expected at least 0\.02917, the gain at the first time"):
        build(make_net(base), image_loss={"max_gain": 0.01})


@pytest.fixture
def document(tiny: dict, base: Path) -> dict[str, Any]:
    """Return a recipe of two steps with gated terms."""
    terms = {"pixel": {"kind": "l1"}, "similarity": copy.deepcopy(SIMILARITY)}
    terms["similarity"]["weight"] = {"match": "largest", "calibrate_steps": 2, "factor": 0.3}
    method = {"kind": "denoising", "terms": terms, "image_loss": {"max_gain": 2.0, "weigh": "snr"}}
    network = {"kind": "latent_diffusion", "base": str(base), "base_precision": "float32"}
    once = {"steps": 2, "batch": 2, "evaluate": None, "checkpoints": {"every_steps": 1}}
    return {**tiny, "network": network, "method": method, **once}


@pytest.mark.parametrize("condition", NETWORKS)
def test_a_run_saves_what_is_trained_and_resumes_exactly(document: dict, tmp_path: Path, condition: str) -> None:
    network = {**document["network"], **NETWORKS[condition]}
    run = assert_resumes({**document, "network": network, "accumulate": 2}, tmp_path)
    assert read_log(run)[-1]["grad_norm"][GENERATOR] > 0
    own = {"concat": ".lora_", "controlnet": "controlnet."}[condition]
    others = {name for name in read_checkpoint(run)["nets"][GENERATOR] if own not in name}
    assert others - {"unet.conv_in.condition.weight"} == {"prompt", "base_sha256"}


RESSHIFT = {"kind": "residual_shifting", "unet": {"channels": [8, 16], "groups": 4}}


@pytest.mark.parametrize(
    ("network", "method", "message"),
    [
        (None, {"image_loss": {"max_noise": 0.6}}, "method.image_loss.max_noise is for network residual_shifting, got "
         "0.6 with latent diffusion; remove it"),
        (RESSHIFT, {"image_loss": {"max_gain": 2.0}}, "method.image_loss.max_gain is for network latent_diffusion, got "
         "2.0 with ResShift; remove it"),
        (RESSHIFT, {"min_snr_gamma": 5.0}, "method.min_snr_gamma is for network latent_diffusion, got 5.0"),
        (RESSHIFT, {"image_loss": {"tiny_decoder": "x"}}, "method.image_loss.tiny_decoder is for latents, got x"),
        (None, {"kind": "shift_distillation", "teacher": "x"}, "network.kind must be residual_shifting for method "
         "shift_distillation, got latent diffusion; use method denoising"),
        (None, {"kind": "regression"}, "method.kind must be one of denoising, shift_distillation for network "
         "latent_diffusion"),
    ],
    ids=["max_noise", "max_gain", "min_snr_gamma", "tiny_decoder", "shift_distillation", "regression"],
)  # fmt: skip
def test_options_of_another_network_are_refused(
    document: dict, network: dict | None, method: dict, message: str
) -> None:
    terms = {"pixel": {"kind": "l1"}}
    changed = {"method": {"kind": "denoising", "terms": terms, **method}}
    assert message in recipe_error({**document, **changed, "network": network or document["network"]})
