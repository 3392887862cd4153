"""Weights files: every layout people have opens, what does not fit is refused whole, and nothing in one is run."""

import errno
import os
import pickle
import re
import zipfile

import pytest
import safetensors.torch
import spandrel
import torch
from torch import nn
from torch.nn import functional

from selfsr.errors import InputError
from selfsr.nets.edsr import EdsrSpec
from selfsr.nets.layers import DIV2K_MEAN
from selfsr.nets.spandrel.rcan import RcanSpec
from selfsr.nets.spandrel.rrdb import RrdbSpec
from selfsr.nets.spandrel.span import SpanSpec
from selfsr.nets.spandrel.swinir import SwinIrSpec
from selfsr.nets.weights.load import Model, load_into, load_model, read_metadata
from selfsr.nets.weights.save import save_weights

SPEC = EdsrSpec(features=6, blocks=2)


@pytest.fixture
def edsr():
    torch.manual_seed(0)
    return SPEC.build(2).eval()


def lr(channels=3, height=7, width=9):
    return torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(2))


def other(spec=SPEC, scale=2):
    torch.manual_seed(99)
    return spec.build(scale)


def same(a, b):
    return all(torch.equal(t, b.state_dict()[n]) for n, t in a.state_dict().items())


# ---- saving


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_saved_network_comes_back_with_what_it_says_of_itself(edsr, tmp_path, suffix):
    path = tmp_path / "new" / f"net{suffix}"
    save_weights(path, edsr, {"architecture": "edsr", "recipe": "steps: 3\n"})
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    model = load_model(path)
    assert torch.equal(model.upscale(lr()), edsr(lr()).clamp(0, 1))
    assert (model.architecture, model.scale, model.channels) == ("EDSR", 2, 3)
    assert (model.tiling, model.multiple_of_px, model.minimum_px, model.square) == ("supported", 1, 1, False)
    assert not model.net.training
    said = read_metadata(path)
    assert said["architecture"] == "edsr"
    assert said["recipe"] == "steps: 3\n"
    assert said["res_scale"] == "1.0"


def test_files_are_bare_contiguous_state_dicts(edsr, tmp_path):
    edsr = edsr.to(memory_format=torch.channels_last)
    save_weights(tmp_path / "net.safetensors", edsr, {})
    save_weights(tmp_path / "net.pth", edsr, {})
    bare = safetensors.torch.load_file(tmp_path / "net.safetensors")
    boxed = torch.load(tmp_path / "net.pth", weights_only=True)["params"]
    for state in (bare, boxed):
        assert sorted(state) == sorted(edsr.state_dict())
        for name, tensor in edsr.state_dict().items():
            assert torch.equal(state[name], tensor)
            assert state[name].is_contiguous()


def test_wrapped_and_tied_networks_are_saved_under_their_own_names(edsr, tmp_path):
    edsr.body[1].body[0].weight = edsr.body[0].body[0].weight
    for i, net in enumerate((nn.DataParallel(edsr), torch.compile(edsr))):
        save_weights(tmp_path / f"{i}.safetensors", net, {})
        assert same(edsr, load_model(tmp_path / f"{i}.safetensors").net)


def test_the_residual_scale_is_remembered_or_guessed_as_the_authors_have_it(tmp_path):
    net = EdsrSpec(features=6, blocks=1, res_scale=0.3).build(2)
    for suffix in (".safetensors", ".pth"):
        save_weights(tmp_path / f"net{suffix}", net, {})
        assert load_model(tmp_path / f"net{suffix}").net.res_scale == 0.3
    for features, res_scale in ((64, 1.0), (256, 0.1)):
        torch.save(EdsrSpec(features=features, blocks=1).build(2).state_dict(), tmp_path / "official.pt")
        assert load_model(tmp_path / "official.pt").net.res_scale == res_scale


