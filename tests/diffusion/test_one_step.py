"""One-step networks on a tiny random base: what they compute, train, share, save and refuse."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from run_folders import assert_resumes, assert_same, read_checkpoint, read_log, train
from selfsr.errors import InputError
from selfsr.images.resize import imresize
from selfsr.nets.diffusion.one_step import OneStep, OneStepSpec
from selfsr.nets.diffusion.prompt import Prompt
from selfsr.nets.diffusion.sampling import set_sampling
from selfsr.nets.weights import load_model, read_metadata, save_weights
from selfsr.training.ema import Ema
from tiny_bases import FEATURES, save_base

EXACT = {"base_precision": "float32", "lora": {"rank": 2}}


def build(base: Path, scale: int = 2, **options: Any) -> OneStep:
    torch.manual_seed(0)
    net = OneStepSpec(base=base, **{**EXACT, **options}).build(scale)
    assert isinstance(net, OneStep)
    return net


def train_a_bit(net: OneStep) -> None:
    """Give all trained parameters other values."""
    torch.manual_seed(9)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1)


def run_with_diffusers(base: Path, lr: Tensor, time: int) -> Tensor:
    """Return the image of one DDIM step to x0, computed with the classes of diffusers and their scheduler."""
    import diffusers
    from transformers import CLIPTextModel, CLIPTokenizer

    tokens = CLIPTokenizer.from_pretrained(base / "tokenizer")("", padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        text = CLIPTextModel.from_pretrained(base / "text_encoder")(tokens)[0]
        autoencoder = diffusers.AutoencoderKL.from_pretrained(base / "vae")
        unet = diffusers.UNet2DConditionModel.from_pretrained(base / "unet")
        factor = autoencoder.config.scaling_factor
        latents = autoencoder.encode(2 * imresize(lr, 2).clamp(0, 1) - 1).latent_dist.mode() * factor
        predicted = unet(latents, time, text.expand(len(lr), -1, -1)).sample
        scheduler = diffusers.DDPMScheduler.from_pretrained(base / "scheduler", clip_sample=False)
        scheduler.set_timesteps(timesteps=[time])
        x0 = scheduler.step(predicted, time, latents).pred_original_sample
        return (autoencoder.decode(x0 / factor).sample + 1) / 2


def test_untrained_network_is_the_base_bit_for_bit(base: Path) -> None:
    lr = torch.rand(2, 3, 8, 12)
    net = build(base, timestep=200, checkpointing=False).train()
    torch.testing.assert_close(net(lr), run_with_diffusers(base, lr, 200), rtol=1e-4, atol=1e-5)
    without = build(base, timestep=200, checkpointing=False)
    without.unet = without.make_denoiser()
    assert torch.equal(net(lr), without.train()(lr))


def test_residual_subtracts_the_prediction(base: Path) -> None:
    net, lr = build(base, timestep=1, output="residual", checkpointing=False).train(), torch.rand(1, 3, 8, 8)
    latents = net.space.encode(imresize(lr, 2).clamp(0, 1))
    prediction = net.run_denoiser(net.unet, latents, torch.tensor([1]))
    torch.testing.assert_close(net(lr), net.space.decode(latents - prediction))


def test_checkpointing_changes_no_gradient(base: Path) -> None:
    lr = torch.rand(1, 3, 8, 8)
    gradients = []
    for checkpointing in (False, True):
        net = build(base, checkpointing=checkpointing).train()
        net(lr).square().mean().backward()
        gradients.append([parameter.grad for parameter in net.parameters() if parameter.requires_grad])
    torch.testing.assert_close(*gradients)


def test_evaluation_pads_clamps_and_fixes_colors(base: Path) -> None:
    net, lr = build(base).eval(), torch.rand(1, 3, 7, 9)
    with torch.no_grad():
        assert net(lr).shape == (1, 3, 14, 18)
        set_sampling(net, color_fix="none")
        plain = net(lr)
        set_sampling(net, color_fix="adain")
        fixed = net(lr)
    assert plain.min() >= 0
    assert plain.max() <= 1
    means = imresize(lr, 2).clamp(0, 1).mean(dim=(2, 3))
    torch.testing.assert_close(fixed.mean(dim=(2, 3)), means, atol=1e-4, rtol=0)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_any_scale_enlarges_before_encoding(base: Path, scale: int) -> None:
    net = build(base, scale).eval()
    assert net.multiple_of_px == {1: 4, 2: 2, 4: 1}[scale]
    with torch.no_grad():
        assert net(torch.rand(1, 3, 5, 6)).shape == (1, 3, 5 * scale, 6 * scale)


def test_flow_of_a_transformer(flow_base: Path, tmp_path: Path) -> None:
    Prompt(torch.randn(5, FEATURES), pooled=torch.randn(12)).save(tmp_path / "prompt.safetensors")
    net = build(flow_base, prompt_file=tmp_path / "prompt.safetensors", checkpointing=False).train()
    lr = torch.rand(1, 3, 8, 8)
    latents = net.space.encode(imresize(lr, 2).clamp(0, 1))
    (velocity,) = net.base.denoiser(
        latents,
        encoder_hidden_states=net.prompt[None],
        pooled_projections=net.prompt_pooled[None],
        timestep=torch.tensor([1000.0]),
        return_dict=False,
    )
    torch.testing.assert_close(net(lr), net.space.decode(latents - velocity), rtol=1e-4, atol=1e-5)


def test_autoencoder_with_a_shift_inverts_it(flow_base: Path, tmp_path: Path) -> None:
    Prompt(torch.randn(5, FEATURES), pooled=torch.randn(12)).save(tmp_path / "prompt.safetensors")
    space = build(flow_base, prompt_file=tmp_path / "prompt.safetensors").space
    image = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        latents = space.net.encode(2 * image - 1).latent_dist.mode()  # pyright: ignore
        torch.testing.assert_close(space.encode(image), (latents - 0.1) * 0.5)
        torch.testing.assert_close(space.decode((latents - 0.1) * 0.5), (space.net.decode(latents).sample + 1) / 2)  # pyright: ignore


def test_only_adapters_train_and_frozen_weights_keep_their_bits(base: Path) -> None:
    net = build(base, encoder_lora={"rank": 1}).train()
    before = {name: parameter.clone() for name, parameter in net.named_parameters()}
    trained = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(".lora_" in name for name in trained)
    assert trained.isdisjoint(net.frozen_names())
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1)
    for _ in range(3):
        net(torch.rand(1, 3, 8, 8)).square().mean().backward()
        optimizer.step()
    for name, parameter in net.named_parameters():
        if name in trained:
            assert not torch.equal(parameter, before[name]), name
        else:
            assert parameter.grad is None
            assert torch.equal(parameter, before[name]), name
    modes = {module.training for module in (*net.unet.modules(), *net.autoencoder.modules())}
    assert modes == {False}


def test_copies_share_the_frozen_weights(base: Path) -> None:
    net = build(base)
    ema = Ema(net, 0.5)
    pairs = dict(zip(net.named_parameters(), ema.net.parameters(), strict=True))
    for (name, weight), averaged in pairs.items():
        assert (averaged is weight) == (name in net.frozen_names()), name
    start = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    train_a_bit(net)
    ema.update(net)
    for name, tensor in ema.state_dict().items():
        assert ".lora_" in name or name in ("prompt", "base_sha256")
        if ".lora_" in name:
            torch.testing.assert_close(tensor, (start[name] + net.state_dict()[name]) / 2)
    assert ema.net.requires_grad_(True) is ema.net
    assert all(not p.requires_grad for n, p in ema.net.named_parameters() if n in net.frozen_names())


def test_bfloat16_base_halves_the_matrices_alone(base: Path) -> None:
    net, exact = build(base, base_precision="bfloat16").train(), build(base).train()
    dtypes = {name.split(".")[-2] + "." + name.split(".")[-1]: p.dtype for name, p in net.named_parameters()}
    assert {dtypes["norm1.weight"], dtypes["default.weight"]} == {torch.float32}
    assert net.unet.conv_in.base_layer.weight.dtype == torch.bfloat16
    lr = torch.rand(1, 3, 8, 8)
    assert net(lr).dtype == torch.float32
    difference = (net(lr) - exact(lr)).abs().max().item()
    assert 0 < difference < 0.1


def test_weights_file_has_the_adapters_and_opens_again(base: Path, tmp_path: Path) -> None:
    net = build(base, 4, encoder_lora={"rank": 1}, prompt="a photo")
    train_a_bit(net)
    path = tmp_path / "net.safetensors"
    save_weights(path, net, {})
    model = load_model(path)
    lr = torch.rand(1, 3, 6, 6)
    with torch.no_grad():
        assert torch.equal(model.net(lr), net.eval()(lr))
    assert (model.scale, model.channels, model.is_diffusion, model.is_sampled) == (4, 3, True, False)
    assert load_model(path, scale=2).scale == 2
    numbers = sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)
    assert path.stat().st_size < 4 * numbers + 40_000
    assert '"prompt":"a photo"' in read_metadata(path)["selfsr_network"]


def test_weights_need_no_text_encoder(base: Path, tmp_path: Path) -> None:
    net = build(base, prompt="sky")
    save_weights(tmp_path / "net.safetensors", net, {})
    shutil.copytree(base, tmp_path / "tiny_sd", ignore=shutil.ignore_patterns("text_encoder", "tokenizer"))
    copied = tmp_path / "moved.safetensors"
    entries = read_metadata(tmp_path / "net.safetensors")
    save_weights(copied, net, {"selfsr_network": entries["selfsr_network"].replace(str(base), "tiny_sd")})
    assert torch.equal(load_model(copied).net.prompt, net.prompt)  # pyright: ignore[reportArgumentType]


def test_another_base_is_refused_by_weights_and_checkpoints(base: Path, other_base: Path, tmp_path: Path) -> None:
    net, other = build(base), build(other_base)
    with pytest.raises(InputError, match=r"network\.base: expected the base with the checksum \w{12}"):
        other.load_state_dict(net.state_dict())
    save_weights(tmp_path / "net.safetensors", net, {})
    text = read_metadata(tmp_path / "net.safetensors")["selfsr_network"].replace(str(base), str(other_base))
    save_weights(tmp_path / "moved.safetensors", net, {"selfsr_network": text})
    with pytest.raises(InputError, match="use the base that the network was trained on"):
        load_model(tmp_path / "moved.safetensors")


@pytest.fixture
def recipe(tiny: dict, base: Path) -> dict[str, Any]:
    """Return a recipe of two steps with a loss on the decoded image."""
    network = {"kind": "one_step", "base": str(base), **EXACT, "timestep": 200}
    return {**tiny, "network": network, "steps": 2, "checkpoints": {"every_steps": 1}, "evaluate": None}


def test_training_saves_adapters_alone_and_resumes_exactly(recipe: dict, tmp_path: Path) -> None:
    assert_resumes({**recipe, "ema_decay": 0.5}, tmp_path)
    run = next(path.parent for path in tmp_path.rglob("recipe.yaml"))
    state = read_checkpoint(run)
    assert all(".lora_" in name or name in ("prompt", "base_sha256") for name in state["nets"]["g"])


def test_a_run_resumes_with_a_base_that_has_moved_but_not_with_another(
    recipe: dict, base: Path, other_base: Path, tmp_path: Path
) -> None:
    straight = train(recipe, tmp_path / "straight")
    run = shutil.copytree(straight, tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / "step_00000002")
    with pytest.raises(InputError, match=r"network\.base: expected the base with the checksum"):
        train({**recipe, "network": {**recipe["network"], "base": str(other_base)}}, run, resume=True)
    moved = shutil.copytree(base, tmp_path / "moved")
    train({**recipe, "network": {**recipe["network"], "base": str(moved)}}, run, resume=True)
    assert_same(read_checkpoint(run), read_checkpoint(straight))


def test_micro_batches_equal_one_batch(recipe: dict, tmp_path: Path) -> None:
    finals = []
    for accumulate in (1, 2):
        run = tmp_path / str(accumulate)
        train({**recipe, "accumulate": accumulate, "batch": 2}, run)
        finals.append(read_checkpoint(run)["nets"]["g"])
        assert read_log(run)
    for name, tensor in finals[0].items():
        torch.testing.assert_close(tensor, finals[1][name], rtol=1e-4, atol=1e-6, msg=name)


def change_config(folder: Path, part: str, **changes: Any) -> None:
    import json

    path = folder / part / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


BAD: dict[str, tuple[Callable[[Path], None], dict[str, Any], str]] = {
    "no folder": (lambda folder: shutil.rmtree(folder), {}, r"network\.base: expected a model folder of diffusers"),
    "no denoiser": (lambda folder: shutil.rmtree(folder / "unet"), {}, "expected unet/config.json or transformer"),
    "other class": (lambda folder: change_config(folder, "unet", _class_name="UNet2DModel"), {}, "got UNet2DModel"),
    "other channels": (lambda folder: change_config(folder, "unet", in_channels=9), {}, "with 9 input channels"),
    "no scheduler": (lambda folder: shutil.rmtree(folder / "scheduler"), {}, "scheduler_config.json, got none"),
    "no autoencoder": (lambda folder: shutil.rmtree(folder / "vae"), {}, "expected a folder with an autoencoder"),
    "no text": (lambda folder: shutil.rmtree(folder / "tokenizer"), {}, r"network\.prompt_file: expected a file"),
    "timestep": (lambda _: None, {"timestep": 1000}, r"network\.timestep: expected 0 to 999"),
    "targets": (lambda _: None, {"lora": {"targets": ["to_z"]}}, r"network\.lora\.targets: .* got 'to_z'"),
    "float16": (lambda folder: change_config(folder, "vae", force_upcast=True), {"autoencoder_precision": "float16"},
                "overflows in float16"),
    "prompt file": (lambda _: None, {"prompt_file": "none.safetensors"}, "none.safetensors, which does not exist"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_base_is_one_sentence(case: str, base: Path, tmp_path: Path) -> None:
    spoil, options, message = BAD[case]
    folder = tmp_path / "base"
    shutil.copytree(base, folder)
    spoil(folder)
    with pytest.raises(InputError, match=message) as refused:
        build(folder, **options)
    assert "\n" not in str(refused.value)


def test_embeddings_of_another_base_are_refused(base: Path, tmp_path: Path) -> None:
    Prompt(torch.zeros(7, FEATURES + 1)).save(tmp_path / "prompt.safetensors")
    with pytest.raises(InputError, match=f"of {FEATURES} features, which the base takes, got {FEATURES + 1}"):
        build(base, prompt_file=tmp_path / "prompt.safetensors")


def test_v_prediction_is_read_from_the_base(tmp_path: Path) -> None:
    folder = save_base(tmp_path / "v", prediction="v_prediction", text=False)
    Prompt(torch.zeros(2, FEATURES)).save(tmp_path / "prompt.safetensors")
    net = build(folder, prompt_file=tmp_path / "prompt.safetensors")
    assert net.schedule.prediction == "v_prediction"
    assert copy.deepcopy(net).schedule is not None
