"""The shipped recipes of latent diffusion: published settings, and two steps on a tiny base."""

import json
import math
from pathlib import Path

import pytest

from selfsr.recipe import load_recipe, parse_recipe, read_yaml, shipped_recipes
from selfsr.training.loop import fit
from tiny_bases import save_base

NAMES = [name for name, path in shipped_recipes().items() if "kind: latent_diffusion" in path.read_text()]


def test_every_condition_has_a_recipe_with_the_published_settings() -> None:
    recipes = {name: load_recipe(shipped_recipes()[name]) for name in NAMES}  # though nothing that they name exists
    stablesr, seesr = recipes["stablesr_ssl_x4"], recipes["seesr_ssl_x4"]
    assert [(r.network.condition, r.batch, r.crop_px) for r in (stablesr, seesr)] == [
        ("concat", 48, 512),
        ("controlnet", 32, 512),
    ]
    for recipe in recipes.values():
        assert (recipe.optimizers["g"].kind, recipe.optimizers["g"].lr, recipe.ema_decay) == ("adamw", 5e-5, None)
    weights = {name: term.weight for name, term in stablesr.method.terms.items()}
    assert weights == {"pixel": 0.2, "similarity": 500}
    assert stablesr.method.image_loss.max_gain > 14.6146412293  # every time, as published
    sample = stablesr.network.sample
    assert (sample.steps, sample.deterministic, sample.start, sample.guidance) == (200, False, "noise", 1)
    assert (seesr.network.sample.steps, seesr.network.sample.guidance) == (50, 5.5)
    assert seesr.method.image_loss.max_gain is None


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_recipe_takes_two_steps(name: str, photos: Path, tmp_path: Path) -> None:
    document = read_yaml(shipped_recipes()[name].read_text(), name)
    assert "base" in document["network"]
    document["network"]["base"] = str(save_base(tmp_path / "tiny_sd"))
    document["network"]["sample"]["steps"] = 2
    document["network"].update({key: "sky" for key in ("prompt", "negative_prompt") if key in document["network"]})
    if "lora" in document["network"]:
        document["network"]["lora"]["rank"] = 2
    document.update(steps=2, batch=1, workers=0, crop_px=64, precision="float32", log={"every_steps": 1})
    document["data"]["hr"] = str(photos / "train")
    sets = {"test": str(photos / "test")}
    is_sampled = name == "stablesr_ssl_x4"  # once is enough
    document["evaluate"] = {"every_steps": 2, "sets": sets, "samples": 1, "seeds": [0, 1]} if is_sampled else None
    document["method"]["image_loss"].update(crop_px=64)
    similarity = document["method"]["terms"]["similarity"]
    similarity.update(search_px=9, window_px=5)
    if isinstance(similarity["weight"], dict):
        similarity["weight"]["calibrate_steps"] = 2
    assert fit(parse_recipe(document, name), tmp_path / "run", device="cpu")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert set(lines[-1]["loss"]["g"]) == {*document["method"]["terms"], "denoising"}
    assert all(math.isfinite(value) for line in lines for value in line["loss"]["g"].values())
    if not is_sampled:
        return
    samples = {path.name for path in (tmp_path / "run" / "samples" / "test").glob("*/*_00000002*.png")}
    seeds = {f"sr_00000002_seed{seed}.png" for seed in range(2)}
    assert samples == {"sr_00000002.png", *seeds, "seed_std_00000002.png", "stages_00000002.png"}
