"""A tiny run: pictures made on the spot, a network of a few thousand weights, a handful of steps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from selfsr.images.files import Picture, write_picture
from selfsr.losses.vgg import LAYERS
from selfsr.nets.ranker import Ranker


def texture(seed: int, height: int, width: int) -> np.ndarray:
    """Return an RGB picture `[H, W, 3]` of waves, edges and a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(float)
    picture = np.zeros((height, width, 3))
    for channel in range(3):
        for _ in range(4):
            fy, fx, phase = rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.6), rng.uniform(0, 6)
            picture[..., channel] += np.sin(fy * y + fx * x + phase)
    picture[(x + 2 * y) % 23 < 5] += 2.0
    picture = 128 + 25 * picture + rng.normal(0, 2, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of five small pictures to train on, with a folder of two beside it to judge on."""
    root = tmp_path_factory.mktemp("photos")
    for index in range(5):
        write_picture(root / "train" / f"p{index}.png", Picture(texture(index, 72 + 4 * index, 80)))
    for index in range(2):
        write_picture(root / "test" / f"t{index}.png", Picture(texture(50 + index, 48, 56)))
    return root


@pytest.fixture
def tiny(photos: Path) -> dict[str, Any]:
    """Return the document of a recipe that takes six steps of everything at once."""
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
    """Return a folder with random weights in the layouts of VGG19 (a narrow one would not load) and of the ranker."""
    folder = tmp_path_factory.mktemp("pretrained")
    torch.manual_seed(0)
    tensors, channels = {}, 3
    for name, index in LAYERS.items():
        width = min(512, 32 * 2 ** int(name[4]))
        tensors[f"features.{index}.weight"] = torch.randn(width, channels, 3, 3) * (2 / (9 * channels)) ** 0.5
        tensors[f"features.{index}.bias"] = torch.zeros(width)
        channels = width
    save_file(tensors, folder / "vgg19.safetensors")
    torch.save(Ranker().state_dict(), folder / "ranker.pth")
    return folder
