"""Networks of spandrel's classes: they train, and their files open in spandrel unchanged."""

import copy
from typing import Any, get_args

import pytest
import spandrel
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from selfsr.errors import InputError
from selfsr.nets import Network
from selfsr.nets.meta import count_parameters
from selfsr.nets.spandrel.compact import CompactSpec
from selfsr.nets.spandrel.dat import DatSpec
from selfsr.nets.spandrel.hat import HatSpec
from selfsr.nets.spandrel.rcan import RcanSpec
from selfsr.nets.spandrel.realplksr import RealPlksrSpec
from selfsr.nets.spandrel.rrdb import RrdbSpec
from selfsr.nets.spandrel.span import SpanSpec
from selfsr.nets.spandrel.swinir import SwinIrSpec
from selfsr.nets.union import SpandrelNetwork
from selfsr.nets.weights.load import load_into, load_model
from selfsr.nets.weights.save import save_weights

TINY = {
    "rrdb": RrdbSpec(features=8, blocks=1),
    "rrdb unshuffle": RrdbSpec(features=8, blocks=1, unshuffle=2),
    "swinir": SwinIrSpec(features=12, depths=(2,), heads=(2,), window_px=4),
    "swinir light": SwinIrSpec(features=12, depths=(2,), heads=(3,), window_px=4, upsampler="pixelshuffledirect"),
    "swinir real": SwinIrSpec(
        features=12, depths=(1, 2), heads=(2, 2), window_px=4, upsampler="nearest+conv", residual_conv="3conv"
    ),
    "rcan": RcanSpec(features=8, groups=1, blocks=1, reduction=4),
    "compact": CompactSpec(features=8, convs=2),
    "span": SpanSpec(features=6),
    "span without mean": SpanSpec(features=6, subtract_mean=False),
    "realplksr": RealPlksrSpec(features=8, blocks=1, kernel_px=5),
    "realplksr options": RealPlksrSpec(
        features=8, blocks=1, kernel_px=5, attention=False, layer_norm=True, dysample=True
    ),
    "dat": DatSpec(features=96, depths=(3, 1), heads=(2, 2), split_px=(2, 4), expansion=1.5),
    "dat light": DatSpec(
        features=96, depths=(2,), heads=(2,), split_px=(4, 8), upsampler="pixelshuffledirect", residual_conv="3conv"
    ),
    "hat": HatSpec(features=12, depths=(2,), heads=(2,), window_px=4, squeeze_factor=3),
}
BUILDS = [(name, scale) for name, spec in TINY.items() for scale in spec.scales]


def image(channels=3, batch=2, height=16, width=20):
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(1))


def test_tiny_contains_every_spandrel_network():
    missing = sorted(t.__name__ for t in set(get_args(SpandrelNetwork)) - set(map(type, TINY.values())))
    assert not missing, f"add {', '.join(missing)} with small options to TINY in {__file__}, so that it is tested"


@pytest.mark.filterwarnings("ignore:torch.meshgrid")  # spandrel's own, when it loads
@pytest.mark.parametrize(("name", "scale"), BUILDS)
def test_network_trains_saves_and_opens_in_spandrel(name, scale, tmp_path):
    torch.manual_seed(7)
    spec = TINY[name]
    net = spec.build(scale)
    assert net.training
    x = image()
    original = x.clone()
    out = net(x)
    assert out.shape == (2, 3, 16 * scale, 20 * scale)
    (out * torch.randn_like(out)).mean().backward()
    for parameter_name, parameter in net.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"no gradient for {parameter_name}"
            assert parameter.grad.isfinite().all(), parameter_name
            if parameter.ndim > 1:
                assert parameter.grad.any(), f"a zero gradient for {parameter_name}"
    assert torch.equal(x, original), "the network changed its input"

    path = tmp_path / "net.safetensors"
    save_weights(path, net, {"architecture": spec.kind})
    net.eval()
    with torch.no_grad():
        expected = net(x[:1]).clamp(0, 1)
    model = load_model(path)
    assert (model.scale, model.channels) == (scale, 3)
    torch.testing.assert_close(model.upscale(x[:1]), expected, rtol=1e-5, atol=1e-5)
    descriptor = spandrel.ModelLoader().load_from_file(path)
    assert descriptor.scale == scale
    torch.testing.assert_close(descriptor(x[:1]), expected, rtol=1e-5, atol=1e-5)

    other = spec.build(scale)
    load_into(other, path)
    for key, tensor in net.state_dict().items():
        assert torch.equal(other.state_dict()[key], tensor), key


