"""The generators of GAN recipes against their equations, written on plain functions, and the properties of each."""

import re

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import conv2d, interpolate

from selfsr.errors import InputError
from selfsr.nets import list_networks
from selfsr.nets.elan import ElanSpec
from selfsr.nets.layers import DIV2K_GRAY, DIV2K_MEAN
from selfsr.nets.msrresnet import MsrResNetSpec, RankSrResNetSpec
from selfsr.nets.spsr import SpsrSpec
from selfsr.nets.weights.load import load_into, load_model
from selfsr.nets.weights.save import save_weights

SPECS = {
    "msrresnet": MsrResNetSpec(features=6, blocks=2),
    "rank_srresnet": RankSrResNetSpec(features=6, blocks=2),
    "spsr": SpsrSpec(features=6, blocks=9, growth=4),
    "elan": ElanSpec(features=12, blocks=2, windows_px=(2, 4, 8)),
    "elan batch": ElanSpec(features=12, blocks=4, windows_px=(2, 4, 4), shared=1, expansion=3, norm="batch"),
    "elan published windows": ElanSpec(features=12, blocks=4, shared=1, expansion=3, norm="batch"),
}


def image(channels=3, height=11, width=13, batch=2):
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(3)).double()


def build_net(name, scale=4, channels=3):
    """Build a network in evaluation mode with changed biases and norms."""
    torch.manual_seed(6)
    net = SPECS[name].build(scale, channels).double().eval()
    with torch.no_grad():
        for key, tensor in net.state_dict().items():
            if key.endswith(("running_mean", "running_var", "bias", "norm.weight", "inp.1.weight")):
                tensor.add_(0.3 * torch.rand_like(tensor))
    return net


class Layers:
    """The tensors of a network by name, as functions."""

    def __init__(self, state):
        self.state = state

    def conv(self, name, z):
        weight = self.state[f"{name}.weight"]
        return conv2d(z, weight, self.state[f"{name}.bias"], padding=weight.shape[-1] // 2)


def slope(z, negative):
    return z.clamp(min=0) + negative * z.clamp(max=0)


def shuffled(z, factor):
    n, c, h, w = z.shape
    z = z.view(n, c // factor**2, factor, factor, h, w).permute(0, 1, 4, 2, 5, 3)
    return z.reshape(n, c // factor**2, h * factor, w * factor)


def residual(f, name, z):
    return z + f.conv(f"{name}.conv2", slope(f.conv(f"{name}.conv1", z), 0))


STAGES = {2: [("upconv1", 2)], 3: [("upconv1", 3)], 4: [("upconv1", 2), ("upconv2", 2)]}


def msrresnet(f, x, scale):
    z = slope(f.conv("conv_first", x), 0.1)
    z = residual(f, "body.1", residual(f, "body.0", z))
    for name, factor in STAGES[scale]:
        z = slope(shuffled(f.conv(name, z), factor), 0.1)
    z = f.conv("conv_last", slope(f.conv("conv_hr", z), 0.1))
    return z + interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)


def rank_srresnet(f, x, scale):
    first = f.conv("conv_first", x)
    z = residual(f, "recon_trunk.1", residual(f, "recon_trunk.0", first))
    z = f.conv("LRconv", z) + first
    for name, factor in STAGES[scale]:
        z = slope(shuffled(f.conv(name, z), factor), 0)
    return f.conv("conv_last", slope(f.conv("HRconv", z), 0))


def rrdb(f, name, x):
    z = x
    for k in (1, 2, 3):
        seen = [z]
        for m in (1, 2, 3, 4):
            seen.append(slope(f.conv(f"{name}.RDB{k}.conv{m}.0", torch.cat(seen, 1)), 0.2))
        z = z + 0.2 * f.conv(f"{name}.RDB{k}.conv5.0", torch.cat(seen, 1))
    return x + 0.2 * z


def central_differences(x):
    wide = torch.zeros(*x.shape[:2], x.shape[2] + 2, x.shape[3] + 2, dtype=x.dtype)
    wide[..., 1:-1, 1:-1] = x
    down = wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]
    across = wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]
    return (down**2 + across**2 + 1e-6) ** 0.5


def doubled(f, name, z):
    return slope(f.conv(name, z.repeat_interleave(2, 2).repeat_interleave(2, 3)), 0.2)


