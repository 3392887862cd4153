"""Scores of several seeds in a report: the spread of a set's mean, and the metrics over seeds."""

import json
from pathlib import Path
from typing import Any

import pytest

from selfsr.report.headline import list_mean_scores
from selfsr.report.scores import ScoreCell, build_score_tables
from selfsr.runfolder.read import RunFolder, read_run_folders

MEAN = {"psnr_y": 24.456, "ssim_y": 0.7, "psnr_y_of_mean": 24.9, "seed_spread": 3.217}


def read_run(folder: Path, of_set: dict[str, Any]) -> RunFolder:
    folder.mkdir()
    bicubic = {"Set5": {"mean": {"psnr_y": 24.87, "ssim_y": 0.69}, "images": {}}}
    lines = [{"step": 0, "sets": bicubic, "bicubic": bicubic}, {"step": 9, "sets": {"Set5": of_set}}]
    (folder / "eval.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_run_folders([folder])[0]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    spread = {"psnr_y": 0.0149, "ssim_y": None}
    return read_run(tmp_path / "run", {"mean": MEAN, "spread": spread, "images": {"baby": {"psnr_y": 25.0}}})


def test_the_mean_of_a_set_has_its_spread(run: RunFolder) -> None:
    tables = {table.metric: table for table in build_score_tables([run])}
    assert list(tables) == ["psnr_y", "ssim_y", "psnr_y_of_mean", "seed_spread"]
    psnr = tables["psnr_y"]
    assert [column.kind for column in psnr.columns] == ["bicubic", "start", "best and last"]
    assert [cell.text for cell in psnr.mean.cells] == ["24.87", "24.87", "24.46 \u00b1 0.01"]
    assert psnr.mean.cells[2].gain_text == "-0.41"
    assert psnr.rows[0].cells[2].text == "25.00"
    assert tables["ssim_y"].mean.cells[2].text == "0.7000"
    assert [cell.text for cell in tables["seed_spread"].mean.cells] == ["-", "-", "3.22"]


def test_the_card_of_a_run_shows_the_spread_and_the_metrics_over_seeds(run: RunFolder) -> None:
    shown = {score["metric"]: score for score in list_mean_scores(run, run.evaluations[-1], "Set5")}
    assert shown["PSNR-Y \u2191"]["value"] == "24.46 \u00b1 0.01"
    assert shown["PSNR-Y \u2191"]["gain"] == "-0.41 dB"
    assert (shown["Seed spread \u2193"]["value"], shown["Seed spread \u2193"]["unit"]) == ("3.22", "levels")
    assert shown["PSNR-Y of mean \u2191"]["value"] == "24.90"


@pytest.mark.parametrize("spread", [None, [1], {"psnr_y": "x"}, {}])
def test_a_broken_spread_is_left_out(tmp_path: Path, spread: Any) -> None:
    run = read_run(tmp_path / "run", {"mean": MEAN, "spread": spread, "images": {}})
    assert build_score_tables([run])[0].mean.cells[2].text == "24.46"


def test_a_missing_score_has_no_spread() -> None:
    assert ScoreCell(None, None, 2, spread=0.1).text == "-"
