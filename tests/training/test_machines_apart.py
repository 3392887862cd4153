"""Two processes as on two machines without common files: what must agree, and what happens if one of them is killed.

As a program, this file is one of the two processes.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from torch import distributed

from machine_folders import SAVED_STEP, STEPS, make_machines
from run_folders import assert_same, read_checkpoint, train
from selfsr.cli import main as run_command_line
from selfsr.errors import InputError
from selfsr.runfolder.checkpoints import list_checkpoints
from two_processes import run_in_two_processes
from wrapped_steps import call_in_step

pytestmark = pytest.mark.slow  # half a minute of processes

KILL_STEP = SAVED_STEP + 2


def read_error(document: dict, folder: Path, **options: object) -> str:
    with pytest.raises(InputError) as error:
        train(document, folder, **options)
    return str(error.value)


def main(folder: Path) -> None:
    """Train as one of two machines, each with its own folder and copy of the photos."""
    rank = int(os.environ["RANK"])
    os.environ["LOCAL_RANK"] = "0"
    os.chdir(folder / f"machine{rank}")
    document = yaml.safe_load(Path("tiny.yaml").read_text())
    train(document, Path("straight"))
    if rank == 1:
        document["optimizers"]["g"]["lr"] = 0.5
    texts = [read_error(document, Path("other_recipe"))]
    document["optimizers"]["g"]["lr"] = 1e-3
    moved = Path("moved")
    if rank == 1:
        shutil.copytree("../machine0/straight", moved)
    texts += [read_error(document, moved, resume=resume) for resume in ("auto", True)]
    if rank == 1:
        os.rename("photos/train/p4.png", "photos/train/p5.png")
    distributed.barrier()
    texts.append(read_error(document, Path("other_photos")))
    Path("errors.txt").write_text("\n".join(texts))
    distributed.destroy_process_group()


def main_killed(folder: Path) -> None:
    """Train by the command line as one of two machines; the second one is killed in the first attempt."""
    rank = int(os.environ["RANK"])
    os.chdir(folder / f"machine{rank}")
    if rank == 1 and "KILL" in os.environ:
        call_in_step(KILL_STEP, lambda: os.kill(os.getpid(), signal.SIGKILL))
    arguments = ["train", "tiny.yaml", "--runs", "runs", "--device", "cpu", "--no-report", "--resume", "auto"]
    sys.argv[:] = ["selfsr", *arguments]
    run_command_line()


@pytest.fixture(scope="module")
def apart(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of both machines after `main`."""
    folder = tmp_path_factory.mktemp("apart")
    make_machines(folder, photos)
    run_in_two_processes(Path(__file__).resolve(), folder, cwd=folder)
    return folder


def test_only_the_first_machine_gets_a_run_folder(apart: Path) -> None:
    assert read_checkpoint(apart / "machine0/straight")["step"] == STEPS
    assert not (apart / "machine1/straight").exists()


def test_what_differs_between_machines_is_named_on_all_of_them(apart: Path) -> None:
    errors = (apart / "machine0/errors.txt").read_text()
    assert (apart / "machine1/errors.txt").read_text() == errors
    recipe, *checkpoints, photos = errors.splitlines()
    assert recipe == (
        "train: expected 'lr: 0.001' of the recipe of process 0 in every process, got 'lr: 0.5' in process 1; start "
        "the same recipe with the same options on each machine."
    )
    assert checkpoints == 2 * [
        "resume: expected the newest checkpoint of moved on the machine of process 0, got none there and step_00000008 "
        "on that of process 1; copy the run folder to the machine of process 0."
    ]
    assert photos == (
        "data.hr: expected the same files on every machine, got 5 of which names or sizes differ on the machine of "
        "process 1; copy the files of the first machine to it."
    )


def start_machine(rank: int, folder: Path, port: int, **environment: str) -> subprocess.Popen[str]:
    """Start one of two processes without torchrun, which would end the other one if one of them fails."""
    found = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    described = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "PYTHONPATH": found}
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), str(folder), "killed"],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **described, **address, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def run_machines(folder: Path, **environment: str) -> list[tuple[int, str]]:
    """Run both processes to their end; return status and stderr of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    machines = [start_machine(rank, folder, port, **environment) for rank in range(2)]
    texts = [machine.communicate(timeout=200)[1] for machine in machines]
    return [(machine.returncode, text) for machine, text in zip(machines, texts, strict=True)]


def test_a_killed_process_ends_the_other_one_with_a_sentence(photos: Path, apart: Path, tmp_path: Path) -> None:
    make_machines(tmp_path, photos)
    (status, text), (killed, _) = run_machines(tmp_path, KILL="1")
    assert killed == -signal.SIGKILL
    assert status == 5, text
    assert "Traceback" not in text
    sentence = text.splitlines()[-1]
    assert sentence.startswith("selfsr: train: expected all 2 processes until the end of the run, got no answer of one")
    assert "gloo" not in sentence
    assert sentence.endswith("continue from the newest checkpoint with --resume auto.")
    run = tmp_path / "machine0/runs/tiny"
    assert [path.name for path in list_checkpoints(run)] == [f"step_{SAVED_STEP:08d}"]
    assert [status for status, _ in run_machines(tmp_path)] == [0, 0]
    assert_same(read_checkpoint(run), read_checkpoint(apart / "machine0/straight"))


if __name__ == "__main__":
    (main_killed if sys.argv[2:] else main)(Path(sys.argv[1]))
