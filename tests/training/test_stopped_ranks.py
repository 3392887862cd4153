"""Two processes: a signal to one stops both in the same step, and torchrun's restart continues the run.

As a program, this file is one of the two processes.
"""

import os
import signal
import sys
from pathlib import Path

import pytest
import yaml
from torch import distributed

from factories import make_tiny_recipe
from run_folders import assert_same, read_checkpoint, read_lines, read_log, train
from selfsr.cli import app
from selfsr.cli.train import RESUME_CHOICES
from selfsr.recipe import parse_recipe
from selfsr.training.loop import fit
from two_processes import run_by_torchrun, run_in_two_processes
from wrapped_steps import call_in_step

STEPS = 8
# The step in which one process gets the signal, and the step after which both stop.
SIGNAL_STEP, STOP_STEP = 4, 5


def main(folder: Path, part: str) -> None:
    """Train as one of two processes, and stop as `part` says."""
    document = yaml.safe_load((folder / "tiny.yaml").read_text())
    rank = int(os.environ["RANK"])
    if part == "killed":
        if rank == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            call_in_step(STEPS - 1, lambda: os.kill(os.getpid(), signal.SIGKILL))
        arguments = [str(folder / "tiny.yaml"), "--runs", str(folder / "killed"), "--device", "cpu", "--no-report"]
        app(["train", *arguments, "--resume", "auto"], standalone_mode=False)
        return
    train(document, folder / "straight/tiny")
    if rank == 1:
        call_in_step(SIGNAL_STEP, lambda: os.kill(os.getpid(), signal.SIGTERM))
    steps: list[int] = []
    call_in_step(STOP_STEP, lambda: steps.append(STOP_STEP))
    call_in_step(STOP_STEP + 1, lambda: steps.append(STOP_STEP + 1))
    # Without a log step before the last one, as with the usual log.every_steps.
    recipe = parse_recipe({**document, "log": {"every_steps": 100}}, "test")
    assert not fit(recipe, folder / "signaled/tiny", device="cpu")
    assert steps == [STOP_STEP], steps
    if rank == 1:  # the other process has the lock of the run folder
        signaled = folder / "signaled/tiny"
        assert read_checkpoint(signaled)["step"] == STOP_STEP
    distributed.barrier()
    train(document, folder / "signaled/tiny", resume=True)
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def trained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder of the runs, and what torchrun printed while one was killed and started again."""
    folder = tmp_path_factory.mktemp("stopped")
    recipe = {**make_tiny_recipe(photos), "steps": STEPS, "evaluate": None}
    recipe["method"]["terms"] = {"pixel": {"kind": "l1"}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    run_in_two_processes(Path(__file__).resolve(), folder, "signaled", cwd=folder)
    return folder, run_by_torchrun(Path(__file__).resolve(), folder, "killed", cwd=folder, restarts=1)


def test_a_signal_to_one_process_stops_both_in_the_same_step_and_saves(trained: tuple[Path, str]) -> None:
    """The step itself is checked in the processes; here, that nothing was lost."""
    folder, _ = trained
    assert_same(read_checkpoint(folder / "signaled/tiny"), read_checkpoint(folder / "straight/tiny"))


def test_a_killed_process_is_started_again_by_torchrun_and_loses_nothing(trained: tuple[Path, str]) -> None:
    folder, _ = trained
    assert_same(read_checkpoint(folder / "killed/tiny"), read_checkpoint(folder / "straight/tiny"))
    assert read_log(folder / "killed/tiny") == read_log(folder / "straight/tiny")


def test_todays_arguments_of_torch_give_no_warning(trained: tuple[Path, str]) -> None:
    assert "FutureWarning" not in trained[1]


def test_resume_auto_starts_and_continues(tiny: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny["evaluate"], tiny["method"]["terms"] = None, {"pixel": {"kind": "l1"}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    arguments = ["train", str(tmp_path / "tiny.yaml"), "--runs", str(tmp_path), "--device", "cpu", "--no-report"]
    for steps in (3, 6):
        app([*arguments, "--resume", "auto", "--set", f"steps={steps}"], standalone_mode=False)
    app([*arguments, "--resume=auto"], standalone_mode=False)
    assert "nothing is left to train" in capsys.readouterr().err
    assert [line["step"] for line in read_lines(tmp_path / "tiny/metrics.jsonl")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("choice", [(), RESUME_CHOICES[:1]])
def test_resume_without_a_value_needs_a_checkpoint(tiny: dict, tmp_path: Path, choice: tuple[str, ...]) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    with pytest.raises(Exception, match="resume: expected a checkpoint"):
        app(["train", "--resume", *choice, str(tmp_path / "tiny.yaml"), "--runs", str(tmp_path)], standalone_mode=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