def spsr_pair(f, x, scale):
    stages = {2: 1, 4: 2, 8: 3}[scale]
    z = first = f.conv("model.0", x)
    taps = []
    for n in range(9):  # nine blocks: a tap after each second one, four of them
        z = rrdb(f, f"model.1.sub.{n}", z)
        taps += [z] if n in (1, 3, 5, 7) else []
    z = first + f.conv("model.1.sub.9", z)
    for stage in range(stages):
        z = doubled(f, f"model.{3 + 3 * stage}", z)
    features = f.conv("HR_conv1_new.0", slope(f.conv("HR_conv0_new.0", z), 0.2))
    b = start = f.conv("b_fea_conv.0", central_differences(x))
    for n, tap in enumerate(taps, 1):
        b = f.conv(f"b_concat_{n}.0", rrdb(f, f"b_block_{n}", torch.cat([b, tap], 1)))
    b = f.conv("b_LR_conv.0", b) + start
    for stage in range(stages):
        b = doubled(f, f"b_module.{1 + 3 * stage}", b)
    b = f.conv(f"b_module.{3 * stages + 2}", slope(f.conv(f"b_module.{3 * stages}", b), 0.2))
    z = f.conv("f_concat.0", rrdb(f, "f_block", torch.cat([b, features], 1)))
    return f.conv("f_HR_conv1.0", slope(f.conv("f_HR_conv0.0", z), 0.2)), f.conv("conv_w.0", b)


def spsr(f, x, scale):
    return spsr_pair(f, x, scale)[0]


def shifted(x):
    """Channel group by channel group, the pixel to the right, left, below, above, and the pixel itself."""
    fifth, out = x.shape[1] // 5, torch.zeros_like(x)
    groups = [slice(n * fifth, (n + 1) * fifth) for n in range(4)]
    out[:, groups[0], :, :-1] = x[:, groups[0], :, 1:]
    out[:, groups[1], :, 1:] = x[:, groups[1], :, :-1]
    out[:, groups[2], :-1] = x[:, groups[2], 1:]
    out[:, groups[3], 1:] = x[:, groups[3], :-1]
    out[:, 4 * fifth :] = x[:, 4 * fifth :]
    return out


