"""Each network of the self-paced paper against its equations, written on plain functions, and a value by hand.

(EDSR's are in test_edsr.py.)
"""

import pytest
import torch
from torch.nn.functional import conv2d, conv_transpose2d, prelu

from selfsr.images.resize import imresize
from selfsr.nets.dbpn import DbpnSpec
from selfsr.nets.drrn import DrrnSpec
from selfsr.nets.lapsrn import LapSrnSpec
from selfsr.nets.layers import DIV2K_GRAY, DIV2K_MEAN
from selfsr.nets.mdsr import MdsrSpec
from selfsr.nets.rdn import RdnSpec
from selfsr.nets.srcnn import SrcnnSpec
from selfsr.nets.srdensenet import SrDenseNetSpec
from selfsr.nets.srresnet import SrResNetSpec
from selfsr.nets.vdsr import VdsrSpec

MEANS = {1: (DIV2K_GRAY,), 3: DIV2K_MEAN}


class Layers:
    """The tensors of a network by name, as functions."""

    def __init__(self, state):
        self.state = state

    def conv(self, name, z):
        weight = self.state[f"{name}.weight"]
        return conv2d(z, weight, self.state.get(f"{name}.bias"), padding=weight.shape[-1] // 2)

    def relu(self, name, z):
        return self.conv(name, z).clamp(min=0)

    def norm(self, name, z):
        mean, var = z.mean((2, 3), keepdim=True), z.var((2, 3), keepdim=True, unbiased=False)
        gain, shift = (self.state[f"{name}.{part}"].view(1, -1, 1, 1) for part in ("weight", "bias"))
        return (z - mean) / (var + 1e-5).sqrt() * gain + shift


def shuffled(z, factor):
    n, c, h, w = z.shape
    z = z.view(n, c // factor**2, factor, factor, h, w).permute(0, 1, 4, 2, 5, 3)
    return z.reshape(n, c // factor**2, h * factor, w * factor)


def leaky(z):
    return z.clamp(min=0) + 0.2 * z.clamp(max=0)


def mean_of(x):
    return torch.tensor(MEANS[x.shape[1]], dtype=x.dtype).view(1, -1, 1, 1)


def srcnn(f, x, scale):
    z = (imresize(x, scale) - mean_of(x)) * 255
    return f.conv("body.4", f.relu("body.2", f.relu("body.0", z))) / 255 + mean_of(x)


def vdsr(f, x, scale):
    image = imresize(x, scale)
    z = (image - mean_of(x)) * 255
    for n in range(3):
        z = f.relu(f"body.{n}.0", z)
    return image + f.conv("body.3.0", z) / 255


def drrn(f, x, scale):
    image = (16 + 219 * imresize(x, scale)).clamp(min=0)
    g = u = f.relu("head", image)
    for _ in range(3):
        u = f.conv("conv2", f.relu("conv1", u.clamp(min=0))) + g
    return (f.conv("tail", u.clamp(min=0)) + image - 16) / 219


def lapsrn(f, x, scale):
    def up(name, z):
        return conv_transpose2d(z, f.state[f"{name}.weight"], stride=2, padding=1)

    y = 16 + 219 * x
    z = leaky(f.conv("head.0", y))
    for level in range({2: 1, 4: 2, 8: 3}[scale]):
        for n in (0, 2):
            z = leaky(f.conv(f"feat_branch_{level}.body.{n}", z))
        z = leaky(up(f"feat_branch_{level}.tail.0", z))
        y = up(f"img_branch_{level}", y) + f.conv(f"residual_branch_{level}", z)
    return (y - 16) / 219


def srresnet(f, x, scale):
    h = z = leaky(f.conv("conv_input", (x - mean_of(x)) * 255))
    for n in range(2):
        inner = leaky(f.norm(f"residual.{n}.in1", f.conv(f"residual.{n}.conv1", z)))
        z = z + f.norm(f"residual.{n}.in2", f.conv(f"residual.{n}.conv2", inner))
    z = h + f.norm("bn_mid", f.conv("conv_mid", z))
    for stage in range({2: 1, 4: 2, 8: 3}[scale]):
        z = leaky(shuffled(f.conv(f"upscale4x.{3 * stage}", z), 2))
    return f.conv("conv_output", z) / 255 + mean_of(x)


def mdsr(f, x, scale):
    def block(name, z):
        return z + f.conv(f"{name}.body.2", f.relu(f"{name}.body.0", z))

    part = {2: 0, 3: 1, 4: 2}[scale]
    z = f.conv("head.0", (x - mean_of(x)) * 255)
    z = start = block(f"pre_process.{part}.1", block(f"pre_process.{part}.0", z))
    z = start + f.conv("body.1", block("body.0", z))
    for stage, factor in enumerate({2: [2], 3: [3], 4: [2, 2]}[scale]):
        z = shuffled(f.conv(f"upsample.{part}.{2 * stage}", z), factor)
    return f.conv("tail.0", z) / 255 + mean_of(x)


def srdensenet(f, x, scale):
    gray = x.shape[1] == 1
    kept = [f.relu("conv.conv", (16 + 219 * x) / 255 if gray else x)]
    for b in range(2):
        own = []
        for n in range(3):
            own.append(f.relu(f"dense_blocks.{b}.block.{n}.conv", torch.cat(own or kept, 1)))
        kept += own
    z = f.relu("bottleneck.0", torch.cat(kept, 1))
    for stage in range({2: 1, 4: 2, 8: 3}[scale]):
        weight, bias = (f.state[f"deconv.{2 * stage}.{part}"] for part in ("weight", "bias"))
        z = conv_transpose2d(z, weight, bias, stride=2, padding=1, output_padding=1).clamp(min=0)
    z = f.conv("reconstruction", z)
    return (255 * z - 16) / 219 if gray else z


def rdn(f, x, scale):
    shallow = f.conv("sfe1", x)
    z, blocks = f.conv("sfe2", shallow), []
    for b in range(2):
        maps = [z]
        for n in range(2):
            maps.append(f.relu(f"rdbs.{b}.layers.{n}.conv", torch.cat(maps, 1)))
        z = z + f.conv(f"rdbs.{b}.lff", torch.cat(maps, 1))
        blocks.append(z)
    z = shallow + f.conv("gff.1", f.conv("gff.0", torch.cat(blocks, 1)))
    for stage, factor in enumerate({2: [2], 3: [3], 4: [2, 2], 8: [2, 2, 2]}[scale]):
        z = shuffled(f.conv(f"upscale.{2 * stage}", z), factor)
    return f.conv("output", z)


def dbpn(f, x, scale):
    side, stride, pad = {2: (6, 2, 2), 4: (8, 4, 2), 8: (12, 8, 2)}[scale]

    def step(name, z, *, up):
        weight, bias = f.state[f"{name}.0.weight"], f.state[f"{name}.0.bias"]
        assert weight.shape[-1] == side
        z = (conv_transpose2d if up else conv2d)(z, weight, bias, stride=stride, padding=pad)
        return prelu(z, f.state[f"{name}.1.weight"])

    def unit(name, maps, *, up):
        z = torch.cat(maps, 1)
        if f"{name}.bottleneck.0.weight" in f.state:
            z = prelu(f.conv(f"{name}.bottleneck.0", z), f.state[f"{name}.bottleneck.1.weight"])
        a = step(f"{name}.conv_1", z, up=up)
        e = step(f"{name}.conv_2", a, up=not up) - z
        return a + step(f"{name}.conv_3", e, up=up)

    z = prelu(f.conv("initial.0", (x - mean_of(x)) * 255), f.state["initial.1.weight"])
    z = prelu(f.conv("initial.2", z), f.state["initial.3.weight"])
    h1 = unit("upmodules.0", [z], up=True)
    l1 = unit("downmodules.0", [h1], up=False)
    h2 = unit("upmodules.1", [l1], up=True)
    l2 = unit("downmodules.1", [h1, h2], up=False)
    h3 = unit("upmodules.2", [l1, l2], up=True)
    return f.conv("reconstruction.0", torch.cat([h1, h2, h3], 1)) / 255 + mean_of(x)


EQUATIONS = {
    srcnn: SrcnnSpec(features=(6, 5), kernels_px=(7, 1, 3)),
    vdsr: VdsrSpec(features=5, convs=4),
    drrn: DrrnSpec(features=5, recursions=3),
    lapsrn: LapSrnSpec(features=5, convs=2),
    srresnet: SrResNetSpec(features=5, blocks=2),
    mdsr: MdsrSpec(features=5, blocks=1),
    srdensenet: SrDenseNetSpec(growth=3, blocks=2, convs=3, bottleneck=6),
    rdn: RdnSpec(features=5, growth=4, blocks=2, convs=2),
    dbpn: DbpnSpec(features=6, projected=4, stages=3),
}
CASES = [(eq, scale, c) for eq, spec in EQUATIONS.items() for scale in spec.scales for c in spec.channel_counts]


@pytest.mark.parametrize(("equations", "scale", "channels"), CASES)
def test_forward_equals_paper(equations, scale, channels):
    torch.manual_seed(scale)
    net = EQUATIONS[equations].build(scale, channels).double()
    with torch.no_grad():
        for parameter in net.parameters():  # also biases and slopes that start at 0 or with one value
            parameter.add_(0.05 * torch.randn_like(parameter))
        x = 1.4 * torch.rand(2, channels, 5, 7, dtype=torch.float64) - 0.2
        got = net(x)
        assert got.shape == (2, channels, 5 * scale, 7 * scale)
        expected = equations(Layers(net.state_dict()), x, scale)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6 * expected.abs().max().item())


# ---- values by hand: only the center tap of each kernel is not 0, so that each pixel can be followed


def followed(net, **taps):
    """Zero a network but for the given layers: (what the center tap is, bias); a list is per channel."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        for name, value in taps.items():
            layer = net.get_submodule(name.replace("__", "."))
            tap, bias = value if isinstance(value, tuple) else (value, None)
            weight = layer.weight
            if weight.ndim == 1:  # a norm or the slope of a PReLU
                weight.fill_(tap)
            else:
                side = weight.shape[-1]
                # A transposed kernel of even side has four taps in its middle: they copy a pixel to two by two.
                odd_stride = isinstance(layer, torch.nn.ConvTranspose2d) and side % 2
                middle = slice(1, 3) if odd_stride else slice((side - 1) // 2, side // 2 + 1)
                shape = weight[..., middle, middle].shape
                values = torch.tensor(tap, dtype=weight.dtype)
                weight[..., middle, middle] = values.reshape(*shape[:2], 1, 1) if values.ndim else values
            if bias is not None:
                layer.bias.fill_(bias)
    return net


def pixel(z, channels=1):
    """Return an image of 3 x 4 pixels that is `z` of 255 above the mean everywhere."""
    return torch.full((1, channels, 3, 4), DIV2K_GRAY + z / 255)


def assert_above_mean(got, z):
    """Check for blocks of `z` of 255 above the mean."""
    z = torch.as_tensor(z, dtype=got.dtype)
    expected = z.repeat(got.shape[-2] // z.shape[0], got.shape[-1] // z.shape[1]) if z.ndim else z
    torch.testing.assert_close((got[0, 0] - DIV2K_GRAY) * 255, expected.expand_as(got[0, 0]), rtol=1e-5, atol=1e-4)


def test_srcnn_by_hand():
    net = SrcnnSpec(features=(1, 1)).build(2, 1)
    followed(net, body__0=(2.0, 1.0), body__2=(-1.0, 30.0), body__4=(3.0, -2.0))
    assert_above_mean(net(pixel(10)), 25.0)  # 21, 9, 25
    assert_above_mean(net(pixel(15)), -2.0)  # 31, -1 and so 0, -2


def test_vdsr_by_hand():
    net = followed(VdsrSpec(features=1, convs=2).build(3, 1), body__0__0=(2.0, 1.0), body__1__0=(-0.5, 3.0))
    assert_above_mean(net(pixel(10)), 2.5)  # 10 + 3 - 21 / 2
    assert_above_mean(net(pixel(-10)), -7.0)  # the residual is 3


def test_drrn_by_hand():
    net = DrrnSpec(features=1, recursions=2).build(2, 1)
    followed(net, head=0.5, conv1=2.0, conv2=-1.0, tail=0.4)
    gray = torch.full((1, 1, 3, 4), 84 / 219)  # Y is 100
    # g = 50; u = 50 - 100 = -50; u = 50 - 0; y = 100 + 0.4 * 50 = 120.
    torch.testing.assert_close(net(gray), torch.full((1, 1, 6, 8), 104 / 219))


def test_lapsrn_by_hand():
    net = LapSrnSpec(features=1, convs=1).build(2, 1)
    followed(
        net,
        head__0=-1.0,
        feat_branch_0__body__0=2.0,
        feat_branch_0__tail__0=0.5,
        residual_branch_0=10.0,
        img_branch_0=1.0,
    )
    gray = torch.full((1, 1, 3, 4), 84 / 219)  # Y is 100
    # -100, leaking -20; -40, leaking -8; -4, leaking -0.8; 100 - 8 = 92.
    torch.testing.assert_close(net(gray), torch.full((1, 1, 6, 8), 76 / 219))


def test_lapsrn_image_branch_starts_as_bilinear():
    net = LapSrnSpec(features=2, convs=1).build(4, 1)
    with torch.no_grad():
        for level in (0, 1):
            net.get_submodule(f"residual_branch_{level}").weight.zero_()
        x = torch.rand(1, 1, 8, 9)
        twice = torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear")
        expected = torch.nn.functional.interpolate(twice, scale_factor=2, mode="bilinear")
        torch.testing.assert_close(net(x)[..., 4:-4, 4:-4], expected[..., 4:-4, 4:-4])
    drawn = LapSrnSpec(features=2, convs=1, bilinear_start=False).build(2, 1).img_branch_0.weight
    assert drawn.std() > 0.05
    assert drawn.mean().abs() < 0.2


def test_srresnet_by_hand():
    net = SrResNetSpec(features=1, blocks=1).build(2, 1)
    block = {"residual__0__conv1": 1.0, "residual__0__in1": (2.0, 0.5), "residual__0__conv2": 1.0}
    followed(
        net, conv_input=1.0, **block, residual__0__in2=(4.0, 1.0), conv_mid=-1.0, bn_mid=(3.0, 2.0),
        upscale4x__0=[1.0, 2.0, 3.0, -1.0], conv_output=0.1,
    )  # fmt: skip
    x = torch.tensor([[10.0, 30.0]])[None, None] / 255 + DIV2K_GRAY
    # Block: (-1, 1) * 2 + 0.5 = (-1.5, 2.5), leaking (-0.3, 2.5); (-1, 1) * 4 + 1 = (-3, 5); (7, 35).
    # Body: (-7, -35), so (1, -1) * 3 + 2 = (5, -1); with the skip (15, 29).
    expected = torch.tensor([[1.5, 3.0, 2.9, 5.8], [4.5, -0.3, 8.7, -0.58]])
    assert_above_mean(net(x), expected)


def test_mdsr_by_hand():
    net = MdsrSpec(features=1, blocks=1).build(2, 1)
    followed(
        net, head__0=(2.0, 1.0), tail__0=1.0, upsample__0__0=[1.0, 2.0, 3.0, 4.0],
        pre_process__0__0__body__0=1.0, pre_process__0__0__body__2=(-1.0, 3.0),
        pre_process__0__1__body__0=-1.0, pre_process__0__1__body__2=(9.0, 2.0),
        pre_process__1__0__body__2=(0.0, 1e6), upsample__1__0=(1e6, 1e6),
        body__0__body__0=1.0, body__0__body__2=0.5, body__1=2.0,
    )  # fmt: skip
    # head 21; pre 21 - 21 + 3 = 3, then 3 + 2 = 5; body 5 + 2.5 = 7.5, 15, with the skip 20.
    assert_above_mean(net(pixel(10)), [[20.0, 40.0], [60.0, 80.0]])


def test_srdensenet_by_hand():
    net = SrDenseNetSpec(growth=1, blocks=1, convs=2, bottleneck=1).build(2, 1)
    followed(
        net, conv__conv=[1.0, -1.0], dense_blocks__0__block__0__conv=[2.0, 5.0], dense_blocks__0__block__1__conv=0.5,
        bottleneck__0=[1.0, 1.0, 1.0, -1.0], deconv__0=0.5, reconstruction=1.1,
    )  # fmt: skip
    gray = torch.full((1, 1, 3, 4), 84 / 219)  # Y is 100
    # (Y, 0), then 2 Y, then Y; Y + 0 + 2 Y - Y = 2 Y; Y; 110.
    torch.testing.assert_close(net(gray), torch.full((1, 1, 6, 8), 94 / 219))


def test_rdn_by_hand():
    net = RdnSpec(features=1, growth=1, blocks=1, convs=1).build(2, 1)
    followed(
        net, sfe1=2.0, sfe2=-1.0, rdbs__0__layers__0__conv=-3.0, rdbs__0__lff=[0.5, 1.0],
        gff__0=2.0, gff__1=(1.0, 0.5), upscale__0=[1.0, 2.0, 3.0, 4.0], output=0.1,
    )  # fmt: skip
    # 1; -1; 3; -0.5 + 3 = 2.5; -1 + 2.5 = 1.5; 3; 3.5; with the skip 4.5.
    expected = torch.tensor([[0.45, 0.9], [1.35, 1.8]]).repeat(3, 4)[None, None]
    torch.testing.assert_close(net(torch.full((1, 1, 3, 4), 0.5)), expected)


def test_dbpn_by_hand():
    net = DbpnSpec(features=1, projected=1, stages=2).build(2, 1)
    taps = {"initial__0": -1.0, "initial__1": 0.5, "initial__2": 2.0, "initial__3": 0.1}
    # Four taps of a kernel that goes down add up, and those of one that goes up copy.
    gains = {"upmodules__0": (4, 3, -2), "downmodules__0": (1.5, -1, 2), "upmodules__1": (2, 1, 8)}
    for unit, values in gains.items():
        for n, gain in enumerate(values, 1):
            down = (n == 2) == unit.startswith("up")
            taps |= {f"{unit}__conv_{n}__0": gain / 4 if down else gain, f"{unit}__conv_{n}__1": 0.5}
    followed(net, **taps, reconstruction__0=[1.0, 2.0])
    # -10, leaking -5; -10, leaking -1.
    # Up: -4, leaking -2; -6, leaking -3, error -2; 4; h = 2.
    # Down: 3; -3, leaking -1.5, error -3.5; -7, leaking -3.5; l = -0.5.
    # Up: -1, leaking -0.5; -0.5, leaking -0.25, error 0.25; 2; h = 1.5.
    assert_above_mean(net(pixel(10)), 5.0)  # 2 + 2 * 1.5
