"""The perceptual loss: torchvision's VGG19 as the oracle, its options, its weights and what is said without them."""

import re
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from selfsr.errors import InputError
from selfsr.losses import PerceptualLoss
from selfsr.losses.features import ARCHITECTURES, FeatureNetwork

LAYERS = ARCHITECTURES["vgg19"].layers
WEIGHTS_FILE = "vgg19-dcbb9e9d.pth"
MEAN = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)
REAL_ESRGAN = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}


@pytest.fixture(scope="module")
def oracle() -> nn.Sequential:
    """The convolutions of torchvision's VGG19 as it builds them, with random weights that keep the scale."""
    layers = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["E"])
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                layer.weight.normal_(0, (2 / (9 * layer.in_channels)) ** 0.5, generator=generator)
                layer.bias.normal_(0, 0.1, generator=generator)
            if isinstance(layer, nn.ReLU):
                layer.inplace = False
    return layers


@pytest.fixture(scope="module")
def weights(oracle) -> dict[str, Tensor]:
    return {f"features.{name}": tensor for name, tensor in oracle.state_dict().items()}


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    hr = torch.rand(2, 3, 40, 33, generator=torch.Generator().manual_seed(2))
    return (0.8 * hr + 0.1).flip(0), hr


def features(oracle: nn.Sequential, image: Tensor, number: int) -> Tensor:
    return oracle[: number + 1]((image - MEAN) / STD)


