"""Two nodes without common files, with a cable as their only network: straight, killed, restarted, signaled.

As a program, this file is the process of a node.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from machine_folders import SAVED_STEP, STEPS, make_machines
from run_folders import assert_same, read_checkpoint, read_log, train
from selfsr.cli import main as run_command_line
from selfsr.runfolder.checkpoints import list_checkpoints
from two_nodes import Nodes, make_nodes
from wrapped_steps import call_in_step

pytestmark = pytest.mark.slow

LIMIT_S = 240
# The step in which something happens to the second node, and the step after which both stop if it is a signal.
EVENT_STEP, STOP_STEP = SAVED_STEP + 1, SAVED_STEP + 2


def kill_node() -> None:
    """Kill torchrun and this process, as if the machine were gone."""
    os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def kill_torchrun() -> None:
    """Kill torchrun, and wait until the system has removed it."""
    torchrun = os.getppid()
    os.kill(torchrun, signal.SIGKILL)
    while os.getppid() == torchrun:
        time.sleep(0.01)


EVENTS: dict[str, Callable[[], None]] = {
    "kill_node": kill_node,
    "kill_torchrun": kill_torchrun,
    "kill_process": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "signal": lambda: os.kill(os.getpid(), signal.SIGTERM),
}


def main(event: str) -> None:
    """Train by the command line in the folder of this node; in the first attempt, `event` happens to the second."""
    if event in EVENTS and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        call_in_step(EVENT_STEP, EVENTS[event])
    arguments = ["train", "tiny.yaml", "--runs", "runs", "--device", "cpu", "--no-report", "--resume", "auto"]
    sys.argv[:] = ["selfsr", *arguments]
    run_command_line()


def start(nodes: Nodes, node: int, folder: Path, event: str = "none", restarts: int = 0) -> subprocess.Popen[str]:
    program = (Path(__file__).resolve(), event)
    return nodes.start_torchrun(node, *program, cwd=folder / f"machine{node}", restarts=restarts)


def run(nodes: Nodes, folder: Path, event: str = "none", restarts: int = 0) -> tuple[list[int], list[str]]:
    """Run torchrun on both nodes; return the statuses, and what each printed on stderr."""
    started = [start(nodes, node, folder, event, restarts) for node in range(2)]
    statuses = [each.wait(timeout=LIMIT_S) for each in started]
    return statuses, [(folder / f"machine{node}/stderr.txt").read_text() for node in range(2)]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with make_nodes() as made:
        yield made


@pytest.fixture
def folder(nodes: Nodes, photos: Path, tmp_path: Path) -> Iterator[Path]:
    make_machines(tmp_path, photos)
    yield tmp_path
    for node in range(2):
        nodes.kill(node)


@pytest.fixture(scope="module")
def straight(nodes: Nodes, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of both nodes after an uninterrupted run."""
    folder = tmp_path_factory.mktemp("nodes")
    make_machines(folder, photos)
    statuses, texts = run(nodes, folder)
    assert statuses == [0, 0], texts
    return folder


def assert_equals(folder: Path, straight: Path) -> None:
    """Assert that the run of two nodes is the uninterrupted one bit for bit, and that only the first node has it."""
    runs = [each / "machine0/runs/tiny" for each in (folder, straight)]
    assert_same(read_checkpoint(runs[0]), read_checkpoint(runs[1]))
    assert read_log(runs[0]) == read_log(runs[1])
    assert not (folder / "machine1/runs").exists()


def newest_step(folder: Path) -> int:
    return int(list_checkpoints(folder / "machine0/runs/tiny")[-1].name.removeprefix("step_"))


def test_two_nodes_train_as_one_process(straight: Path, photos: Path, tmp_path: Path) -> None:
    recipe = make_machines(tmp_path, photos)
    recipe["data"]["hr"], recipe["evaluate"]["sets"] = str(photos / "train"), {"test": str(photos / "test")}
    one, two = train(recipe, tmp_path / "one"), straight / "machine0/runs/tiny"
    assert not (straight / "machine1/runs").exists()
    for record, expected in zip(read_log(two), read_log(one), strict=True):
        assert record["loss"]["g"] == pytest.approx(expected["loss"]["g"], rel=2e-5)
    weights = read_checkpoint(one)["nets"]["g"]
    for name, values in read_checkpoint(two)["nets"]["g"].items():
        torch.testing.assert_close(values, weights[name], rtol=1e-3, atol=2e-5)
    assert read_checkpoint(one)["step"] == STEPS


def test_a_killed_node_ends_the_other_with_a_sentence_and_both_resume(
    nodes: Nodes, folder: Path, straight: Path
) -> None:
    statuses, texts = run(nodes, folder, "kill_node")
    assert statuses == [1, -signal.SIGKILL]
    assert "selfsr: train: expected all 2 processes until the end of the run, got no answer of one" in texts[0]
    assert "gloo/transport" not in texts[0]
    assert newest_step(folder) == SAVED_STEP
    assert run(nodes, folder)[0] == [0, 0]
    assert_equals(folder, straight)


def test_a_killed_torchrun_stops_both_nodes_saved_and_both_resume(nodes: Nodes, folder: Path, straight: Path) -> None:
    statuses, texts = run(nodes, folder, "kill_torchrun")
    assert statuses == [1, -signal.SIGKILL]
    assert "torchrun has ended before its processes; stopping after this step, then saving." in texts[1]
    assert newest_step(folder) == STOP_STEP
    assert run(nodes, folder)[0] == [0, 0]
    assert_equals(folder, straight)


def test_torchrun_restarts_both_nodes_after_one_process_was_killed(nodes: Nodes, folder: Path, straight: Path) -> None:
    statuses, texts = run(nodes, folder, "kill_process", restarts=1)
    assert statuses == [0, 0], texts
    assert_equals(folder, straight)


def test_a_signal_to_one_node_stops_both_in_the_same_step_and_saves(nodes: Nodes, folder: Path, straight: Path) -> None:
    statuses, texts = run(nodes, folder, "signal")
    assert statuses == [1, 1]
    assert "Stopping after this step, then saving" in texts[1]
    assert all("exitcode  : 130" in text for text in texts)
    assert newest_step(folder) == STOP_STEP
    assert run(nodes, folder)[0] == [0, 0]
    assert_equals(folder, straight)


if __name__ == "__main__":
    main(sys.argv[1])