def test_a_failed_save_leaves_the_old_file_and_names_the_new(edsr, tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    path.write_bytes(b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=re.escape(str(path))) as caught:
        save_weights(path, edsr, {})
    assert caught.value.errno == errno.ENOSPC
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"old"


def test_only_two_suffixes_can_be_saved(edsr, tmp_path):
    with pytest.raises(InputError, match=r"suffix must be .safetensors or .pth, got .onnx"):
        save_weights(tmp_path / "net.onnx", edsr, {})


# ---- the layouts of ESRGAN and EDSR


def rrdb_layouts(first, blocks, stages):
    """The published name map of RRDB, written out: first names to BasicSR's and to those in between."""
    rows = [("model.0", "conv_first", "conv_first"), (f"model.1.sub.{blocks}", "conv_body", "trunk_conv")]
    for n in range(blocks):
        for k in (1, 2, 3):
            for m in (1, 2, 3, 4, 5):
                rows.append(
                    (
                        f"model.1.sub.{n}.RDB{k}.conv{m}.0",
                        f"body.{n}.rdb{k}.conv{m}",
                        f"RRDB_trunk.{n}.RDB{k}.conv{m}",
                    )
                )
    for u in range(1, stages + 1):
        rows.append((f"model.{3 * u}", f"conv_up{u}", f"upconv{u}"))
    end = 3 * stages + 2
    rows += [(f"model.{end}", "conv_hr", "HRconv"), (f"model.{end + 2}", "conv_last", "conv_last")]
    layouts = []
    for column in (0, 1, 2):
        layouts.append({f"{r[column]}.{part}": first[f"{r[0]}.{part}"] for r in rows for part in ("weight", "bias")})
    return layouts


@pytest.mark.parametrize(("scale", "stages"), [(2, 1), (4, 2), (8, 3)])
def test_rrdb_opens_under_all_its_names_and_is_saved_under_the_current_ones(scale, stages, tmp_path):
    torch.manual_seed(0)
    spec = RrdbSpec(features=6, blocks=2)
    net = spec.build(scale).eval()
    first, current, between = rrdb_layouts(net.state_dict(), 2, stages)
    assert set(first) == set(net.state_dict())
    save_weights(tmp_path / "saved.safetensors", net, {})
    saved = safetensors.torch.load_file(tmp_path / "saved.safetensors")
    assert set(saved) == set(current)
    assert all(torch.equal(saved[name], current[name]) for name in current)
    expected = net(lr()).clamp(0, 1)
    for state in (first, current, between):
        torch.save(state, tmp_path / "net.pth")
        fresh = other(spec, scale)
        assert f"loaded {len(first)} tensors" in load_into(fresh, tmp_path / "net.pth")
        assert same(net, fresh)
        model = load_model(tmp_path / "net.pth")
        assert (model.architecture, model.scale) == ("ESRGAN", scale)
        torch.testing.assert_close(model.upscale(lr()), expected)


def basicsr_names(state, blocks):
    names = {"head.0": "conv_first", f"body.{blocks}": "conv_after_body", "tail.1": "conv_last"}
    names |= {f"body.{n}.body.{k}": f"body.{n}.conv{i}" for n in range(blocks) for k, i in ((0, 1), (2, 2))}
    names |= {f"tail.0.{k}": f"upsample.{k}" for k in (0, 2, 4)}
    split = [(name.rsplit(".", 1), tensor) for name, tensor in state.items() if "mean" not in name]
    return {f"{names[layer]}.{part}": tensor for (layer, part), tensor in split}


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_edsr_opens_under_basicsrs_names(scale, tmp_path):
    torch.manual_seed(0)
    net = SPEC.build(scale).eval()
    torch.save({"params": basicsr_names(net.state_dict(), 2)}, tmp_path / "net.pth")
    model = load_model(tmp_path / "net.pth")
    assert model.scale == scale
    assert same(net, model.net)
    fresh = other(SPEC, scale)
    load_into(fresh, tmp_path / "net.pth")
    assert same(net, fresh)


def test_an_edsr_of_range_one_computes_the_same_on_ours(edsr, tmp_path):
    state = {name: t / 255 if "mean" in name and name.endswith("bias") else t for name, t in edsr.state_dict().items()}
    torch.save(state, tmp_path / "range1.pt")

    def conv(name, z):
        return functional.conv2d(z, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

    mean = torch.tensor(DIV2K_MEAN).view(1, 3, 1, 1)
    head = z = conv("head.0", lr() - mean)
    for n in (0, 1):
        z = z + conv(f"body.{n}.body.2", conv(f"body.{n}.body.0", z).relu())
    expected = conv("tail.1", functional.pixel_shuffle(conv("tail.0.0", head + conv("body.2", z)), 2)) + mean
    torch.testing.assert_close(load_model(tmp_path / "range1.pt").net(lr()), expected, rtol=1e-5, atol=1e-6)
    fresh = other()
    load_into(fresh, tmp_path / "range1.pt")
    torch.testing.assert_close(fresh(lr()), expected, rtol=1e-5, atol=1e-6)


def test_mean_shifts_that_mix_colors_are_taken_as_they_are(edsr, tmp_path):
    state = edsr.state_dict()
    state["sub_mean.weight"] = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.0, 0.0, -1.0]]).view(3, 3, 1, 1)
    torch.save(state, tmp_path / "net.pt")
    image = lr()
    mixed = torch.stack([image[:, 1], (image[:, 0] + image[:, 2]) / 2, -image[:, 2]], dim=1)
    torch.testing.assert_close(load_model(tmp_path / "net.pt").net(image), edsr(mixed), rtol=1e-5, atol=1e-6)


