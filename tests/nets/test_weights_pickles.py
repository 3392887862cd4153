"""Pickles as weights files: modules and objects of unknown classes give their tensors, and nothing in them runs."""

import argparse
import builtins
import datetime
import functools
import os
import pickle
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import selfsr.fileio
from selfsr.errors import InputError
from selfsr.nets.edsr import EdsrSpec
from selfsr.nets.weights.load import load_into, load_model, read_metadata
from selfsr.nets.weights.read import read_weights

SPEC = EdsrSpec(features=6, blocks=2)
pytestmark = pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")  # of classes that vanish


@pytest.fixture
def edsr():
    torch.manual_seed(0)
    return SPEC.build(2).eval()


@pytest.fixture
def vanished(request):
    """Return a function that makes a class of a module which exists only until the test's file is written."""
    module = types.ModuleType("vanished_code")
    sys.modules["vanished_code"] = module

    def make(name, *bases, **members):
        new = type(name, bases, {"__module__": "vanished_code", **members})
        setattr(module, name, new)
        return new

    make.end = lambda: sys.modules.pop("vanished_code", None)
    yield make
    make.end()


def same_tensors(a, b):
    return set(a) == set(b) and all(torch.equal(tensor, b[name]) for name, tensor in a.items())


# ---- what a pickle must not do


