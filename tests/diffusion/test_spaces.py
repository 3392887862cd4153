"""Autoencoders: what they map to, that they stay as they are, and what is refused."""

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from factories import texture
from sampled_nets import make_net, save_autoencoder
from selfsr.errors import InputError
from selfsr.images.files import image_to_tensor, read_image
from selfsr.nets.diffusion.spaces import AutoencoderSpec, LatentSpace, PixelSpace, build_space
from selfsr.nets.weights import load_model, save_weights

KINDS = ["AutoencoderKL", "VQModel", "AutoencoderTiny"]


def image(side: int = 16) -> torch.Tensor:
    return torch.from_numpy(texture(0, side, side).transpose(2, 0, 1)).float()[None] / 255


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_autoencoder(tmp_path_factory.mktemp("autoencoder"), request.param)


def test_pixels_are_mapped_to_minus_one_to_one_and_back() -> None:
    space = PixelSpace(3)
    values = space.encode(torch.tensor([0.0, 0.25, 1.0]).view(1, 3, 1, 1))
    assert values.flatten().tolist() == [-1.0, -0.5, 1.0]
    assert space.decode(values).flatten().tolist() == [0.0, 0.25, 1.0]


def test_latents_are_those_of_diffusers_with_its_factor(folder: Path) -> None:
    import diffusers

    kind = json.loads((folder / "config.json").read_text())["_class_name"]
    net = getattr(diffusers, kind).from_pretrained(str(folder)).eval()
    space = build_space(AutoencoderSpec(autoencoder=folder), 3)
    factor = 1.0 if kind == "AutoencoderTiny" else 0.5
    with torch.no_grad():
        encoded = net.encode(2 * image() - 1)
        latents = encoded.latent_dist.mode() if kind == "AutoencoderKL" else encoded.latents
        decoded = (net.decode(latents).sample + 1) / 2
    assert (space.channels, space.downscale) == (4, 2)
    assert (space.encode(image()) - factor * latents).abs().max() < 1e-6
    assert (space.decode(factor * latents) - decoded).abs().max() < 1e-6


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_gradient_of_a_decoder_is_that_without_checkpointing(folder: Path, checkpointing: bool) -> None:
    space = build_space(AutoencoderSpec(autoencoder=folder), 3)
    gradients = []
    for recompute in (False, checkpointing):
        values = space.encode(image()).requires_grad_()
        space.decode(values, checkpointing=recompute).square().mean().backward()
        assert values.grad is not None
        gradients.append(values.grad)
    assert gradients[0].abs().max() > 0
    assert torch.equal(*gradients)


def test_an_autoencoder_is_frozen_shared_and_not_part_of_the_network(folder: Path) -> None:
    net = make_net(space={"autoencoder": str(folder)})
    space = net.space
    assert isinstance(space, LatentSpace)
    assert not any(parameter.requires_grad for parameter in space.net.parameters())
    assert not any("decoder" in name for name in net.state_dict())
    twin = copy.deepcopy(net)
    assert isinstance(twin.space, LatentSpace)
    assert twin.space.net is space.net


def test_a_weights_file_names_its_autoencoder(folder: Path, tmp_path: Path) -> None:
    net, lr = make_net(space={"autoencoder": str(folder)}), image(12)
    save_weights(tmp_path / "net.safetensors", net, {})
    assert torch.equal(load_model(tmp_path / "net.safetensors").net(lr), net(lr))


def test_an_autoencoder_that_moved_beside_the_weights_file_is_found(folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "first" / "vae"
    shutil.copytree(folder, moved)
    net = make_net(space={"autoencoder": str(moved)})
    save_weights(tmp_path / "second" / "net.safetensors", net, {})
    shutil.move(moved, tmp_path / "second" / "vae")
    assert torch.equal(load_model(tmp_path / "second" / "net.safetensors").net(image(12)), net(image(12)))
    shutil.rmtree(tmp_path / "second" / "vae")
    with pytest.raises(InputError, match=r"net.safetensors: network.space.autoencoder: expected a folder"):
        load_model(tmp_path / "second" / "net.safetensors")


def test_another_autoencoder_than_in_training_is_refused(tmp_path: Path) -> None:
    folder = save_autoencoder(tmp_path / "vae", "AutoencoderKL")
    save_weights(tmp_path / "net.safetensors", make_net(space={"autoencoder": str(folder)}), {})
    weights = folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    next(iter(tensors.values())).add_(1)
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(InputError, match="expected the autoencoder with the checksum"):
        load_model(tmp_path / "net.safetensors")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "expected a folder with an autoencoder, got .*, which does not exist"),
        ({}, r"expected config.json of diffusers or taef2_encoder.pth and taef2_decoder.pth, got .* without them"),
        ({"config.json": "{"}, "expected a configuration of diffusers in .*, got one without _class_name"),
        ({"config.json": '{"_class_name": "UNet2DModel"}'}, "expected AutoencoderKL, .* got UNet2DModel"),
        ({"config.json": '{"_class_name": "VQModel"}'}, r"expected a .safetensors file in .*, got none"),
        (
            {"config.json": '{"_class_name": "VQModel"}', "model.safetensors": "x"},
            "expected the weights of VQModel in .*, got",
        ),
    ],
)
def test_what_is_no_autoencoder_is_refused(files: dict[str, str] | None, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "vae"
    if files is not None:
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
    with pytest.raises(InputError, match=f"^network.space.autoencoder: {message}"):
        build_space(AutoencoderSpec(autoencoder=folder), 3)


def test_gray_images_have_no_autoencoder(folder: Path) -> None:
    with pytest.raises(InputError, match=r"autoencoders are for RGB, got data.channels 1"):
        build_space(AutoencoderSpec(autoencoder=folder), 1)


def test_taef2_in_two_files_is_opened(taef2_folder: Path) -> None:
    space = build_space(AutoencoderSpec(autoencoder=taef2_folder), 3)
    assert (space.channels, space.downscale) == (32, 8)
    assert space.decode(space.encode(image(24))).shape == (1, 3, 24, 24)


def test_other_tensors_under_taef2s_names_are_refused(taef2_folder: Path, tmp_path: Path) -> None:
    tensors = load_file(taef2_folder / "taef2_encoder.safetensors")
    for part in ("encoder", "decoder"):
        save_file(tensors, tmp_path / f"taef2_{part}.safetensors")
    with pytest.raises(InputError, match=r"expected TAEF2 in .*, got tensors that are not TAEF2's"):
        build_space(AutoencoderSpec(autoencoder=tmp_path), 3)


def test_published_taef2_restores_photos(set5: list[Path], request: pytest.FixtureRequest) -> None:
    folder = Path(request.config.getoption("--weights-root")) / "vae"
    if not folder.is_dir():
        pytest.skip("needs vae/taef2_*.pth; pass the folder that contains it with --weights-root DIR")
    space = build_space(AutoencoderSpec(autoencoder=folder), 3)
    psnr = []
    for path in set5:
        hr = image_to_tensor(read_image(path))
        hr = hr[..., : hr.shape[2] // 8 * 8, : hr.shape[3] // 8 * 8]
        latents = space.encode(hr)
        assert 0.9 < latents.std() < 1.15
        psnr.append(-10 * (space.decode(latents).clamp(0, 1) - hr).square().mean().log10().item())
    assert (min(psnr), max(psnr)) == pytest.approx((28.577, 33.597), abs=0.01)
