"""Small images, batches, networks, weights files and a tiny recipe, for tests everywhere."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from selfsr.errors import InputError
from selfsr.images.files import DecodedImage, write_image
from selfsr.losses.features import ARCHITECTURES
from selfsr.nets.diffusion.taef2 import Taef2
from selfsr.nets.ranker import Ranker
from selfsr.recipe import parse_recipe
from selfsr.step import Batch


def texture(seed: int, height: int, width: int) -> np.ndarray:
    """Return an RGB image `[H, W, 3]` of waves, edges and a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(float)
    image = np.zeros((height, width, 3))
    for channel in range(3):
        for _ in range(4):
            fy, fx, phase = rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.6), rng.uniform(0, 6)
            image[..., channel] += np.sin(fy * y + fx * x + phase)
    image[(x + 2 * y) % 23 < 5] += 2.0
    image = 128 + 25 * image + rng.normal(0, 2, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with five small images in `train` and two in `test`."""
    root = tmp_path_factory.mktemp("photos")
    for index in range(5):
        write_image(root / "train" / f"p{index}.png", DecodedImage(texture(index, 72 + 4 * index, 80)))
    for index in range(2):
        write_image(root / "test" / f"t{index}.png", DecodedImage(texture(50 + index, 48, 56)))
    return root


def make_batch(n: int = 2, *, side_px: int = 32, seed: int = 3) -> Batch:
    """Return random images `[n, 3, side_px, side_px]`, flat in their left half, and their x2 inputs."""
    hr = torch.rand(n, 3, side_px, side_px, generator=torch.Generator().manual_seed(seed))
    hr[..., : side_px // 2] = 0.4
    return Batch(hr=hr, lr=functional.avg_pool2d(hr, 2))


def make_generator() -> nn.Module:
    """Return a generator for x2, with the same weights at each call."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1), nn.PixelShuffle(2))


class TwoOutputs(nn.Module):
    """A generator for x2 with a branch: both outputs come from one convolution; the same weights at each call."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 24, 3, padding=1)

    def forward(self, lr: Tensor) -> tuple[Tensor, Tensor]:
        sr, branch = functional.pixel_shuffle(self.conv(lr), 2).chunk(2, dim=1)
        return sr, branch


def recipe_error(document: dict[str, Any]) -> str:
    """Return the message with which a recipe, read from my.yaml, is refused."""
    with pytest.raises(InputError) as error:
        parse_recipe(document, "my.yaml")
    return str(error.value)


@pytest.fixture
def tiny(photos: Path) -> dict[str, Any]:
    """Return a recipe with six steps, two losses, evaluation, checkpoints and logs."""
    return make_tiny_recipe(photos)


def make_tiny_recipe(photos: Path) -> dict[str, Any]:
    """Return the recipe of the fixture `tiny`, for fixtures of a wider scope."""
    return {
        "name": "tiny",
        "scale": 2,
        "steps": 6,
        "steps_per_epoch": 3,
        "batch": 4,
        "crop_px": 32,
        "network": {"kind": "edsr", "features": 8, "blocks": 2},
        "data": {"kind": "folder", "hr": str(photos / "train")},
        "method": {
            "kind": "regression",
            "terms": {
                "pixel": {"kind": "l1", "pace": {"alpha": 4.0}},
                "similarity": {"kind": "self_similarity", "weight": 10.0, "search_px": 9, "window_px": 5},
            },
        },
        "optimizers": {"g": {"kind": "adam", "lr": 1e-3}},
        "schedule": {"kind": "cosine", "warmup_steps": 2},
        "ema_decay": 0.9,
        "clip_norm": 1.0,
        "precision": "float32",
        "workers": 0,
        "evaluate": {"every_steps": 3, "sets": {"test": str(photos / "test")}, "samples": 1},
        "checkpoints": {"every_steps": 3},
        "log": {"every_steps": 1},
    }


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with random weights of VGG19 and VGG16, as wide as they must be to load, and of the ranker."""
    folder = tmp_path_factory.mktemp("pretrained")
    torch.manual_seed(0)
    for network in ("vgg19", "vgg16"):
        tensors, channels = {}, 3
        for name, index in ARCHITECTURES[network].layers.items():
            width = min(512, 32 * 2 ** int(name[4]))
            tensors[f"features.{index}.weight"] = torch.randn(width, channels, 3, 3) * (2 / (9 * channels)) ** 0.5
            tensors[f"features.{index}.bias"] = torch.zeros(width)
            channels = width
        save_file(tensors, folder / f"{network}.safetensors")
    torch.save(Ranker().state_dict(), folder / "ranker.pth")
    return folder


@pytest.fixture(scope="session")
def taef2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with TAEF2's two files, with random weights."""
    folder = tmp_path_factory.mktemp("taef2")
    torch.manual_seed(0)
    net = Taef2()
    for part in ("encoder", "decoder"):
        save_file(getattr(net, part).state_dict(), folder / f"taef2_{part}.safetensors")
    return folder
