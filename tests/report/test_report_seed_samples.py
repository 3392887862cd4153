"""Samples of several seeds on the page: the map, the crops, the stages with their noise, and broken files."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from selfsr.report import write_report
from selfsr.report.seeds import collect_seeds
from selfsr.runfolder.read import read_run_folders

STEP, SIDE = 1000, 128


def decode(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))


@pytest.fixture
def run(make_run, tmp_path) -> Path:
    """A run whose seeds differ in rows 20 to 39 and columns 10 to 29, and whose stages are gray 0, 20, 40, 60, 80."""
    run = make_run(tmp_path / "run", side=SIDE)
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    shift = {"steps": 4, "kappa": 2.0, "min_noise": 0.2}
    recipe["network"] = {"kind": "residual_shifting", "shift": shift, "sample": {"steps": 3}}
    recipe["method"] = {"kind": "denoising", "terms": recipe["method"]["terms"]}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    log = {"step": STEP, "denoising": {"low_noise": 0.25, "high_noise": 0.5, "decoded_share": 0.75}}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(log) + "\n")
    place = run / "samples" / "held-out" / "coffee"
    for step in (800, STEP):
        for seed in (0, 5):
            sample = Image.fromarray(np.full((SIDE, SIDE, 3), 100 + seed, np.uint8))
            sample.save(place / f"sr_{step:08d}_seed{seed}.png")
        std = np.zeros((SIDE, SIDE), np.uint8)
        std[20:40, 10:30] = 51
        Image.fromarray(std).save(place / f"seed_std_{step:08d}.png")
        strip = np.repeat(np.arange(5, dtype=np.uint8) * 20, 32)[None].repeat(32, axis=0)
        Image.fromarray(strip).save(place / f"stages_{step:08d}.png")
    return run


def test_the_newest_samples_are_shown_where_they_differ_most(run):
    (image,) = collect_seeds(read_run_folders([run]), [])
    (seeds,) = image.runs
    assert (image.name, image.side, seeds.step) == ("held-out/coffee", 96, STEP)
    # A fifth of the scale, which is a tenth of 255 gray levels, in 400 of 128 x 128 pixels.
    assert seeds.mean == pytest.approx(0.2 * 25.5 * 400 / SIDE**2)
    left, top, width, height = (value * SIDE / 100 for value in seeds.place)
    assert left <= 10 < 30 <= left + width
    assert top <= 20 < 40 <= top + height
    assert [(square.label, square.is_map) for square in seeds.squares] == [
        ("ground truth", False),
        ("seed 0", False),
        ("seed 5", False),
        ("standard deviation", True),
    ]
    assert [np.unique(decode(square.image)).tolist() for square in seeds.squares[1:3]] == [[100], [105]]


def test_stages_have_the_noise_of_the_steps_that_are_sampled(run):
    (image,) = collect_seeds(read_run_folders([run]), [])
    stages = image.runs[0].stages
    # Three of four steps: t = 4, 3 and 1, with the noise 2 sqrt(eta) of docs/diffusion.md, eq. 5.
    captions = [("x4", "noise 1.98"), ("x3", "noise 1.52"), ("x1", "noise 0.20"), ("x0", ""), ("ground truth", "")]
    assert [(stage.label, stage.detail) for stage in stages] == captions
    assert [int(np.median(decode(stage.image))) for stage in stages] == pytest.approx([0, 20, 40, 60, 80], abs=1)


def test_stages_that_do_not_fit_the_recipe_have_no_noise(run):
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["network"]["sample"]["steps"] = 4
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (image,) = collect_seeds(read_run_folders([run]), [])
    assert [stage.label for stage in image.runs[0].stages] == ["start", "", "", "end", "ground truth"]


def test_the_page_explains_the_map_and_has_the_curves(run, tmp_path):
    text = write_report([run], tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<section id="seeds" data-choose-image>' in text
    assert "25.5 of 255 gray levels or more (yellow)" in text
    plain = re.sub(r"<[^>]*>|\s+", " ", text)
    assert "residual_shifting, 4 steps, pixels" in plain
    assert "denoising + l1" in plain
    charts = json.loads(re.search(r'id="chart-data">(.*?)</script>', text, re.DOTALL)[1])["charts"]
    titles = {chart["key"]: (chart["title"], chart["percent"]) for chart in charts}
    assert titles["denoising/low_noise"] == ("Denoising loss, low noise", False)
    assert titles["denoising/high_noise"] == ("Denoising loss, high noise", False)
    assert titles["denoising/decoded_share"] == ("Share of samples with image losses", True)


def test_a_run_without_seeds_has_no_section(make_run, tmp_path):
    text = write_report([make_run(tmp_path / "run")], tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'id="seeds"' not in text
    assert 'href="#seeds"' not in text


def test_broken_files_are_named_and_left_out(run):
    place = run / "samples" / "held-out" / "coffee"
    (place / f"sr_{STEP:08d}_seed0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Image.fromarray(np.zeros((30, 45), np.uint8)).save(place / f"stages_{STEP:08d}.png")
    notes: list[str] = []
    (image,) = collect_seeds(read_run_folders([run]), notes)
    assert [square.label for square in image.runs[0].squares] == ["ground truth", "seed 5", "standard deviation"]
    assert image.runs[0].stages == []
    assert notes == [f"run/samples/held-out/coffee/sr_{STEP:08d}_seed0.png is not a readable image."]
    (place / f"seed_std_{STEP:08d}.png").write_bytes(b"")
    assert collect_seeds(read_run_folders([run]), notes) == []
