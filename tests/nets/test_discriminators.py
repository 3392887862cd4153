"""The discriminators: published sizes and names, values against independent statements, crops, training, precision."""

import copy
from typing import get_args

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn
from torch.nn import functional

from selfsr.errors import InputError
from selfsr.nets.discriminators.layers import SpectralConv2d
from selfsr.nets.discriminators.union import (
    AnyDiscriminatorNetwork,
    DiscriminatorNetwork,
    PatchDiscriminatorSpec,
    UnetDiscriminatorSpec,
    VggDiscriminatorSpec,
)
from selfsr.nets.weights.load import load_into
from selfsr.nets.weights.save import save_weights

TINY = {
    "vgg": VggDiscriminatorSpec(features=4),
    "vgg without norm": VggDiscriminatorSpec(features=4, norm="none"),
    "vgg of one stage": VggDiscriminatorSpec(features=4, stages=1),
    "unet_sn": UnetDiscriminatorSpec(features=4),
    "unet_sn without skip": UnetDiscriminatorSpec(features=4, skip=False),
    "patch": PatchDiscriminatorSpec(features=4),
    "patch instance": PatchDiscriminatorSpec(features=4, norm="instance", layers=2),
    "patch spectral": PatchDiscriminatorSpec(features=4, norm="spectral", layers=2),
    "patch without norm": PatchDiscriminatorSpec(features=4, norm="none", layers=1),
}
CROP_PX = 24


def image(channels=3, side=CROP_PX, batch=2):
    return torch.rand(batch, channels, side, side, generator=torch.Generator().manual_seed(1))


def build_net(name, channels=3, crop_px=CROP_PX):
    torch.manual_seed(0)
    return TINY[name].build(channels, crop_px)


def lrelu(x):
    return torch.where(x > 0, x, 0.2 * x)


def test_tiny_contains_every_discriminator():
    missing = sorted(t.__name__ for t in set(get_args(AnyDiscriminatorNetwork)) - set(map(type, TINY.values())))
    assert not missing, f"add {', '.join(missing)} with few features to TINY in {__file__}, so that it is tested"


# ---- sizes and names


@pytest.mark.parametrize(
    ("spec", "crop_px", "parameters", "tensors"),
    [
        (VggDiscriminatorSpec(), 128, 14_499_401, 60),
        (VggDiscriminatorSpec(), 192, 20_696_649, 72),
        (VggDiscriminatorSpec(), 256, 21_055_049, 72),
        (VggDiscriminatorSpec(), 296, 17_827_401, 60),
        (PatchDiscriminatorSpec(norm="instance"), 256, 2_764_737, 10),
    ],
)
def test_parameter_count_is_published(spec, crop_px, parameters, tensors):
    with torch.device("meta"):
        discriminator = spec.build(3, crop_px)
    assert sum(p.numel() for p in discriminator.parameters()) == parameters
    assert len(discriminator.state_dict()) == tensors


@pytest.mark.parametrize(("crop_px", "stages"), [(128, 5), (192, 6), (256, 6), (296, 5)])
def test_vgg_names_are_published(crop_px, stages):
    norms = {f"bn{i}_{k}" for i in range(stages) for k in (0, 1)} - {"bn0_0"}
    parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {f"conv{i}_{k}.weight" for i in range(stages) for k in (0, 1)} | {"conv0_0.bias"}
    expected |= {f"{norm}.{part}" for norm in norms for part in parts}
    expected |= {f"linear{n}.{part}" for n in (1, 2) for part in ("weight", "bias")}
    with torch.device("meta"):
        state = VggDiscriminatorSpec(features=8).build(3, crop_px).state_dict()
    assert set(state) == expected
    widths = [8, 16, 32, 64, 64, 64][:stages]
    assert [state[f"conv{i}_1.weight"].shape[0] for i in range(stages)] == widths
    assert state["linear1.weight"].shape == (100, 64 * {128: 16, 192: 9, 256: 16, 296: 81}[crop_px])


def test_unet_names_and_size_are_published():
    spectral = {f"conv{n}.weight_{part}" for n in range(1, 9) for part in ("orig", "u", "v")}
    ends = {f"conv{n}.{part}" for n in (0, 9) for part in ("weight", "bias")}
    discriminator = UnetDiscriminatorSpec().build(3, 8)
    assert set(discriminator.state_dict()) == spectral | ends
    assert sum(p.numel() for p in discriminator.parameters()) == 4_376_897


