"""Synthetic run folders with real photos in them."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from selfsr.report import write_report

PHOTOS = ("astronaut", "chelsea", "coffee")


def _photo(name: str, side: int) -> np.ndarray:
    skimage = pytest.importorskip("skimage", reason="needs the photos that come inside scikit-image")
    with Image.open(Path(skimage.__file__).parent / "data" / f"{name}.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    height, width = (min(side, length) // 2 * 2 for length in pixels.shape[:2])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(np.round(pixels), 0, 255).astype(np.uint8)).save(path)


def _write_samples(folder: Path, side: int, steps: list[int], skill: float, paced: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for name in PHOTOS:
        hr = _photo(name, side)
        height, width = hr.shape[:2]
        lr = Image.fromarray(hr).resize((width // 2, height // 2), Image.Resampling.BICUBIC)
        bicubic = np.asarray(lr.resize((width, height), Image.Resampling.BICUBIC))
        place = folder / "samples" / "held-out" / name
        _save(place / "hr.png", hr)
        _save(place / "lr.png", np.asarray(lr))
        _save(place / "bicubic.png", bicubic)
        for step in steps:
            progress = 1 - math.exp(-3 * step / steps[-1])
            detail = skill * progress * (hr - bicubic.astype(float))
            noise = (1 - progress) * 24 * rng.standard_normal(hr.shape)
            sr = bicubic + detail + noise
            _save(place / f"sr_{step:08d}.png", sr)
            if paced and step:
                likeness = 1 - np.minimum(1, np.abs(sr - hr).mean(-1) / 24)
                sigma = 4 * step / steps[-1]
                _save(place / f"pixel_weights_{step:08d}.png", 255 * np.exp(-(((likeness + 1) / sigma) ** 2)))


def _scores(psnr: float) -> dict[str, float]:
    ssim = 1 - 10 ** (-psnr / 20)
    return {"psnr_y": psnr, "ssim_y": ssim, "psnr_rgb": psnr - 1.31, "ssim_rgb": ssim - 0.011}


def _set_scores(psnr: float) -> dict[str, Any]:
    images = {name: _scores(psnr + shift) for name, shift in zip(PHOTOS, (1.237, -2.5, 0.4), strict=True)}
    mean = {key: sum(image[key] for image in images.values()) / len(images) for key in _scores(0)}
    return {"mean": mean, "images": images}


def _write_logs(folder: Path, steps: int, skill: float, similarity: bool, paced: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    every = steps // 50
    lines = []
    for step in range(every, steps + 1, every):
        terms = {"pixel": (0.02 + 0.3 * math.exp(-step / (0.05 * steps))) * math.exp(0.1 * rng.standard_normal())}
        if similarity:
            terms["similarity"] = 0.5 + 0.4 * math.exp(-step / steps) + 0.02 * rng.standard_normal()
        line = {
            "step": step,
            "epoch": step / 500,
            "loss": {"g": terms},
            "lr": {"g": 2e-4 * 0.5 ** (4 * step // (steps + 1))},
            "grad_norm": {"g": 0.3 * math.exp(0.3 * rng.standard_normal())},
            "steps_per_s": 11 + rng.standard_normal() - 3 * similarity,
            "data_wait_share": 0.02 + 0.01 * abs(rng.standard_normal()),
            "memory_mb": 812.5,
            "skipped_files": 0,
        }
        if paced:
            line["pace"] = {"mean_weight": 2 * math.exp(-((1.7 / (4 * step / steps)) ** 2))}
        lines.append(json.dumps(line) + "\n")
    (folder / "metrics.jsonl").write_text("".join(lines))
    evaluations = []
    for step in range(0, steps + 1, steps // 10):
        psnr = (
            9.3 if step == 0 else 30.1 + 3.0 * skill * (1 - math.exp(-4 * step / steps)) + 0.04 * rng.standard_normal()
        )
        record: dict[str, Any] = {"step": step, "epoch": step / 500, "sets": {"held-out": _set_scores(psnr)}}
        if step == 0:
            record["bicubic"] = {"held-out": _set_scores(30.4)}
        evaluations.append(json.dumps(record) + "\n")
    (folder / "eval.jsonl").write_text("".join(evaluations))


def _recipe(name: str, steps: int, similarity: bool, paced: bool) -> dict[str, Any]:
    pace = {"alpha": 1.0, "beta": 0.0, "peak": 2.0, "data_range": 1.0, "padding": "zero"}
    terms: dict[str, Any] = {"pixel": {"kind": "l1", "weight": 1.0, "pace": pace if paced else None}}
    if similarity:
        terms["similarity"] = {"kind": "self_similarity", "weight": 1000.0, "search_px": 25, "window_px": 9}
    return {
        "name": name,
        "scale": 2,
        "steps": steps,
        "steps_per_epoch": 500,
        "seed": 1,
        "batch": 16,
        "crop_px": 96,
        "network": {"kind": "edsr", "features": 32, "blocks": 8, "residual_scale": 1.0},
        "start_from": "runs/plain/weights/best.safetensors" if similarity else None,
        "data": {"kind": "folder", "hr": "photos"},
        "method": {"kind": "regression", "terms": terms},
        "optimizers": {"g": {"kind": "adam", "lr": 0.0002, "betas": [0.9, 0.999]}},
        "evaluate": {"every_steps": steps // 10, "sets": {"held-out": {"hr": "held-out"}}, "best_by": "psnr_y"},
    }


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    """Return `make(folder, ...)`, which writes a run folder of the format that training writes."""

    def make(
        folder: Path,
        *,
        side: int = 128,
        steps: int = 1000,
        skill: float = 0.5,
        similarity: bool = False,
        paced: bool = False,
        seed: int = 0,
        samples: bool = True,
    ) -> Path:
        folder.mkdir(parents=True)
        recipe = _recipe(folder.name, steps, similarity, paced)
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
        _write_logs(folder, steps, skill, similarity, paced, seed)
        if samples:
            sampled = [0, *range(steps // 5, steps + 1, steps // 5)]
            _write_samples(folder, side, sampled, skill, paced, seed)
        return folder

    return make


@pytest.fixture(scope="session")
def two_runs(make_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a plain run and one that is self-paced and has the self-similarity loss."""
    root = tmp_path_factory.mktemp("runs")
    return {
        "plain": make_run(root / "plain", side=224, skill=0.4, seed=1),
        "similar": make_run(root / "similar", side=224, skill=0.6, similarity=True, paced=True, seed=2),
    }


@pytest.fixture(scope="session")
def two_run_page(two_runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the report of both."""
    out = tmp_path_factory.mktemp("page") / "deep" / "report.html"
    assert write_report(list(two_runs.values()), out) == out
    return out