# ---- containers


def prefixed(state, prefix):
    return {prefix + name: tensor for name, tensor in state.items()}


CONTAINERS = {
    "bare": lambda good, bad: good,
    "params": lambda good, bad: {"params": good},
    "params and average": lambda good, bad: {"params": bad, "params_ema": good},
    "state_dict": lambda good, bad: {"state_dict": good, "epoch": 3, "optimizer": {"state": {}}},
    "model": lambda good, bad: {"model": good, "iteration": 5},
    "net": lambda good, bad: {"net": good},
    "any single key": lambda good, bad: {"weights of mine": good},
    "data parallel": lambda good, bad: prefixed(good, "module."),
    "compiled": lambda good, bad: {"params": prefixed(good, "_orig_mod.")},
    "compiled in parallel": lambda good, bad: prefixed(good, "module._orig_mod."),
    "lightning": lambda good, bad: {"state_dict": prefixed(good, "model."), "global_step": 2},
    "netG": lambda good, bad: prefixed(good, "netG."),
    "averaged model": lambda good, bad: {"n_averaged": torch.tensor(7), **prefixed(good, "module.")},
    "ema-pytorch": lambda good, bad: {
        "initted": torch.tensor(True),
        "step": torch.tensor(5),
        **prefixed(bad, "online_model."),
        **prefixed(good, "ema_model."),
    },
    "gan in one dict": lambda good, bad: {
        "state_dict": {**prefixed(good, "generator."), **prefixed(bad, "discriminator.")}
    },
}


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("spec", [SPEC, RrdbSpec(features=4, blocks=1)], ids=["edsr", "rrdb"])
def test_weights_are_found_in_every_container(name, spec, tmp_path):
    net = spec.build(2)
    bad = {key: tensor + 1 for key, tensor in net.state_dict().items()}
    torch.save(CONTAINERS[name](net.state_dict(), bad), tmp_path / "net.ckpt")
    fresh = other(spec)
    load_into(fresh, tmp_path / "net.ckpt")
    assert same(net, fresh)
    assert torch.equal(load_model(tmp_path / "net.ckpt").upscale(lr()), net.eval()(lr()).clamp(0, 1))


def test_loading_says_what_was_loaded(edsr, tmp_path):
    torch.save({"params_ema": edsr.state_dict()}, tmp_path / "net.pth")
    numbers = sum(p.numel() for p in edsr.parameters())
    line = load_into(other(), tmp_path / "net.pth")
    assert line == f"loaded 20 tensors ({numbers:,} numbers) from {tmp_path / 'net.pth'} [params_ema]"


def test_half_precision_files_load_into_float32(edsr, tmp_path):
    torch.save({name: t.bfloat16() for name, t in edsr.state_dict().items()}, tmp_path / "net.pth")
    fresh = other()
    load_into(fresh, tmp_path / "net.pth")
    assert fresh.head[0].weight.dtype == torch.float32
    assert torch.equal(fresh.head[0].weight, edsr.head[0].weight.bfloat16().float())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("legacy", [True, False])