class Call:
    """An object whose pickle calls `function` when it is read by pickle itself."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


def evil_calls(canary: Path):
    code = f"open({str(canary)!r}, 'w').close()"
    return {
        r"(posix|nt)\.system": Call(os.system, f"touch {canary}"),
        r"builtins\.eval": Call(eval, code),
        r"builtins\.exec": Call(exec, code),
        r"builtins\.open": Call(open, str(canary), "w"),
        r"builtins\.getattr": Call(getattr, canary, "touch"),
        r"builtins\.__import__": Call(builtins.__import__, "antigravity"),
        r"functools\.partial": Call(functools.partial, os.system, f"touch {canary}"),
        r"subprocess\.Popen": Call(subprocess.Popen, ["touch", str(canary)]),
        r"torch\.serialization\.save": Call(torch.save, {}, str(canary)),
        r"torch\.hub\.load": Call(torch.hub.load, str(canary.parent), "x", "local"),
        r"torch\.serialization\.load": Call(torch.load, str(canary)),
        r"torch\.storage\._load_from_bytes": Call(torch.storage._load_from_bytes, pickle.dumps(Call(exec, code))),
        r"_?pickle\.loads": Call(pickle.loads, pickle.dumps(Call(exec, code))),
        r"selfsr\.fileio\.write_atomic": Call(selfsr.fileio.write_atomic, canary, b"x"),
    }


@pytest.mark.parametrize("place", ["next to tensors", "in a module"])
@pytest.mark.parametrize("how", ["zip", "old", "protocol 4"])
@pytest.mark.parametrize("name", evil_calls(Path("x")))
def test_call_is_refused_by_name_and_not_made(name, how, place, edsr, tmp_path):
    canary = tmp_path / "canary"
    evil = evil_calls(canary)[name]
    if place == "in a module":
        edsr.extra = evil
        content = {"model": edsr}
    else:
        content = {"params": edsr.state_dict(), "extra": [evil]}
    path = tmp_path / "net.pth"
    options = {"zip": {}, "old": {"_use_new_zipfile_serialization": False}, "protocol 4": {"pickle_protocol": 4}}
    torch.save(content, path, **options[how])
    expected = rf"expected only tensors, got a pickle that names ({name}|_?io\.open), which loading would run"
    for load in (load_model, read_metadata, lambda path: load_into(SPEC.build(2), path)):
        with pytest.raises(InputError, match=expected):
            load(path)
    assert not canary.exists()


@pytest.mark.parametrize(
    "stream",
    [
        b"(S'touch canary'\nios\nsystem\n.",  # INST
        b"\x80\x02(cos\nsystem\nX\x0c\x00\x00\x00touch canaryo.",  # OBJ
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0ctouch canary\x85R.",  # STACK_GLOBAL and REDUCE
        b"\x80\x02csubprocess\nPopen\nX\x05\x00\x00\x00touch\x85\x81.",  # NEWOBJ
        b"\x80\x04\x8c\x08builtins\x8c\x0fgetattr.__call__\x93)R.",  # a dotted name
        b"\x80\x02cos\nsystem\nX\x0c\x00\x00\x00touch canaryb.",  # BUILD of a function
        b"\x80\x02ccollections\nOrderedDict\nN}X\x03\x00\x00\x00popK\x01s\x86b.",  # BUILD of a class
    ],
    ids=["inst", "obj", "stack global", "newobj", "dotted", "build", "build of a class"],
)
def test_written_opcodes_run_nothing(stream, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prefix = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {}))
    for content in (prefix + stream, b"\x80\x02}" + stream.removeprefix(b"\x80\x02")):
        (tmp_path / "net.pth").write_bytes(content)
        refusal = r"names (os\.system|posix\.system|subp\S+|builtins\S+),|damaged|by name, got"
        with pytest.raises(InputError, match=refusal):
            load_model(tmp_path / "net.pth")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.pth"]
    assert "pop" in vars(__import__("collections").OrderedDict)


# ---- what may be next to the tensors


NEIGHBORS = {
    "namespace": argparse.Namespace(lr=1e-4, layers=[1, 2]),
    "numpy scalar": np.float64(1.5),
    "numpy integer": np.int64(7),
    "numpy array": np.arange(6).reshape(2, 3),
    "path": Path("runs/a"),
    "date": datetime.datetime(2020, 1, 2, 3),
    "set": {1, 2},
    "complex": 1j,
    "device": torch.device("cpu"),
    "size": torch.Size((1, 2)),
    "dtype": torch.float16,
    "a function": functional.relu,
}


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}])
@pytest.mark.parametrize("name", NEIGHBORS)
def test_value_next_to_tensors_is_ignored(name, options, edsr, tmp_path):
    content = {"state_dict": edsr.state_dict(), "best": NEIGHBORS[name], "epoch": 3, "metadata": {"note": "x"}}
    torch.save(content, tmp_path / "net.ckpt", **options)
    weights = read_weights(tmp_path / "net.ckpt")
    assert same_tensors(weights.tensors, edsr.state_dict())
    assert (weights.section, weights.metadata) == ("state_dict", {"note": "x"})


def test_object_of_vanished_class_is_ignored(vanished, edsr, tmp_path):
    options = vanished("Options")()
    options.lr = 1
    torch.save({"params": edsr.state_dict(), "options": options}, tmp_path / "net.pth")
    vanished.end()
    assert same_tensors(read_weights(tmp_path / "net.pth").tensors, edsr.state_dict())


# ---- pickled modules


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("wrap", [lambda net: net, nn.DataParallel, lambda net: {"model": net, "epoch": 50}])
def test_pickled_module_gives_its_tensors(wrap, legacy, protocol, edsr, tmp_path):
    path = tmp_path / "net.pth"
    torch.save(wrap(edsr), path, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    assert same_tensors(load_model(path).net.state_dict(), edsr.state_dict())


def test_module_of_vanished_class_gives_the_tensors_of_its_state_dict(vanished, tmp_path):
    block = vanished("Block", nn.Module)
    torch.manual_seed(0)
    net = block()
    shared = nn.Conv2d(2, 3, 1)
    net.layers = nn.ModuleList([shared, nn.BatchNorm2d(3), shared])
    net.layers[0].weight.data = torch.randn(3, 2, 1, 4)[..., ::2][..., :1]  # strides of a view
    net.low = nn.Parameter(torch.randn(2, 3).bfloat16().t(), requires_grad=False)
    net.absent = nn.Linear(2, 2, bias=False)
    net.register_buffer("kept", torch.arange(5)[2:])
    net.register_buffer("scalar", torch.tensor(True))
    net.register_buffer("empty", torch.zeros(0, 3))
    net.register_buffer("unsaved", torch.ones(2), persistent=False)
    expected = net.state_dict()
    for options in ({}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}):
        torch.save(net, tmp_path / "net.pth", **options)
        module = sys.modules.pop("vanished_code")
        tensors = read_weights(tmp_path / "net.pth").tensors
        sys.modules["vanished_code"] = module
        assert same_tensors(tensors, expected)
        assert all(tensors[name].dtype == tensor.dtype for name, tensor in expected.items())


def make_old_vdsr(vanished, features, convs):
    """Build VDSR with the classes and names of a common implementation, without biases."""
    layer = vanished("Conv_ReLU_Block", nn.Module)
    net = vanished("Net", nn.Module)()
    blocks = []
    for _ in range(convs - 2):
        blocks.append(layer())
        blocks[-1].conv = nn.Conv2d(features, features, 3, padding=1, bias=False)
        blocks[-1].relu = nn.ReLU(inplace=True)
    net.residual_layer = nn.Sequential(*blocks)
    net.input = nn.Conv2d(1, features, 3, padding=1, bias=False)
    net.output = nn.Conv2d(features, 1, 3, padding=1, bias=False)
    return net


def test_vdsr_without_biases_upscales_luma_in_studio_range(vanished, tmp_path):
    from selfsr.images.resize import imresize

    torch.manual_seed(3)
    net = make_old_vdsr(vanished, 5, 4)
    torch.save({"epoch": 50, "model": net}, tmp_path / "vdsr.pth", _use_new_zipfile_serialization=False)
    vanished.end()
    gray = torch.rand(1, 1, 9, 8)
    y = (16 + 219 * imresize(gray, 3)) / 255  # what the network was trained on
    z = functional.conv2d(y, net.input.weight, padding=1).relu()
    for block in net.residual_layer:
        z = functional.conv2d(z, block.conv.weight, padding=1).relu()
    expected = ((y + functional.conv2d(z, net.output.weight, padding=1)) * 255 - 16) / 219
    model = load_model(tmp_path / "vdsr.pth", scale=3)
    assert (model.architecture, model.scale, model.channels) == ("VDSR", 3, 1)
    torch.testing.assert_close(model.net(gray), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="choose one, as with --scale"):
        load_model(tmp_path / "vdsr.pth")


# ---- published files, where they are in --weights-root and the images in --data-root


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "scale", "psnr"),
    [
        ("VDSR_twtygqyy_pickled_module.pth", 2, 37.58),
        ("VDSR_twtygqyy_pickled_module.pth", 3, 33.75),
        ("VDSR_twtygqyy_pickled_module.pth", 4, 31.44),
        ("LapSRN_x4_twtygqyy_pickled_module.pth", 4, 31.62),
        ("spanx2_ch48.pth", 2, 38.08),
        ("spanx4_ch48.pth", 4, 32.20),
        ("realesr-animevideov3.pth", 4, 28.25),
        ("RealESRGAN_x4plus_anime_6B_fp16.pth", 4, 25.22),
        ("CRAFT_x4_ntire24.pth", 4, 32.39),
        ("DITN_Real_GAN_x4.pth", 4, 25.84),
    ],
)
def test_published_file_scores_as_measured_by_others(name, scale, psnr, request, tmp_path):
    import json

    from selfsr.cli import app

    root = Path(request.config.getoption("--data-root"))
    path = Path(request.config.getoption("--weights-root")) / "generators" / name
    if not path.exists() or not (root / "benchmark" / "Set5").is_dir():
        pytest.skip(f"needs generators/{name} in --weights-root DIR, and benchmark/Set5 in --data-root DIR")
    out = tmp_path / "scores.json"
    command = ["evaluate", path, "--data", root / "benchmark" / "Set5", "--scale", scale, "--out", out]
    assert not app([*map(str, command), "--device", "cpu"], standalone_mode=False)
    (result,) = json.loads(out.read_text())["results"]
    assert result["sets"]["Set5"]["mean"]["psnr_y"] == pytest.approx(psnr, abs=0.01)


# ---- hostile content


def test_pickle_with_huge_memo_index_takes_no_memory(tmp_path):
    import resource

    prefix = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {}))
    (tmp_path / "net.pth").write_bytes(prefix + b"\x80\x04}r\xff\xff\xff\x7f\x8c\x01a.")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"damaged|by name"):
        load_model(tmp_path / "net.pth")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


@pytest.mark.parametrize("protocol", [2, 4])
def test_dict_that_contains_itself_is_refused(protocol, tmp_path):
    content = {}
    content["params"] = content
    torch.save(content, tmp_path / "net.pth", pickle_protocol=protocol)
    with pytest.raises(InputError, match=r"damaged or incomplete \(more than \d+ dicts in each other\)"):
        load_model(tmp_path / "net.pth")


def test_module_that_contains_itself_is_refused(vanished, tmp_path):
    net = vanished("Net", nn.Module)()
    net._modules["again"] = net
    net._modules["twice"] = net
    torch.save(net, tmp_path / "net.pth")
    vanished.end()
    with pytest.raises(InputError, match="damaged or incomplete"):
        load_model(tmp_path / "net.pth")
