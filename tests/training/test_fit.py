"""The loop: files of a run, resuming, micro-batches, and values that are not finite."""

import errno
import itertools
import math
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from run_folders import read_checkpoint, read_lines, read_log, train
from selfsr.errors import InputError
from selfsr.images.files import read_image
from selfsr.recipe import parse_recipe
from selfsr.runfolder.checkpoints import list_checkpoints
from selfsr.runfolder.read import read_run_folders
from selfsr.training.guard import Diverged
from selfsr.training.loop import fit


def same_weights(a: Path, b: Path) -> bool:
    a_weights, b_weights = (load_file(folder / "weights/last.safetensors") for folder in (a, b))
    return a_weights.keys() == b_weights.keys() and all(
        torch.equal(a_weights[key], b_weights[key]) for key in a_weights
    )


def test_a_run_writes_logs_samples_checkpoints_and_weights(tiny: dict, tmp_path: Path) -> None:
    folder = train(tiny, tmp_path / "run")
    assert [line["step"] for line in read_lines(folder / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
    evaluations = read_lines(folder / "eval.jsonl")
    assert [line["step"] for line in evaluations] == [0, 3, 6]
    assert evaluations[0]["bicubic"]["test"]["mean"]["psnr_y"] > 15
    assert set(evaluations[2]["sets"]["test"]["images"]) == {"t0", "t1"}
    sample = folder / "samples" / "test" / "t0"
    assert {p.name for p in sample.iterdir()} == {
        "hr.png", "lr.png", "bicubic.png", "sr_00000000.png", "sr_00000003.png", "sr_00000006.png",
        "pixel_weights_00000003.png", "pixel_weights_00000006.png",
    }  # fmt: skip
    assert [p.name for p in list_checkpoints(folder)] == ["step_00000003", "step_00000006"]
    assert (folder / "weights/best.safetensors").exists()


def test_samples_of_similar_names_have_folders_of_their_own(tiny: dict, photos: Path, tmp_path: Path) -> None:
    a, a_b = tmp_path / "a", tmp_path / "a-b"
    a.mkdir()
    a_b.mkdir()
    shutil.copy(photos / "test" / "t0.png", a / "b-c.png")
    shutil.copy(photos / "test" / "t1.png", a_b / "c.png")
    tiny["evaluate"]["sets"] = {"a": str(a), "a-b": str(a_b)}
    tiny["evaluate"]["samples"] = 2
    folder = train(tiny, tmp_path / "run")
    samples = read_run_folders([folder])[0].samples
    assert list(samples) == ["a/b-c", "a-b/c"]
    for name, photo in (("a/b-c", "t0"), ("a-b/c", "t1")):
        hr = samples[name].hr
        assert hr is not None
        expected = read_image(photos / "test" / f"{photo}.png").pixels
        assert np.array_equal(read_image(hr).pixels, expected)


def test_epoch_of_the_first_step_is_one_step(tiny: dict, tmp_path: Path) -> None:
    first = read_lines(train(tiny, tmp_path / "run") / "metrics.jsonl")[0]
    assert first["epoch"] == pytest.approx(1 / 3)


def test_a_clock_that_jumps_changes_neither_training_nor_speeds(tiny: dict, tmp_path: Path, monkeypatch) -> None:
    straight = train(tiny, tmp_path / "straight")
    hours = itertools.cycle((0, -5, 30, -2000))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600 * next(hours))
    jumped = train(tiny, tmp_path / "jumped")
    assert same_weights(jumped, straight)
    assert read_log(jumped) == read_log(straight)
    speeds = [record["steps_per_s"] for record in read_lines(jumped / "metrics.jsonl")]
    assert all(0.01 < speed < 1e4 for speed in speeds)


def test_training_lowers_the_loss(tiny: dict, tmp_path: Path) -> None:
    tiny["steps"] = 40
    tiny["method"]["terms"] = {"pixel": {"kind": "l1"}}
    tiny["evaluate"]["every_steps"] = tiny["checkpoints"]["every_steps"] = 40
    losses = [line["loss"]["g"]["pixel"] for line in read_lines(train(tiny, tmp_path / "run") / "metrics.jsonl")]
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tiny: dict, tmp_path: Path, precision: str) -> None:
    tiny["precision"] = precision
    straight = train(tiny, tmp_path / "straight")
    resumed = train(tiny, tmp_path / "resumed")
    shutil.rmtree(list_checkpoints(resumed)[-1])  # as if it had been killed after the checkpoint of step 3
    train(tiny, resumed, resume=True)
    assert same_weights(straight, resumed)
    assert read_log(straight) == read_log(resumed)
    assert read_lines(straight / "eval.jsonl") == read_lines(resumed / "eval.jsonl")


