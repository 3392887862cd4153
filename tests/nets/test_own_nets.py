"""Networks that are written here: sizes, names, training, files, and options that are refused.

A new network needs an entry in TINY of tests/own_networks.py; the other tests then run for it.
"""

from typing import get_args

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

import own_networks
from own_networks import TINY, nudge
from selfsr.errors import InputError
from selfsr.nets import Network
from selfsr.nets.dbpn import DbpnSpec
from selfsr.nets.drrn import DrrnSpec
from selfsr.nets.lapsrn import LapSrnSpec
from selfsr.nets.mdsr import MdsrSpec
from selfsr.nets.msrresnet import MsrResNetSpec
from selfsr.nets.spsr import SpsrSpec
from selfsr.nets.srcnn import SrcnnSpec
from selfsr.nets.srdensenet import SrDenseNetSpec
from selfsr.nets.srresnet import SrResNetSpec
from selfsr.nets.union import OwnNetwork
from selfsr.nets.vdsr import VdsrSpec
from selfsr.nets.weights.load import load_into, load_model
from selfsr.nets.weights.save import save_weights

BUILDS = [(name, scale, c) for name, spec in TINY.items() for scale in spec.scales for c in spec.channel_counts]
FIRST = [(name, spec.scales[0], spec.channel_counts[-1]) for name, spec in TINY.items()]
LAST_LAYER = "the last layer must compute in float32: use Float32Conv2d or Float32ConvTranspose2d of nets/layers.py"
KIND = {spec_type.model_fields["kind"].default: spec_type for spec_type in get_args(OwnNetwork)}


def image(channels, height=5, width=7, batch=2):
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(1))


def first_output(out):
    """Return the image without the branch's output, which SPSR also returns in training."""
    return out[0] if isinstance(out, tuple) else out


def test_tiny_contains_every_own_network():
    missing = sorted(spec_type.__name__ for spec_type in set(get_args(OwnNetwork)) - set(map(type, TINY.values())))
    assert not missing, (
        f"add {', '.join(missing)} with small options to TINY in {own_networks.__file__}, so that it is tested"
    )


# ---- sizes and names


@pytest.mark.parametrize(
    ("kind", "options", "scale", "parameters", "tensors"),
    [
        ("srcnn", {}, 2, 69_251, 10),
        ("vdsr", {}, 3, 668_227, 44),
        ("drrn", {}, 4, 297_216, 4),
        ("lapsrn", {}, 2, 435_344, 14),
        ("lapsrn", {}, 4, 870_112, 27),
        ("srresnet", {}, 4, 1_546_752, 107),
        ("mdsr", {}, 2, 3_227_203, 106),
        ("mdsr", {"blocks": 80}, 4, 7_953_987, 362),
        ("rdn", {}, 2, 22_123_395, 300),
        ("rdn", {}, 3, 22_308_035, 300),
        ("rdn", {}, 4, 22_271_107, 302),
        ("dbpn", {}, 2, 1_260_867, 135),
        ("dbpn", {}, 4, 2_207_043, 135),
        ("dbpn", {}, 8, 4_910_403, 135),
        ("msrresnet", {}, 4, 1_517_571, 74),
        ("rank_srresnet", {}, 4, 1_554_499, 76),
        ("spsr", {}, 4, 24_796_230, 884),
        ("elan", {}, 4, 8_312_448, 436),
    ],
)
def test_parameter_count_is_published(kind, options, scale, parameters, tensors):
    spec = KIND[kind](**options)
    with torch.device("meta"):
        net = spec.build(scale, max(spec.channel_counts))
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert len(net.state_dict()) == tensors


def test_srdensenet_parameter_count_follows_from_paper():
    blocks = sum(9 * 128 * b * 16 + 16 + sum(9 * 16 * n * 16 + 16 for n in range(1, 8)) for b in range(1, 9))
    fusion = 128 * 9 * 256 + 256
    for channels, first_and_last in ((1, 9 * 128 + 128 + 9 * 256 + 1), (3, 27 * 128 + 128 + 27 * 256 + 3)):
        expected = first_and_last + blocks + fusion + 2 * (9 * 256 * 256 + 256)
        with torch.device("meta"):
            net = SrDenseNetSpec().build(4, channels)
        assert sum(p.numel() for p in net.parameters()) == expected
    assert expected == 2_666_499