def test_patch_names_are_published():
    biased = {f"model.{n}.{part}" for n in (0, 11) for part in ("weight", "bias")}
    norms = {
        f"model.{n}.{part}"
        for n in (3, 6, 9)
        for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    assert set(TINY["patch"].build(3, 70).state_dict()) == biased | norms | {f"model.{n}.weight" for n in (2, 5, 8)}


# ---- values


def standardized(x, state, name):
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    scale, shift = (state[f"{name}.{part}"].view(1, -1, 1, 1) for part in ("weight", "bias"))
    return (x - mean) / (variance + 1e-5).sqrt() * scale + shift


@pytest.mark.parametrize("name", ["vgg", "vgg without norm", "vgg of one stage"])
def test_vgg_forward_equals_plain_functions(name):
    discriminator, x = build_net(name).double(), image().double()
    state = discriminator.state_dict()
    with torch.no_grad():
        for parameter in discriminator.parameters():  # so that no scale is 1 and no shift 0
            parameter.add_(
                0.1 * torch.rand(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
            )
    y = x
    for stage in range(1 if name.endswith("stage") else 3):
        for layer, stride in ((0, 1), (1, 2)):
            bias = state.get(f"conv{stage}_{layer}.bias")
            y = functional.conv2d(y, state[f"conv{stage}_{layer}.weight"], bias, stride=stride, padding=1)
            if f"bn{stage}_{layer}.weight" in state:
                y = standardized(y, state, f"bn{stage}_{layer}")
            y = lrelu(y)
    y = lrelu(y.flatten(1) @ state["linear1.weight"].T + state["linear1.bias"])
    expected = y @ state["linear2.weight"].T + state["linear2.bias"]
    torch.testing.assert_close(discriminator(x), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["unet_sn", "unet_sn without skip"])
def test_unet_forward_equals_plain_functions(name):
    discriminator, x = build_net(name).double().eval(), image().double()
    state = discriminator.state_dict()

    def layer(n, y, stride=1):
        weight = state[f"conv{n}.weight_orig"]
        gain = state[f"conv{n}.weight_u"] @ weight.flatten(1) @ state[f"conv{n}.weight_v"]
        return lrelu(functional.conv2d(y, weight / gain, None, stride, 1))

    def doubled(y):
        return functional.interpolate(y, scale_factor=2, mode="bilinear")

    skip = 1.0 if name == "unet_sn" else 0.0
    x0 = lrelu(functional.conv2d(x, state["conv0.weight"], state["conv0.bias"], padding=1))
    x1 = layer(1, x0, 2)
    x2 = layer(2, x1, 2)
    x4 = layer(4, doubled(layer(3, x2, 2))) + skip * x2
    x6 = layer(6, doubled(layer(5, doubled(x4)) + skip * x1)) + skip * x0
    expected = functional.conv2d(layer(8, layer(7, x6)), state["conv9.weight"], state["conv9.bias"], padding=1)
    torch.testing.assert_close(discriminator(x), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("name", "layers"), [("patch", 3), ("patch instance", 2), ("patch without norm", 1)])
def test_patch_forward_equals_plain_functions(name, layers):
    discriminator, x = build_net(name, crop_px=32).double(), image(side=32).double()
    state, step = discriminator.state_dict(), 2 if name == "patch without norm" else 3
    y = lrelu(functional.conv2d(2 * x - 1, state["model.0.weight"], state["model.0.bias"], 2, 1))
    for n in range(1, layers + 1):
        at = 2 + step * (n - 1)
        y = functional.conv2d(y, state[f"model.{at}.weight"], state.get(f"model.{at}.bias"), 2 if n < layers else 1, 1)
        if name == "patch":
            y = standardized(y, state, f"model.{at + 1}")
        if name == "patch instance":
            mean, variance = y.mean((2, 3), keepdim=True), y.var((2, 3), unbiased=False, keepdim=True)
            y = (y - mean) / (variance + 1e-5).sqrt()
        y = lrelu(y)
    last = f"model.{2 + step * layers}"
    expected = functional.conv2d(y, state[f"{last}.weight"], state[f"{last}.bias"], padding=1)
    torch.testing.assert_close(discriminator(x), expected, rtol=1e-9, atol=1e-12)


def test_spectral_norm_equals_torch():
    conv = nn.Conv2d(3, 5, 3, padding=1)
    ours = SpectralConv2d(conv)
    theirs = nn.utils.spectral_norm(copy.deepcopy(conv))
    theirs.load_state_dict(ours.state_dict())
    for step in range(3):
        x = image(side=6) + step
        for layer in (ours, theirs):
            layer.zero_grad()
            (layer(x) ** 2).sum().backward()
        torch.testing.assert_close(ours(x), theirs(x))
        torch.testing.assert_close(ours.weight_orig.grad, theirs.weight_orig.grad)
        assert set(ours.state_dict()) == set(theirs.state_dict())
        for name, tensor in theirs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], tensor)