def test_every_pickle_protocol_is_read(edsr, protocol, legacy, tmp_path):
    path = tmp_path / "net.pth"
    torch.save(edsr.state_dict(), path, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    assert same(edsr, load_model(path).net)


def test_the_content_decides_on_the_format_not_the_suffix(edsr, tmp_path):
    save_weights(tmp_path / "net.safetensors", edsr, {})
    (tmp_path / "net.safetensors").rename(tmp_path / "net.pth")
    assert same(edsr, load_model(tmp_path / "net.pth").net)


def test_a_safetensors_file_whose_length_starts_like_a_pickle_is_none(edsr, tmp_path):
    path, note = tmp_path / "net.safetensors", ""
    while not (path.exists() and path.read_bytes()[0] == 0x80):  # one length in 32
        note += "12345678"
        save_weights(path, edsr, {"note": note})
    assert read_metadata(path)["note"] == note


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_attention_masks_of_another_crop_are_no_obstacle(tmp_path):
    spec = SwinIrSpec(features=12, depths=(2,), heads=(2,), window_px=4)
    torch.manual_seed(0)
    trained = spandrel.architectures.SwinIR.SwinIR(
        img_size=16, embed_dim=12, depths=[2], num_heads=[2], window_size=4, mlp_ratio=2, upscale=2,
        upsampler="pixelshuffle",
    ).eval()  # fmt: skip
    torch.save(trained.state_dict(), tmp_path / "s16w4.pth")
    net = other(spec).eval()
    mask = "layers.0.residual_group.blocks.1.attn_mask"
    assert trained.state_dict()[mask].shape != net.state_dict()[mask].shape
    load_into(net, tmp_path / "s16w4.pth")
    x = lr(height=16, width=24)
    torch.testing.assert_close(net(x), trained(x), rtol=1e-5, atol=1e-6)


# ---- what does not fit


def test_another_depth_and_scale_are_refused_whole_with_what_the_file_holds(tmp_path):
    torch.save(EdsrSpec(features=6, blocks=3).build(4).state_dict(), tmp_path / "net.pth")
    net = other()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_into(net, tmp_path / "net.pth")
    assert str(caught.value) == (
        f"weights {tmp_path / 'net.pth'}: 14 of 16 tensors fit the network; 2 missing: body.2.weight, body.2.bias; "
        "8 not of this network: body.2.body.0.weight, body.2.body.0.bias, body.2.body.2.weight and 5 more; "
        "the file holds EDSR x4 with features 6, blocks 3, res_scale 1.0 for color, the network is EDSR x2 with "
        "features 6, blocks 2, res_scale 1.0 for color: set network and scale to match it."
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_another_width_is_refused_with_both_shapes(tmp_path):
    torch.save(EdsrSpec(features=8, blocks=2).build(2).state_dict(), tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"head.0.weight 8x3x3x3 for 6x3x3x3, head.0.bias 8 for 6, .* and \d+ more"):
        load_into(other(), tmp_path / "net.pth")


def test_another_architecture_is_refused_and_named(tmp_path):
    torch.save(RrdbSpec(features=8, blocks=1).build(4).state_dict(), tmp_path / "net.pth")
    with pytest.raises(
        InputError, match=r"0 of 16 tensors fit .* the file holds ESRGAN x4 \(8nf, 1nb\), the network is EDSR x2"
    ):
        load_into(other(), tmp_path / "net.pth")


def test_weights_that_diverged_are_refused(edsr, tmp_path):
    with torch.no_grad():
        edsr.body[0].body[0].bias[2] = float("nan")
    torch.save(edsr.state_dict(), tmp_path / "net.pth")
    for load in (load_model, lambda path: load_into(other(), path)):
        with pytest.raises(InputError, match=r"got NaN in body.0.body.0.bias; take weights from before"):
            load(tmp_path / "net.pth")


def test_edsr_names_around_another_network_are_refused(edsr, tmp_path):
    state = edsr.state_dict()
    state["body.1.body.2.bias"] = torch.zeros(5)
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"names are those of EDSR with features 6, blocks 2, .* do not make up one"):
        load_model(tmp_path / "net.pth")


def test_tensors_that_only_resemble_a_known_network_are_refused(tmp_path):
    net = RcanSpec(features=8, groups=1, blocks=1, reduction=4).build(2)
    state = {name: t for name, t in net.state_dict().items() if name != "body.1.weight"}
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(InputError, match="resemble a known network but do not make up one"):
        load_model(tmp_path / "net.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"conv0_0.weight": torch.ones(1), "linear1.weight": torch.ones(1)}, "look like a discriminator"),
        ({"conv1.weight_orig": torch.ones(1)}, "look like a discriminator"),
        ({"a.weight": torch.ones(1), "b.weight": torch.ones(1)}, r"got 2 tensors named a.weight, b.weight, \.\.\.;"),
        ({"epoch": 1, "iter": 7, "optimizers": [], "schedulers": []}, "got a training state .*epoch, iter.*net_g_"),
        ({"optimizers": {}, "nets": {"g": {"w": torch.ones(1)}}}, r"got a training state .*weights/best.safetensors"),
        ({"a": 1, "b": 2}, "expected tensors by name, bare or under one of params_ema, .* got keys a, b"),
        ({}, "got an empty dict"),
        ([torch.ones(1)], "expected tensors by name, got a list"),
        (torch.ones(1), "expected tensors by name, got a Tensor"),
    ],
)
def test_files_without_a_known_network_say_what_they_hold(content, message, tmp_path):
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(InputError, match=message):
        load_model(tmp_path / "net.pth")


