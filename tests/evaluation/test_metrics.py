"""The registry of metrics: one entry is enough for recipes, studies, commands and results."""

import json
import subprocess
import sys

import pytest
import torch

from selfsr.evaluation.metrics import (
    METRICS,
    Metric,
    list_extra_metrics,
    list_seed_metrics,
    list_standard_metrics,
    score_image,
)

# Registers a metric before anything else is imported.
PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np
import torch
from selfsr.evaluation import metrics

metrics.METRICS["fake"] = metrics.Metric(
    "Fake", "px", 3, "lower", protocol="seven", load=lambda device: lambda sr, hr: 7.0
)
metrics.METRICS["bias"] = metrics.Metric("Bias", "", 1, compute=lambda sr, hr, border_px: (sr - hr).mean())

from pydantic import ValidationError
from typer.testing import CliRunner
from selfsr.cli import app
from selfsr.images.files import DecodedImage, write_image
from selfsr.recipe.evaluate import Evaluate
from selfsr.study.spec import MetricName

report = {}
entry = {"sets": {"a": "b"}, "metrics": ["fake"], "best_by": "fake"}
report["recipe"] = [list(Evaluate.model_validate(entry).metrics), Evaluate.model_validate(entry).best_by]
try:
    Evaluate.model_validate({"sets": {"a": "b"}, "best_by": "fake"})
except ValidationError as error:
    report["refused"] = error.errors()[0]["msg"]
report["study"] = list(MetricName.__args__)
folder = Path(sys.argv[1])
write_image(folder / "set" / "a.png", DecodedImage(np.random.default_rng(0).integers(0, 256, (40, 44, 3)).astype("u1")))
arguments = ["evaluate", "--bicubic", "--scale", "2", "--data", str(folder / "set"), "--metric", "fake"]
runner = CliRunner(env={"COLUMNS": "300", "NO_COLOR": "1"})
report["help"] = " ".join(runner.invoke(app, ["evaluate", "--help"]).output.split())
result = runner.invoke(app, [*arguments, "--out", str(folder / "scores.json")])
assert result.exit_code == 0, result.output
report["table"] = result.stdout
report["scores"] = json.loads((folder / "scores.json").read_text())
print(json.dumps(report))
"""


def test_one_entry_reaches_recipe_study_help_evaluate_and_results(tmp_path):
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["recipe"] == [["fake"], "fake"]
    assert "metrics" in report["refused"]
    assert report["study"] == ["psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb", "bias"]
    lower = [name for name in list_extra_metrics() if METRICS[name].better == "lower"]
    assert f"lower is better: {', '.join(lower)}, fake" in report["help"]
    heading, row, caption = (line.split() for line in report["table"].splitlines() if line.strip())
    assert " ".join(caption).endswith("Lower is better: Fake.")
    assert heading[-2:] == ["Bias", "Fake"]
    assert row[-1] == "7.000"
    assert report["scores"]["protocol"]["fake"] == "seven"
    mean = report["scores"]["results"][0]["sets"]["set"]["mean"]
    assert mean["fake"] == 7.0
    assert list(mean)[:5] == ["psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb", "bias"]


def test_metrics_are_standard_or_extra():
    assert list_standard_metrics()[:4] == ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb")
    assert list_extra_metrics()[:3] == ("self_similarity", "lpips", "dists")
    assert list_seed_metrics() == ("psnr_y_of_mean", "seed_spread")
    assert {*list_standard_metrics(), *list_extra_metrics(), *list_seed_metrics()} == {*METRICS}
    assert {METRICS[name].better for name in ("self_similarity", "lpips", "dists")} == {"lower"}
    with pytest.raises(AssertionError):
        Metric("both or neither", "", 1)


def test_score_image_has_the_standard_metrics_in_order():
    hr = torch.full((1, 3, 16, 16), 100)
    assert tuple(score_image(hr + 1, hr, 2)) == list_standard_metrics()
