"""`selfsr evaluate --degrade`: inputs made by a preset or by the degradation of a recipe."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from selfsr.cli import app
from selfsr.errors import InputError


def run(*args: Any) -> str:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, list(map(str, args)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def bench(photos: Path, tmp_path: Path) -> Path:
    shutil.copytree(photos / "test", tmp_path / "bench" / "deep")
    return tmp_path / "bench"


def evaluate(bench: Path, *options: Any) -> dict[str, Any]:
    out = bench.parent / "scores.json"
    run("evaluate", "--bicubic", "--scale", 2, "--data", f"s={bench / 'deep'}", "--out", out, *options)
    return json.loads(out.read_text())


def test_scores_are_those_on_the_files_of_selfsr_degrade(bench: Path, tmp_path: Path) -> None:
    options = ("--preset", "bsrgan_ssl", "--seed", 3, "--scale", 2)
    run("degrade", bench / "deep", "-o", tmp_path / "lr", *options)
    made = evaluate(bench, "--degrade", "bsrgan_ssl", "--seed", 3)
    assert made["protocol"]["lr"] == "degraded by bsrgan_ssl, seed 3, rounded to 8 bits"
    assert made["results"] == evaluate(bench, "--lr", tmp_path / "lr")["results"]
    assert made["results"] != evaluate(bench, "--degrade", "bsrgan_ssl")["results"]


def test_a_recipe_names_its_degradation(bench: Path, tmp_path: Path) -> None:
    run("recipes", "copy", "small_bsrgan_ssl_x4", tmp_path / "my.yaml")
    by_preset = evaluate(bench, "--degrade", "bsrgan_ssl")
    assert evaluate(bench, "--degrade", "small_bsrgan_ssl_x4") == by_preset
    assert evaluate(bench, "--degrade", tmp_path / "my.yaml") == by_preset
    options = ["evaluate", "--bicubic", "--scale", "2", "--data", str(bench), "--degrade", "bsrgan_ssl"]
    output = CliRunner(env={"COLUMNS": "200"}).invoke(app, options, catch_exceptions=False).output
    assert "LR: degraded by bsrgan_ssl, seed 1, rounded to 8 bits." in output


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--degrade", "bsrgn"), r"or a recipe for --degrade, got bsrgn; did you mean bsrgan\?"),
        (("--degrade", "small_edsr_x2"), r"expected a recipe with data\.degrade for --degrade, got small_edsr_x2"),
        (("--seed", "3"), "expected no --seed without --degrade"),
        (("--degrade", "bsrgan", "--lr", "lr"), "expected no --lr with --degrade"),
    ],
)
def test_wrong_options_are_refused(bench: Path, options: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        run("evaluate", "--bicubic", "--scale", 2, "--data", bench, *options)
