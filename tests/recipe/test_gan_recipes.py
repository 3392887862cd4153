"""The shipped GAN recipes: published settings, and two steps with small networks (the full-size recipes are slow)."""

import json
import math
from pathlib import Path

import pytest

from selfsr.recipe import load_recipe, parse_recipe, shipped_recipes
from selfsr.training.loop import fit
from small_gans import PUBLISHED, small_gan

# Those on a pretrained base are tested with a tiny base.
GANS = [
    name
    for name, path in shipped_recipes().items()
    if "kind: gan" in path.read_text() and "base:" not in path.read_text() and not name.startswith("photo_")
]
# (generator, discriminator weight, objective, form, pixel weight, self-similarity weight) of the published recipes.
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


def test_every_published_gan_has_a_full_and_a_small_recipe() -> None:
    assert sorted(GANS) == sorted(f"{prefix}{name}_ssl_x4" for name in PUBLISHED for prefix in ("", "small_"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_the_published_settings(name: str) -> None:
    recipe = load_recipe(shipped_recipes()[f"{name}_ssl_x4"])
    terms, discriminator = recipe.method.terms, recipe.method.discriminators["d"]
    pixel = terms["pixel"].weight if "pixel" in terms else None
    settings = (
        recipe.network.kind,
        discriminator.weight,
        discriminator.objective,
        discriminator.form,
        pixel,
        terms["similarity"].weight,
    )
    assert settings == SETTINGS[name]
    similarity = terms["similarity"]
    assert (similarity.search_px, similarity.window_px, similarity.sigma, similarity.stride) == (25, 9, 0.004, 3)
    assert {optimizer.lr for optimizer in recipe.optimizers.values()} == {1e-4}


@pytest.mark.parametrize(
    "name", [name if name.startswith("small_") else pytest.param(name, marks=pytest.mark.slow) for name in GANS]
)
def test_a_shipped_gan_recipe_takes_two_steps(name: str, pretrained: Path, photos: Path, tmp_path: Path) -> None:
    document = small_gan(name, hr=photos / "train", pretrained=pretrained, batch=2)
    document["evaluate"] = {"every_steps": 2, "sets": {"test": str(photos / "test")}, "samples": 0}
    assert fit(parse_recipe(document, name), tmp_path / "run", device="cpu")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    expected = {
        *document["method"]["terms"],
        *(f"adversarial_{discriminator}" for discriminator in document["method"]["discriminators"]),
    }
    assert set(lines[-1]["loss"]["g"]) == expected
    assert all(math.isfinite(value) for line in lines for value in line["loss"]["g"].values())
