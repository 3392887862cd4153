"""Weights files: what is saved, and the layouts and containers that open."""

import errno
import os
import re

import pytest
import safetensors.torch
import spandrel
import torch
from torch import nn
from torch.nn import functional

from selfsr.errors import InputError
from selfsr.nets.edsr import EdsrSpec
from selfsr.nets.layers import DIV2K_MEAN
from selfsr.nets.spandrel.rrdb import RrdbSpec
from selfsr.nets.spandrel.span import SpanSpec
from selfsr.nets.spandrel.swinir import SwinIrSpec
from selfsr.nets.weights.load import load_into, load_model, read_metadata
from selfsr.nets.weights.save import save_weights

SPEC = EdsrSpec(features=6, blocks=2)


@pytest.fixture
def edsr():
    torch.manual_seed(0)
    return SPEC.build(2).eval()


def lr(channels=3, height=7, width=9):
    return torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(2))


def build_other(spec=SPEC, scale=2):
    torch.manual_seed(99)
    return spec.build(scale)


def same(a, b):
    return all(torch.equal(t, b.state_dict()[n]) for n, t in a.state_dict().items())


# ---- saving


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_saved_network_opens_with_its_metadata(edsr, tmp_path, suffix):
    path = tmp_path / "new" / f"net{suffix}"
    save_weights(path, edsr, {"architecture": "edsr", "recipe": "steps: 3\n"})
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    model = load_model(path)
    assert torch.equal(model.upscale(lr()), edsr(lr()).clamp(0, 1))
    assert (model.architecture, model.scale, model.channels) == ("EDSR", 2, 3)
    assert (model.tiling, model.multiple_of_px, model.minimum_px, model.square) == ("supported", 1, 1, False)
    assert not model.net.training
    assert read_metadata(path) | {"format": "pt"} == {
        "format": "pt",
        "architecture": "edsr",
        "recipe": "steps: 3\n",
        "scale": "2",
        "channels": "3",
        "selfsr_network": '{"kind":"edsr","features":6,"blocks":2,"res_scale":1.0}',
    }


def test_saved_file_is_bare_contiguous_state_dict(edsr, tmp_path):
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


def test_wrapped_and_tied_networks_are_saved_unwrapped(edsr, tmp_path):
    edsr.body[1].body[0].weight = edsr.body[0].body[0].weight
    for i, net in enumerate((nn.DataParallel(edsr), torch.compile(edsr))):
        save_weights(tmp_path / f"{i}.safetensors", net, {})
        assert same(edsr, load_model(tmp_path / f"{i}.safetensors").net)


def test_residual_scale_comes_from_file_or_authors(tmp_path):
    net = EdsrSpec(features=6, blocks=1, res_scale=0.3).build(2)
    for suffix in (".safetensors", ".pth"):
        save_weights(tmp_path / f"net{suffix}", net, {})
        assert load_model(tmp_path / f"net{suffix}").net.res_scale == 0.3
    for features, res_scale in ((64, 1.0), (256, 0.1)):
        torch.save(EdsrSpec(features=features, blocks=1).build(2).state_dict(), tmp_path / "official.pt")
        assert load_model(tmp_path / "official.pt").net.res_scale == res_scale


def test_failed_save_keeps_old_file_and_names_path(edsr, tmp_path, monkeypatch):
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


def test_save_refuses_other_suffixes(edsr, tmp_path):
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
def test_rrdb_opens_under_all_names_and_saves_current_ones(scale, stages, tmp_path):
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
        fresh = build_other(spec, scale)
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
def test_edsr_opens_under_basicsr_names(scale, tmp_path):
    torch.manual_seed(0)
    net = SPEC.build(scale).eval()
    torch.save({"params": basicsr_names(net.state_dict(), 2)}, tmp_path / "net.pth")
    model = load_model(tmp_path / "net.pth")
    assert model.scale == scale
    assert same(net, model.net)
    fresh = build_other(SPEC, scale)
    load_into(fresh, tmp_path / "net.pth")
    assert same(net, fresh)


def test_edsr_of_range_one_gives_same_output(edsr, tmp_path):
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
    fresh = build_other()
    load_into(fresh, tmp_path / "range1.pt")
    torch.testing.assert_close(fresh(lr()), expected, rtol=1e-5, atol=1e-6)


def test_mean_shifts_that_mix_colors_are_loaded(edsr, tmp_path):
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
def test_weights_are_found_in_container(name, spec, tmp_path):
    net = spec.build(2)
    bad = {key: tensor + 1 for key, tensor in net.state_dict().items()}
    torch.save(CONTAINERS[name](net.state_dict(), bad), tmp_path / "net.ckpt")
    fresh = build_other(spec)
    load_into(fresh, tmp_path / "net.ckpt")
    assert same(net, fresh)
    assert torch.equal(load_model(tmp_path / "net.ckpt").upscale(lr()), net.eval()(lr()).clamp(0, 1))


