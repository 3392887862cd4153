"""Training the runs of a study with a stub of the trainer: order, resuming, failures, Ctrl-C, devices."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from selfsr.cli import study as verb
from selfsr.study import trial
from selfsr.study.devices import choose_slots
from selfsr.study.plan import StudyPlan
from selfsr.study.progress import TimeEstimate
from selfsr.training.dryrun import Cost
from selfsr.training.run_evaluation import DryRunEvaluation

FOLDER = Path("studies/claim")


@pytest.fixture
def stub(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replace the trainer by a stub; return `stub(behaviors)`, which sets its behavior by run name."""
    python = workspace / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S {Path(__file__).parent / "trainer_stub.py"} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("STUB_CALLS", str(workspace / "calls.jsonl"))
    # The image folders are empty, so that no arm can be tried; tests/study/test_trial.py tries arms.
    cost = Cost(steps_per_s=2.0, evaluation_s=1.0, memory_mb=100.0, disk_mb=1.0, evaluation=DryRunEvaluation(2))
    monkeypatch.setattr(trial, "check_data", lambda recipe: 0)
    monkeypatch.setattr(trial, "estimate_step_bytes", lambda recipe, device: None)
    monkeypatch.setattr(trial, "measure_cost", lambda recipe, device: cost)
    return lambda todo: monkeypatch.setenv("STUB", json.dumps(todo))


def study(*arguments: str):
    app = typer.Typer()
    app.command()(verb.study)
    return CliRunner().invoke(app, ["--device", "cpu", *arguments])


def calls() -> list[dict]:
    return [json.loads(line) for line in Path("calls.jsonl").read_text().splitlines()]


def test_every_run_is_trained_once_and_never_again(stub: Callable) -> None:
    done = study("claim.yaml")
    assert done.exit_code == 0, done.output
    assert [call["name"] for call in calls()] == [
        "tiny-plain-seed1", "tiny-paced-seed1", "tiny-plain-seed2", "tiny-paced-seed2",
    ]  # fmt: skip
    assert calls()[0]["arguments"] == [
        "-m", "selfsr", "train", "studies/claim/recipes/tiny-plain-seed1.yaml", "--runs", "studies/claim/runs",
        "--device", "cpu",
    ]  # fmt: skip
    assert "4 runs, 80 steps, in studies/claim" in done.output
    assert "tiny-paced-seed2: started (log: studies/claim/logs/tiny-paced-seed2.log)" in done.output
    assert 'href="runs/tiny-plain-seed1/report.html"' in (FOLDER / "study.html").read_text()
    again = study(str(FOLDER))
    assert (again.exit_code, len(calls())) == (0, 4)


def test_failed_run_is_reported_and_the_others_continue(stub: Callable) -> None:
    stub({"tiny-plain-seed1": "refuse", "tiny-paced-seed1": "crash", "tiny-paced-seed2": "die"})
    done = study("claim.yaml", "--no-reports")
    assert done.exit_code == 1
    assert "tiny-plain-seed1: FAILED: recipe: data.hr: expected pictures, got none." in done.output
    assert "tiny-paced-seed1: FAILED: RuntimeError: out of luck" in done.output
    assert "tiny-paced-seed2: FAILED: ended by SIGKILL, possibly out of memory" in done.output
    assert "studies/claim/logs/tiny-plain-seed1.log" in done.output
    assert "tiny-plain-seed2: finished [1 of 4 runs" in done.output
    notes = json.loads((FOLDER / "results.json").read_text())["notes"]
    assert "tiny-paced-seed1 failed: RuntimeError: out of luck" in notes
    assert not (FOLDER / "runs/tiny-plain-seed2/report.html").exists()
    stub({})
    assert study("claim.yaml").exit_code == 0
    assert len(calls()) == 7


def test_run_with_an_error_after_its_last_step_is_finished(stub: Callable) -> None:
    stub({"tiny-plain-seed1": "no report"})
    done = study("claim.yaml")
    assert done.exit_code == 0
    told = "tiny-plain-seed1: finished, but then: no space left on the disk for: report.html (log: "
    assert told in done.output
    assert json.loads((FOLDER / "results.json").read_text())["notes"] == []


def press_ctrl_c_when(ready: Callable[[], bool]) -> threading.Thread:
    def wait() -> None:
        while not ready():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_ctrl_c_saves_and_the_study_resumes(stub: Callable) -> None:
    stub({"tiny-paced-seed1": "slow"})
    log = FOLDER / "runs/tiny-paced-seed1/metrics.jsonl"
    presses = press_ctrl_c_when(lambda: log.exists() and len(log.read_text().splitlines()) >= 3)
    stopped = study("claim.yaml")
    presses.join()
    assert stopped.exit_code == 130
    assert "Stopped and saved; resume with: selfsr study studies/claim" in stopped.output
    assert "FAILED" not in stopped.output
    assert [call["name"] for call in calls()] == ["tiny-plain-seed1", "tiny-paced-seed1"]
    reached = int(next((FOLDER / "runs/tiny-paced-seed1/checkpoints").iterdir()).name[-8:])
    assert 3 <= reached < 20
    told = f"Unfinished runs are not in the results: tiny-paced-seed1 (step {reached} of 20), "
    assert json.loads((FOLDER / "results.json").read_text())["notes"][0].startswith(told)

    stub({})
    assert study(str(FOLDER)).exit_code == 0
    assert [call["name"] for call in calls()[2:]] == ["tiny-paced-seed1", "tiny-plain-seed2", "tiny-paced-seed2"]
    assert ["--resume" in call["arguments"] for call in calls()] == [False, False, True, False, False]
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == list(range(1, 21))


