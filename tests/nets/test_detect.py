"""Files that state their network in the metadata: they open without `detect`, and contradictions are refused."""

import json

import pytest
import safetensors.torch
import torch

from selfsr.errors import InputError
from selfsr.nets.base import NetworkSpec
from selfsr.nets.drrn import DrrnSpec
from selfsr.nets.edsr import EdsrSpec
from selfsr.nets.elan import ElanSpec
from selfsr.nets.mdsr import MdsrSpec
from selfsr.nets.weights.load import load_into, load_model, read_metadata
from selfsr.nets.weights.save import save_weights

SPEC = EdsrSpec(features=6, blocks=2)


@pytest.fixture
def without_detect(monkeypatch):
    """Remove `detect` from networks, as from a new network that has none."""
    for spec_type in (EdsrSpec, DrrnSpec, MdsrSpec, ElanSpec):
        monkeypatch.setattr(spec_type, "detect", NetworkSpec.detect)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    ("spec", "scale", "channels"),
    [
        (SPEC, 2, 3),
        (SPEC, 3, 1),
        (DrrnSpec(features=4, recursions=2), 4, 1),
        (MdsrSpec(features=4, blocks=1, factors=(2, 3)), 3, 3),
        (ElanSpec(features=6, blocks=2, windows_px=(2, 4, 2)), 2, 3),
    ],
)
def test_saved_network_opens_without_detect(spec, scale, channels, suffix, tmp_path, without_detect):
    net = spec.build(scale, channels).eval()
    path = tmp_path / f"net{suffix}"
    save_weights(path, net, {})
    model, x = load_model(path), torch.rand(1, channels, 8, 9)
    assert (model.net.spec, model.scale, model.channels) == (spec, scale, channels)
    with torch.no_grad():
        assert torch.equal(model.net(x), net(x))
    other = spec.build(scale, channels)
    assert load_into(other, path).startswith(f"loaded {len(net.state_dict())} tensors")
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in net.state_dict().items())


@pytest.mark.usefixtures("without_detect")
def test_bare_file_without_detect_is_refused(tmp_path):
    torch.save(SPEC.build(2).state_dict(), tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"expected a network that selfsr or spandrel supports, got 20 tensors named "):
        load_model(tmp_path / "net.pth")


@pytest.mark.usefixtures("without_detect")
def test_unfit_start_is_described_from_metadata(tmp_path):
    save_weights(tmp_path / "net.safetensors", EdsrSpec(features=6, blocks=3).build(4), {})
    with pytest.raises(InputError) as caught:
        load_into(SPEC.build(2), tmp_path / "net.safetensors")
    assert str(caught.value).endswith(
        "the file contains EDSR x4 with features 6, blocks 3, res_scale 1.0 for color, the network is EDSR x2 with "
        "features 6, blocks 2, res_scale 1.0 for color: set network and scale to match it."
    )


def test_metadata_of_a_run_override_those_of_the_network(tmp_path):
    save_weights(tmp_path / "net.safetensors", MdsrSpec(features=4, blocks=1).build(2), {"scale": "2, 3, 4"})
    with pytest.raises(InputError, match=r"MDSR serves x2, x3 and x4; choose one, as with --scale 2\.$"):
        load_model(tmp_path / "net.safetensors")
    assert load_model(tmp_path / "net.safetensors", scale=3).scale == 3


def rewrite(path, tensors=None, **entries):
    """Change the metadata and the tensors of a file; None deletes an entry."""
    metadata = {name: value for name, value in {**read_metadata(path), **entries}.items() if value is not None}
    content = {**safetensors.torch.load_file(path), **(tensors or {})}
    safetensors.torch.save_file(content, path, metadata=metadata)


ADVICE = "open it with the version that saved it, or delete the metadata entry selfsr_network."


@pytest.mark.parametrize(
    ("entries", "tensors", "message"),
    [
        (
            {"selfsr_network": SPEC.model_copy(update={"features": 8}).model_dump_json()},
            {},
            "expected the tensors of EDSR x2 with features 8, blocks 2, res_scale 1.0 for color, as the metadata "
            "state, got 20 tensors that do not fit it",
        ),
        (
            {"scale": "4"},
            {},
            "expected the tensors of EDSR x4 with features 6, blocks 2, res_scale 1.0 for color, as the metadata "
            "state, got 20 tensors that do not fit it",
        ),
        (
            {},
            {"extra": torch.zeros(1)},
            "expected the tensors of EDSR x2 with features 6, blocks 2, res_scale 1.0 for color, as the metadata "
            "state, got 21 tensors that do not fit it",
        ),
        (
            {"channels": None},
            {},
            "expected metadata that state a network of this version with scale and channels, got 'channels'",
        ),
        (
            {"scale": "5"},
            {},
            "expected metadata that state a network of this version with scale and channels, got network EDSR: scale "
            "must be one of 2, 3, 4, 8 with these options, got 5.",
        ),
        (
            {"selfsr_network": "{"},
            {},
            "expected metadata that state a network of this version with scale and channels, got Expecting property "
            "name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
        (
            {"selfsr_network": json.dumps({"kind": "edsr", "depth": 3})},
            {},
            "expected metadata that state a network of this version with scale and channels, got Extra inputs are not "
            "permitted",
        ),
    ],
)
def test_metadata_that_contradict_the_tensors_are_refused(entries, tensors, message, tmp_path):
    path = tmp_path / "net.safetensors"
    save_weights(path, SPEC.build(2), {})
    rewrite(path, tensors, **entries)
    for load in (load_model, lambda path: load_into(SPEC.build(2), path)):
        with pytest.raises(InputError) as caught:
            load(path)
        assert str(caught.value) == f"weights {path}: {message.rstrip('.')}; {ADVICE}"


def test_unknown_kind_in_metadata_is_refused(tmp_path):
    path = tmp_path / "net.safetensors"
    save_weights(path, SPEC.build(2), {})
    rewrite(path, selfsr_network=json.dumps({"kind": "fsrcnn"}))
    with pytest.raises(
        InputError, match="got Input tag 'fsrcnn' found using 'kind' does not match any of the expected"
    ):
        load_model(path)
