"""Runs as processes: interrupted, killed, spread over two, and told off for a user's mistakes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from selfsr.recipe import parse_recipe
from selfsr.runfolder.checkpoints import checkpoints
from selfsr.training.loop import fit
from two_processes import run_in_two_processes


@pytest.fixture
def endless(tiny: dict, tmp_path: Path) -> Path:
    """Return the path of a recipe that goes on until it is stopped."""
    tiny.update(steps=100_000, schedule={"kind": "constant"}, evaluate=None)
    path = tmp_path / "endless.yaml"
    path.write_text(yaml.safe_dump({**tiny, "name": "endless"}))
    return path


def selfsr(*arguments: str | Path, cwd: Path, **kwargs):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "selfsr", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs
    )


def wait_for_step(folder: Path, step: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        log = folder / "metrics.jsonl"
        if log.exists() and log.read_text().count("\n") >= step:
            return
        time.sleep(0.05)
    raise AssertionError("the run did not get going")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(
    endless: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    folder = tmp_path / "runs" / "endless"
    process = selfsr("train", endless, "--device", "cpu", cwd=tmp_path)
    wait_for_step(folder, 4, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    if number == signal.SIGINT:
        assert "Stopped and saved; go on with: selfsr train runs/endless --resume" in " ".join(errors.split())
    reached = torch.load(checkpoints(folder)[-1] / "state.pt", weights_only=True)["step"]

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the process above
    try:
        document = {**yaml.safe_load(endless.read_text()), "steps": reached + 3}
        recipe = parse_recipe(document, "resumed")
        fit(recipe, folder, device="cpu", resume=True)
        fit(recipe, tmp_path / "straight", device="cpu")
    finally:
        torch.set_num_threads(threads)
    resumed = load_file(folder / "weights/last.safetensors")
    straight = load_file(tmp_path / "straight/weights/last.safetensors")
    assert all(torch.equal(resumed[key], straight[key]) for key in straight)


def test_two_processes_train_as_one(tiny: dict, tmp_path: Path) -> None:
    recipe = tmp_path / "two.yaml"
    recipe.write_text(yaml.safe_dump(tiny))
    run_in_two_processes("-m", "selfsr", "train", recipe, "--device", "cpu", "--no-report", cwd=tmp_path)
    fit(parse_recipe(tiny, "one"), tmp_path / "one", device="cpu")

    def losses(folder: Path) -> list[dict]:
        return [json.loads(line)["loss"]["g"] for line in (folder / "metrics.jsonl").read_text().splitlines()]

    for two, one in zip(losses(tmp_path / "runs/tiny"), losses(tmp_path / "one"), strict=True):
        assert two == pytest.approx(one, rel=2e-5)
    two = load_file(tmp_path / "runs/tiny/weights/last.safetensors")
    for key, weights in load_file(tmp_path / "one/weights/last.safetensors").items():
        torch.testing.assert_close(two[key], weights, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "no_such.yaml"], "recipe: no_such.yaml does not exist"),
        (["train", "endless.yaml", "--set", "stepz=3"], "endless.yaml: stepz: unknown key; did you mean steps."),
        (["train", "endless.yaml", "--set", "data.hr=nowhere"], "nowhere"),
        (["train", "endless.yaml", "--device", "cuda"], "device: expected auto or one of cpu"),
        (["train", "endless.yaml", "--resume"], "resume: expected a checkpoint in runs/endless/checkpoints"),
    ],
)
def test_a_users_mistake_is_one_sentence_and_status_2(
    endless: Path, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    process = selfsr(*arguments, cwd=tmp_path)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    assert sentence in errors
    assert "Traceback" not in errors
    assert len(errors.strip().splitlines()) == 1
