"""`selfsr evaluate` of models that sample: --seeds, --steps and --color-fix, their table and their results file."""

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from selfsr.cli import evaluate as evaluate_verb
from selfsr.cli.seeds import read_seeds
from selfsr.errors import InputError
from selfsr.images.files import DecodedImage, read_image, write_image
from selfsr.images.resize import imresize
from selfsr.nets.diffusion.residual_shifting import ResidualShiftingSpec
from selfsr.nets.edsr import EdsrSpec
from selfsr.nets.weights.save import save_weights

app = typer.Typer()
app.command("evaluate", epilog=evaluate_verb.EPILOG)(evaluate_verb.evaluate)


@app.callback()
def main() -> None:
    pass


def call(*args: object) -> str:
    """Run the command; return stdout."""
    result = CliRunner(env={"COLUMNS": None, "NO_COLOR": "1"}).invoke(app, ["evaluate", *map(str, args)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def mistake(*args: object) -> str:
    with pytest.raises(InputError) as error:
        call(*args)
    return str(error.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model that samples, one that does not, and two images."""
    root = tmp_path_factory.mktemp("seeds")
    torch.manual_seed(0)
    net: Any = ResidualShiftingSpec(**{"unet": {"channels": [8, 8], "groups": 4}, "shift": {"steps": 2}}).build(2)
    torch.nn.init.normal_(net.unet.conv_out.weight, std=0.05)
    save_weights(root / "sampled.safetensors", net, {})
    save_weights(root / "edsr.safetensors", EdsrSpec(blocks=1, features=8).build(2), {})
    for number in range(2):
        noise = torch.rand(1, 3, 8, 7, generator=torch.Generator().manual_seed(number))
        image = imresize(noise, size=(40, 36))[0].clamp(0, 1).mul(255).round().byte()
        path = root / "set" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        write_image(path, DecodedImage(np.ascontiguousarray(image.permute(1, 2, 0).numpy())))
    return root


def results(folder: Path, tmp_path: Path, *options: object) -> tuple[dict[str, Any], str]:
    """Return the results file and the table."""
    out = tmp_path / "scores.json"
    stdout = call(folder / "sampled.safetensors", "--data", folder / "set", "--device", "cpu", "--out", out, *options)
    return json.loads(out.read_text()), stdout


def test_scores_of_several_seeds_are_means_of_those_of_each(folder: Path, tmp_path: Path) -> None:
    record, stdout = results(folder, tmp_path, "--seeds", "0,5,2", "--bicubic")
    bicubic, scores = (result["sets"]["set"] for result in record["results"])
    assert list(bicubic) == ["mean", "images"]
    each = [results(folder, tmp_path, "--seeds", seed)[0]["results"][0]["sets"]["set"] for seed in (0, 5, 2)]
    assert [list(one) for one in each] == [["mean", "images"]] * 3
    assert list(scores["seeds"].values()) == [one["mean"] for one in each]
    for name in ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb"):
        values = [one["mean"][name] for one in each]
        assert scores["mean"][name] == pytest.approx(sum(values) / 3, abs=1e-9)
        assert scores["spread"][name] == pytest.approx(statistics.stdev(values), abs=1e-9)
    assert len({one["mean"]["psnr_y"] for one in each}) == 3
    assert record["protocol"]["sampling"] == {
        "seeds": [0, 5, 2],
        "steps": 2,
        "deterministic": False,
        "color_fix": "wavelet",
    }
    assert "gray levels" in record["protocol"]["seed_spread"]
    lines = [line.split("  ") for line in stdout.splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert cells[0][-2:] == ["PSNR-Y of mean", "Seed spread"]
    assert cells[1][-2:] == ["-", "-"]  # of bicubic
    mean, spread = scores["mean"], scores["spread"]
    assert cells[2][3] == f"{mean['psnr_y']:.2f} \u00b1 {spread['psnr_y']:.2f}"
    assert cells[2][-2:] == [f"{mean['psnr_y_of_mean']:.2f}", f"{mean['seed_spread']:.2f}"]
    assert stdout.rstrip().endswith("Means over the seeds 0, 5, 2; \u00b1 is the standard deviation over the seeds.")


def test_one_seed_is_the_first_by_default_and_has_no_spread(folder: Path, tmp_path: Path) -> None:
    record, stdout = results(folder, tmp_path)
    assert record == results(folder, tmp_path, "--seeds", "0")[0]
    assert record["protocol"]["sampling"]["seeds"] == [0]
    assert "spread" not in record["protocol"]
    assert "\u00b1" not in stdout
    plain_out = tmp_path / "plain.json"
    call(folder / "edsr.safetensors", "--data", folder / "set", "--device", "cpu", "--out", plain_out)
    plain = json.loads(plain_out.read_text())
    assert "sampling" not in plain["protocol"]
    assert list(plain["results"][0]) == ["upscaler", "tile", "self_ensemble", "sets"]
    assert list(plain["results"][0]["sets"]["set"]) == ["mean", "images"]


def test_steps_and_color_fix_change_the_scores_and_stand_in_the_protocol(folder: Path, tmp_path: Path) -> None:
    scores = []
    for options, steps, fix in (
        ((), 2, "wavelet"),
        (("--steps", 1), 1, "wavelet"),
        (("--color-fix", "adain"), 2, "adain"),
    ):
        record = results(folder, tmp_path, *options)[0]
        assert (record["protocol"]["sampling"]["steps"], record["protocol"]["sampling"]["color_fix"]) == (steps, fix)
        scores.append(record["results"][0]["sets"]["set"]["mean"]["psnr_y"])
    assert len(set(scores)) == 3


def test_saved_images_are_those_of_the_first_seed(folder: Path, tmp_path: Path) -> None:
    results(folder, tmp_path, "--seeds", "5,0", "--save-images", tmp_path / "several")
    results(folder, tmp_path, "--seeds", "5", "--save-images", tmp_path / "one")
    several, one = (read_image(tmp_path / name / "set" / "0.png").pixels for name in ("several", "one"))
    assert np.array_equal(several, one)


@pytest.mark.parametrize("option", [("--seeds", "0,1"), ("--seeds", "0"), ("--steps", "1"), ("--color-fix", "none")])
def test_sampling_options_are_refused_where_nothing_is_sampled(folder: Path, option: tuple[str, str]) -> None:
    data = ("--data", folder / "set")
    assert mistake(folder / "edsr.safetensors", *data, *option) == (
        f"evaluate: expected no {option[0]} with EDSR, which has one output for each input, where it does nothing, got "
        f"one; leave {option[0]} out."
    )
    assert mistake("--bicubic", "--scale", 2, *data, *option) == (
        f"evaluate: expected no {option[0]} without a model, where it does nothing, got one; leave {option[0]} out."
    )


def test_wrong_seeds_and_steps_are_refused(folder: Path) -> None:
    options = (folder / "sampled.safetensors", "--data", folder / "set")
    for text, entry in (
        ("0,a", "a"),
        ("", ""),
        ("0,", ""),
        ("-1", "-1"),
        ("1.5", "1.5"),
        ("\u0663", "\u0663"),
        ("9" * 19, "9" * 19),
    ):
        assert mistake(*options, "--seeds", text) == (
            f"evaluate: expected whole numbers from 0 on for --seeds, got {entry!r} in {text!r}; write them with "
            "commas between them, such as 0,1,2."
        )
    assert mistake(*options, "--seeds", "1,2,1") == (
        "evaluate: expected different --seeds, got '1,2,1'; name each seed once."
    )
    assert mistake(*options, "--steps", "3").startswith(
        "steps: expected 1 to 2, the steps that the network was trained"
    )
    assert mistake(*options, "--color-fix", "green").startswith(
        "color fix: expected one of wavelet, adain, ycbcr, none"
    )
    assert read_seeds("0, 12") == (0, 12)


def test_the_self_ensemble_is_refused_for_a_model_that_samples(folder: Path) -> None:
    message = mistake(folder / "sampled.safetensors", "--data", folder / "set", "--self-ensemble")
    assert message.startswith("upscale: the self-ensemble is for models without random numbers")
