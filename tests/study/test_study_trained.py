"""A study with real training, from the command line to the results: two arms, two seeds."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import numpy as np
import pytest
import typer
from click.testing import Result
from safetensors.torch import load_file
from typer.testing import CliRunner

from programs import Program
from selfsr.cli import study as command
from selfsr.images.files import DecodedImage, write_image
from selfsr.study import runner

FOLDER = Path("studies/claim")


@dataclass
class TrainedStudy:
    """A trained study in the current folder.

    Attributes:
        call: runs the command on the study again, with more options.
        runs: the run folders by name.
        finals: PSNR-Y of the last evaluation, by arm and seed.
    """

    call: Callable[..., Result]
    runs: dict[str, Path]
    finals: dict[tuple[str, str], float]


class ForkedTraining(Program):
    """The process of a run, started within milliseconds. Its arguments, environment and log are those of the runner."""

    def __init__(self, command: list[str], *, env: dict[str, str], stdout: IO[bytes], **_: object) -> None:
        super().__init__(command[1:], Path.cwd(), env, Path(stdout.name))


def texture(seed: int) -> np.ndarray:
    """Return an RGB image `[40, 48, 3]` of waves."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:40, :48]
    waves = [np.sin(rng.uniform(-1, 1) * y + rng.uniform(-1, 1) * x) for _ in range(3)]
    return np.uint8(128 + 100 * np.stack(waves, axis=-1))


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, write_inputs: Callable[[Path], None]) -> Iterator[TrainedStudy]:
    """Train claim.yaml with two jobs, and stay in its folder."""
    folder = tmp_path_factory.mktemp("study")
    write_inputs(folder)
    for index in range(2):
        write_image(folder / f"photos/train/{index}.png", DecodedImage(texture(index)))
    write_image(folder / "photos/test/0.png", DecodedImage(texture(9)))
    small = ["steps=4", "evaluate.every_steps=2", "checkpoints.every_steps=2", "evaluate.samples=0"]
    options = [part for setting in small for part in ("--set", f"base.{setting}")]
    app = typer.Typer()
    app.command()(command.study)

    def call(*more: str) -> Result:
        return CliRunner().invoke(app, ["claim.yaml", "--device", "cpu", "--no-reports", *options, *more])

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(runner, "subprocess", SimpleNamespace(**vars(subprocess) | {"Popen": ForkedTraining}))
        done = call("--jobs", "2")
        assert done.exit_code == 0, done.output
        runs = {path.name: path for path in (FOLDER / "runs").iterdir()}
        finals = {}
        for name, run in runs.items():
            _, arm, seed = name.split("-")
            last = read_lines(run / "eval.jsonl")[-1]
            finals[arm, seed.removeprefix("seed")] = last["sets"]["first"]["mean"]["psnr_y"]
        yield TrainedStudy(call, runs, finals)


def test_study_trains_every_arm_with_every_seed(trained: TrainedStudy) -> None:
    assert sorted(trained.runs) == ["tiny-paced-seed1", "tiny-paced-seed2", "tiny-plain-seed1", "tiny-plain-seed2"]
    for run in trained.runs.values():
        assert read_lines(run / "eval.jsonl")[-1]["step"] == 4
    for (arm, seed), final in trained.finals.items():
        assert final != trained.finals["plain", seed] or arm == "plain"
    assert trained.finals["plain", "1"] != trained.finals["plain", "2"]
    # Runs of the same seed start from the same weights, so their untrained networks have the same scores.
    plain, paced = (read_lines(trained.runs[f"tiny-{arm}-seed1"] / "eval.jsonl")[0] for arm in ("plain", "paced"))
    assert plain["sets"] == paced["sets"]


def test_study_results_have_the_scores_of_the_runs(trained: TrainedStudy) -> None:
    comparison = json.loads((FOLDER / "results.json").read_text())["recipes"]["tiny"]["comparison"]
    assert comparison["seeds"] == [1, 2]
    for (arm, seed), final in trained.finals.items():
        result = comparison["arms"][arm]["seeds"][seed]
        assert result["final"] == final
        assert result["difference"] == final - trained.finals["plain", seed]


def test_study_resumes_only_the_unfinished_run(trained: TrainedStudy) -> None:
    run, other = trained.runs["tiny-paced-seed2"], trained.runs["tiny-plain-seed1"]
    results = json.loads((FOLDER / "results.json").read_text())
    evaluations, weights = (run / "eval.jsonl").read_text(), load_file(run / "weights/last.safetensors")
    stamp = (other / "eval.jsonl").stat().st_mtime_ns
    # The state after a power failure between the checkpoints of steps 2 and 4.
    shutil.rmtree(run / "checkpoints/step_00000004")
    again = trained.call()
    assert again.exit_code == 0, again.output
    assert again.output.count(": finished") == 1
    assert (run / "eval.jsonl").read_text() == evaluations
    resumed = load_file(run / "weights/last.safetensors")
    assert all((resumed[key] == value).all() for key, value in weights.items())
    assert (other / "eval.jsonl").stat().st_mtime_ns == stamp
    assert json.loads((FOLDER / "results.json").read_text())["recipes"] == results["recipes"]