def test_accumulated_micro_batches_equal_one_batch(tiny: dict, tmp_path: Path) -> None:
    whole = train(tiny, tmp_path / "whole")
    cut = train({**tiny, "accumulate": 4}, tmp_path / "cut")
    for one, other in zip(read_log(whole), read_log(cut), strict=True):
        for term, value in one["loss"]["g"].items():
            assert other["loss"]["g"][term] == pytest.approx(value, rel=2e-5)
        assert other["grad_norm"]["g"] == pytest.approx(one["grad_norm"]["g"], rel=2e-4)


def test_a_diverged_run_stops_and_saves_nothing(tiny: dict, tmp_path: Path) -> None:
    tiny["optimizers"]["g"]["lr"] = 1000  # outputs of 1e20: their squares overflow
    tiny["schedule"] = {"kind": "multistep", "at_steps": [5], "gamma": 1.0, "warmup_steps": 0}
    tiny["clip_norm"] = None
    with pytest.raises(Diverged, match=r"became NaN or infinite at step \d+; no checkpoint was written before it"):
        train(tiny, tmp_path / "run")
    assert list_checkpoints(tmp_path / "run") == []
    last = tmp_path / "run" / "weights" / "last.safetensors"
    assert not last.exists()


def test_divergence_names_the_first_term_and_keeps_checkpoints(
    tiny: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selfsr.terms.similarity import SelfSimilarityTerm

    healthy = SelfSimilarityTerm.__call__

    def diverge(self, outputs, batch, clock):
        loss = healthy(self, outputs, batch, clock)
        return type(loss)(loss.total * (math.nan if clock.step == 5 else 1.0), loss.count)

    monkeypatch.setattr(SelfSimilarityTerm, "__call__", diverge)
    with pytest.raises(Diverged, match=r"'similarity' of g became NaN or infinite at step 5|step_00000003"):
        train(tiny, tmp_path / "run")
    assert [p.name for p in list_checkpoints(tmp_path / "run")] == ["step_00000003"]


def test_a_new_run_in_a_used_folder_is_refused(tiny: dict, tmp_path: Path) -> None:
    folder = train(tiny, tmp_path / "run")
    with pytest.raises(
        InputError, match=r"expected a new run folder, got .*, which has checkpoints; continue its run with --resume"
    ):
        train(tiny, folder)
    with pytest.raises(InputError, match=r"device: expected .*, got 'warp'"):  # settings come first
        fit(parse_recipe(tiny, "test"), folder, device="warp")
    tiny["data"]["hr"] = str(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"nothing: expected a folder of images, got a path that does not exist"):
        train(tiny, folder)


def test_resuming_without_a_checkpoint_is_refused(tiny: dict, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"resume: expected a checkpoint in .*, got none; start the run without --resume"
    ):
        train(tiny, tmp_path / "empty", resume=True)


def test_a_full_disk_keeps_earlier_checkpoints(tiny: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, saved = os.fsync, tmp_path / "run/checkpoints/step_00000003"

    def full(descriptor: int) -> None:
        if saved.exists() and list(saved.parent.glob(".*")):
            raise OSError(errno.ENOSPC, "No space left on device")
        synced(descriptor)

    monkeypatch.setattr("selfsr.fileio.os.fsync", full)
    with pytest.raises(OSError, match=r"No space left on device.*step_00000006"):
        train(tiny, tmp_path / "run")
    assert [p.name for p in (tmp_path / "run/checkpoints").iterdir()] == ["step_00000003"]
    monkeypatch.undo()
    assert [line["step"] for line in read_lines(train(tiny, tmp_path / "run", resume=True) / "metrics.jsonl")][-1] == 6


def test_without_ema_the_weights_themselves_are_saved(tiny: dict, tmp_path: Path) -> None:
    folder = train({**tiny, "ema_decay": None}, tmp_path / "run")
    state = read_checkpoint(folder)
    ema = load_file(folder / "weights/last.safetensors")
    assert all(torch.equal(ema[key], value) for key, value in state["nets"]["g"].items())


def test_a_luma_network_is_evaluated_in_color(tiny: dict, tmp_path: Path) -> None:
    tiny["data"]["channels"] = 1
    folder = train(tiny, tmp_path / "run")
    assert load_file(folder / "weights/last.safetensors")["head.0.weight"].shape[1] == 1
    last = read_lines(folder / "eval.jsonl")[-1]["sets"]["test"]["mean"]
    assert last["psnr_rgb"] < last["psnr_y"]
