"""The shipped recipes of one-step networks: published settings, and two steps on a tiny base."""

import math
from pathlib import Path
from typing import Any

import pytest

from run_folders import leaves, read_checkpoint, read_log, train
from selfsr.recipe import load_recipe, read_yaml, shipped_recipes

# Published settings by recipe, with losses for images in [0, 1]. A new recipe is an entry here.
SETTINGS: dict[str, dict[str, Any]] = {
    "osediff_ssl_x4": {
        "network.kind": "one_step",
        "network.timestep": 999,
        "network.lora.rank": 4,
        "network.encoder_lora.rank": 4,
        "method.kind": "score_distillation",
        "method.terms.pixel.kind": "l2",
        "method.terms.pixel.weight": 4.0,
        "method.terms.lpips.network": "vgg",
        "method.terms.lpips.weight": 2.0,
        "method.distillation.kind": "vsd",
        "method.distillation.weight": 1.0,
        "method.distillation.guidance": 7.5,
        "method.distillation.times.0": 20,
        "method.distillation.times.1": 980,
        "method.distillation.fake_lora.rank": 4,
        "optimizers.g.lr": 5e-5,
        "optimizers.fake.lr": 5e-5,
        "optimizers.g.weight_decay": 1e-2,
        "batch": 16,
        "crop_px": 512,
        "steps": 100_000,
        "ema_decay": None,
        "clip_norm": 1.0,
    },
    "hypir_ssl_x4": {
        "network.kind": "one_step",
        "network.timestep": 200,
        "network.lora.rank": 256,
        "network.encoder_lora": None,
        "method.kind": "gan",
        "method.terms.pixel.kind": "l2",
        "method.terms.pixel.weight": 4.0,
        "method.terms.lpips.network": "vgg",
        "method.terms.lpips.weight": 5.0,
        "method.discriminators.d.weight": 0.5,
        "optimizers.g.lr": 1e-5,
        "optimizers.d.lr": 1e-5,
        "batch": 1024,
        "crop_px": 512,
        "steps": 30_000,
        "ema_decay": 0.999,
        "clip_norm": 1.0,
        "data.degrade.usm": True,
    },
}


def test_every_recipe_of_a_one_step_network_is_in_the_table() -> None:
    recipes = {name: load_recipe(path) for name, path in shipped_recipes().items()}
    assert set(SETTINGS) == {name for name, recipe in recipes.items() if recipe.network.kind == "one_step"}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_recipe_has_the_published_settings_and_names_its_base(name: str) -> None:
    path = shipped_recipes()[name]
    recipe = load_recipe(path)  # though its base does not exist
    values = leaves(recipe.model_dump(mode="json"))
    expected = SETTINGS[name]
    assert {key: values["/" + key.replace(".", "/")] for key in expected} == expected
    head = " ".join(line.strip("# ") for line in path.read_text().splitlines() if line.startswith("#"))
    assert "network.base is" in head
    assert "Departures from the published code" in head


def shrink(name: str, base: Path, photos: Path, pretrained: Path) -> dict[str, Any]:
    """Return a shipped recipe with two steps, small sizes and the tiny base, in the precision that GPUs train in."""
    document = read_yaml(shipped_recipes()[name].read_text(), name)
    document.update(
        steps=2, batch=2, workers=0, crop_px=32, precision="bfloat16", log={"every_steps": 1}, evaluate=None
    )
    document["data"]["hr"] = str(photos / "train")
    network, method = document["network"], document["method"]
    network.update(base=str(base))
    network.update({key: "sky" for key in ("prompt", "negative_prompt") if network.get(key)})  # few tokens fit
    for lora in (network.get("lora"), network.get("encoder_lora"), method.get("distillation", {}).get("fake_lora")):
        if lora is not None:
            lora["rank"] = 2
    for discriminator in method.get("discriminators", {}).values():
        discriminator["network"]["features"] = 4
    if "lpips" in method["terms"]:
        method["terms"]["lpips"]["weights"] = str(pretrained / "vgg16.safetensors")
    method["terms"]["similarity"]["weight"]["calibrate_steps"] = 2
    return document


@pytest.mark.parametrize("name", SETTINGS)
def test_a_shipped_recipe_takes_two_steps(
    name: str, base: Path, pretrained: Path, photos: Path, tmp_path: Path
) -> None:
    folder = train(shrink(name, base, photos, pretrained), tmp_path / "run")
    recipe = load_recipe(shipped_recipes()[name])
    last = read_log(folder)[-1]["loss"]
    assert set(last) == set(recipe.method.trained_nets)
    assert set(last["g"]) == {*recipe.method.terms, *recipe.method.extra_loss_weights}
    assert all(math.isfinite(value) for losses in last.values() for value in losses.values())
    assert all(".lora_" in key or key in ("prompt", "prompt_negative", "base_sha256")
               for key in read_checkpoint(folder)["nets"]["g"])  # fmt: skip
