"""Every architecture of spandrel from image to image: it trains, and its files open as what they were.

A new version of spandrel may have an architecture that is not in TINY of tests/architectures.py; the first test names
it. tests/models/test_architectures.py upscales, evaluates, exports and fine-tunes each of them.
"""

import contextlib
import copy
import re

import pytest
import spandrel
import torch
from safetensors.torch import save_file

from architectures import NAMES, SCALES, TINY, build
from selfsr.errors import InputError
from selfsr.nets.layers import pad_reflect
from selfsr.nets.spandrel.any import SpandrelSpec
from selfsr.nets.spandrel.registry import read_architectures
from selfsr.nets.spandrel.span import SpanSpec
from selfsr.nets.weights.identify import identify_network
from selfsr.nets.weights.load import load_into, load_model
from selfsr.nets.weights.save import save_weights

# Parameters that the first steps may leave as they are, by their names, with the reason.
UNMOVED = {
    "SeemoRe": (r"\.experts\.", "a step trains only the experts that its images choose"),
    "CRAFT": (
        r"\.pos\.pos",
        "its layer norm has two channels here and in the paper, and is -1 and 1 for almost any values",
    ),
}

pytestmark = pytest.mark.filterwarnings("ignore:'saved_variables' is deprecated", "ignore:torch.meshgrid")


def image(height=20, width=27, batch=2):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_tiny_contains_every_architecture():
    assert sorted(TINY) == sorted(read_architectures())


@pytest.mark.parametrize("name", NAMES)
def test_two_steps_move_every_weight_and_the_file_opens_as_what_it_was(name, tmp_path):
    net, scale, x = build(name), SCALES[name], image()
    assert net.training
    original, before = x.clone(), copy.deepcopy(net)
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], 1e-3)
    target = torch.rand(2, 3, 20 * scale, 27 * scale, generator=torch.Generator().manual_seed(2))
    for _ in range(2):
        optimizer.zero_grad()
        (net(x) - target).square().mean().backward()
        optimizer.step()
    assert torch.equal(x, original), "the network changed its input"
    for (key, new), old in zip(net.named_parameters(), before.parameters(), strict=True):
        assert new.isfinite().all(), key
        if new.requires_grad and name in UNMOVED and re.search(UNMOVED[name][0], key):
            continue
        moves = new.requires_grad
        assert torch.equal(new, old) != moves, f"{key} moved: {not moves}, trained: {new.requires_grad}"

    path = tmp_path / "net.safetensors"
    save_weights(path, net, {"architecture": "spandrel"})
    net.eval()
    with torch.no_grad():
        expected = net(x[:1]).clamp(0, 1)
        torch.testing.assert_close(net(x)[:1].clamp(0, 1), expected, rtol=1e-4, atol=1e-4)
    model = load_model(path)
    assert (model.scale, model.channels) == (scale, 3)
    torch.testing.assert_close(model.upscale(x[:1]), expected, rtol=1e-5, atol=1e-5)
    descriptor = spandrel.ModelLoader().load_from_file(path)
    assert descriptor.scale == scale
    with torch.no_grad():  # at a size that needs no padding, for which spandrel may choose other sides
        fitting = pad_reflect(x[:1], *net.traits.padded_size(64, 64))
        torch.testing.assert_close(descriptor(fitting.clone()), net(fitting).clamp(0, 1), rtol=1e-4, atol=1e-4)
    other = build(name)
    load_into(other, path)
    for key, tensor in net.state_dict().items():
        assert torch.equal(other.state_dict()[key], tensor), key


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_scales_are_those_that_the_list_of_networks_has(name):
    built = []
    for scale in (1, 2, 3, 4, 8):
        with contextlib.suppress(InputError):
            SpandrelSpec(architecture=name, options=TINY[name]).build(scale)
            built.append(scale)
    assert tuple(built) == read_architectures()[name].scales


@pytest.mark.parametrize("name", NAMES)
def test_output_under_autocast_is_float32(name):
    net = build(name)
    with torch.autocast("cpu", torch.bfloat16):
        out = net(image())
    assert out.dtype == torch.float32
    assert (out.view(torch.int32) & 0xFFFF).bool().float().mean() > 0.9  # not rounded to bfloat16
    out.mean().backward()


