"""VGG16, AlexNet and SqueezeNet as feature networks; LPIPS and DISTS: torchmetrics and their authors as the oracle."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from selfsr.errors import InputError
from selfsr.images.files import image_to_tensor, read_image
from selfsr.losses import DistsLoss, LpipsLoss, PerceptualLoss
from selfsr.losses.features import ARCHITECTURES, FeatureNetwork, minimum_px

LPIPS_NETWORKS = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet"}


@pytest.fixture(scope="module")
def oracles() -> dict[str, nn.Sequential]:
    """The layers of torchvision's networks, with random weights that keep the scale."""
    torch.manual_seed(3)
    layers = {
        "vgg16": torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"]),
        "alexnet": torchvision.models.alexnet(num_classes=1).features,
        "squeezenet": torchvision.models.squeezenet1_1(num_classes=1).features,
    }
    for network in layers.values():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                nn.init.normal_(module.bias, std=0.1)
            if isinstance(module, nn.ReLU):
                module.inplace = False
        network.requires_grad_(False)
    return layers


@pytest.fixture(scope="module")
def weights(oracles) -> dict[str, dict[str, Tensor]]:
    return {
        name: {f"features.{key}": tensor for key, tensor in layers.state_dict().items()}
        for name, layers in oracles.items()
    }


def images(height: int = 70, width: int = 64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    hr = torch.rand(2, 3, height, width, generator=generator)
    return (0.8 * hr + 0.2 * torch.rand(2, 3, height, width, generator=generator)).clamp(0, 1), hr


@pytest.mark.parametrize(
    ("name", "before_relu"),  # a Fire module has no features before its ReLU
    [("vgg16", False), ("vgg16", True), ("alexnet", False), ("alexnet", True), ("squeezenet", False)],
)
def test_features_equal_those_of_torchvision(oracles, weights, name: str, before_relu: bool) -> None:
    layers = ARCHITECTURES[name].layers
    network = FeatureNetwork(name, layers, weights[name])
    x = (images()[0] - network.mean) / network.std
    result = network(images()[0], before_relu=before_relu)
    assert list(result) == list(layers)
    by_number = {number: key for key, number in layers.items()}
    compared = 0
    for number, layer in enumerate(oracles[name]):
        x = layer(x)
        # A ReLU belongs to the convolution before it; a Fire module has its own.
        is_conv = isinstance(layer, nn.Conv2d)
        key = by_number.get(number if not is_conv or before_relu else None) or (
            by_number.get(number - 1) if isinstance(layer, nn.ReLU) and not before_relu else None
        )
        if key:
            torch.testing.assert_close(result[key], x, rtol=1e-4, atol=1e-4)
            compared += 1
    assert compared == len(layers)


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_minimum_px_is_the_smallest_that_torchvision_accepts(name: str) -> None:
    models = torchvision.models
    network = {
        "vgg19": lambda: models.vgg.make_layers(models.vgg.cfgs["E"]),
        "vgg16": lambda: models.vgg.make_layers(models.vgg.cfgs["D"]),
        "alexnet": lambda: models.alexnet(num_classes=1).features,
        "squeezenet": lambda: models.squeezenet1_1(num_classes=1).features,
    }[name]
    with torch.device("meta"):
        layers = network()
    for layer, number in ARCHITECTURES[name].layers.items():
        side = minimum_px(name, [layer])
        part = layers[: number + 1]
        assert min(part(torch.empty(1, 3, side, side + 9, device="meta")).shape) >= 1
        if side > 1:
            with pytest.raises(RuntimeError):
                part(torch.empty(1, 3, side - 1, side + 9, device="meta"))


def test_minimum_px_of_the_deepest_layers() -> None:
    assert {name: minimum_px(name, one.layer_weights) for name, one in ARCHITECTURES.items()} == {
        "vgg19": 16,
        "vgg16": 16,
        "alexnet": 31,
        "squeezenet": 17,
    }
    assert [minimum_px("alexnet", [f"conv{k}"]) for k in range(1, 6)] == [7, 15, 31, 31, 31]


@pytest.mark.parametrize(("name", "layer", "number"), [("vgg16", "conv5_3", 28), ("alexnet", "conv5", 10)])
def test_default_layer_of_the_perceptual_loss_is_the_deepest(oracles, weights, name, layer, number) -> None:
    sr, hr = images()
    loss = PerceptualLoss(network=name, weights=weights[name])
    assert loss.layers == {layer: 1.0}
    part = oracles[name][: number + 1]
    mean, std = loss.network.mean, loss.network.std
    expected = (part((sr - mean) / std) - part((hr - mean) / std)).abs().mean()
    torch.testing.assert_close(loss(sr, hr), expected, rtol=1e-5, atol=0)


def test_layers_and_weights_must_be_of_the_network(weights) -> None:
    with pytest.raises(InputError, match=r"^PerceptualLoss: layers must be one of conv1, .*, conv5, got 'conv5_4'"):
        PerceptualLoss({"conv5_4": 1.0}, network="alexnet", weights=weights["alexnet"])
    with pytest.raises(InputError, match=r"^PerceptualLoss: layers must be one of conv1_1, .*conv5_3, got 'conv5_4'"):
        PerceptualLoss({"conv5_4": 1.0}, network="vgg16", weights=weights["vgg16"])
    with pytest.raises(InputError, match=r"^PerceptualLoss: network must be one of vgg19, vgg16, alexnet, got 'vgg'"):
        PerceptualLoss(network="vgg")
    message = r"^AlexNet: weights must contain features\.0\.weight of .*11\], got shape \[64, 3, 3, 3\]"
    with pytest.raises(InputError, match=message):
        PerceptualLoss(network="alexnet", weights=weights["vgg16"])
    with pytest.raises(
        InputError, match=r"^VGG16: weights must contain features\.12\.weight .*pass torchvision's vgg16"
    ):
        DistsLoss(weights={k: t for k, t in weights["vgg16"].items() if not k.startswith("features.12.")})
    for bad, got in (
        (torch.full((64, 3, 3, 3), torch.nan), "got NaN or infinity"),
        (torch.zeros(64, 3, 3, 3, dtype=torch.int64), r"got numbers of torch\.int64"),
        ("text", "got a str"),
    ):
        with pytest.raises(InputError, match=rf"^VGG16: weights must contain features\.0\.weight .*{got}; pass"):
            PerceptualLoss(network="vgg16", weights={**weights["vgg16"], "features.0.weight": bad})
    with pytest.raises(InputError, match="at least 31 px on each side for conv5, got"):
        LpipsLoss("alex", weights=weights["alexnet"])(*images(30, 40))


def test_alexnet_needs_large_images(weights) -> None:
    loss = PerceptualLoss(network="alexnet", weights=weights["alexnet"])
    assert loss(*images(31, 31)) > 0
    with pytest.raises(InputError, match=r"at least 31 px on each side for conv5, got \[2, 3, 30, 31\]"):
        loss(*images(30, 31))


def torchmetrics_lpips(name: str, oracles) -> Callable[[Tensor, Tensor], Tensor]:
    """Return torchmetrics' LPIPS with its learned weights, on the network of the fixture."""
    lpips = pytest.importorskip("torchmetrics.functional.image.lpips")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lpips, "_get_tv_model_features", lambda *_: oracles[LPIPS_NETWORKS[name]])
        net = lpips._LPIPS(net=name)
    return lambda sr, hr: net(sr, hr, normalize=True).mean()


