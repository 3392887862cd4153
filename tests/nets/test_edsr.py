"""EDSR against the counts and names of the published files, an independent statement, and a value by hand."""

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from selfsr.errors import InputError
from selfsr.nets.edsr import Edsr, EdsrSpec
from selfsr.nets.layers import DIV2K_GRAY, DIV2K_MEAN

PAPER = {"features": 256, "blocks": 32, "res_scale": 0.1}


@pytest.mark.parametrize(
    ("options", "scale", "parameters"),
    [
        ({}, 2, 1_369_859),
        ({}, 3, 1_554_499),
        ({}, 4, 1_517_571),
        (PAPER, 2, 40_729_603),
        (PAPER, 3, 43_680_003),
        (PAPER, 4, 43_089_923),
    ],
)
def test_parameter_count_is_published(options, scale, parameters):
    with torch.device("meta"):
        net = EdsrSpec(**options).build(scale)
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert sum(b.numel() for b in net.buffers()) == 24


def test_x4_baseline_names_are_published():
    layers = ["sub_mean", "add_mean", "head.0", "body.16", "tail.0.0", "tail.0.2", "tail.1"]
    layers += [f"body.{n}.body.{k}" for n in range(16) for k in (0, 2)]
    expected = {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    assert len(expected) == 78
    assert set(EdsrSpec().build(4).state_dict()) == expected


def restated(state, x, scale, blocks, res_scale, mean):
    """Compute EDSR from its paper and the published names, on plain functions."""

    def conv(name, z):
        return functional.conv2d(z, state[name + ".weight"], state[name + ".bias"], padding=1)

    mean = torch.tensor(mean, dtype=x.dtype).view(1, -1, 1, 1)
    head = conv("head.0", (x - mean) * 255)
    z = head
    for n in range(blocks):
        z = z + res_scale * conv(f"body.{n}.body.2", conv(f"body.{n}.body.0", z).clamp(min=0))
    z = head + conv(f"body.{blocks}", z)
    factors = {2: [2], 3: [3], 4: [2, 2], 8: [2, 2, 2]}[scale]
    for i, factor in enumerate(factors):
        z = conv(f"tail.0.{2 * i}", z)
        n, c, h, w = z.shape
        z = z.view(n, c // factor**2, factor, factor, h, w).permute(0, 1, 4, 2, 5, 3)
        z = z.reshape(n, c // factor**2, h * factor, w * factor)
    return conv("tail.1", z) / 255 + mean


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize(("channels", "mean"), [(3, DIV2K_MEAN), (1, (DIV2K_GRAY,))])
def test_forward_equals_paper(scale, channels, mean):
    torch.manual_seed(scale)
    net = EdsrSpec(features=6, blocks=2, res_scale=0.3).build(scale, channels).double()
    x = torch.rand(2, channels, 5, 7, dtype=torch.float64)
    got = net(x)
    assert got.shape == (2, channels, 5 * scale, 7 * scale)
    torch.testing.assert_close(got, restated(net.state_dict(), x, scale, 2, 0.3, mean), rtol=1e-6, atol=1e-7)


def test_edsr_by_hand():
    net = EdsrSpec(features=1, blocks=1, res_scale=0.1).build(2)
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
        center = {name: p[..., 1, 1] for name, p in net.named_parameters() if p.ndim == 4}
        center["head.0.weight"][0, 0] = 2.0
        net.head[0].bias.fill_(1.0)
        center["body.0.body.0.weight"].fill_(1.0)
        center["body.0.body.2.weight"].fill_(-0.5)
        net.body[0].body[2].bias.fill_(3.0)
        center["body.1.weight"].fill_(1.0)
        center["tail.0.0.weight"][:, 0] = torch.tensor([1.0, 2.0, 3.0, 4.0])
        center["tail.1.weight"][:, 0] = torch.tensor([1.0, 2.0, -1.0])
    mean = torch.tensor(DIV2K_MEAN).view(1, 3, 1, 1)
    x = mean + torch.tensor([10.0, 0.0, 0.0]).view(1, 3, 1, 1) / 255
    # head 2 * 10 + 1 = 21; residual -21 / 2 + 3 = -7.5; body 21 - 0.75 = 20.25; with the skip 41.25.
    step = 41.25 / 255
    pixels = torch.tensor([[1.0, 2.0], [3.0, 4.0]]) * step
    expected = mean + torch.stack([pixels, 2 * pixels, -pixels])[None]
    torch.testing.assert_close(net(x), expected, rtol=1e-5, atol=1e-6)


def test_mean_shifts_are_saved_but_not_trained():
    net = EdsrSpec(features=4, blocks=1).build(2)
    assert not [name for name, _ in net.named_parameters() if "mean" in name]
    torch.testing.assert_close(net.state_dict()["sub_mean.bias"], -255 * torch.tensor(DIV2K_MEAN))
    torch.testing.assert_close(net.state_dict()["add_mean.weight"], torch.eye(3).view(3, 3, 1, 1))


def fitted_edsr():
    """Train a small EDSR just long enough that its output resembles the image."""
    torch.manual_seed(0)
    net = Edsr(2, features=16, blocks=2, res_scale=1.0)
    i, j = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    waves = [0.5 + 0.4 * torch.sin(0.11 * i + 0.07 * j * k) * torch.cos(0.05 * i * k - 0.13 * j) for k in (1, 2, 3)]
    hr = torch.stack(waves)[None]
    lr = functional.avg_pool2d(hr, 2)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(60):
        loss = (net(lr) - hr).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval(), lr, hr


def in_bfloat16_throughout(net, x):
    eye = torch.eye(3).view(3, 3, 1, 1)
    z = net.head(functional.conv2d(x * 255, eye, net.sub_mean.bias))
    z = net.tail[0](z + net.body(z))
    z = functional.conv2d(z, net.tail[1].weight, net.tail[1].bias, padding=1)
    return functional.conv2d(z, eye, net.add_mean.bias).float() / 255


@torch.no_grad()
def test_first_and_last_layers_stay_float32_under_autocast():
    with torch.enable_grad():
        net, lr, hr = fitted_edsr()
    exact = net(lr)
    assert (exact - hr).abs().mean() < 0.05
    with torch.autocast("cpu", torch.bfloat16):
        ours, coarse = net(lr), in_bfloat16_throughout(net, lr)
    assert ours.dtype == torch.float32
    gray_levels = [255 * (y - exact).pow(2).mean().sqrt().item() for y in (ours, coarse)]
    print(f"rms {gray_levels}, max {[255 * (y - exact).abs().max().item() for y in (ours, coarse)]}")
    assert gray_levels[0] < 0.2
    assert gray_levels[1] > 2 * gray_levels[0]


def test_output_of_half_precision_weights_is_float32():
    net = EdsrSpec(features=8, blocks=1).build(2).eval()
    x = torch.rand(1, 3, 6, 6)
    exact = net(x)
    coarse = net.bfloat16()(x)
    assert coarse.dtype == torch.float32
    torch.testing.assert_close(coarse, exact, rtol=0, atol=3 / 255)


def test_impossible_options_are_refused():
    with pytest.raises(InputError, match=r"network EDSR: scale must be one of 2, 3, 4, 8 .*, got 5"):
        EdsrSpec().build(5)
    with pytest.raises(InputError, match=r"network EDSR: channels must be 1 or 3 .*, got 4"):
        EdsrSpec().build(2, channels=4)
    with pytest.raises(ValidationError, match=r"feature\n.*Extra inputs are not permitted"):
        EdsrSpec(feature=64)
    with pytest.raises(ValidationError, match="greater than 0"):
        EdsrSpec(blocks=0)