# ---- files that are something else


def run_at_load(path):
    class Malicious:
        def __reduce__(self):
            return (os.mkdir, (str(path.parent / "ran"),))

    return Malicious()


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("how", ["torch", "legacy torch", "pickle"])
def test_a_malicious_pickle_is_refused_and_not_run(how, protocol, tmp_path):
    path = tmp_path / "net.pth"
    content = {"params": {"w": run_at_load(path)}}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content, protocol))
    else:
        torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=how == "torch")
    for load in (load_model, read_metadata, lambda path: load_into(other(), path)):
        with pytest.raises(InputError, match=r"a pickle that names (posix|nt).mkdir, which loading would run"):
            load(path)
    assert not (tmp_path / "ran").exists()


def test_a_pickled_module_is_refused(edsr, tmp_path):
    torch.save(edsr, tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"names selfsr.nets.edsr.Edsr, .*save the bare state dict"):
        load_model(tmp_path / "net.pth")


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.pth", b"", "an empty file"),
        ("a.pth", b"steps: 100\nbatch: 16\n", "a text file"),
        ("a.pth", b'\n<!DOCTYPE html><html lang="en">', "a web page"),
        (
            "a.safetensors",
            b"version https://git-lfs.github.com/spec/v1\noid",
            r"a Git LFS pointer \(run git lfs pull\)",
        ),
        ("a.onnx", b"\x08\x07\x12\x07pytorch", "an ONNX graph"),
        ("a.pth", b"\x00\x01\x02\x03\x04\x05\x06\x07\x08", "another kind of file"),
        ("a.json", b'{"a": 1, {{', "a text file"),
    ],
)
def test_files_of_another_kind_are_named(name, content, what, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"expected network weights \(.safetensors, .pth\), got {what}; name a"):
        load_model(tmp_path / name)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.98])
def test_half_a_file_is_called_damaged(edsr, suffix, share, tmp_path):
    path = tmp_path / f"net{suffix}"
    save_weights(path, edsr, {})
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"the file is damaged or incomplete \(.+\); download or save it anew"):
        load_model(path)


