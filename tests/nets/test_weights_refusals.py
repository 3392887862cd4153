"""Weights files that are refused: tensors that do not fit, pickles that would run code, files of another kind."""

import os
import pickle
import time
import zipfile

import pytest
import safetensors.torch
import torch

from selfsr.errors import InputError
from selfsr.nets.edsr import EdsrSpec
from selfsr.nets.spandrel.rcan import RcanSpec
from selfsr.nets.spandrel.rrdb import RrdbSpec
from selfsr.nets.vdsr import VdsrSpec
from selfsr.nets.weights.load import load_into, load_model, read_metadata
from selfsr.nets.weights.save import save_weights

SPEC = EdsrSpec(features=6, blocks=2)


@pytest.fixture
def edsr():
    torch.manual_seed(0)
    return SPEC.build(2).eval()


def build_other(spec=SPEC, scale=2):
    torch.manual_seed(99)
    return spec.build(scale)


# ---- tensors that do not fit


def test_another_depth_and_scale_are_refused_and_described(tmp_path):
    torch.save(EdsrSpec(features=6, blocks=3).build(4).state_dict(), tmp_path / "net.pth")
    net = build_other()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_into(net, tmp_path / "net.pth")
    assert str(caught.value) == (
        f"weights {tmp_path / 'net.pth'}: 14 of 16 tensors fit the network; 2 missing: body.2.weight, body.2.bias; "
        "8 not of this network: body.2.body.0.weight, body.2.body.0.bias, body.2.body.2.weight and 5 more; "
        "the file contains EDSR x4 with features 6, blocks 3, res_scale 1.0 for color, the network is EDSR x2 with "
        "features 6, blocks 2, res_scale 1.0 for color: set network and scale to match it."
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_another_width_is_refused_with_both_shapes(tmp_path):
    torch.save(EdsrSpec(features=8, blocks=2).build(2).state_dict(), tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"head.0.weight 8x3x3x3 for 6x3x3x3, head.0.bias 8 for 6, .* and \d+ more"):
        load_into(build_other(), tmp_path / "net.pth")


def test_another_architecture_is_refused_and_named(tmp_path):
    torch.save(RrdbSpec(features=8, blocks=1).build(4).state_dict(), tmp_path / "net.pth")
    with pytest.raises(
        InputError, match=r"0 of 16 tensors fit .* the file contains ESRGAN x4 \(8nf, 1nb\), the network is EDSR x2"
    ):
        load_into(build_other(), tmp_path / "net.pth")


def test_nan_weights_are_refused(edsr, tmp_path):
    with torch.no_grad():
        edsr.body[0].body[0].bias[2] = float("nan")
    torch.save(edsr.state_dict(), tmp_path / "net.pth")
    for load in (load_model, lambda path: load_into(build_other(), path)):
        with pytest.raises(InputError, match=r"got NaN in body.0.body.0.bias; use weights from before"):
            load(tmp_path / "net.pth")


def test_edsr_names_with_other_shapes_are_refused(edsr, tmp_path):
    state = edsr.state_dict()
    state["body.1.body.2.bias"] = torch.zeros(5)
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"names are those of EDSR with features 6, blocks 2, .* do not fit it"):
        load_model(tmp_path / "net.pth")


def test_incomplete_spandrel_network_is_refused(tmp_path):
    net = RcanSpec(features=8, groups=1, blocks=1, reduction=4).build(2)
    state = {name: t for name, t in net.state_dict().items() if name != "body.1.weight"}
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(InputError, match="resemble a known network but do not fit it"):
        load_model(tmp_path / "net.pth")


@pytest.mark.parametrize(
    ("name", "kind"), [("tail.1.weight", "infinity in tail.1.weight"), ("body.2.bias", "infinity in body.2.bias")]
)
def test_infinite_weights_are_refused(name, kind, edsr, tmp_path):
    edsr.state_dict()[name].view(-1)[1] = -float("inf")
    torch.save(edsr.state_dict(), tmp_path / "net.pth")
    with pytest.raises(InputError, match=rf"expected numbers, got {kind}; use weights from before"):
        load_model(tmp_path / "net.pth")


