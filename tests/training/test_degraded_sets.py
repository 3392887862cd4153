"""Evaluation on degraded inputs: the same as those of `selfsr degrade`; a warning where training degrades only."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from factories import recipe_error
from run_folders import assert_resumes, read_checkpoint, read_lines, train
from selfsr.cli import app
from selfsr.degrade.presets import get_preset
from selfsr.errors import InputError
from selfsr.evaluation.benchmark import evaluate_set, make_bicubic_upscaler
from selfsr.evaluation.degraded import DegradedInputs
from selfsr.images.files import DecodedImage, image_to_tensor, read_image, write_image
from selfsr.images.paths import list_images
from selfsr.recipe import parse_recipe
from selfsr.training.dryrun import dry_run
from selfsr.training.evaluation import check_sets, describe_inputs
from selfsr.training.loop import fit

CPU = torch.device("cpu")


@pytest.fixture
def blind(tiny: dict) -> dict:
    """Return the tiny recipe with degraded inputs in training and evaluation."""
    tiny["data"]["degrade"] = "real_esrgan_ssl"
    tiny["method"]["terms"] = {"pixel": {"kind": "l1"}}
    hr = next(iter(tiny["evaluate"]["sets"].values()))
    tiny["evaluate"]["sets"] = {"blind": {"hr": str(hr), "degrade": "training", "seed": 5}}
    return tiny


@pytest.mark.parametrize("preset", ["real_esrgan_ssl", "bsrgan_ssl", "ssl_test"])
def test_inputs_are_those_of_selfsr_degrade_in_any_order(photos: Path, tmp_path: Path, preset: str) -> None:
    folder, out = photos / "test", tmp_path / "lr"
    shutil.copytree(folder, tmp_path / "hr")
    options = ["degrade", str(tmp_path / "hr"), "-o", str(out), "--preset", preset, "--scale", "2", "--seed", "7"]
    assert CliRunner().invoke(app, options, catch_exceptions=False).exit_code == 0
    paths = list_images(folder)
    inputs = DegradedInputs(get_preset(preset), folder, seed=7)
    made = {path: inputs.make(read_image(path), path, 2) for path in reversed(paths)}
    for path in paths:
        lr = image_to_tensor(read_image(out / f"{path.stem}x2.png"))
        assert torch.equal(made[path], lr), path
        assert not torch.equal(lr, DegradedInputs(get_preset(preset), folder, 8).make(read_image(path), path, 2))


def test_scores_on_made_inputs_are_those_on_their_files(photos: Path, tmp_path: Path) -> None:
    folder = photos / "test"
    paths = list_images(folder)
    inputs = DegradedInputs(get_preset("bsrgan_ssl"), folder, seed=1)
    files = []
    for path in paths:
        files.append(tmp_path / f"{path.stem}.png")
        lr = inputs.make(read_image(path), path, 2)
        pixels = (255 * lr[0]).round().permute(1, 2, 0).numpy().astype(np.uint8)
        write_image(files[-1], DecodedImage(pixels))
    options = {"scale": 2, "device": CPU}
    made = evaluate_set(make_bicubic_upscaler(2), "s", paths, degraded=inputs, **options)
    read = evaluate_set(make_bicubic_upscaler(2), "s", paths, lr_paths=files, **options)
    bicubic = evaluate_set(make_bicubic_upscaler(2), "s", paths, **options)
    assert made.images == read.images
    assert made.mean["psnr_y"] < bicubic.mean["psnr_y"] - 0.5


def test_a_run_records_how_its_inputs_were_made(blind: dict, tmp_path: Path) -> None:
    blind["evaluate"]["sets"]["plain"] = blind["evaluate"]["sets"]["blind"]["hr"]
    folder = train(blind, tmp_path / "run")
    for line in read_lines(folder / "eval.jsonl"):
        assert {name: (scores["scale"], scores["lr"]) for name, scores in line["sets"].items()} == {
            "blind": (2, "degraded by real_esrgan_ssl, seed 5, rounded to 8 bits"),
            "plain": (2, "bicubic 1/2 with antialiasing (as MATLAB's imresize), rounded to 8 bits"),
        }
    bicubic = read_lines(folder / "eval.jsonl")[0]["bicubic"]
    assert bicubic["blind"]["mean"]["psnr_y"] < bicubic["plain"]["mean"]["psnr_y"]


def test_changed_presets_are_named_as_changed(blind: dict) -> None:
    def describe(degrade: object) -> str:
        blind["evaluate"]["sets"]["blind"]["degrade"] = degrade
        recipe = parse_recipe(blind, "test")
        assert recipe.evaluate is not None
        entry = recipe.evaluate.sets["blind"]
        degradation = recipe.set_degradation(entry)
        assert degradation is not None
        return DegradedInputs(degradation, entry.hr, entry.seed).describe()

    assert describe("ssl_test") == "degraded by ssl_test, seed 5, rounded to 8 bits"
    changed = {"kind": "bsrgan", "jpeg_quality": [20, 30]}
    assert describe(changed) == "degraded by bsrgan with changes, seed 5, rounded to 8 bits"


def test_a_blind_run_with_bicubic_sets_is_warned(
    blind: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hr = blind["evaluate"]["sets"]["blind"]["hr"]
    assert describe_inputs(parse_recipe(blind, "test")) == []
    blind["evaluate"]["sets"] = {"held": hr}
    (warning,) = describe_inputs(parse_recipe(blind, "test"))
    setting = f"--set 'evaluate.sets.held={{hr: {hr}, degrade: training}}'"
    assert setting in warning
    dry_run(parse_recipe(blind, "test"), device="cpu")
    assert "".join(capsys.readouterr().err.split()).count("".join(setting.split())) == 1
    train(blind, tmp_path / "run")
    assert "".join(capsys.readouterr().err.split()).count("".join(setting.split())) == 1
    blind["data"]["degrade"] = None
    assert describe_inputs(parse_recipe(blind, "test")) == []


def test_an_image_too_small_for_the_degradation_is_refused_before_the_run(blind: dict, tmp_path: Path) -> None:
    write_image(tmp_path / "small.png", DecodedImage(np.zeros((2, 40, 3), np.uint8)))
    blind["evaluate"]["sets"]["blind"]["hr"] = str(tmp_path)
    with pytest.raises(InputError, match=r"small.png: expected an image that leaves at least one pixel .* 2 x 40"):
        check_sets(parse_recipe(blind, "test"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"degrade": "bsrgn"}, "blind.degrade: expected training or one of real_esrgan, "),
        ({"degrade": None}, "blind: seed does nothing without degrade, got 5; remove it"),
        ({"lr": "photos"}, "blind: lr and degrade exclude each other, got both; remove one of them"),
        ({"seed": -1}, "blind.seed: expected a number greater than or equal to 0, got -1"),
        ({"degrade": {"kind": "bsrgan", "jpg": 1}}, "blind.degrade.jpg: unknown key; "),
    ],
)
def test_a_wrong_set_is_refused(blind: dict, changes: dict, sentence: str) -> None:
    blind["evaluate"]["sets"]["blind"] |= changes
    assert sentence in recipe_error(blind)


def test_training_needs_a_degradation(blind: dict) -> None:
    blind["data"]["degrade"] = None
    assert "evaluate.sets.blind.degrade can be training only if data.degrade is set" in recipe_error(blind)


# ---- several scores for best_by


def test_a_resumed_run_by_several_scores_chooses_the_same_weights(blind: dict, tmp_path: Path) -> None:
    weights = {"psnr_y": 1.0, "ssim_y": 3.0}
    blind["evaluate"] |= {"best_by": weights, "every_steps": 1}
    straight = assert_resumes(blind, tmp_path)
    assert (straight / "eval.jsonl").read_bytes() == (tmp_path / "resumed" / "eval.jsonl").read_bytes()
    lines = read_lines(straight / "eval.jsonl")
    means = [line["sets"]["blind"]["mean"] for line in lines]
    expected = [
        sum(weight * (mean[name] / means[0][name] - 1) for name, weight in weights.items()) / 4 for mean in means
    ]
    assert [line["score"] for line in lines] == pytest.approx(expected, abs=1e-12)
    assert read_checkpoint(straight)["best"] == {str(weights): max(line["score"] for line in lines[1:])}


def test_resuming_without_the_start_scores_is_refused(blind: dict, tmp_path: Path) -> None:
    blind["evaluate"]["best_by"] = {"psnr_y": 1.0, "ssim_y": 1.0}
    folder = train(blind, tmp_path / "run")
    lines = [line for line in read_lines(folder / "eval.jsonl") if line["step"] > 0]
    (folder / "eval.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InputError, match=r"resume: expected the scores of step 0 in .*eval.jsonl"):
        fit(parse_recipe(blind, "test"), folder, device="cpu", resume=True)


@pytest.mark.parametrize(
    ("best_by", "sentence"),
    [
        ({"psnr_y": 0}, "evaluate.best_by.psnr_y: expected a number greater than 0, got 0"),
        ({"psnr_y": -1}, "evaluate.best_by.psnr_y: expected a number greater than 0, got -1"),
        ({"psnr_y": float("nan")}, "evaluate.best_by.psnr_y: expected a "),
        ({"psnry": 1}, "evaluate.best_by: expected one of psnr_y"),
        ({}, "evaluate.best_by: "),
        ({"lpips": 1, "psnr_y": 1}, "evaluate: metrics must contain lpips for best_by, got []; add it"),
        ({"seed_spread": 1}, "evaluate: seeds must be at least two for best_by seed_spread"),
    ],
)
def test_wrong_weights_of_scores_are_refused(tiny: dict, best_by: dict, sentence: str) -> None:
    tiny["evaluate"]["best_by"] = best_by
    assert sentence in recipe_error(tiny)
