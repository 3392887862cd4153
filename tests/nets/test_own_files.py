"""Weights files of the self-paced paper's networks: layouts, luma, several scales, and files that are refused."""

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, conv_transpose2d, instance_norm, leaky_relu, pixel_shuffle

from selfsr.errors import InputError
from selfsr.images.resize import imresize
from selfsr.nets.dbpn import DbpnSpec
from selfsr.nets.drrn import DrrnSpec
from selfsr.nets.lapsrn import LapSrnSpec
from selfsr.nets.mdsr import MdsrSpec
from selfsr.nets.rdn import RdnSpec
from selfsr.nets.srcnn import SrcnnSpec
from selfsr.nets.srdensenet import SrDenseNetSpec
from selfsr.nets.srresnet import SrResNetSpec
from selfsr.nets.vdsr import VdsrSpec
from selfsr.nets.weights.load import load_into, load_model
from selfsr.nets.weights.save import save_weights

SPECS = {
    "srcnn": SrcnnSpec(features=(6, 5), kernels_px=(5, 3, 3)),
    "vdsr": VdsrSpec(features=6, convs=3),
    "drrn": DrrnSpec(features=6),
    "lapsrn": LapSrnSpec(features=6, convs=2),
    "srresnet": SrResNetSpec(features=6, blocks=2),
    "mdsr": MdsrSpec(features=6, blocks=1),
    "srdensenet": SrDenseNetSpec(growth=4, blocks=2, convs=2, bottleneck=6),
    "rdn": RdnSpec(features=6, growth=4, blocks=2, convs=2),
    "dbpn": DbpnSpec(features=6, projected=4, stages=3),
}


def build_net(name, scale=2, channels=None):
    torch.manual_seed(5)
    return SPECS[name].build(scale, channels or max(SPECS[name].channel_counts)).eval()


def image(channels=3, height=6, width=7):
    return torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.pt"


# ---- containers


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("name", SPECS)
def test_bare_state_dict_opens(name, legacy, path):
    net = build_net(name)
    torch.save(net.state_dict(), path, _use_new_zipfile_serialization=not legacy)
    model = load_model(path, scale=2)
    x = image(model.channels)
    with torch.no_grad():
        assert torch.equal(model.upscale(x), net(x).clamp(0, 1))
    fresh = SPECS[name].build(2, model.channels)
    load_into(fresh, path)
    assert all(torch.equal(tensor, fresh.state_dict()[key]) for key, tensor in net.state_dict().items())


@pytest.mark.parametrize("name", ["vdsr", "mdsr", "dbpn", "srcnn"])
def test_weights_of_range_one_give_same_output(name, path):
    net = build_net(name)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    state = {key: tensor / 255 if key.endswith(".bias") else tensor for key, tensor in net.state_dict().items()}
    torch.save(state, path)
    torch.testing.assert_close(load_model(path, scale=2).net(image()), net(image()), rtol=1e-5, atol=1e-6)


# ---- the scale, if the file does not state it


@pytest.mark.parametrize("name", ["srcnn", "vdsr", "drrn"])
def test_bicubic_network_uses_scale_of_file_or_argument(name, path, tmp_path):
    net = build_net(name, 3)
    torch.save(net.state_dict(), path)
    with pytest.raises(InputError, match=r"works at any scale, and the file does not state one; .* --scale 2\.$"):
        load_model(path)
    with pytest.raises(InputError, match=r"upscales by x2, x3, x4 and x8, got x5; choose one of them"):
        load_model(path, scale=5)
    assert load_model(path, scale=4).net(image(net.channels)).shape[-1] == 28
    save_weights(tmp_path / "ours.safetensors", net, {})
    assert load_model(tmp_path / "ours.safetensors").scale == 3
    assert load_model(tmp_path / "ours.safetensors", scale=2).scale == 2


def test_mdsr_opens_at_each_scale(path, tmp_path):
    net = build_net("mdsr", 3)
    torch.save(net.state_dict(), path)
    with pytest.raises(InputError, match=r"MDSR serves x2, x3 and x4; choose one, as with --scale 2\.$"):
        load_model(path)
    with pytest.raises(InputError, match=r"MDSR upscales by x2, x3 and x4, got x8; choose one of them\.$"):
        load_model(path, scale=8)
    for scale in (2, 3, 4):
        model = load_model(path, scale=scale)
        assert model.scale == scale
        with torch.no_grad():
            assert torch.equal(model.upscale(image()), net(image(), scale).clamp(0, 1))
    save_weights(tmp_path / "ours.safetensors", net, {})
    assert load_model(tmp_path / "ours.safetensors").scale == 3
    assert load_model(tmp_path / "ours.safetensors", scale=4).scale == 4