def both(*layers):
    return {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}


def weights(*layers):
    return {f"{layer}.weight" for layer in layers}


def rrdb(name):
    return both(*(f"{name}.RDB{k}.conv{m}.0" for k in (1, 2, 3) for m in (1, 2, 3, 4, 5)))


MEANS = both("sub_mean", "add_mean")
NAMES = {
    "srcnn": MEANS | both("body.0", "body.2", "body.4"),
    "vdsr": MEANS | both(*(f"body.{n}.0" for n in range(20))),
    "drrn": weights("head", "conv1", "conv2", "tail"),
    "lapsrn": weights("head.0")
    | weights(*(f"{part}_branch_{level}" for part in ("img", "residual") for level in (0, 1)))
    | weights(*(f"feat_branch_{level}.body.{n}" for n in range(0, 20, 2) for level in (0, 1)))
    | weights("feat_branch_0.tail.0", "feat_branch_1.tail.0"),
    "srresnet": MEANS
    | weights("conv_input", "conv_mid", "conv_output", "upscale4x.0", "upscale4x.3")
    | both("bn_mid", *(f"residual.{n}.in{k}" for n in range(16) for k in (1, 2)))
    | weights(*(f"residual.{n}.conv{k}" for n in range(16) for k in (1, 2))),
    "mdsr": MEANS
    | both("head.0", "body.16", "tail.0", "upsample.0.0", "upsample.1.0", "upsample.2.0", "upsample.2.2")
    | both(*(f"body.{n}.body.{k}" for n in range(16) for k in (0, 2)))
    | both(*(f"pre_process.{s}.{n}.body.{k}" for s in range(3) for n in (0, 1) for k in (0, 2))),
    "rdn": both("sfe1", "sfe2", "gff.0", "gff.1", "upscale.0", "upscale.2", "output")
    | both(*(f"rdbs.{n}.lff" for n in range(16)))
    | both(*(f"rdbs.{n}.layers.{k}.conv" for n in range(16) for k in range(8))),
    "dbpn": MEANS
    | both("initial.0", "initial.2", "reconstruction.0")
    | weights("initial.1", "initial.3")
    | {
        f"{unit}.{stage}.{part}"
        for unit in [f"upmodules.{n}" for n in range(6)] + [f"downmodules.{n}" for n in range(5)]
        for stage in ("bottleneck", "conv_1", "conv_2", "conv_3")
        for part in ("0.weight", "0.bias", "1.weight")
        if stage != "bottleneck" or unit not in ("upmodules.0", "upmodules.1", "downmodules.0")
    },
    "msrresnet": both("conv_first", "upconv1", "upconv2", "conv_hr", "conv_last")
    | both(*(f"body.{n}.conv{k}" for n in range(16) for k in (1, 2))),
    "rank_srresnet": both("conv_first", "LRconv", "upconv1", "upconv2", "HRconv", "conv_last")
    | both(*(f"recon_trunk.{n}.conv{k}" for n in range(16) for k in (1, 2))),
    "spsr": both("model.0", "model.1.sub.23", "model.3", "model.6", "model.8", "HR_conv0_new.0", "HR_conv1_new.0")
    | both("b_fea_conv.0", "b_LR_conv.0", "b_module.1", "b_module.4", "b_module.6", "b_module.8", "conv_w.0")
    | both("f_concat.0", "f_HR_conv0.0", "f_HR_conv1.0", *(f"b_concat_{n}.0" for n in (1, 2, 3, 4)))
    | {"get_g_nopadding.weight_h", "get_g_nopadding.weight_v"}
    | set().union(*(rrdb(f"model.1.sub.{n}") for n in range(23)), *(rrdb(f"b_block_{n}") for n in (1, 2, 3, 4)))
    | rrdb("f_block"),
    "elan": both("head.0", "tail.0")
    | {
        f"body.{n}.modules_lfe.lfe_0.conv{k}.shift_conv.{part}"
        for n in range(36)
        for k in (0, 1)
        for part in ("weight", "conv1x1.weight", "conv1x1.bias")
    }
    | both(
        *(
            f"body.{n}.modules_gmsa.gmsa_0.{layer}"
            for n in range(36)
            for layer in ("project_inp.0", "project_inp.1.norm", "project_out")
        )
    ),
    "srdensenet": both("conv.conv", "bottleneck.0", "deconv.0", "deconv.2", "reconstruction")
    | both(*(f"dense_blocks.{b}.block.{n}.conv" for b in range(8) for n in range(8))),
}


