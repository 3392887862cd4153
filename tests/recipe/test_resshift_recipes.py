"""The shipped recipes of networks that sample: published settings, and two steps with small networks."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from selfsr.nets.weights import save_weights
from selfsr.recipe import load_recipe, parse_recipe, read_yaml, shipped_recipes
from selfsr.terms.loss_weights import MatchLargest
from selfsr.training.loop import fit

NAMES = [name for name, path in shipped_recipes().items() if "kind: residual_shifting" in path.read_text()]
PAIRS = ["resshift_x4", "resshift_15_x4", "small_resshift_x4"]


def with_similarity(name: str) -> str:
    return name.replace("_x4", "_ssl_x4")


def test_every_method_and_space_has_a_recipe() -> None:
    small = ["small_resshift_latent_x4", "small_resshift_student_x4"]
    assert sorted(NAMES) == sorted([*PAIRS, *map(with_similarity, PAIRS), *small])


@pytest.mark.parametrize(
    ("name", "steps", "min_noise", "terms", "batch", "iterations", "last_lr"),
    [
        ("resshift_x4", 4, 0.2, ["lpips"], 96, 400_000, 2e-5),
        ("resshift_15_x4", 15, 0.04, [], 64, 500_000, 5e-5),
    ],
)
def test_a_recipe_has_the_published_settings(
    name: str, steps: int, min_noise: float, terms: list[str], batch: int, iterations: int, last_lr: float
) -> None:
    recipe = load_recipe(shipped_recipes()[name])
    shift, unet = recipe.network.shift, recipe.network.unet
    assert (shift.steps, shift.kappa, shift.min_noise, shift.power, shift.end) == (steps, 2.0, min_noise, 0.3, 0.99)
    assert unet.channels == tuple(160 * factor for factor in (1, 2, 2, 4))
    assert (unet.blocks, recipe.batch, recipe.crop_px, recipe.steps) == (2, batch, 256, iterations)
    assert (recipe.ema_decay, recipe.schedule.warmup_steps) == (0.999, 5000)
    assert recipe.optimizers["g"].lr * recipe.schedule.factor(iterations, iterations) == pytest.approx(last_lr)
    assert recipe.method.extra_loss_weights == {"denoising": 1.0}
    assert {name: term.weight for name, term in recipe.method.terms.items()} == dict.fromkeys(terms, 1.0)
    degradation = recipe.data.degrade
    assert (degradation.preset, degradation.usm, degradation.second_probability) == ("real_esrgan", False, 0.5)


@pytest.mark.parametrize("name", PAIRS)
def test_the_twin_with_the_self_similarity_loss_differs_by_the_term_only(name: str) -> None:
    plain, twin = (read_yaml(shipped_recipes()[key].read_text(), key) for key in (name, with_similarity(name)))
    term = twin["method"]["terms"].pop("similarity")
    assert term["stride"] == 3
    assert MatchLargest(**term["weight"]) == MatchLargest(match="largest", calibrate_steps=100, factor=0.2)
    assert "self_similarity" in twin["evaluate"].pop("metrics")
    for document in (plain, twin):
        document.pop("name")
        document["evaluate"].pop("metrics", None)
        document["method"] = {**document["method"], "terms": document["method"].get("terms", {})}
    assert twin == plain


def make_teacher(document: dict[str, Any], path: Path) -> str:
    """Save a teacher with random weights for a student's recipe."""
    teacher = {**document, "network": {**document["network"], "one_step": False}, "method": {"kind": "denoising"}}
    save_weights(path, parse_recipe(teacher, "teacher").network.build(4, 3), {})
    return str(path)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name.startswith("small_") else pytest.mark.slow) for name in NAMES],
)
def test_a_shipped_recipe_takes_two_steps(
    name: str, taef2_folder: Path, pretrained: Path, photos: Path, tmp_path: Path
) -> None:
    assert load_recipe(shipped_recipes()[name]).name == name  # though nothing that it names exists
    document = read_yaml(shipped_recipes()[name].read_text(), name)
    document.update(steps=2, batch=2, workers=0, crop_px=64, precision="float32", log={"every_steps": 1})
    document["data"]["hr"] = str(photos / "train")
    document["evaluate"] = {"every_steps": 2, "sets": {"test": str(photos / "test")}, "samples": 1}
    document["schedule"].pop("warmup_steps")
    document["network"]["unet"].update(channels=[8, 8], groups=4)
    if "space" in document["network"]:
        document["network"]["space"]["autoencoder"] = str(taef2_folder)
    terms = document["method"].get("terms", {})
    if "lpips" in terms:
        terms["lpips"]["weights"] = str(pretrained / "vgg16.safetensors")
    if "similarity" in terms:
        terms["similarity"]["weight"]["calibrate_steps"] = 2
    losses = {*terms, "denoising"}
    if "teacher" in document["method"]:
        document["method"]["teacher"] = make_teacher(document, tmp_path / "teacher.safetensors")
        losses = {"distillation"}
    assert fit(parse_recipe(document, name), tmp_path / "run", device="cpu")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert set(lines[-1]["loss"]["g"]) == losses
    assert all(math.isfinite(value) for line in lines for value in line["loss"]["g"].values())
    samples = {path.name for path in (tmp_path / "run" / "samples" / "test").glob("*/*_00000002*.png")}
    seeds = {f"sr_00000002_seed{seed}.png" for seed in range(3)}
    assert samples == {"sr_00000002.png", *seeds, "seed_std_00000002.png", "stages_00000002.png"}