def gray(spec):
    """Return the network's options for one channel, if it has any."""
    return spec.model_copy(update={"subtract_mean": False}) if isinstance(spec, SpanSpec) else spec


@pytest.mark.parametrize("name", [name for name, spec in TINY.items() if 1 in gray(spec).channel_counts])
def test_gray_network_opens_as_gray(name, tmp_path):
    net = gray(TINY[name]).build(2, channels=1).eval()
    save_weights(tmp_path / "net.safetensors", net, {})
    model = load_model(tmp_path / "net.safetensors")
    assert (model.scale, model.channels) == (2, 1)
    x = image(channels=1)
    with torch.no_grad():
        torch.testing.assert_close(model.upscale(x), net(x).clamp(0, 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", TINY)
def test_output_under_autocast_is_float32(name):
    torch.manual_seed(3)
    net = TINY[name].build(2)
    net.train()
    with torch.autocast("cpu", torch.bfloat16):
        out = net(image())
    assert out.dtype == torch.float32
    # A value that was rounded to bfloat16 has 16 zero bits at the end.
    assert (out.view(torch.int32) & 0xFFFF).bool().float().mean() > 0.9
    out.mean().backward()


@pytest.mark.parametrize("name", TINY)
def test_network_accepts_minimum_crop_and_batch(name):
    spec = TINY[name]
    side, batch = spec.minimum_px, spec.minimum_batch
    out = spec.build(2)(torch.rand(batch, 3, side, side))
    assert out.shape == (batch, 3, 2 * side, 2 * side)


def test_dat_with_one_image_raises():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        TINY["dat"].build(2)(torch.rand(1, 3, 16, 16))


class ZeroInitialization(TorchFunctionMode):
    """Initialize with zeros, because random weights of a large transformer take seconds."""

    drawn = (Tensor.uniform_, Tensor.normal_, nn.init.kaiming_uniform_, nn.init.kaiming_normal_)

    def __torch_function__(self, func, types, args=(), kwargs: Any = None):
        if func in self.drawn:
            weight = args[0] if args else kwargs["tensor"]
            weight.detach().zero_()
            return weight
        return func(*args, **(kwargs or {}))


# Number of trained parameters with default options for RGB at x4, and of tensors in the file: from published files or
# papers if known (ESRGAN, SwinIR, RCAN), otherwise from spandrel's class when this test was written.
PUBLISHED = {
    RrdbSpec: (16_697_987, 702),
    SwinIrSpec: (11_900_199, 550),
    RcanSpec: (15_592_355, 1634),
    CompactSpec: (621_424, None),
    SpanSpec: (1_840_488, None),
    RealPlksrSpec: (7_389_680, None),
    DatSpec: (14_802_051, None),
    HatSpec: (20_772_507, None),
}


@pytest.mark.parametrize("spec_type", PUBLISHED)
def test_default_options_give_published_sizes(spec_type):
    with ZeroInitialization():
        net = spec_type().build(4)
    parameters, tensors = PUBLISHED[spec_type]
    assert sum(p.numel() for p in net.parameters() if p.requires_grad) == parameters == count_parameters(spec_type)
    if tensors is not None:
        assert len(net.state_dict()) == tensors


def test_recipe_chooses_network_by_kind():
    read = TypeAdapter(Network).validate_python
    assert read({"kind": "esrgan", "blocks": 6}) == RrdbSpec(kind="esrgan", blocks=6)
    assert read({"kind": "hat", "heads": [6] * 6}) == HatSpec()
    with pytest.raises(ValidationError, match=r"'srcnn', .*'edsr', .*'rrdb', 'esrgan', 'swinir', .*'hat'"):
        read({"kind": "drct"})
    with pytest.raises(ValidationError, match=r"window_size\n.*Extra inputs"):
        read({"kind": "swinir", "window_size": 8})


@pytest.mark.parametrize(
    ("spec_type", "options", "message"),
    [
        (SwinIrSpec, {"depths": (6, 6)}, "depths and heads must be of one length, got 2 and 6"),
        (SwinIrSpec, {"features": 64}, "features must be a multiple of heads 6, got 64"),
        (SwinIrSpec, {"window_px": 7}, "window_px must not be 7"),
        (SwinIrSpec, {"mlp_ratio": 1.33}, "mlp_ratio must give a whole number of channels, got 180 x 1.33"),
        (RcanSpec, {"features": 50}, "features must be a multiple of reduction 16, got 50"),
        (RealPlksrSpec, {"kernel_px": 16}, "kernel_px must be odd, got 16"),
        (RealPlksrSpec, {"features": 6, "split_ratio": 0.5}, "features must be a multiple of 4"),
        (RealPlksrSpec, {"split_ratio": 0.3}, "split_ratio must give a whole number of channels, got 64 x 0.3"),
        (DatSpec, {"heads": (3,) * 6}, "heads must be even"),
        (HatSpec, {"window_px": 4, "overlap_ratio": 0.75}, "must be an even number of pixels, got 4 x 0.75"),
        (HatSpec, {"squeeze_factor": 181}, "squeeze_factor must not exceed features 180, got 181"),
    ],
)
def test_unfit_options_are_refused(spec_type, options, message):
    with pytest.raises(ValidationError, match=message):
        spec_type(**options)


@pytest.mark.parametrize(
    ("spec", "scale", "channels", "message"),
    [
        (RrdbSpec(), 3, 3, r"network ESRGAN \(RRDB\): scale must be one of 2, 4, 8 .*, got 3"),
        (SwinIrSpec(upsampler="nearest+conv"), 3, 3, "network SwinIR: scale must be one of 2, 4, 8 .*, got 3"),
        (RealPlksrSpec(), 2, 1, "network RealPLKSR: channels must be 3 .*, got 1"),
        (SpanSpec(), 2, 1, "network SPAN: channels must be 3 .*, got 1"),
    ],
)
def test_build_that_spandrel_cannot_open_is_refused(spec, scale, channels, message):
    with pytest.raises(InputError, match=message):
        spec.build(scale, channels)


# ---- the authors' initialization, which spandrel's classes for inference lack


def measure_std(tensor):
    return tensor.std().item()


def test_rrdb_dense_blocks_start_at_tenth_of_he():
    torch.manual_seed(0)
    net = RrdbSpec(features=32, blocks=1).build(4)
    for name, parameter in net.named_parameters():
        if ".RDB" in name and name.endswith("weight"):
            fan_in = parameter[0].numel()
            assert measure_std(parameter) == pytest.approx(0.1 * (2 / fan_in) ** 0.5, rel=0.05), name
        elif ".RDB" in name:
            assert not parameter.any(), name
        elif name.endswith("weight"):  # PyTorch's own: uniform, up to one over the root of the fan-in
            assert parameter.abs().max().item() == pytest.approx(parameter[0].numel() ** -0.5, rel=0.05), name


@pytest.mark.parametrize("name", ["swinir", "dat", "hat"])
def test_transformer_linear_layers_start_with_std_0_02(name):
    torch.manual_seed(0)
    net = TINY[name].build(2)
    linear = [m for m in net.modules() if isinstance(m, nn.Linear)]
    assert measure_std(torch.cat([m.weight.flatten() for m in linear])) == pytest.approx(0.02, rel=0.03)
    assert not any(m.bias.any() for m in linear if m.bias is not None)
    tables = [p.flatten() for n, p in net.named_parameters() if n.endswith("relative_position_bias_table")]
    assert name == "dat" or measure_std(torch.cat(tables)) == pytest.approx(0.02, rel=0.1)


def test_realplksr_convolutions_start_with_std_0_02():
    torch.manual_seed(0)
    net = RealPlksrSpec(features=32, blocks=1, kernel_px=5).build(2)
    block = net.feats[1]
    for conv in (net.feats[0], net.feats[-1], block.lk.conv, block.refine, block.channel_mixer[2], block.attn.f[0]):
        assert measure_std(conv.weight) == pytest.approx(0.02, rel=0.06)


@pytest.mark.parametrize("name", ["swinir", "dat", "hat"])
def test_drop_path_drops_only_in_training(name):
    torch.manual_seed(0)
    net = TINY[name].model_copy(update={"drop_path": 0.9}).build(2)
    x = image()
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


def test_realplksr_drops_channels_only_in_training():
    torch.manual_seed(0)
    net = RealPlksrSpec(features=8, blocks=1, kernel_px=5, dropout=0.5).build(2)
    x = image()
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


def test_rcan_does_not_train_mean_shift():
    net = TINY["rcan"].build(2)
    assert not [name for name, p in net.named_parameters() if "mean" in name]
    before = net.state_dict()["sub_mean.bias"].clone()
    optimizer = torch.optim.SGD(net.parameters(), 1.0)
    net(image()).mean().backward()
    optimizer.step()
    assert torch.equal(net.state_dict()["sub_mean.bias"], before)


# ---- SPAN: trained as four convolutions, run as one


def test_span_evaluation_equals_training():
    torch.manual_seed(0)
    net = SpanSpec(features=12, subtract_mean=False).build(2)
    x = image()
    trained = net(x)
    torch.testing.assert_close(net.eval()(x), trained, rtol=1e-4, atol=1e-5)


def test_span_saves_current_fused_convolutions(tmp_path):
    torch.manual_seed(0)
    net = TINY["span"].build(2)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.01)
    save_weights(tmp_path / "net.pth", net, {})
    saved = torch.load(tmp_path / "net.pth", weights_only=True)["params"]
    net.eval()(image())
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(saved[name], tensor, rtol=1e-5, atol=1e-6)


def test_span_ema_updates_after_bfloat16_inference():
    torch.manual_seed(0)
    net = TINY["span"].build(2)
    average = copy.deepcopy(net).eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        average(image())
    exact = copy.deepcopy(net).eval()
    exact(image())
    for fused, wanted in zip(average.buffers(), exact.buffers(), strict=True):
        assert torch.equal(fused, wanted)
    with torch.no_grad():
        for a, b in zip(average.parameters(), net.parameters(), strict=True):
            a.lerp_(b, 0.5)
    torch.testing.assert_close(average.conv_1.eval_conv.weight, exact.conv_1.eval_conv.weight)


def test_he_initialization_keeps_the_signal_of_compact_and_starts_near_the_input():
    """The published initialization shrinks the signal in every layer."""

    def measure(init):
        torch.manual_seed(0)
        net, hidden = CompactSpec(features=24, convs=10, init=init).build(2), []
        for module in net.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_hook(
                    lambda _module, _inputs, output: hidden.append(output.std(dim=(0, 2, 3)).mean().item())
                )
        lr = torch.rand(2, 3, 12, 12)
        with torch.no_grad():
            step = net(lr) - torch.nn.functional.interpolate(lr, scale_factor=2)
        return hidden[-2] / hidden[0], step.abs().mean().item()

    kept, step = measure("he")
    assert kept > 5 * measure("published")[0]
    assert step < 0.05
