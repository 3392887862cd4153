"""The last lines of a fine-tuning: what it gained, and the commands that follow."""

import json
import shlex
from pathlib import Path

import pytest
import yaml

from selfsr.finetune.outcome import describe_gain, list_next_commands


def make_run(folder: Path, scores: dict[int, float], best_by: str = "psnr_y") -> Path:
    folder.mkdir()
    recipe = {"name": "x", "steps": 9, "evaluate": {"best_by": best_by}, "start_from": "a.pth"}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    lines = [
        {"step": step, "epoch": 0.1, "sets": {"held_out": {"mean": {best_by: value}, "images": {}}}}
        for step, value in scores.items()
    ]
    (folder / "eval.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder


@pytest.mark.parametrize(
    ("scores", "best_by", "sentence"),
    [
        ({0: 28.0, 5: 28.5, 9: 28.25}, "psnr_y", "PSNR-Y on held-out photos: 28 dB before, 28.5 dB at step 5."),
        ({0: 0.5, 5: 0.375, 9: 0.4}, "lpips", "LPIPS on held-out photos: 0.5 before, 0.375 at step 5."),
        (
            {0: 28.0, 5: 27.5, 9: 27.9},
            "psnr_y",
            "No gain: PSNR-Y on held-out photos: 28 dB before, 27.9 dB at step 9",
        ),
        (
            {0: 0.5, 5: 0.6},
            "lpips",
            "No gain: LPIPS on held-out photos: 0.5 before, 0.6 at step 5",
        ),
    ],
)
def test_the_gain_is_that_of_the_score_that_chose_the_best_weights(
    tmp_path: Path, scores: dict[int, float], best_by: str, sentence: str
) -> None:
    assert (describe_gain(make_run(tmp_path / "run", scores, best_by)) or "").startswith(sentence)


def test_a_run_without_scores_has_no_sentence(tmp_path: Path) -> None:
    assert describe_gain(make_run(tmp_path / "run", {})) is None


def test_the_next_commands_can_be_pasted(tmp_path: Path) -> None:
    run = tmp_path / "my runs" / "x"
    compare, export = (shlex.split(line.partition(":")[2]) for line in list_next_commands("4x a.pth", run, 4))
    assert compare == [
        "selfsr",
        "compare",
        "4x a.pth",
        str(run),
        "--data",
        str(run / "held_out.txt"),
        "-o",
        "compare.html",
    ]
    assert export == ["selfsr", "export", str(run), "-o", "published", "--name", "4x-NAME", "--onnx"]