def test_tensors_of_float8_open(edsr, tmp_path):
    state = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in edsr.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "net.safetensors")
    loaded = load_model(tmp_path / "net.safetensors").net.state_dict()
    assert all(torch.equal(tensor.float(), loaded[name]) for name, tensor in state.items())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t: t.to_sparse(), "which is torch.sparse_coo"),
        (lambda t: t.to(torch.complex64), "which is .* torch.complex64"),
        (lambda t: t.to("meta"), "which is .* meta"),
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "which is quantized"),
        (lambda t: torch.zeros(1).expand(2**20, 2**20), "damaged .*more numbers than the file"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_no_plain_numbers_are_refused(make, message, edsr, tmp_path):
    state = edsr.state_dict()
    state["head.0.weight"] = make(state["head.0.weight"])
    torch.save(state, tmp_path / "net.pth")
    for load in (load_model, lambda path: load_into(build_other(), path)):
        with pytest.raises(InputError, match=message):
            load(tmp_path / "net.pth")


@pytest.mark.parametrize(
    ("spec", "old", "new"),
    [
        (SPEC, "body.1.body.0", "body.1000000000.body.0"),
        (VdsrSpec(features=4, convs=3), "body.1.0", "body.1000000000.0"),
        (RrdbSpec(features=4, blocks=1), "model.1.sub.1", "model.1.sub.100000000"),
        (RcanSpec(features=8, groups=1, blocks=1, reduction=4), "body.0.body.0.", "body.0.body.100000000."),
        (RcanSpec(features=8, groups=1, blocks=1, reduction=4), "body.0.body.0.", "body.20000.body.0."),
    ],
)
def test_number_in_name_does_not_build_as_many_layers(spec, old, new, tmp_path):
    tensors = {name.replace(old, new): tensor for name, tensor in spec.build(2).state_dict().items()}
    torch.save(tensors, tmp_path / "net.pth")
    start = time.monotonic()
    with pytest.raises(InputError, match=r"do not fit it|tensors named"):
        load_model(tmp_path / "net.pth")
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    "options",
    [
        '{"kind": "edsr", "features": 6, "blocks": 1000000000}',
        '{"kind": "edsr", "features": 6, "blocks": 4000}',
        '{"kind": "edsr", "features": 1000000000, "blocks": 2}',
        '{"kind": "drrn", "recursions": 1000000000}',
        "[" * 100_000,
        '["edsr"]',
        "7",
        '{"kind": "edsr", "features": ' + "9" * 5000 + "}",
        '{"kind": "' + "x" * 3000 + '"}',
    ],
    ids=["blocks", "many blocks", "features", "recursions", "deep", "list", "number", "digits", "kind"],
)
def test_metadata_of_a_network_too_large_for_the_file_are_refused(options, edsr, tmp_path):
    metadata = {"selfsr_network": options, "scale": "2", "channels": "3"}
    safetensors.torch.save_file(edsr.state_dict(), tmp_path / "net.safetensors", metadata)
    expected = r"weights .*: expected metadata that state a network of this version"
    with pytest.raises(InputError, match=expected) as error:
        load_model(tmp_path / "net.safetensors")
    assert len(str(error.value)) < 1000


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
def test_unknown_content_is_refused_and_described(content, message, tmp_path):
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(InputError, match=message):
        load_model(tmp_path / "net.pth")


# ---- files of another kind


def run_at_load(path):
    class Malicious:
        def __reduce__(self):
            return (os.mkdir, (str(path.parent / "ran"),))

    return Malicious()


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("how", ["torch", "legacy torch", "pickle"])
def test_malicious_pickle_is_refused_and_not_run(how, protocol, tmp_path):
    path = tmp_path / "net.pth"
    content = {"params": {"w": run_at_load(path)}}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content, protocol))
    else:
        torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=how == "torch")
    for load in (load_model, read_metadata, lambda path: load_into(build_other(), path)):
        with pytest.raises(InputError, match=r"a pickle that names (posix|nt).mkdir, which loading would run"):
            load(path)
    assert not (tmp_path / "ran").exists()


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
def test_other_file_formats_are_refused_and_named(name, content, what, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"expected network weights \(.safetensors, .pth\), got {what}; name a"):
        load_model(tmp_path / name)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.98])
def test_truncated_file_is_reported_as_damaged(edsr, suffix, share, tmp_path):
    path = tmp_path / f"net{suffix}"
    save_weights(path, edsr, {})
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"the file is damaged or incomplete \(.+\); download or save it again"):
        load_model(path)


def test_archive_without_tensors_is_refused_and_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(InputError, match="got a zip archive; unpack it"):
        load_model(tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as archive:
        archive.writestr("net/constants.pkl", b"")
        archive.writestr("net/data.pkl", b"")
    with pytest.raises(InputError, match="got a TorchScript program; save the state_dict"):
        load_model(tmp_path / "b.pt")


def test_missing_file_suggests_nearest_name(edsr, tmp_path):
    save_weights(tmp_path / "weights" / "best.safetensors", edsr, {})
    with pytest.raises(InputError, match=r"no such file; did you mean .*weights/best.safetensors\?$"):
        load_model(tmp_path / "weights" / "bast.safetensors")
    with pytest.raises(
        InputError, match=r"no such file; check the path; .*weights has no model with a similar name\.$"
    ):
        load_model(tmp_path / "weights" / "x.pth")
    (tmp_path / "weights" / "bast.safetensor.txt").touch()
    with pytest.raises(InputError, match=r"did you mean .*weights/best.safetensors\?$"):
        load_model(tmp_path / "weights" / "bast.safetensor")
    (tmp_path / "weights" / "beste.pth").touch()
    with pytest.raises(InputError, match=r"did you mean .*weights/beste.pth\?$"):
        load_model(tmp_path / "weights" / "best.pth")
    with pytest.raises(InputError, match=r"did you mean .*weights/best.safetensors\?$"):
        load_model(tmp_path / "weights" / "best.onnx")
    (tmp_path / "checkpoints" / "step_00000100").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step_00000100" / "state.pt").touch()
    with pytest.raises(InputError, match=r"did you mean .*checkpoints/step_00000100\?$"):
        load_model(tmp_path / "checkpoints" / "step_00000090")
    with pytest.raises(InputError, match=r"did you mean .*/test_missing_file.*\?$"):
        load_model(tmp_path.with_name(tmp_path.name[:-1] + "x"))
    with pytest.raises(InputError, match=r"no such file; its folder .*wieghts does not exist either"):
        load_model(tmp_path / "wieghts" / "best.safetensors")
    with pytest.raises(InputError, match=r"expected a file, got a folder; give .*weights/best.safetensors\.$"):
        load_model(tmp_path)
