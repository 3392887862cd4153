"""The shipped GAN recipes: each trains two steps as it stands, only its networks are made small."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from selfsr.losses.vgg import LAYERS
from selfsr.nets.ranker import Ranker
from selfsr.recipe import load_recipe, parse_recipe, read_yaml, shipped_recipes
from selfsr.training.loop import fit

GANS = [name for name, path in shipped_recipes().items() if "kind: gan" in path.read_text()]
PUBLISHED = ("esrgan", "ranksrgan", "spsr", "bebygan", "ldl", "swinirgan", "elangan", "realesrgan", "bsrgan")
PUBLISHED += ("elangan_bsrgan", "swinirgan_bsrgan")

# The least that a network of each kind can be, so that two steps take a second.
SMALLEST: dict[str, dict[str, Any]] = {
    "rrdb": {"features": 4, "blocks": 1},
    "rank_srresnet": {"features": 4, "blocks": 1},
    "spsr": {"features": 4, "blocks": 4, "growth": 2},
    "swinir": {"features": 8, "depths": [1], "heads": [2]},
    "elan": {"features": 12, "blocks": 1, "windows_px": [2, 4, 8]},
    "compact": {"features": 4, "convs": 1},
}
# (generator, critic weight, objective, form, pixel weight, self-similarity weight) of seed tables 2.7 and 2.8.
SETTINGS = {
    "esrgan": ("rrdb", 5e-3, "vanilla", "relativistic", 1e-2, 1000),
    "ranksrgan": ("rank_srresnet", 5e-3, "vanilla", "standard", 1e-2, 1000),
    "spsr": ("spsr", 5e-3, "vanilla", "relativistic", 1e-2, 1000),
    "bebygan": ("rrdb", 5e-3, "vanilla", "relativistic", None, 1000),
    "ldl": ("rrdb", 5e-3, "vanilla", "relativistic", 1e-2, 1000),
    "swinirgan": ("swinir", 5e-3, "vanilla", "relativistic", 1e-2, 1000),
    "elangan": ("elan", 5e-3, "vanilla", "relativistic", 1e-2, 1000),
    "realesrgan": ("rrdb", 0.1, "vanilla", "standard", 1.0, 1000),
    "bsrgan": ("rrdb", 1.0, "least_squares", "standard", 1.0, 500),
    "elangan_bsrgan": ("elan", 1.0, "least_squares", "standard", 1.0, 500),
    "swinirgan_bsrgan": ("swinir", 1.0, "least_squares", "standard", 1.0, 500),
}


def test_every_published_gan_has_its_recipe_and_its_twin() -> None:
    assert sorted(GANS) == sorted(f"{prefix}{name}_ssl_x4" for name in PUBLISHED for prefix in ("", "small_"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_settings_are_the_published_ones(name: str) -> None:
    recipe = load_recipe(shipped_recipes()[f"{name}_ssl_x4"])
    terms, critic = recipe.method.terms, recipe.method.critics["d"]
    pixel = terms["pixel"].weight if "pixel" in terms else None
    found = (recipe.network.kind, critic.weight, critic.objective, critic.form, pixel, terms["similarity"].weight)
    assert found == SETTINGS[name]
    similarity = terms["similarity"]
    assert (similarity.search_px, similarity.window_px, similarity.sigma, similarity.stride) == (25, 9, 0.004, 3)
    assert {optimiser.lr for optimiser in recipe.optimisers.values()} == {1e-4}


@pytest.fixture(scope="module")
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


@pytest.mark.parametrize("name", GANS)
def test_a_shipped_gan_recipe_takes_two_steps(
    name: str, pretrained: Path, photos: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    document = read_yaml(shipped_recipes()[name].read_text(), name)
    document.update(steps=2, batch=2, crop_px=32, workers=0, start_from=None, precision="float32")
    document["network"] = {"kind": document["network"]["kind"], **SMALLEST[document["network"]["kind"]]}
    document["data"] = {**document["data"], "hr": tiny["data"]["hr"]}
    document["evaluate"] = {"every_steps": 2, "sets": {"test": str(photos / "test")}, "samples": 0}
    document["log"] = {"every_steps": 1}
    for critic in document["method"]["critics"].values():
        critic["network"].update(features=4)
        critic["network"].pop("stages", None)
    terms = document["method"]["terms"]
    if "perceptual" in terms:
        terms["perceptual"]["weights"] = str(pretrained / "vgg19.safetensors")
    if "rank" in terms:
        terms["rank"]["weights"] = str(pretrained / "ranker.pth")
    if isinstance(terms["similarity"].get("weight"), dict):
        terms["similarity"]["weight"]["over_steps"] = 2
    assert fit(parse_recipe(document, name), tmp_path / "run", device="cpu")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    expected = {*terms, *(f"adversarial_{critic}" for critic in document["method"]["critics"])}
    assert set(lines[-1]["loss"]["g"]) == expected
    assert all(math.isfinite(value) for line in lines for value in line["loss"]["g"].values())