@pytest.mark.parametrize("name", ["unet_sn", "patch spectral"])
def test_spectral_norm_converges_to_gain_one(name):
    discriminator = build_net(name)
    layers = [module for module in discriminator.modules() if isinstance(module, SpectralConv2d)]
    assert layers
    for layer in layers:
        layer.update_estimate(300)
        assert torch.linalg.matrix_norm(layer.compute_weight().flatten(1), 2).item() == pytest.approx(1, abs=1e-4)


def test_spectral_norm_evaluation_keeps_estimates():
    discriminator = build_net("unet_sn").eval()
    before = copy.deepcopy(discriminator.state_dict())
    discriminator(image())
    assert all(torch.equal(before[name], tensor) for name, tensor in discriminator.state_dict().items())


def test_patch_logit_has_receptive_field_of_70_px():
    discriminator, x = PatchDiscriminatorSpec(features=2, norm="none").build(1, 128).double(), image(1, 128, 1).double()
    x.requires_grad_(True)
    logits = discriminator(x)
    logits[0, 0, 6, 6].backward()
    assert x.grad is not None
    seen = x.grad[0, 0].nonzero()
    assert (seen.max(0).values - seen.min(0).values + 1).tolist() == [70, 70]


# ---- crops


@pytest.mark.parametrize(
    ("name", "crop_px", "expected"),
    [
        ("vgg", 5, "discriminator VGG: expected a crop of at least 6 px, got a crop of 5 px"),
        ("vgg of one stage", 1, "at least 2 px with stages 1, got a crop of 1 px"),
        (
            "unet_sn",
            36,
            "discriminator U-Net with spectral norm: expected a crop of a multiple of 8 px, got a crop of 36 px",
        ),
        ("patch", 23, "discriminator PatchGAN: expected a crop of at least 24 px with layers 3, got a crop of 23 px"),
    ],
)
def test_unfit_crop_is_refused_with_expected_crops(name, crop_px, expected):
    with pytest.raises(InputError, match=expected):
        TINY[name].build(3, crop_px)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", TINY)
def test_small_crops_give_expected_logit_shapes(name, channels):
    for side in {"patch": (24, 31), "unet_sn": (8, 48)}.get(name.split()[0], (6, 13, 48)):
        logits = build_net(name, channels, side)(image(channels, side))
        layers = getattr(TINY[name], "layers", 0)
        expected = {"vgg": (2, 1), "unet_sn": (2, 1, side, side)}
        patch = (2, 1, (side >> layers) - 2, (side >> layers) - 2)
        assert logits.shape == expected.get(name.split()[0], patch)


def test_vgg_refuses_other_crop_sizes():
    with pytest.raises(InputError, match=r"expected crops of 24 x 24 px, .* got 24 x 25"):
        build_net("vgg")(torch.rand(2, 3, 24, 25))


def test_recipe_accepts_only_options_of_the_kind():
    adapter = TypeAdapter(DiscriminatorNetwork)
    assert adapter.validate_python({"kind": "unet_sn", "skip": False}) == UnetDiscriminatorSpec(skip=False)
    wrongs = [{"kind": "vgg", "skip": True}, {"kind": "patch", "norm": "layer"}, {"kind": "vgg", "features": 0}]
    wrongs += [{"kind": kind, "norm": "none", "init": "orthogonal"} for kind in ("vgg", "patch")]
    for wrong in wrongs:
        with pytest.raises(ValidationError):
            adapter.validate_python(wrong)


