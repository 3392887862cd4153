"""Every architecture of spandrel from image to image: it trains, and its files open as what they were.

A new version of spandrel may have an architecture that is not in TINY; the first test names it.
"""

import copy
import re
from pathlib import Path

import pytest
import spandrel
import torch
from safetensors.torch import save_file

from selfsr.errors import InputError
from selfsr.nets.layers import pad_reflect
from selfsr.nets.spandrel.any import SpandrelSpec
from selfsr.nets.spandrel.registry import read_architectures
from selfsr.nets.spandrel.span import SpanSpec
from selfsr.nets.weights.identify import identify_network
from selfsr.nets.weights.load import load_into, load_model
from selfsr.nets.weights.save import save_weights

# Small options by architecture, with the scale if it is not 2.
TINY = {
    "Compact": {"num_feat": 8, "num_conv": 2},
    "SwiftSRGAN": {"num_channels": 8, "num_blocks": 1},
    "HAT": {
        "embed_dim": 12, "depths": [2], "num_heads": [2], "window_size": 4, "squeeze_factor": 3, "mlp_ratio": 2.0,
    },
    "GRL": {
        "embed_dim": 16, "depths": [2], "num_heads_window": [1], "num_heads_stripe": [1], "mlp_ratio": 2.0,
        "upsampler": "pixelshuffledirect", "window_size": 32, "stripe_size": [64, 64], "stripe_shift": True,
        "anchor_window_down_factor": 4,
    },
    "Swin2SR": {"embed_dim": 12, "depths": [2], "num_heads": [2], "mlp_ratio": 2.0, "upsampler": "pixelshuffledirect"},
    "SwinIR": {"embed_dim": 12, "depths": [2], "num_heads": [2], "mlp_ratio": 2.0},
    "OmniSR": {"num_feat": 16, "block_num": 1, "res_num": 1},
    "SCUNet": {"config": [1] * 7, "dim": 64},
    "FBCNN": {"nc": [8, 8, 8, 512], "nb": 2},
    "Uformer": {"embed_dim": 8, "depths": [1] * 9},
    "RGT": {"embed_dim": 96, "depth": [2], "num_heads": [2], "mlp_ratio": 2.0},
    "DAT": {"embed_dim": 96, "depth": [2], "num_heads": [2], "split_size": [4, 8], "expansion_factor": 2.0},
    "CRAFT": {"embed_dim": 48, "depths": [2], "num_heads": [6]},
    "KBNet_l": {"dim": 48, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1},
    "KBNet_s": {"width": 8, "middle_blk_num": 1, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]},
    "DITN": {"dim": 12, "ITL_blocks": 1, "SAL_blocks": 1, "UFONE_blocks": 1},
    "MMRealSR": {
        "num_feat": 8, "num_block": 1, "num_grow_ch": 4, "num_feats": [8, 8, 8, 8], "num_blocks": [1, 1, 1, 1],
    },
    "SPAN": {"feature_channels": 6},
    "UpCunet2x": {},
    "UpCunet2x_fast": {},
    "UpCunet3x": {},
    "UpCunet4x": {},
    "SAFMN": {"dim": 8, "n_blocks": 1},
    "SAFMNBCIE": {"dim": 8, "n_blocks": 1, "num_layers": 2},
    "DCTLSA": {"nf": 10},
    "FFTformer": {"dim": 8, "num_blocks": [1, 1, 1], "num_refinement_blocks": 1},
    "NAFNet": {"width": 8, "middle_blk_num": 1, "enc_blk_nums": [1], "dec_blk_nums": [1]},
    "ATD": {
        "embed_dim": 12, "depths": [2], "num_heads": [2], "num_tokens": 8, "reducted_dim": 2,
        "upsampler": "pixelshuffledirect",
    },
    "MixDehazeNet": {"embed_dims": [8, 16, 32, 16, 8]},
    "DRUNet": {"nc": [8, 8, 8, 8], "nb": 2, "in_nc": 4},
    "DnCNN": {"nc": 8, "nb": 17, "act_mode": "R"},
    "IPT": {"patch_size": 12, "n_feats": 12, "num_layers": 1},
    "DRCT": {"embed_dim": 12, "num_heads": [2] * 6, "gc": 4},
    "ESRGAN": {"num_filters": 8, "num_blocks": 1},
    "PLKSR": {"dim": 8, "n_blocks": 1, "kernel_size": 5},
    "RealPLKSR": {"dim": 8, "n_blocks": 1, "kernel_size": 5},
    "RetinexFormer": {"n_feat": 8, "stage": 1},
    "HVICIDNet": {"channels": [8, 8, 16, 32]},
    "SeemoRe": {"embedding_dim": 8, "num_layers": 2, "num_experts": 2},
    "MoSR": {"dim": 8, "n_block": 1},
    "MoESR": {"dim": 8, "n_blocks": 1, "n_block": 1, "upsample_dim": 16},
    "RCAN": {"n_resgroups": 1, "n_resblocks": 1, "n_feats": 8, "reduction": 4},
    "FDAT": {"embed_dim": 16, "num_groups": 1, "depth_per_group": 2, "num_heads": 2},
}  # fmt: skip
RESTORING = {
    "SCUNet", "FBCNN", "Uformer", "KBNet_l", "KBNet_s", "SAFMNBCIE", "FFTformer", "NAFNet", "MixDehazeNet", "DRUNet",
    "DnCNN", "RetinexFormer", "HVICIDNet",
}  # fmt: skip
SCALES = {name: 2 for name in TINY} | dict.fromkeys(RESTORING, 1) | {"UpCunet3x": 3, "UpCunet4x": 4, "MMRealSR": 4}
# Parameters that the first steps may leave as they are, by their names, with the reason.
UNMOVED = {
    "SeemoRe": (r"\.experts\.", "a step trains only the experts that its images choose"),
    "CRAFT": (
        r"\.pos\.pos",
        "its layer norm has two channels here and in the paper, and is -1 and 1 for almost any values",
    ),
}

pytestmark = pytest.mark.filterwarnings("ignore:'saved_variables' is deprecated", "ignore:torch.meshgrid")


# These run always; all run with -m slow.
QUICK = {"ATD", "DITN", "ESRGAN", "FDAT", "MoSR", "OmniSR", "PLKSR", "RCAN", "RGT", "SAFMN", "SPAN", "SeemoRe"}
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in TINY]


def build(name):
    torch.manual_seed(7)
    return SpandrelSpec(architecture=name, options=TINY[name]).build(SCALES[name])


def image(height=20, width=27, batch=2):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_tiny_contains_every_architecture():
    assert sorted(TINY) == sorted(set(read_architectures()) - {"AuraSR"})


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


def test_page_lists_the_architectures_that_are_tested():
    page = (Path(__file__).resolve().parents[2] / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    section = page.split("## Architectures of spandrel")[1].split("## ")[0]
    rows = re.findall(r"^\| (\w+) \| x(\d) \|$", section, re.MULTILINE)
    assert {name: int(scale) for name, scale in rows} == SCALES
