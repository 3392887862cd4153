"""Starting from weights of another scale: the upsampling tail is left out on request, and never without."""

import pytest
import safetensors.torch
import torch

from selfsr.errors import InputError
from selfsr.nets.edsr import EdsrSpec
from selfsr.nets.spandrel.compact import CompactSpec
from selfsr.nets.spandrel.rcan import RcanSpec
from selfsr.nets.spandrel.rrdb import RrdbSpec
from selfsr.nets.spandrel.span import SpanSpec
from selfsr.nets.weights.load import load_into
from selfsr.nets.weights.save import save_weights

SPEC = EdsrSpec(features=6, blocks=2)


def build_other(spec=SPEC, scale=2):
    torch.manual_seed(99)
    return spec.build(scale)


@pytest.mark.parametrize(("source", "target"), [(2, 3), (2, 4), (4, 2)])
def test_another_scale_needs_transfer(source, target, tmp_path):
    path = tmp_path / "net.pth"
    given = SPEC.build(source)
    torch.save({"params": given.state_dict()}, path)
    net = build_other(scale=target)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(InputError, match=r"set network and scale to match it, or leave out its upsampling tail with "):
        load_into(net, path)
    line = load_into(net, path, fit="tail")
    first, second = ("tail.0.0.weight", "tail.0.0.bias"), ("tail.0.2.weight", "tail.0.2.bias")
    left, unused = {(2, 3): (first, ()), (2, 4): (second, ()), (4, 2): ((), second)}[source, target]
    assert (f"; left as initialized: {', '.join(left)}" in line) == bool(left)
    assert line.endswith(f"; not used: {', '.join(unused)}") == bool(unused)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name] if name in left else given.state_dict()[name]), name
    if not unused:
        assert line == (
            f"loaded {20 + 2 * (target == 4) - 2} tensors ({loaded_numbers(given, left):,} numbers) from {path} "
            f"[params]; left as initialized: {', '.join(left)}"
        )


def loaded_numbers(net, left):
    return sum(p.numel() for name, p in net.named_parameters() if name not in left)


TRANSFERS = {
    "rrdb": (RrdbSpec(features=4, blocks=1), ["conv_up2.weight", "conv_up2.bias"]),
    "rcan": (RcanSpec(features=8, groups=1, blocks=1, reduction=4), ["tail.0.2.weight", "tail.0.2.bias"]),
    "compact": (CompactSpec(features=4, convs=2), ["body.6.weight", "body.6.bias"]),
    "span": (SpanSpec(features=4), ["upsampler.0.weight", "upsampler.0.bias"]),
}


@pytest.mark.parametrize("name", TRANSFERS)
def test_transfer_works_for_spandrel_networks(name, tmp_path):
    spec, left = TRANSFERS[name]
    given, net = spec.build(2), build_other(spec, 4)
    save_weights(tmp_path / "net.safetensors", given, {})
    assert load_into(net, tmp_path / "net.safetensors", fit="tail").endswith(
        f"; left as initialized: {', '.join(left)}"
    )
    save_weights(tmp_path / "x4.safetensors", net, {})
    x2, x4 = (safetensors.torch.load_file(tmp_path / file) for file in ("net.safetensors", "x4.safetensors"))
    assert set(x4) - set(left) == set(x2) - set(left)
    for key in set(x4) - set(left):
        assert torch.equal(x2[key], x4[key]), key


def test_transfer_loads_all_that_fits_and_refuses_depth(tmp_path):
    edsr = SPEC.build(2)
    save_weights(tmp_path / "net.safetensors", edsr, {})
    net = build_other()
    assert "initialized" not in load_into(net, tmp_path / "net.safetensors", fit="tail")
    assert all(torch.equal(t, net.state_dict()[n]) for n, t in edsr.state_dict().items())
    deeper = EdsrSpec(features=6, blocks=3).build(4)
    with pytest.raises(InputError, match=r"8 missing: body.2.body.0.*set network and scale to match it\.$"):
        load_into(deeper, tmp_path / "net.safetensors", fit="tail")


def test_matching_loads_what_fits_and_prints_the_rest(tmp_path):
    given, net = EdsrSpec(features=6, blocks=3).build(2), build_other(EdsrSpec(features=6, blocks=4), 4)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    save_weights(tmp_path / "net.pth", given, {})
    with pytest.raises(InputError, match=r"\d+ of \d+ tensors fit"):
        load_into(net, tmp_path / "net.pth", fit="tail")
    line = load_into(net, tmp_path / "net.pth", fit="matching")
    theirs, changed = given.state_dict(), set()
    for name, tensor in net.state_dict().items():
        fits = name in theirs and theirs[name].shape == tensor.shape
        assert torch.equal(tensor, theirs[name] if fits else before[name]), name
        changed |= set() if fits else {name}
    assert len(changed) == 8  # the fourth block, the convolution after the blocks, and the second stage of the tail
    assert line.startswith(f"loaded {len(before) - 8} tensors (")
    assert "; left as initialized: body.3.body.0.weight, body.3.body.0.bias, body.3.body.2.weight and 5 more" in line
    assert line.endswith("; not used: body.3.weight, body.3.bias")


def test_matching_needs_one_tensor_that_fits(tmp_path):
    save_weights(tmp_path / "net.pth", CompactSpec(features=4, convs=2).build(2), {})
    with pytest.raises(InputError, match="0 of 16 tensors fit"):
        load_into(build_other(), tmp_path / "net.pth", fit="matching")