def attention(f, name, x, kept, windows, offset):
    """Window by window; pixels are gathered by their indices, which run around the border where `offset` is set."""
    z = f.conv(f"{name}.project_inp.0", x)
    if f"{name}.project_inp.1.norm.weight" in f.state:
        mean, var = z.mean(1, keepdim=True), z.var(1, keepdim=True, unbiased=False)
        parts = [f.state[f"{name}.project_inp.1.norm.{part}"].view(1, -1, 1, 1) for part in ("weight", "bias")]
    else:
        mean, var, *parts = (
            f.state[f"{name}.project_inp.1.{part}"].view(1, -1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
    z = (z - mean) / (var + 1e-5).sqrt() * parts[0] + parts[1]
    height, width, share = *x.shape[2:], z.shape[1] // 3
    out, new = torch.zeros_like(x), {}
    for third, side in enumerate(windows):
        move = side // 2 if offset else 0
        for top in range(0, height, side):
            for left in range(0, width, side):
                rows = [(top + move + i) % height for i in range(side) for _ in range(side)]
                columns = [(left + move + j) % width for _ in range(side) for j in range(side)]
                tokens = z[:, third * share : (third + 1) * share, rows, columns].transpose(1, 2)
                if kept is None:
                    q, v = tokens[..., : share // 2], tokens[..., share // 2 :]
                    new[third, top, left] = torch.softmax(q @ q.transpose(1, 2), 2)
                else:
                    v, new = tokens, kept
                third_of_x = x.shape[1] // 3
                channels = slice(third * third_of_x, (third + 1) * third_of_x)
                out[:, channels, rows, columns] = (new[third, top, left] @ v).transpose(1, 2)
    return f.conv(f"{name}.project_out", out), new


def elan(f, x, scale, windows=(2, 4, 8), shared=0):
    height, width = x.shape[2:]
    cell = max(windows)
    rows = [i if i < height else 2 * height - 2 - i for i in range(-(-height // cell) * cell)]
    columns = [j if j < width else 2 * width - 2 - j for j in range(-(-width // cell) * cell)]
    mean = torch.tensor(DIV2K_MEAN if x.shape[1] == 3 else (DIV2K_GRAY,)).double().view(1, -1, 1, 1)
    z = head = f.conv("head.0", (x[:, :, rows][..., columns] - mean) * 255)
    for group in range(2):
        kept = None
        for n in range(1 + shared):
            name = f"body.{group}.modules_lfe.lfe_{n}"
            inner = slope(f.conv(f"{name}.conv0.shift_conv.conv1x1", shifted(z)), 0)
            z = z + f.conv(f"{name}.conv1.shift_conv.conv1x1", shifted(inner))
            y, kept = attention(f, f"body.{group}.modules_gmsa.gmsa_{n}", z, kept, windows, group == 1)
            z = z + y
    z = shuffled(f.conv("tail.0", z + head), scale) / 255 + mean
    return z[..., : height * scale, : width * scale]


def elan_batch(f, x, scale):
    return elan(f, x, scale, windows=(2, 4, 4), shared=1)


EQUATIONS = {
    "msrresnet": msrresnet,
    "rank_srresnet": rank_srresnet,
    "spsr": spsr,
    "elan": elan,
    "elan batch": elan_batch,
}


@pytest.mark.parametrize(
    ("name", "scale", "channels"),
    [(name, scale, 3) for name in EQUATIONS for scale in SPECS[name].scales] + [(name, 2, 1) for name in EQUATIONS],
)
def test_forward_equals_equations(name, scale, channels):
    net, x = build_net(name, scale, channels), image(channels)
    with torch.no_grad():
        torch.testing.assert_close(
            net(x), EQUATIONS[name](Layers(net.state_dict()), x, scale), rtol=1e-8, atol=1e-8, check_dtype=True
        )


def test_gan_networks_are_listed():
    listed = {line.kinds[0] for line in list_networks()}
    assert {"msrresnet", "rank_srresnet", "spsr", "elan"} <= listed


# ---- starts


@pytest.mark.parametrize("name", ["msrresnet", "rank_srresnet", "spsr"])
def test_weights_start_at_tenth_of_he_normal(name):
    torch.manual_seed(0)
    net = SPECS[name].model_copy(update={"features": 64}).build(4)
    for key, weight in net.named_parameters():
        if key.endswith("weight") and weight.numel() > 2000 and key != "LRconv.weight":
            expected = 0.1 * (2 / weight[0].numel()) ** 0.5
            assert weight.std().item() == pytest.approx(expected, rel=0.1), key
        elif key.endswith("bias") and key != "LRconv.bias":
            assert not weight.any(), key


# ---- SPSR


def test_spsr_returns_branch_only_in_training():
    net, x = build_net("spsr"), image()
    sr, branch = net.train()(x)
    torch.testing.assert_close((sr, branch), spsr_pair(Layers(net.state_dict()), x, 4), rtol=1e-8, atol=1e-8)
    assert torch.equal(net.eval()(x), sr)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = net.float().train()(x.float())
    assert [part.dtype for part in coarse] == [torch.float32, torch.float32]


@pytest.mark.parametrize(("blocks", "after"), [(23, (5, 10, 15, 20)), (20, (5, 10, 15, 20)), (4, (1, 2, 3, 4))])
def test_spsr_branch_uses_trunk_after_published_blocks(blocks, after):
    net = SpsrSpec(features=2, blocks=blocks, growth=2).build(2)
    order = []
    for key, module in net.named_modules():
        if re.fullmatch(r"model\.1\.sub\.\d+|b_block_\d", key):
            module.register_forward_hook(lambda *_, key=key: order.append(key))
    net(image(height=4, width=4).float())
    taps = [order[n - 1] for n, key in enumerate(order) if key.startswith("b_block")]
    assert taps == [f"model.1.sub.{n - 1}" for n in after]


@pytest.mark.parametrize(
    "dropped", ["HR_conv0_new.0", *(pytest.param(name, marks=pytest.mark.slow) for name in ("model.8", ""))]
)
def test_spsr_opens_with_either_name_of_shared_convolution(dropped, tmp_path):
    net = build_net("spsr").float()
    state = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    save_file(
        {k: t for k, t in state.items() if not dropped or not k.startswith(dropped)}, tmp_path / "net.safetensors"
    )
    x = image().float()
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "net.safetensors").net(x), net(x))
    fresh = SPECS["spsr"].build(4)
    load_into(fresh, tmp_path / "net.safetensors")
    assert all(torch.equal(tensor, fresh.state_dict()[key]) for key, tensor in state.items())
    assert fresh.get_parameter("model.8.weight") is fresh.get_parameter("HR_conv0_new.0.weight")


def test_spsr_and_rrdb_are_not_confused():
    state = SPECS["spsr"].build(4).state_dict()
    trunk = {key: tensor for key, tensor in state.items() if key.startswith("model.")}
    assert SpsrSpec.detect(trunk) is None
    found = SpsrSpec.detect(state)
    assert found is not None
    assert (found.spec, found.scales, found.channels) == (SPECS["spsr"], (4,), 3)


# ---- SRResNet without batch norm


def test_msrresnet_opens_under_mmsr_names(tmp_path):
    net, x = build_net("msrresnet").float(), image().float()
    old = {
        key.replace("body.", "recon_trunk.").replace("conv_hr", "HRconv"): tensor
        for key, tensor in net.state_dict().items()
    }
    torch.save(old, tmp_path / "MSRResNetx4.pth")
    model = load_model(tmp_path / "MSRResNetx4.pth")
    assert (model.architecture, model.scale) == ("MSRResNet", 4)
    with torch.no_grad():
        assert torch.equal(model.net(x), net(x))


@pytest.mark.parametrize("name", ["msrresnet", "rank_srresnet"])
def test_transfer_leaves_out_tail_of_another_scale(name, tmp_path):
    save_weights(tmp_path / "x4.safetensors", build_net(name, 4), {})
    net = SPECS[name].build(3)
    summary = load_into(net, tmp_path / "x4.safetensors", fit="tail")
    assert "left as initialized: upconv1.weight, upconv1.bias; not used: upconv2.bias, upconv2.weight" in summary


# ---- ELAN


def test_elan_size_with_shifts_is_published():
    with torch.device("meta"):
        net = ElanSpec().build(4)
    assert sum(tensor.numel() for tensor in net.state_dict().values()) == 8_487_408


def test_elan_file_states_windows(tmp_path):
    for suffix in (".safetensors", ".pth"):
        save_weights(tmp_path / f"net{suffix}", build_net("elan batch").float(), {})
        model, x = load_model(tmp_path / f"net{suffix}"), image().float()
        with torch.no_grad():
            assert torch.equal(model.net(x), build_net("elan batch").float()(x))
    found = ElanSpec.detect(build_net("elan").state_dict())
    assert found is not None
    assert found.spec == SPECS["elan"].model_copy(update={"windows_px": (4, 8, 16)})


def test_elan_authors_file_opens_by_mean_shift(tmp_path):
    net, x = build_net("elan published windows").float(), image().float()
    shift = 255 * torch.tensor(DIV2K_MEAN)
    eye = torch.eye(3).view(3, 3, 1, 1)
    state = dict(net.state_dict())
    state |= {"sub_mean.weight": eye, "sub_mean.bias": -shift, "add_mean.weight": eye, "add_mean.bias": shift}
    torch.save({"params": state}, tmp_path / "model_x4.pt")
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "model_x4.pt").net(x), net(x))
    assert ElanSpec.detect({**state, "sub_mean.bias": -shift / 255}) is None


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 9), (8, 16), (17, 5)])
def test_elan_accepts_any_size(height, width):
    net, x = build_net("elan", 2), image(3, height, width)
    with torch.no_grad():
        assert net(x).shape == (2, 3, 2 * height, 2 * width)
        if height == 8:  # whole windows: nothing is mirrored, and more of it changes nothing but the border
            torch.testing.assert_close(net(x), elan(Layers(net.state_dict()), x, 2), rtol=1e-8, atol=1e-8)


def test_elan_tiles_align_with_windows(tmp_path):
    save_weights(tmp_path / "net.safetensors", build_net("elan", 2).float(), {})
    step = load_model(tmp_path / "net.safetensors").multiple_of_px
    assert step == 8
    net, x = build_net("elan", 2), image(3, 64, 64, 1)
    inside = slice(2 * 32, 2 * 48)  # two blocks see two windows and a few pixels far
    with torch.no_grad():
        whole = net(x)[..., inside, inside]
        for start, same in ((step, True), (step // 2, False)):
            part = slice(inside.start - 2 * start, inside.stop - 2 * start)
            difference = (net(x[..., start:, start:])[..., part, part] - whole).abs().max().item()
            assert (difference < 1e-12) == same, (start, difference)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": 10}, "features must be a multiple of 3, a third for each window, got 10"),
        ({"windows_px": (4, 5, 16)}, r"windows_px must be even, because half a window is shifted, got \[4, 5, 16\]"),
        ({"blocks": 5, "shared": 1}, "blocks must be a multiple of 1 \\+ shared 2, got 5"),
    ],
)
def test_elan_unfit_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ElanSpec(**options)


def test_elan_incomplete_tensors_are_refused(tmp_path):
    state = {key: t for key, t in build_net("elan").float().state_dict().items() if "body.1.modules_lfe" not in key}
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(InputError, match="the names are those of ELAN with features 12, blocks 2"):
        load_model(tmp_path / "part.pth")