def test_single_scale_network_ignores_scale_argument(path):
    torch.save(build_net("rdn").state_dict(), path)
    assert load_model(path, scale=4).scale == 2


def test_drrn_depth_comes_from_file_or_authors(path, tmp_path):
    net = DrrnSpec(features=4, recursions=2).build(2, 1)
    save_weights(tmp_path / "ours.safetensors", net, {})
    assert load_model(tmp_path / "ours.safetensors").net.recursions == 2
    torch.save(net.state_dict(), path)
    assert load_model(path, scale=2).net.recursions == 25


# ---- luma: Y through the network, Cb and Cr by bicubic, which is the protocol of networks with one channel

# BT.601 of R, G, B in [0, 1] (rows Y, Cb, Cr of 255), as MATLAB's rgb2ycbcr has it.
YCBCR = torch.tensor([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]])
OFFSETS = torch.tensor([16.0, 128.0, 128.0]).view(3, 1, 1)


def compute_by_ycbcr(run, rgb, scale):
    """Convert to YCbCr, run Y of 16 to 235, enlarge the rest, convert back."""
    ycbcr = torch.einsum("ij,njhw->nihw", YCBCR.double(), rgb.double()) + OFFSETS
    y = run(ycbcr[:, :1])
    upscaled = torch.cat([y, imresize(ycbcr[:, 1:], scale)], 1) - OFFSETS
    return torch.einsum("ij,njhw->nihw", YCBCR.double().inverse(), upscaled)


def test_lapsrn_color_equals_ycbcr_protocol(path):
    net = build_net("lapsrn", 2)
    torch.save(net.state_dict(), path)
    w = {key: tensor.double() for key, tensor in net.state_dict().items()}

    def run(y):
        f = leaky_relu(conv2d(y, w["head.0.weight"], padding=1), 0.2)
        for n in (0, 2):
            f = leaky_relu(conv2d(f, w[f"feat_branch_0.body.{n}.weight"], padding=1), 0.2)
        f = leaky_relu(conv_transpose2d(f, w["feat_branch_0.tail.0.weight"], stride=2, padding=1), 0.2)
        residual = conv2d(f, w["residual_branch_0.weight"], padding=1)
        return conv_transpose2d(y, w["img_branch_0.weight"], stride=2, padding=1) + residual

    expected = compute_by_ycbcr(run, image(), 2).clamp(0, 1).float()
    torch.testing.assert_close(load_model(path).upscale(image()), expected, rtol=1e-4, atol=1e-5)


def test_drrn_color_equals_ycbcr_protocol(path):
    net = DrrnSpec(features=4, recursions=1).build(2, 1)
    save_weights(path.with_suffix(".safetensors"), net, {})
    w = {key: tensor.double() for key, tensor in net.state_dict().items()}

    def run(y):
        y = imresize(y, 2).relu()
        g = conv2d(y, w["head.weight"], padding=1).relu()
        u = conv2d(conv2d(g, w["conv1.weight"], padding=1).relu(), w["conv2.weight"], padding=1) + g
        return conv2d(u.relu(), w["tail.weight"], padding=1) + y

    expected = compute_by_ycbcr(run, image(), 2).clamp(0, 1).float()
    torch.testing.assert_close(
        load_model(path.with_suffix(".safetensors")).upscale(image()), expected, rtol=1e-4, atol=1e-5
    )


def test_srcnn_luma_file_equals_ycbcr_protocol(path):
    net = nn.ModuleDict({"conv1": nn.Conv2d(1, 6, 9, padding=4), "conv2": nn.Conv2d(6, 4, 5, padding=2)})
    net["conv3"] = nn.Conv2d(4, 1, 5, padding=2)
    torch.save(net.state_dict(), path)
    net.double()

    @torch.no_grad()
    def run(y):
        return 255 * net["conv3"](net["conv2"](net["conv1"](imresize(y, 3) / 255).relu()).relu())

    expected = compute_by_ycbcr(run, image(), 3).clamp(0, 1).float()
    model = load_model(path, scale=3)
    assert (model.architecture, model.channels) == ("SRCNN", 1)
    torch.testing.assert_close(model.upscale(image()), expected, rtol=1e-4, atol=1e-5)


def test_srcnn_color_file_uses_rgb(path):
    net = nn.ModuleDict({"conv1": nn.Conv2d(3, 6, 9, padding=4), "conv2": nn.Conv2d(6, 4, 5, padding=2)})
    net["conv3"] = nn.Conv2d(4, 3, 5, padding=2)
    torch.save(net.state_dict(), path)
    with torch.no_grad():
        expected = net["conv3"](net["conv2"](net["conv1"](imresize(image(), 2)).relu()).relu())
        torch.testing.assert_close(load_model(path, scale=2).net(image()), expected, rtol=1e-4, atol=1e-5)