@pytest.mark.parametrize("kind", NAMES)
def test_tensor_names_are_published(kind):
    spec = KIND[kind]()
    with torch.device("meta"):
        net = spec.build(4, max(spec.channel_counts))
    assert set(net.state_dict()) == NAMES[kind]
    assert not [name for name, _ in net.named_parameters() if "mean" in name]


# ---- training, saving, opening


@pytest.mark.parametrize(
    ("name", "scale", "channels"),
    [pytest.param(*build, marks=pytest.mark.slow if build[0] == "spsr" and build[1] > 2 else ()) for build in BUILDS],
)
def test_network_trains_saves_and_opens_unchanged(name, scale, channels, tmp_path):
    torch.manual_seed(7)
    spec = TINY[name]
    net = nudge(spec.build(scale, channels))
    assert net.training
    x = image(channels)
    original = x.clone()
    out = net(x)
    assert isinstance(out, tuple) == spec.has_branch
    outputs = out if spec.has_branch else (out,)
    for output in outputs:
        assert output.shape == (2, channels, 5 * scale, 7 * scale)
    sum((output * torch.randn_like(output)).mean() for output in outputs).backward()
    idle = {
        f"{layer}.{spec.scales.index(s)}." for layer in ("pre_process", "upsample") for s in spec.scales if s != scale
    }
    for parameter_name, parameter in net.named_parameters():
        if spec.kind == "mdsr" and parameter_name.startswith(tuple(idle)):
            assert parameter.grad is None, f"{parameter_name} is of another scale"
            continue
        assert parameter.grad is not None, f"no gradient for {parameter_name}"
        assert parameter.grad.isfinite().all(), parameter_name
        if parameter.ndim > 1:  # a slope of a PReLU has none where nothing is negative
            assert parameter.grad.any(), f"a zero gradient for {parameter_name}"
    assert torch.equal(x, original), "the network changed its input"

    for suffix in (".safetensors", ".pth"):
        path = tmp_path / f"net{suffix}"
        save_weights(path, net, {"architecture": spec.kind})
        model = load_model(path)
        assert (model.architecture, model.scale, model.channels) == (spec.title, scale, channels)
        assert model.net.spec == spec, "the file does not state the options"
        assert (model.tiling, model.minimum_px) == (spec.tiling, spec.minimum_px)
        with torch.no_grad():
            assert torch.equal(model.upscale(x), net.eval()(x).clamp(0, 1))
    other = spec.build(scale, channels)
    load_into(other, path)
    for key, tensor in net.state_dict().items():
        assert torch.equal(other.state_dict()[key], tensor), key