def test_jobs_run_at_once_and_share_the_cores(stub: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("selfsr.study.devices._count_cores", lambda: 6)
    stub({"tiny-plain-seed1": f"after {FOLDER / 'runs/tiny-paced-seed2/report.html'}"})
    done = study("claim.yaml", "--jobs", "2")
    assert done.exit_code == 0, done.output
    assert {call["OMP_NUM_THREADS"] for call in calls()} == {"3"}


def test_summary_trains_nothing_and_dry_run_writes_nothing(stub: Callable) -> None:
    shown = study("claim.yaml", "--dry-run")
    assert shown.exit_code == 0
    assert "1 recipe(s) x 2 arms x 2 seed(s) = 4 runs, 80 steps" in shown.output
    assert "paced: method.terms.pixel.pace: {alpha: 4.0}" in shown.output
    # 20 steps at 2 steps/s and four evaluations of 1 s in each of the four runs.
    assert "plain of tiny: 2 steps/s; a run of 20 steps with its evaluations takes about 14 s" in shown.output
    assert "Finished: 0 of 4 runs; started: 0; 80 steps remain, about 56 s." in shown.output
    assert "80 steps remain, about 56 s." in study("claim.yaml", "--dry-run", "--jobs", "2").output  # one device
    assert not Path("studies").exists()
    study("claim.yaml")
    assert "Finished: 4 of 4 runs; started: 0; 0 steps remain." in study("claim.yaml", "--dry-run").output
    for name in ("results.json", "results.md", "study.html"):
        (FOLDER / name).unlink()
    told = study("claim.yaml", "--summary")
    assert told.exit_code == 0, told.output
    assert "tiny: 2 seed(s), first" in told.output
    assert all((FOLDER / name).exists() for name in ("results.json", "results.md", "study.html"))
    assert len(calls()) == 4
    both = study("claim.yaml", "--summary", "--dry-run")
    assert (
        str(both.exception)
        == "study: --summary was given with --dry-run or --extend; leave these out, since it trains nothing."
    )


def test_dry_run_refuses_the_same_folders_as_the_study(stub: Callable) -> None:
    foreign = Path("studies/mine")
    foreign.mkdir(parents=True)
    (foreign / "notes.txt").write_text("not a study")
    refused = study("claim.yaml", "--dry-run", "--out", str(foreign))
    assert "studies/mine is not empty and has no study (study.yaml is missing)" in str(refused.exception)
    study("claim.yaml", "--set", "seeds=[1]")
    before = (FOLDER / "study.yaml").read_text()
    refused = study("claim.yaml", "--dry-run")
    assert "differences are seeds ([1] there, [1, 2] here): add --extend" in str(refused.exception)
    more = study("claim.yaml", "--dry-run", "--extend")
    assert "Finished: 2 of 4 runs; started: 0; 40 steps remain, about 28 s." in more.output
    recipe = FOLDER / "runs/tiny-plain-seed1/recipe.yaml"
    recipe.write_text(recipe.read_text().replace("steps: 20", "steps: 30"))
    refused = study("claim.yaml", "--dry-run", "--extend")
    assert "tiny-plain-seed1 was trained with another recipe than the study's: steps (30 and 20)" in str(
        refused.exception
    )
    assert (FOLDER / "study.yaml").read_text() == before


def test_killed_study_keeps_its_folder_locked_until_its_run_ends(
    stub: Callable, plan_of: Callable[..., StudyPlan]
) -> None:
    from selfsr.errors import InputError
    from selfsr.study.devices import DeviceSlot
    from selfsr.study.folder import lock_study
    from selfsr.study.runner import _Job

    stub({"tiny-plain-seed1": "slow"})
    with lock_study(FOLDER) as lock:
        job = _Job(plan_of().runs()[0], FOLDER, DeviceSlot("cpu", "cpu", {}), lock, False)
    with pytest.raises(InputError, match="is in use"), lock_study(FOLDER):
        pass
    job.stop_now()
    with lock_study(FOLDER):
        pass


def test_runs_are_spread_over_the_visible_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    visible = [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in choose_slots("auto", None)]
    assert visible == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in choose_slots("cuda", 3)] == ["3", "5", "3"]
    assert {slot.device for slot in choose_slots("cuda", 3)} == {"cuda"}
    assert [(slot.device, slot.environment) for slot in choose_slots("cuda:1", 2)] == [("cuda:1", {})] * 2


def test_one_job_on_a_cpu_has_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [slot.environment for slot in choose_slots("cpu", None)] == [{}]


def test_time_left_counts_each_recipe_at_its_own_speed(plan_of: Callable[..., StudyPlan], workspace: Path) -> None:
    (workspace / "wide.yaml").write_text((workspace / "tiny.yaml").read_text())
    runs = plan_of(base=..., recipes=["tiny.yaml", "wide.yaml"], seeds=[1]).runs()
    left = TimeEstimate(runs, slots=1)
    done = {run.name: 0 for run in runs}
    assert left.seconds_left(done) is None
    left.add("tiny", 10.0, 10)
    assert left.seconds_left(done) == 80.0  # 4 runs of 20 steps, each step for a second as far as is known
    left.add("wide", 50.0, 10)
    assert left.seconds_left(done) == 2 * 20 * 1.0 + 2 * 20 * 5.0
    done = dict.fromkeys(done, 20) | {runs[-1].name: 10}
    assert left.seconds_left(done) == 50.0
    two = TimeEstimate(runs, slots=2)
    two.add("tiny", 10.0, 10)
    assert two.seconds_left(dict.fromkeys(done, 20) | {runs[-1].name: 10}) == 10.0  # one run is not shared out
