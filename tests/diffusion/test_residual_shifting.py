"""The network that samples: what it samples, and what its output depends on."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from sampled_nets import TINY, make_net
from selfsr.errors import InputError
from selfsr.images.resize import imresize
from selfsr.nets.diffusion.residual_shifting import ResidualShifting, ResidualShiftingSpec
from selfsr.nets.diffusion.sampling import get_sampling, set_sampling
from selfsr.nets.weights import load_model, save_weights
from selfsr.upscaling.upscaler import Upscaler


def photo(height: int = 24, width: int = 20, channels: int = 3, seed: int = 0) -> Tensor:
    """Return a smooth image `[1, channels, height, width]` in [0.1, 0.9]."""
    noise = torch.rand(1, channels, 6, 5, generator=torch.Generator().manual_seed(seed))
    return 0.1 + 0.8 * nn.functional.interpolate(noise, (height, width), mode="bilinear")


class Oracle(nn.Module):
    """Predicts the ground truth: what it adds to the condition, which is the last half of its input."""

    def __init__(self, x0: Tensor) -> None:
        super().__init__()
        self.x0 = x0

    def forward(self, x: Tensor, index: Tensor):
        class Output:
            sample = self.x0 - x[:, x.shape[1] // 2 :]

        return Output()


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_an_oracle_samples_the_ground_truth(steps: int, deterministic: bool) -> None:
    net, x0 = make_net(), 2 * photo(48, 40, seed=1) - 1
    net.unet = Oracle(x0)
    set_sampling(net, steps=steps, deterministic=deterministic, color_fix="none")
    assert (net(photo()) - (x0 + 1) / 2).abs().max() < 1e-6


@pytest.mark.parametrize(("scale", "channels", "height", "width"), [(2, 3, 7, 5), (3, 1, 4, 9), (4, 3, 1, 2)])
def test_any_size_gives_scale_times_the_size(scale: int, channels: int, height: int, width: int) -> None:
    net = make_net(scale, channels)
    out = net(photo(height, width, channels))
    assert out.shape == (1, channels, scale * height, scale * width)
    assert not out.requires_grad
    assert bool(out.isfinite().all())


def test_an_untrained_network_predicts_its_input_enlarged() -> None:
    torch.manual_seed(0)
    net = ResidualShiftingSpec(**TINY).build(2)
    assert isinstance(net, ResidualShifting)
    lr = photo()
    y = net.condition(lr)
    assert torch.equal(net(y, torch.randn_like(y), torch.tensor([2])), y)
    assert (y - (2 * imresize(lr, 2).clamp(0, 1) - 1)).abs().max() < 1e-6


def test_a_seed_repeats_and_another_differs() -> None:
    net, lr = make_net(), photo()
    first = net(lr)
    torch.manual_seed(99)
    assert torch.equal(net(lr), first)
    set_sampling(net, seed=1)
    assert (net(lr) - first).abs().mean() > 1e-3


def test_a_sample_does_not_depend_on_its_batch() -> None:
    net = make_net()
    lr = torch.cat([photo(seed=0), photo(seed=1)])
    assert (net(lr)[1:] - net(lr[1:])).abs().max() < 1e-5


def test_padding_does_not_move_the_noise() -> None:
    net, lr = make_net(4, unet={"channels": [8, 16, 16, 16], "groups": 4}, sample={"color_fix": "none"}), photo(17, 18)
    assert net.multiple_of_px == 2
    padded = nn.functional.pad(lr, (0, 0, 0, 1), mode="reflect")
    assert (net(lr) - net(padded)[..., : 4 * 17, :]).abs().max() < 1e-6


def test_the_origin_moves_the_noise() -> None:
    net = make_net()
    y = net.condition(photo(40, 44))
    whole = net.draw_noise(2, y)
    set_sampling(net, origin_px=(30, 20))
    part = net.draw_noise(2, y[..., :16, :12])
    assert torch.equal(part, whole[..., 30:46, 20:32])


def upscale(path: Path, lr: Tensor, tile: int | str, **sampling: Any) -> Tensor:
    """Upscale by the model without its group norms, which see the tile: the rest must not depend on the tiles."""
    model = load_model(path)
    for name, module in list(model.net.named_modules()):
        if isinstance(module, nn.GroupNorm):
            model.net.set_submodule(name, nn.Identity())
    options: dict[str, Any] = {"tile": tile, "overlap_px": 64, "sampling": {"seed": 3, **sampling}}
    return Upscaler(model, device=torch.device("cpu"), precision="float32", **options)(lr)


@pytest.mark.parametrize("color_fix", ["none", "wavelet"])
def test_tiles_equal_the_complete_image_where_norms_are_left_out(color_fix: str, tmp_path: Path) -> None:
    path, lr = tmp_path / "net.safetensors", photo(170, 150)
    save_weights(path, make_net(), {})
    options = {"steps": 2, "color_fix": color_fix}
    whole = upscale(path, lr, "off", **options)
    assert (upscale(path, lr, 128, **options) - whole).abs().max() < 1e-5
    assert (upscale(path, lr, "off", **{**options, "seed": 4}) - whole).abs().mean() > 1e-3


def test_a_flat_image_keeps_its_color_with_the_wavelet_fix(tmp_path: Path) -> None:
    net = make_net()
    with torch.no_grad():
        net.unet.conv_out.weight.zero_()
        net.unet.conv_out.bias.fill_(0.2)
    save_weights(tmp_path / "net.safetensors", net, {})
    lr = torch.tensor([0.2, 0.5, 0.7]).view(1, 3, 1, 1).expand(1, 3, 150, 140)
    out = upscale(tmp_path / "net.safetensors", lr, 128)
    assert (out.mean(dim=(2, 3)) - lr[..., 0, 0]).abs().max() < 1e-5
    set_sampling(net, color_fix="none")
    assert (net(lr).mean(dim=(2, 3)) - lr[..., 0, 0]).abs().max() > 0.05


def test_a_weights_file_gives_the_same_network_back(tmp_path: Path) -> None:
    options = {"shift": {"steps": 6, "kappa": 2.0, "min_noise": 0.2}, "sample": {"steps": 3, "color_fix": "adain"}}
    net = make_net(4, **options)
    save_weights(tmp_path / "net.safetensors", net, {})
    model = load_model(tmp_path / "net.safetensors")
    assert (model.scale, model.channels, model.is_sampled) == (4, 3, True)
    assert get_sampling(model.net) == get_sampling(net)
    assert torch.equal(model.net(photo()), net(photo()))


def test_a_stage_is_an_image_of_each_step() -> None:
    net, stages = make_net(sample={"color_fix": "none"}), []
    out = net.sample(photo(), on_stage=lambda index, image: stages.append((index, image)))
    assert [index for index, _ in stages] == [3, 2, 1, 0, -1]
    assert torch.equal(stages[-1][1], out)
    spread = [(image - out).std().item() for _, image in stages[:-1]]
    assert spread == sorted(spread, reverse=True)


def test_every_weight_gets_a_gradient() -> None:
    net = make_net().train()
    y = net.condition(photo(8, 8))
    net(y, torch.randn_like(y), torch.tensor([1])).square().mean().backward()
    assert [name for name, parameter in net.named_parameters() if parameter.grad is None] == []


def test_the_last_layer_computes_in_float32_under_autocast() -> None:
    net = make_net()
    y = net.condition(photo(8, 8))
    with torch.autocast("cpu", torch.bfloat16):
        assert net(y, y, torch.tensor([1])).dtype == torch.float32


def test_a_copy_shares_no_weights_and_samples_alike() -> None:
    net = make_net()
    twin = copy.deepcopy(net)
    assert torch.equal(twin(photo()), net(photo()))
    assert all(a.data_ptr() != b.data_ptr() for a, b in zip(net.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample": {"steps": 5}}, "sample.steps must be at most 4"),
        ({"one_step": True, "sample": {"steps": 2}}, "sample.steps must be 1 with one_step, got 2"),
        ({"unet": {"channels": [10], "groups": 4}}, r"channels must be multiples of groups 4, got \[10\]"),
    ],
)
def test_options_that_contradict_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ResidualShiftingSpec(**{**TINY, **options})


@pytest.mark.parametrize(("one_step", "trained"), [(False, "1 to 4"), (True, "1")])
def test_more_steps_than_trained_are_refused(one_step: bool, trained: str) -> None:
    with pytest.raises(InputError) as error:
        set_sampling(make_net(one_step=one_step), steps=7)
    assert str(error.value) == (
        f"steps: expected {trained}, the steps that the network was trained with, got 7; lower it."
    )


def test_a_one_step_network_makes_one_pass() -> None:
    net, calls = make_net(one_step=True), []
    net.unet.register_forward_hook(lambda *_: calls.append(1))
    net(photo())
    assert len(calls) == 1
