"""Runs as processes: interrupted, killed, and refused for a user's mistakes. For two: test_two_processes.py."""

import signal
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from programs import Program, start_python
from selfsr.recipe import parse_recipe
from selfsr.runfolder.checkpoints import list_checkpoints
from selfsr.training.loop import fit


@pytest.fixture
def endless(tiny: dict, tmp_path: Path) -> Path:
    """Return the path of a recipe that trains until it is stopped."""
    tiny.update(steps=100_000, schedule={"kind": "constant"}, evaluate=None)
    path = tmp_path / "endless.yaml"
    path.write_text(yaml.safe_dump({**tiny, "name": "endless"}))
    return path


def start(*arguments: str | Path, cwd: Path) -> Program:
    return start_python("-m", "selfsr", *arguments, cwd=cwd, OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")


def wait_for_step(folder: Path, step: int, process: Program) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr
        log = folder / "metrics.jsonl"
        if log.exists() and log.read_text().count("\n") >= step:
            return
        time.sleep(0.05)
    raise AssertionError("the run did not reach the step")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_stopped_run_resumes_bit_for_bit(endless: Path, tmp_path: Path, number: signal.Signals, status: int) -> None:
    folder = tmp_path / "runs" / "endless"
    process = start("train", endless, "--device", "cpu", cwd=tmp_path)
    wait_for_step(folder, 4, process)
    process.send_signal(number)
    assert process.wait(60) == status, process.stderr
    if number == signal.SIGINT:
        assert "Stopped and saved. Continue with: selfsr train runs/endless --resume" in " ".join(
            process.stderr.split()
        )
    reached = torch.load(list_checkpoints(folder)[-1] / "state.pt", weights_only=True)["step"]

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


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "no_such.yaml"], "shipped recipe, got no_such.yaml, which does not exist"),
        (["train", "endless.yaml", "--set", "stepz=3"], "--set stepz: unknown key; did you mean steps?"),
        (["train", "endless.yaml", "--set", "data.hr=nowhere"], "nowhere"),
        (["train", "endless.yaml", "--device", "cuda"], "device: expected auto or one of cpu"),
        (["train", "endless.yaml", "--resume"], "resume: expected a checkpoint in runs/endless/checkpoints"),
    ],
)
def test_a_users_mistake_is_one_sentence_and_status_2(
    endless: Path, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    process = start(*arguments, cwd=tmp_path)
    assert process.wait(60) == 2, process.stderr
    errors = process.stderr
    assert sentence in errors
    assert "Traceback" not in errors
    assert len(errors.strip().splitlines()) == 1
