"""Trackers get the values, options and images of a run; TensorBoard for real, the others through small stand-ins."""

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from factories import recipe_error
from run_folders import assert_resumes, read_lines, train
from selfsr.errors import InputError
from selfsr.images.files import read_image


@pytest.fixture
def quick(tiny: dict) -> dict[str, Any]:
    """Return a recipe of six steps that are evaluated twice, with sample images."""
    tiny["method"]["terms"] = {"pixel": {"kind": "l1"}}
    return tiny


class Recorder:
    """A stand-in for the modules of wandb and trackio, which have the same functions."""

    def __init__(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.starts: list[dict] = []
        self.values: list[tuple[int, dict]] = []
        self.options: dict = {}
        self.finished = 0
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        run = SimpleNamespace(log=self._log, finish=self._finish)
        vars(module).update(
            init=lambda **options: self.starts.append(options) or run,
            config=SimpleNamespace(update=lambda values, **_: self.options.update(values)),
            Image=lambda pixels: np.asarray(pixels),
        )
        monkeypatch.setitem(sys.modules, name, module)

    def _log(self, values: dict, step: int) -> None:
        self.values.append((step, values))

    def _finish(self) -> None:
        self.finished += 1


def test_tensorboard_has_the_values_and_images_of_the_run(quick: dict, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    quick["log"]["trackers"] = ["tensorboard"]
    folder = assert_resumes(quick, tmp_path)
    for each in (folder, tmp_path / "resumed"):
        events = accumulator.EventAccumulator(str(each / "tensorboard"))
        events.Reload()
        written = [line["loss"]["g"]["pixel"] for line in read_lines(each / "metrics.jsonl")]
        shown = events.Scalars("train/loss/g/pixel")
        assert [event.value for event in shown] == pytest.approx(written, rel=1e-6)
        assert [event.step for event in shown] == [1, 2, 3, 4, 5, 6]
        assert [event.step for event in events.Scalars("eval/test/psnr_y")] == [0, 3, 6]
        image = next(path.name for path in sorted((each / "samples" / "test").iterdir()))
        assert [event.step for event in events.Images(f"samples/test/{image}/sr")] == [0, 3, 6]
        assert [event.step for event in events.Images(f"samples/test/{image}/hr")] == [0]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_run_and_its_continuation_are_one_run_of_the_tracker(
    name: str, quick: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(name, monkeypatch)
    quick["log"].update(trackers=[name], project="portraits")
    folder = train(quick, tmp_path / "run")
    train({**quick, "steps": 9}, folder, resume=True)
    first, second = recorder.starts
    assert first["project"] == second["project"] == "portraits"
    key = "id" if name == "wandb" else "name"
    assert first[key] == second[key]
    assert (first["resume"], recorder.finished) == ("allow", 2)
    losses = {step: values["train/loss/g/pixel"] for step, values in recorder.values if "train/loss/g/pixel" in values}
    assert losses == {line["step"]: line["loss"]["g"]["pixel"] for line in read_lines(folder / "metrics.jsonl")}
    assert recorder.options["network.kind"] == "edsr"
    assert recorder.options["data.hr"] == "train"  # without the folders of this machine
    images = [(step, key, value) for step, values in recorder.values for key, value in values.items() if "/sr" in key]
    if name == "trackio":
        assert not images
        return
    step, key, (pixels,) = images[0]
    _, set_name, image, _ = key.split("/")
    assert np.array_equal(pixels, read_image(folder / "samples" / set_name / image / f"sr_{step:08d}.png").pixels)


def test_mlflow_continues_by_the_id_of_its_run(quick: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts, values, params = [], {}, {}
    module = ModuleType("mlflow")
    module.__spec__ = ModuleSpec("mlflow", None)

    def start(**options: Any) -> SimpleNamespace:
        starts.append(options)
        return SimpleNamespace(info=SimpleNamespace(run_id="r7"))

    vars(module).update(
        search_experiments=lambda **_: [],
        create_experiment=lambda **options: options["name"],
        start_run=start,
        log_metrics=lambda metrics, step: values.setdefault(step, {}).update(metrics),
        log_params=params.update,
        end_run=lambda: None,
        utils=SimpleNamespace(validation=SimpleNamespace(MAX_PARAM_VAL_LENGTH=500, MAX_PARAMS_TAGS_PER_BATCH=100)),
    )
    monkeypatch.setitem(sys.modules, "mlflow", module)
    quick["log"]["trackers"] = ["mlflow"]
    folder = train(quick, tmp_path / "run")
    params_of_start = dict(params)
    train({**quick, "steps": 9}, folder, resume=True)
    assert [(each["run_id"], each["run_name"], each["experiment_id"]) for each in starts] == [
        (None, "tiny", "selfsr"),
        ("r7", "tiny", "selfsr"),
    ]
    assert params == params_of_start  # mlflow refuses others later
    assert params["steps"] == "6"
    assert values[6]["eval/test/psnr_y"] == read_lines(folder / "eval.jsonl")[2]["sets"]["test"]["mean"]["psnr_y"]


def test_a_missing_package_and_a_missing_login_are_one_sentence_before_the_first_step(
    quick: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    quick["log"]["trackers"] = ["wandb"]
    with pytest.raises(InputError) as error:
        train(quick, tmp_path / "run")
    assert str(error.value) == (
        "log.trackers: wandb needs its package, got an environment without it; install it with pip install wandb, or "
        "remove it from log.trackers."
    )
    monkeypatch.undo()
    Recorder("wandb", monkeypatch)

    def refuse(**options: Any) -> None:
        raise RuntimeError("api_key not configured (no-tty).\ncall wandb.login()")

    monkeypatch.setattr(sys.modules["wandb"], "init", refuse, raising=False)
    with pytest.raises(InputError) as error:
        train(quick, tmp_path / "run")
    assert str(error.value) == (
        "log.trackers: expected wandb to start, got an error (api_key not configured (no-tty). call wandb.login()); "
        "log in to it, or remove it from log.trackers."
    )
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    quick["log"]["trackers"] = ["tensorbord"]
    assert "log.trackers" in recipe_error(quick)


def test_a_tracker_that_fails_later_does_not_stop_the_run(
    quick: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder("trackio", monkeypatch)

    def fail(values: dict, step: int) -> None:
        raise ConnectionError("the server is gone")

    monkeypatch.setattr(recorder, "_log", fail)
    run = SimpleNamespace(log=fail, finish=lambda: None)
    monkeypatch.setattr(sys.modules["trackio"], "init", lambda **_: run, raising=False)
    quick["log"]["trackers"] = ["trackio"]
    folder = train(quick, tmp_path / "run")
    assert len(read_lines(folder / "metrics.jsonl")) == 6
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("log.trackers: ")]
    assert lines == [
        "log.trackers: expected trackio to take the values of the run, got an error (the server is gone); the run "
        "continues without it, and its own logs have everything."
    ]
