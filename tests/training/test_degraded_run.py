"""Runs with degraded LR: recipe options, logs, and resuming."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from selfsr.errors import InputError
from selfsr.recipe import Recipe, dump_recipe, load_recipe, parse_recipe, read_yaml
from selfsr.runfolder.checkpoints import list_checkpoints
from selfsr.training.loop import fit


@pytest.fixture
def blind(tiny: dict) -> dict:
    tiny["data"]["degrade"] = {"kind": "real_esrgan", "preset": "real_esrgan_ssl", "first": {"jpeg_quality": [60, 70]}}
    tiny["method"]["terms"] = {"pixel": {"kind": "l1"}}
    tiny["evaluate"] = None
    return tiny


def test_a_resumed_run_has_the_same_degradations(blind: dict, tmp_path: Path) -> None:
    def weights(name: str, **changes) -> dict[str, torch.Tensor]:
        folder = tmp_path / name
        fit(parse_recipe({**blind, **changes}, "test"), folder, device="cpu", resume=folder.exists())
        return load_file(folder / "weights" / "last.safetensors")

    straight = weights("straight")
    weights("stopped")
    shutil.rmtree(list_checkpoints(tmp_path / "stopped")[-1])  # as if it had been killed after the checkpoint of step 3
    resumed = weights("stopped", workers=1)
    assert all(torch.equal(resumed[key], straight[key]) for key in straight)
    blind["data"]["degrade"]["first"]["jpeg_quality"] = [20, 30]
    worse = weights("worse")
    assert any(not torch.equal(worse[key], straight[key]) for key in straight)
    # The loop waits for the degradations.
    lines = [json.loads(line) for line in (tmp_path / "straight" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < line["data_wait_share"] < 1 for line in lines)


def test_a_resumed_run_has_the_same_degradations_on_the_device(blind: dict, tmp_path: Path) -> None:
    blind["data"] |= {"degrade_on": "device", "degrade": "ssl_test"}

    def weights(name: str, **changes) -> dict[str, torch.Tensor]:
        folder = tmp_path / name
        fit(parse_recipe({**blind, **changes}, "test"), folder, device="cpu", resume=folder.exists())
        return load_file(folder / "weights" / "last.safetensors")

    straight = weights("straight", workers=0)
    weights("stopped", workers=0)
    shutil.rmtree(list_checkpoints(tmp_path / "stopped")[-1])
    resumed = weights("stopped", workers=1)
    assert all(torch.equal(resumed[key], straight[key]) for key in straight)
    # The noise differs from the loader's, whose plans are the same.
    blind["data"]["degrade_on"] = "loader"
    other = weights("loader", workers=0)
    assert any(not torch.equal(other[key], straight[key]) for key in straight)


def test_the_resolved_recipe_lists_every_number(blind: dict, tmp_path: Path) -> None:
    recipe = parse_recipe(blind, "test")
    path = tmp_path / "r.yaml"
    path.write_text(dump_recipe(recipe))
    kept = read_yaml(path.read_text(), "r")["data"]["degrade"]
    assert (kept["preset"], kept["first"]["jpeg_quality"]) == ("real_esrgan_ssl", [60, 70])
    assert kept["second"]["gaussian_sigma"] == [0.0, 4.0]
    assert load_recipe(path) == recipe
    changed = load_recipe(path, ["data.degrade.second.gray=0.5", "data.degrade.usm=true"])
    assert (changed.data.degrade.second.gray, changed.data.degrade.usm) == (0.5, True)
    assert changed.data.degrade.first == recipe.data.degrade.first
    by_name = load_recipe(path, ["data.degrade=bsrgan_ssl"])
    assert (by_name.data.degrade.kind, by_name.data.degrade.noise_level) == ("bsrgan", (1, 12))


@pytest.mark.parametrize(
    ("degrade", "sentence"),
    [
        (
            {"kind": "real_esrgan", "first": {"jpeg_qualty": [1, 2]}},
            "first.jpeg_qualty: unknown key; did you mean jpeg",
        ),
        ({"kind": "bsrgan", "jpeg_quality": [0, 50]}, "data.degrade.jpeg_quality"),
        (
            {"kind": "bsrgn"},
            "data.degrade.kind: expected one of real_esrgan, bsrgan, mixture, got 'bsrgn'; did you mean",
        ),
        ("bsrgan_sll", "data.degrade: expected one of real_esrgan, "),
        ({"kind": "real_esrgan", "preset": "bsrgan"}, "data.degrade.preset: "),
        (
            {"kind": "bsrgan", "noise": {"color": 1.1}},
            "data.degrade.noise: expected shares of at least 0 that sum to 1, got",
        ),
    ],
)
def test_a_wrong_degradation_is_refused_with_its_key(tiny: dict, degrade, sentence: str) -> None:
    tiny["data"]["degrade"] = degrade
    with pytest.raises(InputError) as refused:
        parse_recipe(tiny, "r.yaml")
    assert sentence in str(refused.value)


def test_degrade_on_without_degrade_is_refused(tiny: dict) -> None:
    tiny["data"]["degrade_on"] = "device"
    with pytest.raises(InputError, match=r"data: degrade_on: device needs degrade"):
        parse_recipe(tiny, "r.yaml")


def test_the_schema_requires_only_the_kind() -> None:
    parts = Recipe.model_json_schema()["$defs"]
    assert {"RealEsrgan", "Bsrgan", "Mixture", "Stage"} <= parts.keys()
    for name in ("RealEsrgan", "Bsrgan", "Mixture", "Stage"):
        assert set(parts[name].get("required", ())) <= {"kind"}
        assert all(value.get("description") for key, value in parts[name]["properties"].items() if key != "kind")
