"""Latent diffusion on a tiny random base: its start, its samplers, what is trained, saved and refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from selfsr.errors import InputError
from selfsr.nets.diffusion.latent_diffusion import LatentDiffusion, LatentDiffusionSpec
from selfsr.nets.diffusion.noise_schedule import NoiseSchedule
from selfsr.nets.diffusion.prompt import Prompt
from selfsr.nets.diffusion.sampling import get_sampling, set_sampling
from selfsr.nets.weights import load_model, read_metadata, save_weights
from selfsr.upscaling.upscaler import Upscaler
from tiny_bases import FEATURES, save_base

EXACT: dict[str, Any] = {"base_precision": "float32"}
CONDITIONS: dict[str, dict[str, Any]] = {
    "concat": {"lora": {"rank": 2}},
    "controlnet": {"condition": "controlnet"},
}
conditions = pytest.mark.parametrize("condition", CONDITIONS)


def build(base: Path, condition: str = "concat", scale: int = 2, **options: Any) -> LatentDiffusion:
    torch.manual_seed(0)
    options = {**EXACT, **CONDITIONS[condition], "sample": {"steps": 3}, **options}
    net = LatentDiffusionSpec(base=base, **options).build(scale)
    assert isinstance(net, LatentDiffusion)
    return net


@pytest.fixture
def flow_prompt(tmp_path: Path) -> Path:
    path = tmp_path / "prompt.safetensors"
    Prompt(torch.randn(5, FEATURES), pooled=torch.randn(12)).save(path)
    return path


def train_a_bit(net: LatentDiffusion) -> LatentDiffusion:
    """Give all trained parameters other values."""
    torch.manual_seed(9)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return net


def photo(height: int = 12, width: int = 8, seed: int = 0) -> Tensor:
    noise = torch.rand(1, 3, 6, 5, generator=torch.Generator().manual_seed(seed))
    return 0.1 + 0.8 * nn.functional.interpolate(noise, (height, width), mode="bilinear")


class Stub(nn.Module):
    """A denoiser in place of the U-Net: a function of the noisy latents and the index."""

    def __init__(self, predict: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.predict = predict

    def forward(self, latents: Tensor, timestep: Tensor, **_: Any) -> tuple[Tensor]:
        return (self.predict(latents.chunk(2, dim=1)[0], timestep.long().cpu()),)


def oracle(schedule: NoiseSchedule, x0: Tensor) -> Stub:
    """Return a denoiser that knows x0: it predicts the noise that x_t then has."""

    def predict(noisy: Tensor, index: Tensor) -> Tensor:
        alpha, sigma = schedule.gather(schedule.alpha, index, noisy), schedule.gather(schedule.sigma, index, noisy)
        return schedule.target(x0, (noisy - alpha * x0) / sigma, index)

    return Stub(predict)


@conditions
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_untrained_network_is_the_base_bit_for_bit(base: Path, condition: str, precision: str) -> None:
    net = build(base, condition, base_precision=precision, checkpointing=False)
    y, noisy, index = net.condition(torch.rand(2, 3, 8, 12)), torch.randn(2, 4, 8, 12), torch.tensor([3, 900])
    with torch.no_grad():
        expected = net.run_denoiser(net.base.denoiser, noisy, index)
        assert torch.equal(net(y, noisy, index), expected)
        assert not torch.equal(train_a_bit(net)(y, noisy, index), expected)


def test_the_base_is_that_of_diffusers(base: Path) -> None:
    import diffusers

    net, noisy = build(base, checkpointing=False), torch.randn(1, 4, 8, 8)
    unet = diffusers.UNet2DConditionModel.from_pretrained(base / "unet")
    with torch.no_grad():
        expected = unet(noisy, 77, net.prompt[None]).sample  # pyright: ignore[reportIndexIssue]
        output = net(net.condition(torch.rand(1, 3, 8, 8)), noisy, torch.tensor([77]))
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)


def test_a_transformer_sees_the_condition_through_its_patch_embedding(flow_base: Path, flow_prompt: Path) -> None:
    net = build(flow_base, prompt_file=flow_prompt, lora={"rank": 1})
    y, noisy, index = net.condition(torch.rand(1, 3, 8, 8)), torch.randn(1, 4, 8, 8), torch.tensor([500])
    with torch.no_grad():
        expected = net.run_denoiser(net.base.denoiser, noisy, index)
        assert torch.equal(net(y, noisy, index), expected)
        net.unet.pos_embed.proj.condition.weight.normal_()
        assert not torch.equal(net(y, noisy, index), expected)
        assert net(photo()).isfinite().all()


def test_the_widened_layer_is_one_convolution_of_twice_the_channels(base: Path) -> None:
    net = train_a_bit(build(base))
    layer = net.unet.conv_in
    values = torch.randn(1, 8, 6, 6)
    weight = torch.cat([layer.first.weight, layer.condition.weight], dim=1)
    expected = nn.functional.conv2d(values, weight, layer.first.bias, padding=1)
    torch.testing.assert_close(layer(values), expected)


@conditions
def test_only_the_stated_parts_train_and_the_base_keeps_its_bits(base: Path, condition: str) -> None:
    net = build(base, condition).train()
    before = {name: parameter.clone() for name, parameter in net.named_parameters()}
    trained = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    own = {name for name in trained if ".lora_" not in name and not name.startswith("controlnet.")}
    assert own == ({"unet.conv_in.condition.weight"} if condition == "concat" else set())
    assert any(".lora_" in name for name in trained) == (condition == "concat")
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1)
    y, noisy, index = net.condition(torch.rand(1, 3, 8, 8)), torch.randn(1, 4, 8, 8), torch.tensor([200])
    for _ in range(3):
        net(y, noisy, index).square().mean().backward()
        optimizer.step()
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, before[name]) == (name not in trained), name
        assert (parameter.grad is None) == (name not in trained), name
    assert {module.training for module in net.unet.modules()} == {False}


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("start", ["input", "noise"])
def test_an_oracle_samples_the_ground_truth(base: Path, deterministic: bool, start: str) -> None:
    sample = {"steps": 4, "deterministic": deterministic, "start": start, "color_fix": "none"}
    net = build(base, sample=sample)
    x0 = net.space.encode(photo(24, 16, seed=1))
    net.unet = oracle(net.schedule, x0)
    assert (net(photo()) - net.space.decode(x0).clamp(0, 1)).abs().max() < 1e-5


def test_deterministic_steps_are_those_of_diffusers(base: Path) -> None:
    """DDIM of diffusers with the same times, in float32."""
    from diffusers import DDIMScheduler

    net = train_a_bit(build(base, sample={"steps": 4, "start": "noise", "color_fix": "none"}))
    lr = photo()
    scheduler = DDIMScheduler.from_pretrained(
        base / "scheduler", clip_sample=False, timestep_spacing="linspace", set_alpha_to_one=False
    )
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == [999, 666, 333, 0]
    y = net.condition(lr)
    x = net.draw_noise(1000, y)
    with torch.no_grad():
        for position, time in enumerate([999, 666, 333, 0]):
            prediction = net(y, x, torch.tensor([time]))
            if time == 0:
                x = net.predict_x0(prediction, x, torch.tensor([0]))
                break
            # The scheduler computes the former time from the number of steps; give it the one of the spacing.
            scheduler.num_inference_steps = 1000 // (time - [999, 666, 333, 0][position + 1])
            x = scheduler.step(prediction, time, x).prev_sample
    torch.testing.assert_close(net(lr), net.space.decode(x).clamp(0, 1), rtol=1e-3, atol=1e-4)


def test_a_flow_takes_the_steps_of_euler(flow_base: Path, flow_prompt: Path) -> None:
    options = {"prompt_file": flow_prompt, "lora": {"rank": 1}, "sample": {"steps": 3, "color_fix": "none"}}
    net = train_a_bit(build(flow_base, **options))
    lr = photo(8, 8)
    y = net.condition(lr)
    x = net.draw_noise(1000, y)  # a flow ends in pure noise, so that nothing of the input is left
    with torch.no_grad():
        for now, then in ((999, 500), (500, 0), (0, None)):
            velocity = net(y, x, torch.tensor([now]))
            sigma = 0.0 if then is None else (then + 1) / 1000
            x = x + (sigma - (now + 1) / 1000) * velocity
    torch.testing.assert_close(net(lr), net.space.decode(x).clamp(0, 1), rtol=1e-3, atol=1e-4)


def test_a_start_from_the_input_has_its_latent(base: Path) -> None:
    net = build(base)
    latents = net.space.encode(net.enlarge(photo()))
    noise = net.draw_noise(1000, latents)
    expected = 0.068264914217 * latents + 0.997667229835 * noise
    torch.testing.assert_close(net._start(latents), expected)


def test_guidance_leads_away_from_the_negative_prompt(base: Path) -> None:
    options = {"prompt": "photo", "negative_prompt": "blur"}
    net = train_a_bit(build(base, **options, sample={"steps": 1, "guidance": 3.0, "color_fix": "none"}))
    other = train_a_bit(build(base, prompt="blur", sample={"steps": 1}))
    y, index = net.condition(photo()), torch.tensor([999])
    x = net._start(y)
    with torch.no_grad():
        positive, negative = net(y, x, index), other(y, x, index)
        assert not torch.equal(positive, negative)
        x0 = net.predict_x0(negative + 3 * (positive - negative), x, index)
    torch.testing.assert_close(net(photo()), net.space.decode(x0).clamp(0, 1), rtol=1e-4, atol=1e-5)


@conditions
def test_seeds_sizes_and_batches(base: Path, condition: str) -> None:
    net, lr = train_a_bit(build(base, condition, scale=4, sample={"steps": 2})), photo(7, 5)
    first = net(lr)
    assert first.shape == (1, 3, 28, 20)
    assert not first.requires_grad
    assert torch.equal(net(lr), first)
    both = net(torch.cat([photo(7, 5, seed=1), lr]))
    assert (both[1:] - first).abs().max() < 1e-5
    set_sampling(net, seed=1)
    assert (net(lr) - first).abs().mean() > 1e-3


def test_tiles_equal_the_complete_image_with_a_local_network(base: Path, tmp_path: Path) -> None:
    """Attention and group norms see the tile, so that both are left out here."""
    path, lr = tmp_path / "net.safetensors", photo(72, 48)
    save_weights(path, build(base, sample={"steps": 2, "deterministic": False}), {})

    def upscale(tile: int | str) -> Tensor:
        model = load_model(path)
        assert isinstance(model.net, LatentDiffusion)
        model.net.unet = Stub(lambda noisy, index: nn.functional.avg_pool2d(noisy, 3, 1, 1))
        autoencoder = model.net.space.net
        for name, module in list(autoencoder.named_modules()):
            if isinstance(module, nn.GroupNorm):
                autoencoder.set_submodule(name, nn.Identity())
        for part in ("encoder", "decoder"):
            getattr(autoencoder, part).mid_block.attentions[0] = None
        options: dict[str, Any] = {"tile": tile, "overlap_px": 24, "sampling": {"seed": 3, "color_fix": "none"}}
        return Upscaler(model, device=torch.device("cpu"), precision="float32", **options)(lr)

    whole = upscale("off")
    assert (upscale(48) - whole).abs().max() < 1e-4


def test_at_most_eight_stages_are_reported(base: Path) -> None:
    net, stages = build(base, sample={"steps": 12, "color_fix": "none"}), []
    out = net.sample(photo(), on_stage=lambda index, image: stages.append((index, image)))
    indices = [index for index, _ in stages]
    assert (indices[0], indices[-2:], len(indices)) == (999, [0, -1], 9)
    assert indices == sorted(indices, reverse=True)
    assert torch.equal(stages[-1][1].clamp(0, 1), out)


@conditions
def test_a_weights_file_gives_the_same_network_back(base: Path, tmp_path: Path, condition: str) -> None:
    sample = {"steps": 2, "deterministic": False, "start": "noise", "guidance": 2.0, "color_fix": "adain"}
    net = train_a_bit(build(base, condition, 4, sample=sample, negative_prompt="blur")).eval()
    path = tmp_path / "net.safetensors"
    save_weights(path, net, {})
    model = load_model(path)
    assert (model.scale, model.channels, model.is_sampled, model.is_diffusion) == (4, 3, True, True)
    assert get_sampling(model.net) == get_sampling(net)
    assert torch.equal(model.net(photo()), net(photo()))
    numbers = sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)
    assert path.stat().st_size < 4 * numbers + 50_000
    assert '"condition":"' + condition in read_metadata(path)["selfsr_network"]


def test_more_steps_than_those_of_the_base_are_refused(base: Path) -> None:
    with pytest.raises(InputError, match=r"network\.sample\.steps: expected at most 1000, the times of the base"):
        build(base, sample={"steps": 1001})
    with pytest.raises(InputError, match="steps: expected 1 to 1000, the steps that the network was trained with"):
        set_sampling(build(base), steps=1001)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample": {"guidance": 5.5}}, r"negative_prompt must be set for sample.guidance above 1, got 5.5 without it"),
        ({"condition": "controlnet", "lora": {"rank": 4}}, "lora must be left out with condition controlnet"),
        ({"sample": {"guidance": 0.5}}, "greater than or equal to 1"),
        ({"condition": "spade"}, "'concat' or 'controlnet'"),
    ],
    ids=["guidance", "lora", "small guidance", "condition"],
)
def test_options_that_contradict_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LatentDiffusionSpec(base="base", **options)


def test_a_transformer_has_no_controlnet(flow_base: Path, flow_prompt: Path) -> None:
    with pytest.raises(InputError, match=r"network\.condition: expected concat for a transformer, got controlnet"):
        build(flow_base, "controlnet", prompt_file=flow_prompt)


def test_guidance_with_embeddings_of_no_negative_prompt_is_refused(base: Path, tmp_path: Path) -> None:
    Prompt(torch.zeros(3, FEATURES)).save(tmp_path / "prompt.safetensors")
    with pytest.raises(InputError, match=r"network\.prompt_file: expected embeddings of a negative prompt"):
        build(base, prompt_file=tmp_path / "prompt.safetensors", sample={"steps": 2, "guidance": 2.0})


def test_noise_from_pure_noise_is_refused(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "base")
    path = tmp_path / "base/scheduler/scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rescale_betas_zero_snr": True}))
    with pytest.raises(InputError, match=r"got .* which predicts noise from pure noise"):
        build(tmp_path / "base")


def test_v_prediction_samples_the_ground_truth(tmp_path: Path) -> None:
    folder = save_base(tmp_path / "v", prediction="v_prediction", text=False)
    Prompt(torch.zeros(2, FEATURES)).save(tmp_path / "prompt.safetensors")
    net = build(folder, prompt_file=tmp_path / "prompt.safetensors", sample={"steps": 3, "color_fix": "none"})
    x0 = net.space.encode(photo(24, 16, seed=1))
    net.unet = oracle(net.schedule, x0)
    assert (net(photo()) - net.space.decode(x0).clamp(0, 1)).abs().max() < 1e-5
