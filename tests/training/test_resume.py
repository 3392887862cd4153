"""Resuming from what a kill, a full disk or a person left behind, and two trainings in one folder."""

import json
import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from programs import Program, run_python, start_python
from run_folders import assert_same, read_checkpoint, read_lines, read_log, train
from selfsr.errors import InputError
from selfsr.runfolder.checkpoints import list_checkpoints, load_state, save_state
from selfsr.runfolder.lock import LOCK_NAME, lock_folder


@pytest.fixture
def quick(tiny: dict) -> dict:
    """Return a recipe of six steps without evaluation, with a checkpoint in each second step."""
    tiny["method"]["terms"] = {"pixel": {"kind": "l1"}}
    return {**tiny, "evaluate": None, "checkpoints": {"every_steps": 2, "keep_last": 3}}


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 700
    return message


# What a kill, a full disk or a bad network drive makes of the bytes of a checkpoint.
BROKEN = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "zeros": lambda data: bytes(len(data)),
    "text": lambda data: b"no checkpoint",
    "head": lambda data: b"PK\x03\x04" + data[4:40],
    "flipped": lambda data: data[:3000] + bytes(64) + data[3064:],
    "pickle": lambda data: b"\x80\x02}q\x00.",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_newest_checkpoint_is_skipped_for_the_one_before(
    quick: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    straight = train(quick, tmp_path / "straight")
    resumed = tmp_path / "resumed"
    shutil.copytree(straight, resumed)
    newest = list_checkpoints(resumed)[-1] / "state.pt"
    newest.write_bytes(BROKEN[kind](newest.read_bytes()))
    capsys.readouterr()
    train(quick, resumed, resume=True)
    line = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("resume: "))
    assert f"expected a checkpoint in {newest}, got " in line
    assert line.endswith("the run continues from step_00000004, the checkpoint before.")
    assert ("an empty file" in line) == (kind == "empty")
    assert_same(read_checkpoint(resumed), read_checkpoint(straight))
    assert read_log(resumed) == read_log(straight)