# ---- training


@pytest.mark.parametrize(
    ("name", "init"),
    [(name, "default") for name in TINY] + [(name, "orthogonal") for name in TINY if "without norm" not in name],
)
def test_two_steps_change_all_weights_and_reduce_loss(name, init):
    torch.manual_seed(0)
    discriminator = TINY[name].model_copy(update={"init": init}).build(3, 32)
    before = {key: parameter.detach().clone() for key, parameter in discriminator.named_parameters()}
    optimizer = torch.optim.Adam(discriminator.parameters(), 1e-3)
    real, fake = image(side=32), 0.5 * image(side=32).flip(-1)
    losses = []
    for _ in range(3):
        loss = functional.softplus(-discriminator(real)).mean() + functional.softplus(discriminator(fake)).mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[2] < losses[0]
    for key, parameter in discriminator.named_parameters():
        assert not torch.equal(parameter, before[key]), key


def test_images_of_a_batch_interact_only_by_batch_norm():
    for name in ("vgg without norm", "patch without norm", "patch instance"):
        discriminator, x = build_net(name), image()
        torch.testing.assert_close(discriminator(x), torch.cat([discriminator(x[:1]), discriminator(x[1:])]))
    discriminator, x = build_net("vgg"), image()
    assert not torch.allclose(discriminator(x), torch.cat([discriminator(x[:1]), discriminator(x[1:])]), atol=1e-3)


@pytest.mark.parametrize("name", ["vgg without norm", "unet_sn", "patch without norm", "patch spectral"])
def test_gradient_penalty_reaches_all_weights(name):
    discriminator, x = build_net(name), image().requires_grad_(True)
    (slope,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
    ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean().backward()
    weights = {key: parameter for key, parameter in discriminator.named_parameters() if parameter.ndim > 1}
    still = {key for key, weight in weights.items() if weight.grad is None or weight.grad.abs().sum() == 0}
    assert still == set()


def test_initialization_is_published():
    torch.manual_seed(0)
    vgg = VggDiscriminatorSpec(init="orthogonal").build(3, 24)
    rows = vgg.get_parameter("conv1_1.weight").detach().flatten(1)
    torch.testing.assert_close(rows @ rows.T, 0.04 * torch.eye(128), atol=1e-5, rtol=0)
    scales = vgg.get_parameter("bn1_1.weight")
    assert 0.1 <= scales.min() < 0.2 < 0.9 < scales.max() <= 1
    assert vgg.get_parameter("linear1.bias").abs().max() == 0
    plain = VggDiscriminatorSpec().build(3, 24).get_parameter("conv1_1.weight")
    assert plain.std().item() == pytest.approx((3 * 128 * 16) ** -0.5, rel=0.01)  # U(-b, b), b = 1 / sqrt(inputs)
    for norm in ("batch", "spectral"):
        patch = PatchDiscriminatorSpec(norm=norm).build(3, 70)
        for key, parameter in patch.named_parameters():
            if parameter.ndim == 4:
                assert parameter.std().item() == pytest.approx(0.02, rel=0.1), key
            if key.endswith("bias"):
                assert parameter.abs().max() == 0


@pytest.mark.parametrize("name", TINY)
def test_logits_under_autocast_are_float32(name):
    discriminator, x = build_net(name), image()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coarse = discriminator(x)
    assert coarse.dtype == torch.float32
    torch.testing.assert_close(coarse, build_net(name)(x), atol=0.06, rtol=0.1)


@pytest.mark.parametrize("name", TINY)
def test_discriminator_can_be_saved_and_copied(name, tmp_path):
    discriminator, other = build_net(name), TINY[name].build(3, CROP_PX)
    discriminator(image()).sum().backward()
    save_weights(tmp_path / "net_d.safetensors", discriminator, {})
    load_into(other, tmp_path / "net_d.safetensors")
    twin = copy.deepcopy(discriminator).eval()
    for loaded in (other.eval(), twin):
        torch.testing.assert_close(loaded(image()), discriminator.eval()(image()), rtol=0, atol=0)
