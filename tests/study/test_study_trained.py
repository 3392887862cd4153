"""A study that is really trained, from the command line to the page: two arms by two seeds."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer
from safetensors.torch import load_file
from typer.testing import CliRunner

from selfsr.cli import study as verb
from selfsr.images.files import Picture, write_picture

FOLDER = Path("studies/claim")


def texture(seed: int) -> np.ndarray:
    """Return an RGB picture `[40, 48, 3]` of waves."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:40, :48]
    waves = [np.sin(rng.uniform(-1, 1) * y + rng.uniform(-1, 1) * x) for _ in range(3)]
    return np.uint8(128 + 100 * np.stack(waves, axis=-1))


@pytest.fixture
def study(place: Path) -> Callable:
    """Return `study(*arguments)`, the verb on claim.yaml with pictures to train and judge on."""
    for index in range(2):
        write_picture(place / f"photos/train/{index}.png", Picture(texture(index)))
    write_picture(place / "photos/test/0.png", Picture(texture(9)))
    small = ["steps=4", "evaluate.every_steps=2", "checkpoints.every_steps=2", "evaluate.samples=0"]
    options = [part for setting in small for part in ("--set", f"base.{setting}")]
    app = typer.Typer()
    app.command()(verb.study)
    return lambda *more: CliRunner().invoke(app, ["claim.yaml", "--device", "cpu", "--no-reports", *options, *more])


def test_a_study_is_trained_resumed_and_summed_up(study: Callable) -> None:
    done = study("--jobs", "2")
    assert done.exit_code == 0, done.output
    runs = {path.name: path for path in (FOLDER / "runs").iterdir()}
    assert sorted(runs) == ["tiny-paced-seed1", "tiny-paced-seed2", "tiny-plain-seed1", "tiny-plain-seed2"]
    results = json.loads((FOLDER / "results.json").read_text())
    comparison = results["recipes"]["tiny"]["comparison"]
    assert comparison["seeds"] == [1, 2]
    finals = {}
    for name, run in runs.items():
        last = json.loads((run / "eval.jsonl").read_text().splitlines()[-1])
        assert last["step"] == 4
        _, arm, seed = name.split("-")
        finals[arm, seed.removeprefix("seed")] = last["sets"]["first"]["mean"]["psnr_y"]
    for (arm, seed), final in finals.items():
        told = comparison["arms"][arm]["seeds"][seed]
        assert told["final"] == final
        assert told["difference"] == final - finals["plain", seed]
        assert final != finals["plain", seed] or arm == "plain"
    assert finals["plain", "1"] != finals["plain", "2"]
    # The same seed starts from the same weights: the untrained networks have one score.
    starts = [
        json.loads((runs[f"tiny-{arm}-seed1"] / "eval.jsonl").read_text().splitlines()[0]) for arm in ("plain", "paced")
    ]
    assert starts[0]["sets"] == starts[1]["sets"]

    # As if the machine had gone down after the checkpoint of step 2: the study goes on with this run alone.
    run, other = runs["tiny-paced-seed2"], runs["tiny-plain-seed1"]
    evaluations, weights = (run / "eval.jsonl").read_text(), load_file(run / "weights/last.safetensors")
    stamp = (other / "eval.jsonl").stat().st_mtime_ns
    shutil.rmtree(run / "checkpoints/step_00000004")
    again = study()
    assert again.exit_code == 0, again.output
    assert again.output.count(": finished") == 1
    assert (run / "eval.jsonl").read_text() == evaluations
    resumed = load_file(run / "weights/last.safetensors")
    assert all((resumed[key] == value).all() for key, value in weights.items())
    assert (other / "eval.jsonl").stat().st_mtime_ns == stamp
    assert json.loads((FOLDER / "results.json").read_text())["recipes"] == results["recipes"]
