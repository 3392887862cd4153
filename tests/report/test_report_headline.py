"""The headline of a report is best_by; a fine-tune is compared with its start; other sets stay apart."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from selfsr.report import write_report
from selfsr.report.headline import list_other_scores, make_headline
from selfsr.report.page import _describe_origin
from selfsr.report.scores import build_score_tables
from selfsr.report.set_groups import describe_split_sets, group_sets
from selfsr.runfolder.read import RunFolder, read_run_folders


def write_run(
    folder: Path,
    scores: dict[int, dict[str, float]],
    *,
    best_by: Any = "lpips",
    start_from: str | None = "pretrained/spanx4.pth",
    bicubic: dict[str, float] | None = None,
    images: tuple[str, ...] = ("a", "b"),
    scale: int = 4,
    combined: dict[int, float] | None = None,
) -> RunFolder:
    """Return a run with mean scores by step on the set `test`; each image has these scores as well."""
    folder.mkdir(parents=True)
    recipe = {"name": folder.name, "scale": scale, "steps": 20, "start_from": start_from}
    recipe["evaluate"] = {"best_by": best_by, "sets": {"test": {"hr": "photos"}}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))

    def make_set(mean: dict[str, float]) -> dict[str, Any]:
        return {"test": {"scale": scale, "lr": "bicubic", "mean": mean, "images": dict.fromkeys(images, mean)}}

    lines = [{"step": step, "sets": make_set(mean)} for step, mean in scores.items()]
    for line in lines:
        if combined:
            line["score"] = combined[line["step"]]
    lines[0]["bicubic"] = make_set(bicubic or {"psnr_y": 24.0, "lpips": 0.7})
    (folder / "eval.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_run_folders([folder])[0]


SCORES = {
    0: {"psnr_y": 25.92, "lpips": 0.418},
    10: {"psnr_y": 25.40, "lpips": 0.352},
    20: {"psnr_y": 25.43, "lpips": 0.360},
}


def test_the_headline_is_best_by_against_the_start(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", SCORES)
    headline = make_headline(run)
    assert headline is not None
    assert (headline["value"], headline["step"]) == ("0.3520", 10)
    assert headline["subject"] == "LPIPS on test, lower is better"
    assert (headline["gain"], headline["over"]) == ("0.0660", "lower than the start, better")
    assert headline["direction"] == "up"
    assert headline["path"] == "start 0.4180 \u2192 best 0.3520"
    assert headline["bicubic"] == "bicubic 0.7000"
    (psnr,) = list_other_scores(run)
    assert (psnr["metric"], psnr["value"], psnr["gain"]) == ("PSNR-Y \u2191", "25.40", "-0.52 dB")
    assert (psnr["direction"], psnr["against"]) == ("down", "the start")


def test_a_run_from_random_weights_is_compared_with_bicubic(tmp_path: Path) -> None:
    headline = make_headline(write_run(tmp_path / "run", SCORES, start_from=None, best_by="psnr_y"))
    assert headline is not None
    assert (headline["value"], headline["step"]) == ("25.43", 20)
    assert (headline["gain"], headline["over"]) == ("1.43 dB", "higher than bicubic, better")


def test_the_headline_of_several_scores_is_their_combined_improvement(tmp_path: Path) -> None:
    combined = {0: 0.0, 10: 0.081, 20: 0.079}
    run = write_run(tmp_path / "run", SCORES, best_by={"lpips": 2, "psnr_y": 1}, combined=combined)
    headline = make_headline(run)
    assert headline is not None
    assert (headline["value"], headline["unit"], headline["step"]) == ("8.1", "%", 10)
    assert (headline["gain"], headline["direction"]) == ("better", "up")
    assert "LPIPS \u2193 (weight 2), PSNR-Y \u2191 (weight 1)" in headline["subject"]
    assert headline["path"] == "LPIPS 0.4180 \u2192 0.3520, PSNR-Y 25.92 \u2192 25.40"
    assert [score["metric"] for score in list_other_scores(run)] == ["PSNR-Y \u2191", "LPIPS \u2193"]


def test_a_table_of_a_run_has_bicubic_start_best_and_last(tmp_path: Path) -> None:
    table = next(t for t in build_score_tables([write_run(tmp_path / "run", SCORES)]) if t.metric == "lpips")
    assert [(c.kind, c.step) for c in table.columns] == [("bicubic", None), ("start", 0), ("best", 10), ("last", 20)]
    assert [cell.value for cell in table.mean.cells] == [0.7, 0.418, 0.352, 0.36]
    assert [cell.gain_text for cell in table.mean.cells] == ["", "", "-0.0660", "-0.0580"]
    assert [cell.direction for cell in table.mean.cells[2:]] == ["up", "up"]
    assert (table.reference, table.inputs, table.best) == ("the start", "bicubic", None)


@pytest.mark.parametrize(
    "changes",
    [{"images": ("c", "d")}, {"scale": 2}, {"bicubic": {"psnr_y": 33.0, "lpips": 0.2}}],
    ids=["other images", "other scale", "other inputs"],
)
def test_sets_of_one_name_but_other_images_are_never_merged(tmp_path: Path, changes: dict[str, Any]) -> None:
    runs = [write_run(tmp_path / "one", SCORES), write_run(tmp_path / "two", SCORES, **changes)]
    groups = group_sets(runs)
    assert [group.runs for group in groups] == [[0], [1]]
    assert len({group.title for group in groups}) == 2
    assert len(describe_split_sets(groups)) == 1
    tables = [t for t in build_score_tables(runs) if t.metric == "lpips" and t.which == "best"]
    assert [[column.run for column in table.columns] for table in tables] == [[None, 0, 0], [None, 1, 1]]
    assert [table.best for table in tables] == [None, None]
    page = write_report([run.folder for run in runs], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "The runs have different sets called test" in page


def test_equal_sets_of_two_runs_share_a_table(tmp_path: Path) -> None:
    better = {step: {"psnr_y": 26.0, "lpips": 0.3} for step in SCORES}
    runs = [write_run(tmp_path / "one", SCORES), write_run(tmp_path / "two", better, start_from=None)]
    assert [(group.title, group.runs) for group in group_sets(runs)] == [("test", [0, 1])]
    table = next(t for t in build_score_tables(runs) if t.metric == "lpips")
    assert [(c.run, c.kind) for c in table.columns] == [(None, "bicubic"), (0, "start"), (0, "best"), (1, "best")]
    assert [cell.gain_text for cell in table.mean.cells] == ["", "", "-0.0660", "-0.4000"]
    assert table.best == 3
    assert table.reference == "the start for one, and to bicubic for the others"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("tmp/weights/spanx4_ch48.pth", "spanx4_ch48.pth"),
        ("runs/plain/weights/best.safetensors", "plain/weights/best.safetensors"),
        ("4xModel.pth", "4xModel.pth"),
        ("photo_x4", "photo_x4"),
    ],
)
def test_the_origin_of_a_run_is_a_file(path: str, text: str) -> None:
    assert _describe_origin(Path(path)) == text