def test_srdensenet_color_equals_ycbcr_protocol(path):
    net = SrDenseNetSpec(growth=3, blocks=1, convs=1, bottleneck=4).build(2, 1)
    torch.save(net.state_dict(), path)
    w = {key: tensor.double() for key, tensor in net.state_dict().items()}

    def run(y):
        first = conv2d(y / 255, w["conv.conv.weight"], w["conv.conv.bias"], padding=1).relu()
        block = "dense_blocks.0.block.0.conv"
        both = torch.cat([first, conv2d(first, w[f"{block}.weight"], w[f"{block}.bias"], padding=1).relu()], 1)
        f = conv2d(both, w["bottleneck.0.weight"], w["bottleneck.0.bias"]).relu()
        up = {"stride": 2, "padding": 1, "output_padding": 1}
        f = conv_transpose2d(f, w["deconv.0.weight"], w["deconv.0.bias"], **up).relu()
        return 255 * conv2d(f, w["reconstruction.weight"], w["reconstruction.bias"], padding=1)

    expected = compute_by_ycbcr(run, image(), 2).clamp(0, 1).float()
    torch.testing.assert_close(load_model(path).upscale(image()), expected, rtol=1e-4, atol=1e-5)


# ---- layouts of other code


def test_lapsrn_opens_under_other_names(path):
    net = LapSrnSpec(features=4).build(4, 1)
    state = net.state_dict()
    from_one = {}
    other_names = {"conv_input.weight": state["head.0.weight"]}
    for level in (0, 1):
        for old, new in (("img", "I"), ("residual", "R")):
            other_names[f"convt_{new}{level + 1}.weight"] = state[f"{old}_branch_{level}.weight"]
        for n in range(0, 20, 2):
            name = f"convt_F{level + 1}.0.cov_block.{n}.weight"
            other_names[name] = state[f"feat_branch_{level}.body.{n}.weight"]
        other_names[f"convt_F{level + 1}.0.cov_block.20.weight"] = state[f"feat_branch_{level}.tail.0.weight"]
    for name, tensor in state.items():
        from_one[name.replace("branch_1", "branch_2").replace("branch_0", "branch_1")] = tensor
    for state_dict in (other_names, from_one):
        torch.save(dict(reversed(state_dict.items())), path)  # the order must not matter
        assert all(torch.equal(tensor, load_model(path).net.state_dict()[key]) for key, tensor in state.items())
        fresh = LapSrnSpec(features=4).build(4, 1)
        load_into(fresh, path)
        assert all(torch.equal(tensor, fresh.state_dict()[key]) for key, tensor in state.items())


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_rdn_opens_in_layout_of_edsr_code(scale, path):
    net = build_net("rdn", scale)
    names = {"sfe1": "SFENet1", "sfe2": "SFENet2", "gff.0": "GFF.0", "gff.1": "GFF.1"}
    for b in range(2):
        names[f"rdbs.{b}.lff"] = f"RDBs.{b}.LFF"
        names |= {f"rdbs.{b}.layers.{n}.conv": f"RDBs.{b}.convs.{n}.conv.0" for n in range(2)}
    stages = 2 if scale == 4 else 1
    names |= {f"upscale.{2 * n}": f"UPNet.{2 * n}" for n in range(stages)} | {"output": f"UPNet.{2 * stages}"}
    state = {}
    for key, tensor in net.state_dict().items():
        layer, part = key.rsplit(".", 1)
        state[f"{names[layer]}.{part}"] = tensor * 255 if part == "bias" else tensor
    torch.save(state, path)
    model = load_model(path)
    assert (model.architecture, model.scale) == ("RDN", scale)
    torch.testing.assert_close(model.net(image()), net(image()), rtol=1e-5, atol=1e-6)