def test_an_unreadable_file_is_skipped_as_well(quick: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = train(quick, tmp_path / "run")
    load, newest = torch.load, list_checkpoints(folder)[-1]

    def fail(path: Path, **options: object) -> object:
        if path.parent == newest:
            raise OSError(22, "Invalid argument")
        return load(path, **options)

    monkeypatch.setattr(torch, "load", fail)
    reports: list[str] = []
    assert load_state(folder, reports.append)["step"] == 4
    assert "got a file that cannot be read ([Errno 22] Invalid argument)" in reports[0]


def test_without_any_readable_checkpoint_the_advice_is_possible(quick: dict, tmp_path: Path) -> None:
    folder = train(quick, tmp_path / "run")
    for path in list_checkpoints(folder):
        (path / "state.pt").write_bytes(b"")
    message = refusal(lambda: train(quick, folder, resume=True))
    assert "got an empty file, and none before it can be read; restore one from a copy, or delete " in message


def test_a_checkpoint_of_another_format_is_refused_and_not_skipped(quick: dict, tmp_path: Path) -> None:
    folder = train(quick, tmp_path / "run")
    path = list_checkpoints(folder)[-1] / "state.pt"
    torch.save({**torch.load(path, weights_only=True), "format": 2}, path)
    assert "must have checkpoint format 3, got 2; continue with the version" in refusal(lambda: load_state(folder))


def test_a_broken_later_checkpoint_does_not_push_out_a_good_one(tmp_path: Path) -> None:
    save_state(tmp_path, 2, {}, keep_last=1)
    broken = tmp_path / "checkpoints/step_00000009"
    broken.mkdir()
    (broken / "state.pt").write_bytes(b"")
    save_state(tmp_path, 3, {}, keep_last=1)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_00000003", "step_00000009"]
    assert load_state(tmp_path, lambda _: None)["step"] == 3


def test_another_network_or_scale_is_refused_with_the_options(quick: dict, tmp_path: Path) -> None:
    folder = train(quick, tmp_path / "run")
    wider = {**quick, "network": {**quick["network"], "features": 12}}
    start = f"resume: expected the network with which the run in {folder} started, got another: "
    assert refusal(lambda: train(wider, folder, resume=True)).startswith(f"{start}network.features (8 then, 12 now); ")
    scaled = {**quick, "scale": 4}
    assert refusal(lambda: train(scaled, folder, resume=True)).startswith(f"{start}scale (2 then, 4 now); ")
    (folder / "recipe.yaml").unlink()
    message = refusal(lambda: train(wider, folder, resume=True))
    assert message.startswith(
        f"resume: the checkpoint of step 6 in {folder} must fit the recipe, got one that does not"
    )
    assert message.endswith(f"; resume with the recipe of the run: selfsr train {folder} --resume")


def test_fewer_steps_than_done_are_refused_and_as_many_are_finished(
    quick: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train(quick, tmp_path / "run")
    assert refusal(lambda: train({**quick, "steps": 4}, folder, resume=True)) == (
        f"resume: steps must be at least 6, the steps that the run in {folder} has done, got 4; "
        "raise steps, or use the weights of the run as they are."
    )
    assert read_lines(folder / "metrics.jsonl")[-1]["step"] == 6
    train(quick, folder, resume=True)
    assert f"the run in {folder} has done all its 6 steps; nothing is left to train." in capsys.readouterr().err


def test_options_of_the_optimizer_change_when_a_run_resumes(quick: dict, tmp_path: Path) -> None:
    folder = train(quick, tmp_path / "run")
    quick["optimizers"] = {"g": {"kind": "adam", "betas": [0.5, 0.9], "weight_decay": 0.1}}
    train({**quick, "steps": 8}, folder, resume=True)
    group = read_checkpoint(folder)["optimizers"]["g"]["param_groups"][0]
    assert (group["betas"], group["weight_decay"]) == ((0.5, 0.9), 0.1)


def test_changed_training_images_are_reported(
    quick: dict, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick["data"]["hr"] = str(shutil.copytree(photos / "train", tmp_path / "hr"))
    folder = train(quick, tmp_path / "run")
    shutil.rmtree(list_checkpoints(folder)[-1])
    capsys.readouterr()
    train(quick, folder, resume=True)
    assert "data.hr" not in capsys.readouterr().err
    for change, words in (
        (lambda: (tmp_path / "hr/p0.png").rename(tmp_path / "hr/q.png"), "5 of which names or sizes differ"),
        (lambda: (tmp_path / "hr/q.png").unlink(), "4 instead of 5"),
    ):
        change()
        train({**quick, "steps": 8}, folder, resume=True)
        assert (
            f"data.hr: expected the files of the start of the run, got {words}; the run continues, but differs from "
            "one without a stop. Restore the files to continue bit for bit."
        ) in capsys.readouterr().err


def test_a_copied_folder_of_images_is_unchanged(
    quick: dict, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train(quick, tmp_path / "run")
    quick["data"]["hr"] = str(shutil.copytree(photos / "train", tmp_path / "elsewhere"))
    capsys.readouterr()
    train({**quick, "steps": 8}, folder, resume=True)
    assert "data.hr" not in capsys.readouterr().err


def test_broken_log_lines_are_reported_and_removed(
    quick: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train(quick, tmp_path / "run")
    shutil.rmtree(list_checkpoints(folder)[-1])
    path = folder / "metrics.jsonl"
    first, second, third, *more = path.read_bytes().splitlines(keepends=True)
    broken = [
        b"\xff\xfe\n",
        b"{}\n",
        b"[1]\n",
        b'{"step": "3"}\n',
        b'{"step": ' + b"9" * 5000 + b"}\n",
        b"[" * 9000 + b"\n",
    ]
    path.write_bytes(b"".join([first, *broken, second[:20] + b"\n", third, *more, b'{"step": 7']))
    capsys.readouterr()
    train(quick, folder, resume=True)
    lines = [line for line in capsys.readouterr().err.splitlines() if "broken lines" in line]
    assert lines == [
        f"{path}: expected a JSON object with a step in every line, got broken lines, which are removed: "
        "2, 3, 4, 5, 6, 7, 8."
    ]
    assert [line["step"] for line in read_lines(path)] == [1, 3, 4, 5, 6]


def test_a_run_without_a_checkpoint_starts_both_logs_again(tiny: dict, tmp_path: Path) -> None:
    folder = train(tiny, tmp_path / "run")
    expected = [read_lines(folder / name) for name in ("eval.jsonl",)]
    shutil.rmtree(folder / "checkpoints")  # as if it had been killed before the first one
    (folder / "metrics.jsonl").write_text("")
    (folder / "eval.jsonl").write_text(json.dumps(expected[0][0]) + "\n" + "broken")
    train(tiny, folder)
    assert read_lines(folder / "eval.jsonl") == expected[0]
    assert [line["step"] for line in read_lines(folder / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]


# --- two trainings in one folder --------------------------------------------------------------------------------------


def test_a_second_training_in_the_folder_is_refused(quick: dict, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with lock_folder(folder, "train", "another training"):
        here = f"(process {os.getpid()} on {socket.gethostname()})"
        for resume in (False, True):
            assert refusal(lambda resume=resume: train(quick, folder, resume=resume)) == (
                f"train: {folder} is in use by another training {here}; wait for it or stop it."
            )
    assert not folder.exists()  # nothing was written, so nothing is left
    train(quick, folder)


HOLD = """
import os, sys, time
from pathlib import Path
from selfsr.runfolder.lock import lock_folder
with lock_folder(Path(sys.argv[1]), "train", "another training"):
    if os.fork() == 0:  # a loader process, which outlives a kill of the training
        time.sleep(20)
        os._exit(0)
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_lock_of_a_killed_training_is_taken_over_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    process = start_python("-c", HOLD, folder)
    try:
        wait_until(lambda: process.stdout == "locked\n", process)
        with pytest.raises(InputError, match=rf"is in use by x \(process {process.pid} on "):
            lock_folder(folder, "train", "x").__enter__()
        process.kill()
        with lock_folder(folder, "train", "x"):
            assert json.loads((folder / LOCK_NAME).read_text())["pid"] == os.getpid()
    finally:
        process.kill()


def wait_until(is_reached: Callable[[], bool], process: Program) -> None:
    deadline = time.monotonic() + 120
    while not is_reached():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("change", "in_use"),
    [
        ({}, True),
        ({"host": "elsewhere"}, True),
        ({"pid": 2**22 + 1}, False),  # more than the largest process id
        ({"started": 1.0}, False),  # the id belongs to a new process
        ({"pid": "x"}, False),
    ],
)
def test_the_file_decides_where_the_system_has_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict, in_use: bool
) -> None:
    monkeypatch.setattr("selfsr.runfolder.lock._try_lock", lambda _: None)
    with lock_folder(tmp_path, "train", "x"):
        record = json.loads((tmp_path / LOCK_NAME).read_text())
    assert (tmp_path / LOCK_NAME).read_text() == ""
    (tmp_path / LOCK_NAME).write_text(json.dumps({**record, **change}))
    if in_use:
        assert "is in use by x (process " in refusal(lambda: lock_folder(tmp_path, "train", "x").__enter__())
    else:
        with lock_folder(tmp_path, "train", "x"):
            pass


def test_a_broken_lock_file_is_taken_over(tmp_path: Path) -> None:
    for content in (b"", b"\xff", b"[1]", b"{"):
        (tmp_path / LOCK_NAME).write_bytes(content)
        with lock_folder(tmp_path, "train", "x"):
            pass


def test_trainings_that_start_together_do_not_mix(quick: dict, tmp_path: Path) -> None:
    """Two commands start at once in one folder: one trains, the other ends with a sentence."""
    import yaml

    (tmp_path / "my.yaml").write_text(
        yaml.safe_dump({**quick, "name": "both", "steps": 400, "log": {"every_steps": 1}})
    )
    command = ["-m", "selfsr", "train", "my.yaml", "--device", "cpu", "--no-report"]
    first = start_python(*command, cwd=tmp_path)
    try:
        wait_until((tmp_path / "runs/both" / LOCK_NAME).exists, first)
        second = run_python(*command, cwd=tmp_path)
        wait_until((tmp_path / "runs/both/metrics.jsonl").exists, first)
    finally:
        first.kill()
    assert second.returncode == 2
    assert second.stderr.startswith("selfsr: train: ")
    steps = [line["step"] for line in read_lines(tmp_path / "runs/both/metrics.jsonl")]
    assert steps == sorted(set(steps))