@pytest.mark.parametrize("name", list(LPIPS_NETWORKS))
def test_lpips_and_its_gradient_equal_those_of_torchmetrics(oracles, weights, name: str) -> None:
    sr, hr = images()
    sr.requires_grad_()
    expected = torchmetrics_lpips(name, oracles)(sr, hr)
    (slope,) = torch.autograd.grad(expected, sr)
    loss = LpipsLoss(name, weights=weights[LPIPS_NETWORKS[name]])
    value = loss(sr, hr)
    (result,) = torch.autograd.grad(value, sr)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=0)
    assert (result - slope).norm() < 1e-3 * slope.norm()


def test_dists_and_its_gradient_equal_those_of_torchmetrics(oracles, weights) -> None:
    dists = pytest.importorskip("torchmetrics.functional.image.dists")
    sr, hr = images()
    sr.requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dists, "vgg16", lambda **_: type("Vgg", (), {"features": oracles["vgg16"]}))
        expected = dists.DISTSNetwork()(sr, hr, require_grad=True).mean()
    (slope,) = torch.autograd.grad(expected, sr)
    value = DistsLoss(weights=weights["vgg16"])(sr, hr)
    (result,) = torch.autograd.grad(value, sr)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=0)
    assert (result - slope).norm() < 1e-3 * slope.norm()


MAKERS = {
    "lpips": lambda weights: LpipsLoss("squeeze", weights=weights["squeezenet"]),
    "dists": lambda weights: DistsLoss(weights=weights["vgg16"]),
    "perceptual": lambda weights: PerceptualLoss(network="alexnet", weights=weights["alexnet"]),
}