@pytest.mark.parametrize(("name", "scale", "channels"), FIRST)
def test_output_under_autocast_is_float32(name, scale, channels):
    torch.manual_seed(3)
    net = nudge(TINY[name].build(scale, channels))
    with torch.autocast("cpu", torch.bfloat16):
        out = first_output(net(image(channels)))
    assert out.dtype == torch.float32, LAST_LAYER
    # A value that was rounded to bfloat16 has 16 zero bits at the end.
    assert (out.view(torch.int32) & 0xFFFF).bool().float().mean() > 0.9, LAST_LAYER
    out.mean().backward()
    exact = first_output(net(image(channels)))
    assert 0 < (out - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize(("name", "scale", "channels"), FIRST)
def test_output_of_half_precision_weights_is_float32(name, scale, channels):
    torch.manual_seed(3)
    net = TINY[name].build(scale, channels).eval()
    x = image(channels)
    with torch.no_grad():
        exact = net(x)
        coarse = net.bfloat16()(x)
    assert coarse.dtype == torch.float32, LAST_LAYER
    assert (coarse - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize(("name", "scale", "channels"), FIRST)
def test_network_accepts_minimum_crop_and_batch(name, scale, channels):
    spec = TINY[name]
    side = spec.minimum_px
    out = first_output(spec.build(scale, channels)(image(channels, side, side, spec.minimum_batch)))
    assert out.shape == (spec.minimum_batch, channels, scale * side, scale * side)


@pytest.mark.parametrize(("name", "scale", "channels"), FIRST)
def test_images_of_a_batch_do_not_interact(name, scale, channels):
    net = TINY[name].build(scale, channels).eval()
    x = image(channels)
    with torch.no_grad():
        torch.testing.assert_close(net(x)[1:], net(x[1:]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["edsr", "vdsr", "srcnn", "rdn", "drrn", "lapsrn", "mdsr", "dbpn", "srdensenet"])
def test_far_pixels_do_not_change_output_of_convolutions(name):
    spec = TINY[name]
    net = spec.build(2, spec.channel_counts[0]).eval()
    x = image(spec.channel_counts[0], 60, 60, 1)
    y = x.clone()
    y[..., :2, :2] = 0.5
    with torch.no_grad():
        assert torch.equal(net(x)[..., -8:, -8:], net(y)[..., -8:, -8:])


# ---- builds and options that are refused


@pytest.mark.parametrize(
    ("spec", "scale", "channels", "message"),
    [
        (LapSrnSpec(), 3, 1, r"LapSRN: scale must be one of 2, 4, 8 .* got 3, because each level doubles the image\.$"),
        (LapSrnSpec(), 2, 3, r"LapSRN: channels must be 1 with these options, got 3\.$"),
        (DrrnSpec(), 2, 3, r"DRRN: channels must be 1 with these options, got 3\.$"),
        (SrResNetSpec(), 3, 3, "SRResNet: scale must be one of 2, 4, 8 .*because each stage doubles"),
        (SrDenseNetSpec(), 3, 3, "SRDenseNet: scale must be one of 2, 4, 8 .*because each deconvolution doubles"),
        (DbpnSpec(), 3, 3, "D-DBPN: scale must be one of 2, 4, 8 .*because the authors give kernels only for these"),
        (SpsrSpec(), 3, 3, "SPSR: scale must be one of 2, 4, 8 .*because each stage doubles the image"),
        (MsrResNetSpec(), 8, 3, "MSRResNet: scale must be one of 2, 3, 4 with these options, got 8"),
        (MdsrSpec(factors=(2, 4)), 3, 3, "MDSR: scale must be one of 2, 4 with these options, got 3"),
    ],
)
def test_impossible_build_is_refused_with_reason(spec, scale, channels, message):
    with pytest.raises(InputError, match=message):
        spec.build(scale, channels)


@pytest.mark.parametrize(
    ("spec_type", "options", "message"),
    [
        (SrcnnSpec, {"kernels_px": (9, 4, 5)}, r"kernels_px must be odd, got \[9, 4, 5\]"),
        (VdsrSpec, {"convs": 1}, "greater than or equal to 2"),
        (DbpnSpec, {"stages": 1}, "greater than or equal to 2"),
        (MdsrSpec, {"factors": (2, 3, 2)}, r"factors must differ from each other, got \[2, 3, 2\]"),
        (MdsrSpec, {"factors": ()}, "at least 1 item"),
    ],
)
def test_unfit_options_are_refused(spec_type, options, message):
    with pytest.raises(ValidationError, match=message):
        spec_type(**options)


@pytest.mark.parametrize("kind", KIND)
def test_recipe_chooses_network_by_kind(kind):
    assert TypeAdapter(Network).validate_python({"kind": kind}) == KIND[kind]()


# ---- MDSR


def test_mdsr_upscales_by_argument_or_attribute():
    net = TINY["mdsr"].build(3)
    x = image(3)
    with torch.no_grad():
        assert torch.equal(net(x), net(x, 3))
        assert [net(x, scale).shape[-1] for scale in (2, 3, 4)] == [14, 21, 28]
    with pytest.raises(InputError, match="MDSR: scale must be one of 2, 3, 4, which it was built for, got 8"):
        net(x, 8)


def test_mdsr_step_changes_only_branches_of_its_scale():
    net = TINY["mdsr"].build(2)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    net(image(3), 4).mean().backward()
    optimizer.step()
    moved = {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}
    branches = {name for name in moved if name.startswith(("pre_process", "upsample"))}
    assert branches == {name for name in before if name.startswith(("pre_process.2", "upsample.2"))}
    assert {"head.0.weight", "body.0.body.0.weight", "tail.0.bias"} <= moved