def srresnet(w, x):
    """SRResNet without its ends, on plain functions."""

    def conv(name, z):
        weight = w[f"{name}.weight"]
        return conv2d(z, weight, padding=weight.shape[-1] // 2)

    def norm(name, z):
        return instance_norm(z, weight=w[f"{name}.weight"], bias=w[f"{name}.bias"])

    h = z = leaky_relu(conv("conv_input", x), 0.2)
    for n in range(2):
        inner = leaky_relu(norm(f"residual.{n}.in1", conv(f"residual.{n}.conv1", z)), 0.2)
        z = z + norm(f"residual.{n}.in2", conv(f"residual.{n}.conv2", inner))
    z = h + norm("bn_mid", conv("conv_mid", z))
    for stage in (0, 3):
        z = leaky_relu(pixel_shuffle(conv(f"upscale4x.{stage}", z), 2), 0.2)
    return conv("conv_output", z)


@torch.no_grad()
def test_srresnet_file_may_have_mixing_mean_shifts(path):
    state = build_net("srresnet", 4).state_dict()
    for end in ("sub_mean", "add_mean"):  # drawn by mistake, bias 0
        state[f"{end}.weight"] = torch.randn(3, 3, 1, 1) * (2 / 3) ** 0.5
        state[f"{end}.bias"] = torch.zeros(3)
    torch.save(state, path)
    expected = conv2d(srresnet(state, conv2d(image() * 255, state["sub_mean.weight"])), state["add_mean.weight"]) / 255
    torch.testing.assert_close(load_model(path).net(image()), expected, rtol=1e-4, atol=1e-4)
    fresh = SPECS["srresnet"].build(4)
    load_into(fresh, path)
    torch.testing.assert_close(fresh(image()), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_srresnet_without_mean_shifts_has_range_one(path):
    state = {key: tensor for key, tensor in build_net("srresnet", 4).state_dict().items() if "mean" not in key}
    torch.save(state, path)
    torch.testing.assert_close(load_model(path).net(image()), srresnet(state, image()), rtol=1e-4, atol=1e-5)


# ---- another scale, another depth


@pytest.mark.parametrize("name", ["lapsrn", "srresnet", "rdn", "srdensenet"])
def test_transfer_leaves_out_upsampling_tail(name, path):
    source, net = build_net(name, 2), build_net(name, 4)
    torch.manual_seed(8)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(torch.randn_like(parameter))
    torch.save(source.state_dict(), path)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    with pytest.raises(InputError, match=r"or leave out its upsampling tail with start_fit: tail\.$"):
        load_into(net, path)
    line = load_into(net, path, fit="tail")
    left = set(before) - set(source.state_dict())
    assert left
    assert set(line.split("left as initialized: ")[1].split(", ")) == left
    for key, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[key] if key in left else source.state_dict()[key]), key


def test_dbpn_has_no_tail_for_transfer(path):
    torch.save(build_net("dbpn", 2).state_dict(), path)
    with pytest.raises(InputError, match=r"of another shape: upmodules.*: set network and scale to match it\.$"):
        load_into(build_net("dbpn", 4), path, fit="tail")


@pytest.mark.parametrize(
    ("name", "other", "message"),
    [
        (
            "vdsr",
            VdsrSpec(features=6, convs=4),
            "contains VDSR with features 6, convs 3 for color, the network is VDSR with features 6, convs 4 for",
        ),
        (
            "srcnn",
            SrcnnSpec(),
            r"the file contains SRCNN with features \[6, 5\], kernels_px \[5, 3, 3\] for color, the network is",
        ),
        ("rdn", RdnSpec(features=6, growth=4, blocks=1, convs=2), "the file contains RDN x2 with features 6, growth 4"),
        ("mdsr", MdsrSpec(features=6, blocks=2), "the file contains MDSR x2, x3 and x4 with features 6, blocks 1, "),
        ("srresnet", VdsrSpec(), "0 of 40 tensors fit .* the file contains SRResNet x2 with features 6, blocks 2 for"),
    ],
)
def test_another_depth_is_refused_and_file_described(name, other, message, path):
    torch.save(build_net(name).state_dict(), path)
    with pytest.raises(InputError, match=message):
        load_into(other.build(2), path)


@pytest.mark.parametrize(
    ("name", "key", "tensor", "message"),
    [
        ("vdsr", "body.1.0.weight", torch.ones(6, 7, 3, 3), r"names are those of VDSR with features 6, convs 3, but"),
        ("srcnn", "body.0.weight", torch.ones(6), r"names are those of SRCNN \(.*\), but the tensors do not fit it"),
        (
            "srcnn",
            "body.2.weight",
            torch.ones(5, 6, 2, 2),
            r"names are those of SRCNN \(Value error, kernels_px must be odd, got \[5, 2, 3\]\), but",
        ),
        ("lapsrn", "extra.weight", torch.ones(1), "names are those of LapSRN with features 6, convs 2, but"),
        ("dbpn", "reconstruction.0.bias", torch.ones(4), "names are those of D-DBPN with features 6, projected 4"),
    ],
)
def test_incomplete_own_network_is_refused(name, key, tensor, message, path):
    torch.save({**build_net(name).state_dict(), key: tensor}, path)
    with pytest.raises(InputError, match=message):
        load_model(path, scale=2)