@pytest.mark.parametrize("kind", list(MAKERS))
def test_only_the_output_gets_a_gradient(weights, kind: str) -> None:
    loss = MAKERS[kind](weights)
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    sr, hr = (image.requires_grad_() for image in images())
    graphs = []
    loss.network.register_forward_hook(lambda net, args, features: graphs.append(features))
    loss(sr, hr).backward()
    assert hr.grad is None
    assert sr.grad.abs().max() > 0
    # The first call is that of the ground truth, which keeps no activations for a backward pass.
    of_hr, of_sr = graphs
    assert not any(feature.requires_grad for feature in of_hr.values())
    assert all(feature.requires_grad for feature in of_sr.values())


@pytest.mark.parametrize("kind", list(MAKERS))
def test_half_precision_and_autocast_keep_float32(weights, kind: str) -> None:
    loss = MAKERS[kind](weights)
    sr, hr = (image.bfloat16() for image in images())
    expected = loss(sr.float(), hr.float())
    assert expected.dtype == torch.float32
    assert loss(sr, hr) == expected
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(sr.float(), hr.float()) == expected


@pytest.mark.parametrize(("kind", "side"), [("lpips", 17), ("dists", 6)])
def test_gradients_equal_numerical_ones(weights, kind: str, side: int) -> None:
    loss = MAKERS[kind](weights).double()
    sr, hr = (image[:1].double() for image in images(side, side))
    sr.requires_grad_()
    (slope,) = torch.autograd.grad(loss(sr, hr), sr)
    generator = torch.Generator().manual_seed(5)
    for _ in range(6):
        direction = torch.randn(sr.shape, generator=generator, dtype=torch.float64)
        direction /= direction.norm()
        step = 1e-6
        with torch.no_grad():
            difference = (loss(sr + step * direction, hr) - loss(sr - step * direction, hr)) / (2 * step)
        torch.testing.assert_close((slope * direction).sum(), difference, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("kind", ["lpips", "dists"])
def test_equal_images_have_no_distance_and_a_finite_gradient(weights, kind: str) -> None:
    loss = MAKERS[kind](weights)
    for hr in (images()[1], torch.zeros(1, 3, 32, 32)):
        sr = hr.clone().requires_grad_()
        value = loss(sr, hr)
        value.backward()
        assert value.item() == pytest.approx(0, abs=1e-5)
        assert sr.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["lpips", "dists"])
def test_loss_is_the_mean_over_images_and_gray_is_repeated(weights, kind: str) -> None:
    loss = MAKERS[kind](weights)
    sr, hr = images()
    each = torch.stack([loss(sr[n : n + 1], hr[n : n + 1]) for n in range(2)])
    torch.testing.assert_close(loss(sr, hr), each.mean(), rtol=1e-5, atol=0)
    gray = [image[:, :1] for image in (sr, hr)]
    torch.testing.assert_close(loss(*gray), loss(*(image.repeat(1, 3, 1, 1) for image in gray)))


@pytest.mark.parametrize("kind", list(MAKERS))
def test_copies_give_the_same_loss(weights, kind: str) -> None:
    loss = MAKERS[kind](weights)
    for copied in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert copied(*images()) == loss(*images())


def test_without_torchmetrics_the_sentence_says_what_to_install(weights, monkeypatch) -> None:
    monkeypatch.setattr("selfsr.losses._torchmetrics.find_spec", lambda name: None)
    for loss in ("lpips", "dists"):
        with pytest.raises(InputError, match=r'^(Lpips|Dists)Loss: expected the package torchmetrics, .*"selfsr\[me'):
            MAKERS[loss](weights)


def test_no_random_numbers_are_drawn(weights) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    for make in MAKERS.values():
        make(weights)
    assert torch.equal(torch.rand(3), expected)


def example(torch_home: Path, name: str) -> Tensor:
    return image_to_tensor(read_image(torch_home / "metrics" / "examples" / f"{name}.png"))


def test_lpips_of_the_authors_examples(torch_home: Path) -> None:
    loss = LpipsLoss("alex")
    reference = example(torch_home, "lpips_ex_ref")
    for name, published in (("p0", 0.722), ("p1", 0.138)):
        assert loss(example(torch_home, f"lpips_ex_{name}"), reference).item() == pytest.approx(published, abs=5e-4)


def test_dists_of_the_authors_example(torch_home: Path) -> None:
    pair = (example(torch_home, name) for name in ("dists_r0", "dists_r1"))
    assert DistsLoss()(*pair).item() == pytest.approx(0.3347, abs=5e-5)
