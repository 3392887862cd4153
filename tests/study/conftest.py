"""A small study of a tiny recipe, and synthetic run folders of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from selfsr.study import open_study
from selfsr.study.folder import get_run_folder
from selfsr.study.plan import StudyPlan

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "scale": 2,
    "steps": 20,
    "batch": 2,
    "crop_px": 16,
    "network": {"kind": "edsr", "features": 8, "blocks": 1},
    "data": {"kind": "folder", "hr": "photos/train"},
    "method": {"kind": "regression", "terms": {"pixel": {"kind": "l1"}}},
    "optimizers": {"g": {"kind": "adam", "lr": 1e-3}},
    "schedule": {"kind": "constant"},
    "precision": "float32",
    "workers": 0,
    "evaluate": {"every_steps": 10, "sets": {"first": "photos/test", "second": "photos/test"}, "samples": 1},
    "checkpoints": {"every_steps": 5},
    "log": {"every_steps": 1},
}

STUDY = """
name: claim
base: tiny.yaml
arms:
  plain:
  paced: {set: {method.terms.pixel.pace: {alpha: 4.0}}, note: hard first}
seeds: [1, 2]
"""


@pytest.fixture(scope="session")
def write_inputs() -> Callable[[Path], None]:
    """Return `write(folder)`, which writes a recipe, a study and empty image folders."""

    def write(folder: Path) -> None:
        (folder / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
        (folder / "claim.yaml").write_text(STUDY)
        for images in ("photos/train", "photos/test"):
            (folder / images).mkdir(parents=True)

    return write


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_inputs: Callable[[Path], None]) -> Path:
    """Work in a folder with tiny.yaml, claim.yaml and empty image folders."""
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path)
    return tmp_path


@pytest.fixture
def write_study(workspace: Path) -> Callable[..., Path]:
    """Return `write(**changes)`, which writes a study file with two arms and these changes."""

    def write(**changes: Any) -> Path:
        document = {**yaml.safe_load(STUDY), **changes}
        path = workspace / "other.yaml"
        path.write_text(
            yaml.safe_dump({key: value for key, value in document.items() if value is not ...}, sort_keys=False)
        )
        return path

    return write


@pytest.fixture
def plan_of(write_study: Callable[..., Path]) -> Callable[..., StudyPlan]:
    """Return `plan(**changes)`, the resolved plan of such a study."""
    return lambda **changes: open_study(write_study(**changes))[0]


Curves = dict[str, dict[int, list[tuple[int, float]]]]


def scores(value: float) -> dict[str, float]:
    return {"psnr_y": value, "ssim_y": value / 100, "psnr_rgb": value - 1, "ssim_rgb": value / 200}


def write_run(folder: Path, recipe: str, curve: list[tuple[int, float]], shift: float = 5.0) -> None:
    """Write the folder of a finished run with this PSNR-Y on the set `first`, `shift` more on `second`."""
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "last.safetensors").write_bytes(b"")
    (folder / "recipe.yaml").write_text(recipe)
    lines = []
    for step, value in curve:
        sets = {"first": {"mean": scores(value), "images": {}}, "second": {"mean": scores(value + shift), "images": {}}}
        bicubic = {"bicubic": {"first": {"mean": scores(28.0), "images": {}}}} if step == 0 else {}
        lines.append(json.dumps({"step": step, "epoch": 0.0, "sets": sets, **bicubic}) + "\n")
    (folder / "eval.jsonl").write_text("".join(lines))
    (folder / "metrics.jsonl").write_text(json.dumps({"step": curve[-1][0], "steps_per_s": 4.0}) + "\n")


@pytest.fixture
def write_runs() -> Callable[[StudyPlan, Path, Curves], None]:
    """Return `write(plan, folder, curves)`, which writes the run folder of every arm and seed with a curve."""
    from selfsr.recipe import dump_recipe

    def write(plan: StudyPlan, folder: Path, curves: Curves) -> None:
        for run in plan.runs():
            curve = curves.get(run.arm, {}).get(run.seed)
            if curve is not None:
                write_run(get_run_folder(folder, run), dump_recipe(run.recipe), curve)

    return write