def test_load_into_returns_summary(edsr, tmp_path):
    torch.save({"params_ema": edsr.state_dict()}, tmp_path / "net.pth")
    numbers = sum(p.numel() for p in edsr.parameters())
    line = load_into(build_other(), tmp_path / "net.pth")
    assert line == f"loaded 20 tensors ({numbers:,} numbers) from {tmp_path / 'net.pth'} [params_ema]"


def test_half_precision_files_load_into_float32(edsr, tmp_path):
    torch.save({name: t.bfloat16() for name, t in edsr.state_dict().items()}, tmp_path / "net.pth")
    fresh = build_other()
    load_into(fresh, tmp_path / "net.pth")
    assert fresh.head[0].weight.dtype == torch.float32
    assert torch.equal(fresh.head[0].weight, edsr.head[0].weight.bfloat16().float())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("legacy", [True, False])
def test_every_pickle_protocol_is_read(edsr, protocol, legacy, tmp_path):
    path = tmp_path / "net.pth"
    torch.save(edsr.state_dict(), path, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    assert same(edsr, load_model(path).net)


def test_content_determines_format(edsr, tmp_path):
    save_weights(tmp_path / "net.safetensors", edsr, {})
    (tmp_path / "net.safetensors").rename(tmp_path / "net.pth")
    assert same(edsr, load_model(tmp_path / "net.pth").net)


def test_safetensors_header_that_starts_like_pickle_is_read(edsr, tmp_path):
    path, note = tmp_path / "net.safetensors", ""
    while not (path.exists() and path.read_bytes()[0] == 0x80):  # one length in 32
        note += "12345678"
        save_weights(path, edsr, {"note": note})
    assert read_metadata(path)["note"] == note


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_attention_masks_of_another_crop_are_ignored(tmp_path):
    spec = SwinIrSpec(features=12, depths=(2,), heads=(2,), window_px=4)
    torch.manual_seed(0)
    trained = spandrel.architectures.SwinIR.SwinIR(
        img_size=16, embed_dim=12, depths=[2], num_heads=[2], window_size=4, mlp_ratio=2, upscale=2,
        upsampler="pixelshuffle",
    ).eval()  # fmt: skip
    torch.save(trained.state_dict(), tmp_path / "s16w4.pth")
    net = build_other(spec).eval()
    mask = "layers.0.residual_group.blocks.1.attn_mask"
    assert trained.state_dict()[mask].shape != net.state_dict()[mask].shape
    load_into(net, tmp_path / "s16w4.pth")
    x = lr(height=16, width=24)
    torch.testing.assert_close(net(x), trained(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("with_norm", [True, False])
def test_span_folded_for_deployment_opens_and_trains_on(with_norm, tmp_path):
    spec = SpanSpec(features=6, subtract_mean=with_norm)
    torch.manual_seed(0)
    net = spec.build(2).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2).add_(0.02)
    net(lr())  # folds
    folded = {n: t for n, t in net.state_dict().items() if not re.search(r"\.(sk|conv\.\d)\.", n)}
    assert len(folded) == 44 + (not with_norm)
    save_weights(tmp_path / "folded.safetensors", net, {}, fold=True)
    saved = safetensors.torch.load_file(tmp_path / "folded.safetensors")
    assert set(saved) == set(folded)
    assert all(torch.equal(saved[n], t) for n, t in folded.items())
    torch.testing.assert_close(load_model(tmp_path / "folded.safetensors").upscale(lr()), net(lr()).clamp(0, 1))
    for name in ("net.pth", "net.safetensors"):
        torch.save(folded, tmp_path / name) if name == "net.pth" else safetensors.torch.save_file(
            {n: t.contiguous() for n, t in folded.items()}, tmp_path / name
        )
        model = load_model(tmp_path / name)
        assert (model.architecture, model.scale) == ("SPAN", 2)
        torch.testing.assert_close(model.upscale(lr()), net(lr()).clamp(0, 1), rtol=1e-5, atol=1e-5)
    trained = build_other(spec)
    load_into(trained, tmp_path / "net.pth")
    # In float64: these weights amplify rounding. What is left is the rounding of the folded numbers to float32.
    exact = net.double()(lr().double())
    trainable = trained.double().train()(lr().double())
    torch.testing.assert_close(trainable, exact, rtol=0, atol=1e-5 * exact.abs().max().item())


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_file_whose_name_is_not_utf8_opens(edsr, suffix, tmp_path):
    save_weights(tmp_path / f"net{suffix}", edsr, {"note": "x"})
    path = tmp_path / os.fsdecode(b"n\xff" + suffix.encode())
    try:
        (tmp_path / f"net{suffix}").rename(path)
    except OSError:
        pytest.skip("this file system has only names in UTF-8")
    assert same(edsr, load_model(path).net)
    assert read_metadata(path)["note"] == "x"