def test_archives_without_tensors_are_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(InputError, match="got a zip archive; unpack it"):
        load_model(tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as archive:
        archive.writestr("net/constants.pkl", b"")
        archive.writestr("net/data.pkl", b"")
    with pytest.raises(InputError, match="got a TorchScript program; save the state_dict"):
        load_model(tmp_path / "b.pt")


def test_a_wrong_path_gets_the_nearest_name(edsr, tmp_path):
    save_weights(tmp_path / "weights" / "best.safetensors", edsr, {})
    with pytest.raises(InputError, match=r"no such file; did you mean .*weights/best.safetensors\.$"):
        load_model(tmp_path / "weights" / "bast.safetensors")
    with pytest.raises(InputError, match=r"no such file; look into .*weights\.$"):
        load_model(tmp_path / "weights" / "x.pth")
    with pytest.raises(InputError, match=r"no such file; its folder .*wieghts does not exist either"):
        load_model(tmp_path / "wieghts" / "best.safetensors")
    with pytest.raises(InputError, match=r"expected a file, got a folder; give .*weights/best.safetensors\.$"):
        load_model(tmp_path)


# ---- using a model


class Enlarged(nn.Module):
    """The input, enlarged; refuses sizes that the model did not promise."""

    def __init__(self, channels, multiple=1, minimum=1, square=False):
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))
        self.asks = (channels, multiple, minimum, square)

    def forward(self, x):
        channels, multiple, minimum, square = self.asks
        height, width = x.shape[-2:]
        assert x.shape[1] == channels
        assert height % multiple == width % multiple == 0
        assert min(height, width) >= minimum
        assert height == width or not square
        x *= self.one  # as RCAN does: in place
        return functional.interpolate(x, scale_factor=2)


def model(channels=3, multiple=1, minimum=1, square=False):
    net = Enlarged(channels, multiple, minimum, square)
    return Model(net, "Enlarged", 2, channels, "supported", multiple, minimum, square, True, True)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 20), (8, 8), (16, 17), (33, 5)])
@pytest.mark.parametrize("asks", [(1, 1, False), (4, 2, False), (8, 16, False), (3, 16, True)])
def test_any_size_goes_in_and_comes_back_whole(size, asks):
    x = lr(3, *size)
    given = x.clone()
    out = model(3, *asks).upscale(x)
    assert torch.equal(out, functional.interpolate(x, scale_factor=2))
    assert torch.equal(x, given)


def test_padding_mirrors_the_picture():
    seen = []
    padded = model(1, multiple=4)
    padded.net.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    padded.upscale(torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]])[None, None])
    assert torch.equal(seen[0][0, 0, 3], torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.5, 0.4]))


def test_colors_go_through_networks_of_other_channels():
    rgb, gray = lr(3), lr(1)
    twice = functional.interpolate(rgb, scale_factor=2)
    assert torch.equal(model(4).upscale(rgb), twice)
    out = model(3).upscale(gray)
    torch.testing.assert_close(out, functional.interpolate(gray, scale_factor=2))
    out = model(1).upscale(gray.repeat(1, 3, 1, 1))
    torch.testing.assert_close(out, functional.interpolate(gray, scale_factor=2).repeat(1, 3, 1, 1))
    out = model(1).upscale(torch.full((1, 3, 4, 4), 0.5) + torch.tensor([0.2, 0.0, -0.1]).view(1, 3, 1, 1))
    torch.testing.assert_close(out[0, :, 3, 3], torch.tensor([0.7, 0.5, 0.4]))
    with pytest.raises(InputError, match="the Enlarged network takes 3 channels, got 2; convert the image to RGB"):
        model(3).upscale(lr(2))


def test_pictures_come_back_clamped_and_in_the_dtype_they_came_in():
    out = model(3).upscale(2 * lr().double() - 0.5)
    assert out.dtype == torch.float64
    assert (out.min().item(), out.max().item()) == (0.0, 1.0)


def test_facts_of_other_peoples_models_come_from_spandrel(tmp_path):
    save_weights(tmp_path / "net.safetensors", SpanSpec(features=4).build(3), {})
    span = load_model(tmp_path / "net.safetensors")
    assert (span.architecture, span.scale, span.channels, span.tiling) == ("SPAN", 3, 3, "supported")
    assert (span.supports_half, span.supports_bfloat16) == (True, True)
    save_weights(tmp_path / "net.safetensors", RrdbSpec(features=4, blocks=1, unshuffle=2).build(2), {})
    rrdb = load_model(tmp_path / "net.safetensors")
    assert (rrdb.architecture, rrdb.scale, rrdb.multiple_of_px, rrdb.minimum_px) == ("ESRGAN", 2, 4, 4)
