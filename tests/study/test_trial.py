"""The dry run of a study tries each arm for a few steps: real training of tiny networks."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import typer
from click.testing import Result
from typer.testing import CliRunner

from factories import texture
from selfsr.cli import study as command
from selfsr.images.files import DecodedImage, write_image
from selfsr.recipe import load_recipe
from selfsr.study import open_study, trial
from selfsr.study.trial import estimate_time_s
from selfsr.training import dryrun
from selfsr.training.dryrun import Cost
from selfsr.training.run_evaluation import DryRunEvaluation


@pytest.fixture
def dry_run(workspace: Path) -> Callable[..., Result]:
    """Return `dry_run(*options)`, which tries the study claim.yaml on small images."""
    for seed, folder in enumerate(("train", "train", "test")):
        write_image(workspace / "photos" / folder / f"{seed}.png", DecodedImage(texture(seed, 40, 48)))
    app = typer.Typer()
    app.command()(command.study)
    return lambda *options: CliRunner().invoke(app, ["claim.yaml", "--device", "cpu", "--dry-run", *options])


def test_each_arm_is_tried_once_and_nothing_is_written(dry_run, workspace: Path, monkeypatch) -> None:
    checked: list[object] = []
    check_folder = dryrun.check_folder
    monkeypatch.setattr(
        dryrun, "check_folder", lambda *args, **options: checked.append(args) or check_folder(*args, **options)
    )
    before = sorted(workspace.rglob("*"))
    done = dry_run("--set", "base.optimizers.g.lr=2e-3")
    assert done.exit_code == 0, done.output
    assert sorted(workspace.rglob("*")) == before
    assert [done.output.count(f"Trying arm {arm} of recipe tiny") for arm in ("plain", "paced")] == [1, 1]
    assert "--set: optimizers.g.lr: 2e-3" in done.output
    assert "80 steps remain, about " in done.output
    assert len(checked) == 1  # both arms have the same images


@pytest.mark.parametrize(
    ("setting", "arm", "message"),
    [
        ("base.crop_px=44", "plain", "the size of the crop, got 40 x 48"),
        ("base.evaluate.metrics=[pyiqa:musiq]", "plain", "pip install pyiqa"),
        ("base.start_from=tiny.yaml", "plain", "tiny.yaml"),
    ],
)
def test_what_would_end_a_run_at_its_start_is_refused(
    dry_run, setting: str, arm: str, message: str, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    refused = dry_run("--set", setting)
    assert refused.exit_code == 1
    assert str(refused.exception).startswith(f"study: recipe tiny, arm {arm}: ")
    assert message in str(refused.exception)


def test_a_loss_that_diverges_names_its_arm(dry_run, workspace: Path) -> None:
    study = workspace / "claim.yaml"
    study.write_text(study.read_text().replace("method.terms.pixel.pace: {alpha: 4.0}", "optimizers.g.lr: 1000"))
    refused = dry_run()
    assert refused.exit_code == 1
    assert str(refused.exception).startswith("study: recipe tiny, arm paced: ")
    assert "became NaN or infinite at step" in str(refused.exception)
    assert "; lower the learning rate under set, set clip_norm, or set precision to" in str(refused.exception)


def test_what_else_can_end_a_trial(dry_run, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with monkeypatch.context() as patch:
        patch.setattr(trial, "measure_cost", fail)
        refused = dry_run()
    assert str(refused.exception).startswith("study: recipe tiny, arm plain: expected enough free memory for a step,")
    monkeypatch.setattr(dryrun, "fit", lambda *_, **__: False)  # as after Ctrl-C
    with pytest.raises(KeyboardInterrupt):
        dryrun.measure_cost(load_recipe(Path("tiny.yaml")), device="cpu")


def test_runs_that_share_a_device_share_its_memory(dry_run, monkeypatch) -> None:
    monkeypatch.setattr(dryrun, "measure_free_bytes", lambda _: 10 * 2**20)
    monkeypatch.setattr(trial, "estimate_step_bytes", lambda *_, **__: 4 * 2**20)
    assert dry_run("--jobs", "2").exit_code == 0
    refused = dry_run("--jobs", "3")
    assert "expected 4 MB of free memory on cpu for a step of each run, got 3 MB" in str(refused.exception)


def test_devices_divide_the_time_up_to_the_longest_run(workspace: Path) -> None:
    plan, _ = open_study(Path("claim.yaml"))
    runs = [(run, 0) for run in plan.runs()]
    cost = Cost(steps_per_s=2.0, evaluation_s=1.0, memory_mb=1, disk_mb=1, evaluation=DryRunEvaluation(2))
    costs = {(run.setup, run.arm): cost for run, _ in runs}
    # 20 steps at 2 steps/s, two evaluations at the start and two in training.
    assert [estimate_time_s(runs, costs, devices) for devices in (1, 2, 9)] == [56, 28, 14]
    assert estimate_time_s([(runs[0][0], 10), (runs[1][0], 20)], costs, 1) == 6


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "steps=3",
            "--set steps=3: expected a setting of the study, got one of its recipes; write --set base.steps=3.",
        ),
        (
            "seed=3",
            "--set seed=3: expected a setting of the study, got one of its recipes; every arm runs with the same "
            "seeds; list them under seeds.",
        ),
        (
            "schedule.warmup_steps=2",
            "--set schedule.warmup_steps=2: expected a setting of the study, got one of its recipes; write "
            "--set base.schedule.warmup_steps=2.",
        ),
    ],
)
def test_settings_of_recipes_need_base(dry_run, setting: str, message: str) -> None:
    assert str(dry_run("--set", setting).exception) == message


def test_ctrl_c_stops_the_dry_run_with_a_line(dry_run, monkeypatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trial, "measure_cost", stop)
    stopped = dry_run()
    assert stopped.exit_code == 130
    assert "Stopped the dry run; nothing was written." in stopped.output


def test_advice_about_recipes_has_the_names_of_the_study(dry_run) -> None:
    refused = dry_run("--set", "base.schedule={kind: cosine, warmup_steps: 50}")
    assert "add --set base.schedule.warmup_steps=2, or raise steps" in str(refused.exception)


@pytest.mark.parametrize(
    ("line", "place"),
    [("set: {batc: 2}", "claim.yaml: set: batc"), ("set: {steps: twenty}", "claim.yaml: set: steps")],
)
def test_a_wrong_change_is_at_its_place_in_the_study(dry_run, workspace: Path, line: str, place: str) -> None:
    study = workspace / "claim.yaml"
    study.write_text(f"{study.read_text()}{line}\n")
    assert str(dry_run().exception).startswith(f"{place}: ")