def test_initial_weights_are_numbers_and_not_free_memory(poisoned_memory):
    """`torch.empty` is NaN here, so a parameter that a class does not initialize shows."""
    for name in ("ATD", "DRCT", "OmniSR", "SeemoRe", "MoESR", "FDAT"):
        net = build(name)
        assert all(parameter.isfinite().all() for parameter in net.parameters()), name


@pytest.mark.parametrize(
    ("architecture", "options", "message"),
    [
        ("OmniSr", {}, "did you mean OmniSR?"),
        ("PLKSRR", {}, "did you mean PLKSR?"),
        ("LaMa", {}, "architecture must be one of ATD, "),
        ("ATD", {"embed_dims": 12}, "options.embed_dims: unknown option of ATD; did you mean embed_dim"),
        ("ATD", {"norm_layer": "x"}, "options.norm_layer: unknown option of ATD"),
        ("ATD", {"upscale": 4}, "options.upscale is the recipe's scale, got 4"),
        ("ATD", {"embed_dim": 1.5}, "options.embed_dim must be a whole number, got 1.5"),
        ("ATD", {"embed_dim": True}, "options.embed_dim must be a whole number, got True"),
        ("ATD", {"depths": 6}, "options.depths must be a list, got 6"),
        ("ATD", {"depths": [6, "a"]}, "options.depths must be a list of whole numbers, got 'a' in it"),
        ("ATD", {"qkv_bias": 1}, "options.qkv_bias must be true or false, got 1"),
        ("ATD", {"mlp_ratio": "2"}, "options.mlp_ratio must be a number, got '2'"),
        ("PLKSR", {"ccm_type": "XCM"}, "options.ccm_type must be one of CCM, ICCM, DCCM, got 'XCM'"),
    ],
)
def test_unfit_options_are_refused(architecture, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SpandrelSpec(architecture=architecture, options=options)


@pytest.mark.parametrize(
    ("architecture", "options", "scale", "channels", "message"),
    [
        ("ATD", TINY["ATD"] | {"embed_dim": 13}, 2, 3, "network ATD: expected options that form a network"),
        ("ATD", TINY["ATD"] | {"category_size": 64}, 2, 3, "with category_size 256, .*, got category_size 64; set"),
        ("NAFNet", TINY["NAFNet"], 2, 3, "network NAFNet: scale must be 1 with these options, got 2; change one"),
        ("SAFMN", TINY["SAFMN"], 2, 1, "network SAFMN: channels must be 3 with these options, got 1; change one"),
        ("DnCNN", {"nb": 1}, 1, 3, "network DnCNN: expected options with which other programs recognize its files"),
    ],
)
def test_networks_that_other_programs_read_otherwise_are_refused(architecture, options, scale, channels, message):
    with pytest.raises(InputError, match=message):
        SpandrelSpec(architecture=architecture, options=options).build(scale, channels)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_without_metadata_gives_the_network_of_a_recipe(name, tmp_path):
    net = build(name)
    save_file(dict(net.state_dict()), tmp_path / "net.safetensors")
    file = identify_network(tmp_path / "net.safetensors")
    assert (file.scales, file.channels) == ((SCALES[name],), 3)
    assert file.spec is not None
    again = file.spec.build(SCALES[name])
    load_into(again, tmp_path / "net.safetensors")
    with torch.no_grad():
        expected = net.eval()(image())
        torch.testing.assert_close(again.eval()(image()), expected, rtol=1e-4, atol=1e-4)
    opened = load_model(tmp_path / "net.safetensors")
    torch.testing.assert_close(opened.upscale(image()), expected.clamp(0, 1), rtol=1e-4, atol=1e-4)


def test_networks_with_options_of_their_own_are_read_as_these(tmp_path):
    spec = SpanSpec(features=6, subtract_mean=False)
    save_file(dict(spec.build(2).state_dict()), tmp_path / "net.safetensors")
    assert identify_network(tmp_path / "net.safetensors").spec == spec