def test_layers_equal_those_of_torchvision() -> None:
    layers = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["E"])
    assert list(LAYERS.values()) == [n for n, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
    assert list(LAYERS) == [
        f"conv{s}_{c}" for s, n in ((1, 2), (2, 2), (3, 4), (4, 4), (5, 4)) for c in range(1, n + 1)
    ]
    # The five that are known by their numbers in published recipes.
    assert [LAYERS[name] for name in REAL_ESRGAN] == [2, 7, 16, 25, 34]


@pytest.mark.parametrize("before_relu", [True, False])
def test_features_equal_those_of_torchvision(oracle, weights, images, before_relu: bool) -> None:
    vgg = FeatureNetwork("vgg19", LAYERS, weights)
    with torch.no_grad():
        result = vgg(images[0], before_relu=before_relu)
        assert list(result) == list(LAYERS)
        x = (images[0] - MEAN) / STD
        expected = {}
        for number, layer in enumerate(oracle):
            x = layer(x)
            expected[number] = x
    for name, number in LAYERS.items():
        torch.testing.assert_close(result[name], expected[number if before_relu else number + 1], rtol=1e-4, atol=1e-4)


def test_perceptual_loss_equals_its_definition(oracle, weights, images) -> None:
    sr, hr = images
    sr = sr.clone().requires_grad_()
    expected = torch.zeros(())
    for name, weight in REAL_ESRGAN.items():
        expected = expected + weight * functional.l1_loss(
            features(oracle, sr, LAYERS[name]), features(oracle, hr, LAYERS[name])
        )
    (slope,) = torch.autograd.grad(expected, sr)
    loss = PerceptualLoss(REAL_ESRGAN, weights=weights)
    value = loss(sr, hr)
    (result,) = torch.autograd.grad(value, sr)
    torch.testing.assert_close(value, expected.detach(), rtol=1e-5, atol=0)
    assert (result - slope).norm() < 1e-4 * slope.norm()


def test_default_layer_is_that_of_esrgan(oracle, weights, images) -> None:
    sr, hr = images
    expected = functional.l1_loss(features(oracle, sr, 34), features(oracle, hr, 34))
    torch.testing.assert_close(PerceptualLoss(weights=weights)(sr, hr), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("criterion", ["l1", "l2", "charbonnier"])
def test_style_compares_gram_matrices(oracle, weights, images, criterion: str) -> None:
    sr, hr = images

    def gram(image: Tensor) -> Tensor:
        f = features(oracle, image, 7)
        return torch.einsum("nchw,ndhw->ncd", f, f) / f[0].numel()

    difference = gram(sr) - gram(hr)
    expected = {
        "l1": difference.abs(),
        "l2": difference**2,
        "charbonnier": (difference**2 + 1e-6).sqrt(),
    }[criterion].mean()
    options = {"criterion": criterion, "feature_weight": 0.0, "weights": weights}
    result = PerceptualLoss({"conv2_2": 0.5}, style_weight=3.0, **options)(sr, hr)
    torch.testing.assert_close(result, 1.5 * expected, rtol=1e-4, atol=0)
    both = PerceptualLoss({"conv2_2": 0.5}, style_weight=3.0, **{**options, "feature_weight": 2.0})(sr, hr)
    plain = PerceptualLoss({"conv2_2": 0.5}, **{**options, "feature_weight": 1.0})(sr, hr)
    torch.testing.assert_close(both, result + 2 * plain, rtol=1e-5, atol=0)


def test_only_required_layers_are_built(weights) -> None:
    loss = PerceptualLoss({"conv2_1": 1.0, "conv1_2": 1.0}, weights=weights)
    names = [name.removeprefix("network.") for name in loss.state_dict()]
    assert names == [f"features.{n}.{part}" for n in (0, 2, 5) for part in ("weight", "bias")]
    assert not any(parameter.requires_grad for parameter in loss.parameters())


def test_repr_shows_the_options(weights) -> None:
    text = repr(PerceptualLoss({"conv1_2": 0.5}, style_weight=2.0, weights=weights))
    assert "conv1_2: 0.5, criterion=l1, feature_weight=1, style_weight=2, before_relu=True" in text


def test_gray_is_repeated(weights, images) -> None:
    loss = PerceptualLoss({"conv2_2": 1.0}, weights=weights)
    sr, hr = (image[:, :1] for image in images)
    torch.testing.assert_close(loss(sr, hr), loss(sr.repeat(1, 3, 1, 1), hr.repeat(1, 3, 1, 1)))


def test_gradients_equal_numerical_ones(weights) -> None:
    loss = PerceptualLoss(
        {"conv1_1": 0.5, "conv1_2": 1.0}, criterion="charbonnier", style_weight=1.0, weights=weights
    ).double()
    sr, hr = torch.rand(2, 1, 3, 5, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: loss(x, hr), (sr.requires_grad_(),))


def test_equal_images_have_no_loss_and_hr_gets_no_gradient(weights, images) -> None:
    loss = PerceptualLoss(REAL_ESRGAN, style_weight=1.0, weights=weights)
    sr, hr = (image.clone().requires_grad_() for image in images)
    value = loss(hr, hr.detach())
    value.backward()
    assert value == 0
    assert hr.grad.abs().max() == 0
    hr.grad = None
    loss(sr, hr).backward()
    assert hr.grad is None
    assert sr.grad.abs().max() > 0


def test_loss_of_a_batch_is_the_mean_over_its_images(weights, images) -> None:
    loss = PerceptualLoss(REAL_ESRGAN, style_weight=1.0, weights=weights)
    sr, hr = images
    each = torch.stack([loss(sr[n : n + 1], hr[n : n + 1]) for n in range(2)])
    torch.testing.assert_close(loss(sr, hr), each.mean(), rtol=1e-5, atol=0)


def test_half_precision_autocast_and_layout_keep_the_loss(weights, images) -> None:
    loss = PerceptualLoss({"conv3_1": 1.0}, style_weight=1.0, weights=weights)
    sr, hr = (image.bfloat16() for image in images)
    expected = loss(sr.float(), hr.float())
    assert expected.dtype == torch.float32
    assert loss(sr, hr) == expected
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(sr.float(), hr.float()) == expected
    last = {"memory_format": torch.channels_last}
    torch.testing.assert_close(loss.to(**last)(sr.to(**last), hr.to(**last)), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_are_read_from_a_file(weights, images, tmp_path: Path, suffix: str) -> None:
    from safetensors.torch import save_file

    path = tmp_path / f"vgg{suffix}"
    few = {name: tensor for name, tensor in weights.items() if int(name.split(".")[1]) <= 7}
    content = {**few, "classifier.0.bias": torch.zeros(3)}
    save_file(content, path) if suffix == ".safetensors" else torch.save(content, path)
    layers = {"conv2_2": 1.0}
    assert PerceptualLoss(layers, weights=path)(*images) == PerceptualLoss(layers, weights=weights)(*images)
    with pytest.raises(
        InputError, match=r"^VGG19: weights .*vgg\.\w+ must contain features\.10\.weight of shape \[256, 128, 3, 3\]"
    ):
        PerceptualLoss({"conv3_1": 1.0}, weights=path)


def test_weights_are_downloaded_once(weights, images, tmp_path: Path, monkeypatch) -> None:
    fetched = []

    def fetch(url: str, target: str, hash_prefix: str) -> None:
        fetched.append((url, hash_prefix))
        torch.save(weights, target)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    layers = {"conv1_2": 1.0}
    for _ in range(2):
        assert PerceptualLoss(layers)(*images) == PerceptualLoss(layers, weights=weights)(*images)
    assert fetched == [(f"https://download.pytorch.org/models/{WEIGHTS_FILE}", "dcbb9e9d")]


def test_failed_download_raises_with_advice(tmp_path: Path, monkeypatch, capsys) -> None:
    from urllib.error import URLError

    def fetch(url: str, target: str, hash_prefix: str) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    message = (
        f"VGG19: expected the weights file {WEIGHTS_FILE} in {tmp_path / 'checkpoints'}, got none, and the download "
        "failed (<urlopen error Name or service not known>); put the file there, or set TORCH_HOME to a folder with "
        f"hub/checkpoints/{WEIGHTS_FILE}."
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        PerceptualLoss()
    # Our line is the only one: PyTorch's own would hide the sentence.
    url = f"https://download.pytorch.org/models/{WEIGHTS_FILE}"
    target = tmp_path / "checkpoints" / WEIGHTS_FILE
    assert capsys.readouterr() == ("", f"VGG19: downloading {url} (548 MB) to {target}.\n")


def test_unreadable_weights_file_raises(tmp_path: Path) -> None:
    path = tmp_path / "vgg.pth"
    message = rf"weights must be a weights file, got .*vgg\.pth, which does not exist; pass the path of {WEIGHTS_FILE}"
    with pytest.raises(InputError, match=f"^VGG19: {message}"):
        FeatureNetwork("vgg19", ["conv1_1"], path)
    for content in (b"", b"not weights", b"PK\x03\x04 cut"):
        path.write_bytes(content)
        with pytest.raises(
            InputError, match=r"vgg\.pth must be a weights file, got one that cannot be read \(.+\); download"
        ):
            FeatureNetwork("vgg19", ["conv1_1"], path)
    torch.save(torch.zeros(3), path)
    with pytest.raises(InputError, match=r"must contain tensors by name, got a Tensor; pass vgg19-dcbb9e9d.pth"):
        FeatureNetwork("vgg19", ["conv1_1"], path)


def test_mistake_raises_one_sentence(weights, images) -> None:
    sr, hr = images
    with pytest.raises(
        InputError,
        match=r"^PerceptualLoss: layers must be one of conv1_1, .*, conv5_4, got 'conv5_5'; did you mean 'conv5",
    ):
        PerceptualLoss({"conv5_5": 1.0}, weights=weights)
    with pytest.raises(InputError, match=r"^PerceptualLoss: layers must name at least one of conv1_1, .*, got none\.$"):
        PerceptualLoss({}, weights=weights)
    with pytest.raises(InputError, match=r"feature_weight and style_weight must be 0 or more and not both 0"):
        PerceptualLoss(feature_weight=0.0, weights=weights)
    with pytest.raises(InputError, match=r"criterion must be one of l1, l2, charbonnier, got 'fro'"):
        PerceptualLoss(criterion="fro", weights=weights)
    loss = PerceptualLoss({"conv3_1": 1.0}, weights=weights)
    with pytest.raises(InputError, match=r"^PerceptualLoss: images must have 3 channels, or 1 for gray, got \[2, 2,"):
        loss(sr[:, :2], hr[:, :2])
    with pytest.raises(InputError, match=r"images must be at least 4 px on each side for conv3_1, got \[2, 3, 3, 33\]"):
        loss(sr[:, :, :3], hr[:, :, :3])
    with pytest.raises(InputError, match=r"^PerceptualLoss: sr and hr must have one shape"):
        loss(sr, hr[:1])
