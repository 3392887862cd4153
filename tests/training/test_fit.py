"""The loop: what a run writes, that it resumes exactly, that it stops on what is not finite."""

import errno
import json
import math
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from selfsr.errors import InputError
from selfsr.recipe import parse_recipe
from selfsr.runfolder.checkpoints import checkpoints
from selfsr.training.guard import Diverged
from selfsr.training.loop import fit, start_folder

_CLOCKS = ("steps_per_s", "data_wait_share", "memory_mb")


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def figures(folder: Path) -> list[dict]:
    """Return the lines of metrics.jsonl without what depends on the machine's speed."""
    return [{k: v for k, v in line.items() if k not in _CLOCKS} for line in lines(folder / "metrics.jsonl")]


def run(document: dict, folder: Path, **kwargs) -> Path:
    fit(parse_recipe(document, "test"), folder, device="cpu", **kwargs)
    return folder


def same_weights(a: Path, b: Path) -> bool:
    one, other = load_file(a / "weights/last.safetensors"), load_file(b / "weights/last.safetensors")
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_run_writes_its_folder(tiny: dict, tmp_path: Path) -> None:
    folder = run(tiny, tmp_path / "run")
    assert [line["step"] for line in lines(folder / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
    evaluations = lines(folder / "eval.jsonl")
    assert [line["step"] for line in evaluations] == [0, 3, 6]
    assert evaluations[0]["bicubic"]["test"]["mean"]["psnr_y"] > 15
    assert set(evaluations[2]["sets"]["test"]["images"]) == {"t0", "t1"}
    sample = folder / "samples" / "test-t0"
    assert {p.name for p in sample.iterdir()} == {
        "hr.png", "lr.png", "bicubic.png", "sr_00000000.png", "sr_00000003.png", "sr_00000006.png",
        "attention_00000003.png", "attention_00000006.png",
    }  # fmt: skip
    assert [p.name for p in checkpoints(folder)] == ["step_00000003", "step_00000006"]
    assert (folder / "weights/best.safetensors").exists()


def test_epoch_of_the_first_step_is_one_step(tiny: dict, tmp_path: Path) -> None:
    first = lines(run(tiny, tmp_path / "run") / "metrics.jsonl")[0]
    assert first["epoch"] == pytest.approx(1 / 3)


def test_training_lowers_the_loss(tiny: dict, tmp_path: Path) -> None:
    tiny["steps"] = 40
    tiny["method"]["terms"] = {"pixel": {"kind": "l1"}}
    tiny["evaluate"]["every_steps"] = tiny["checkpoints"]["every_steps"] = 40
    losses = [line["loss"]["g"]["pixel"] for line in lines(run(tiny, tmp_path / "run") / "metrics.jsonl")]
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_resumed_equals_straight_through_bit_for_bit(tiny: dict, tmp_path: Path, precision: str) -> None:
    tiny["precision"] = precision
    straight = run(tiny, tmp_path / "straight")
    resumed = run(tiny, tmp_path / "resumed")
    shutil.rmtree(checkpoints(resumed)[-1])  # as if it had been killed after the checkpoint of step 3
    run(tiny, resumed, resume=True)
    assert same_weights(straight, resumed)
    assert figures(straight) == figures(resumed)
    assert lines(straight / "eval.jsonl") == lines(resumed / "eval.jsonl")


def test_accumulated_micro_batches_equal_one_batch(tiny: dict, tmp_path: Path) -> None:
    whole = run(tiny, tmp_path / "whole")
    cut = run({**tiny, "accumulate": 4}, tmp_path / "cut")
    for one, other in zip(figures(whole), figures(cut), strict=True):
        for term, value in one["loss"]["g"].items():
            assert other["loss"]["g"][term] == pytest.approx(value, rel=2e-5)
        assert other["grad_norm"]["g"] == pytest.approx(one["grad_norm"]["g"], rel=2e-4)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_good_checkpoint(tiny: dict, tmp_path: Path) -> None:
    tiny["optimizers"]["g"]["lr"] = 1e36
    tiny["schedule"] = {"kind": "multistep", "at_steps": [5], "gamma": 1.0, "warmup_steps": 0}
    tiny["clip_norm"] = None
    with pytest.raises(Diverged, match=r"became NaN or infinite at step \d+; no checkpoint was written before it"):
        run(tiny, tmp_path / "run")
    assert checkpoints(tmp_path / "run") == []
    last = tmp_path / "run" / "weights" / "last.safetensors"
    assert not last.exists()


def test_divergence_names_the_term_that_was_first(tiny: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from selfsr.terms.similarity import SelfSimilarityTerm

    healthy = SelfSimilarityTerm.__call__

    def sick(self, made, batch, clock):
        ratio = healthy(self, made, batch, clock)
        return type(ratio)(ratio.total * (math.nan if clock.step == 5 else 1.0), ratio.count)

    monkeypatch.setattr(SelfSimilarityTerm, "__call__", sick)
    with pytest.raises(Diverged, match=r"'similarity' of g became NaN or infinite at step 5|step_00000003"):
        run(tiny, tmp_path / "run")
    assert [p.name for p in checkpoints(tmp_path / "run")] == ["step_00000003"]


def test_a_second_run_in_a_used_folder_is_refused(tiny: dict, tmp_path: Path) -> None:
    folder = run(tiny, tmp_path / "run")
    with pytest.raises(InputError, match=r"already holds a run with checkpoints; go on with --resume"):
        start_folder(folder, resume=False)
    start_folder(folder, resume=True)


def test_resume_without_a_checkpoint_says_so(tiny: dict, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"resume: expected a checkpoint in .*found none"):
        run(tiny, tmp_path / "empty", resume=True)


def test_a_full_disk_loses_nothing(tiny: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, unfinished = os.fsync, tmp_path / "run/checkpoints/step_00000006.tmp"

    def full(descriptor: int) -> None:
        if unfinished.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        synced(descriptor)

    monkeypatch.setattr("selfsr.runfolder.checkpoints.os.fsync", full)
    with pytest.raises(OSError, match=r"No space left on device.*step_00000006"):
        run(tiny, tmp_path / "run")
    assert [p.name for p in (tmp_path / "run/checkpoints").iterdir()] == ["step_00000003"]
    monkeypatch.undo()
    assert [line["step"] for line in lines(run(tiny, tmp_path / "run", resume=True) / "metrics.jsonl")][-1] == 6


def test_without_an_average_the_weights_themselves_are_published(tiny: dict, tmp_path: Path) -> None:
    folder = run({**tiny, "ema_decay": None}, tmp_path / "run")
    state = torch.load(checkpoints(folder)[-1] / "state.pt", weights_only=True)
    ema = load_file(folder / "weights/last.safetensors")
    assert all(torch.equal(ema[key], value) for key, value in state["nets"]["g"].items())


def test_a_gray_network_trains_on_luma_and_is_judged_in_color(tiny: dict, tmp_path: Path) -> None:
    tiny["data"]["channels"] = 1
    folder = run(tiny, tmp_path / "run")
    assert load_file(folder / "weights/last.safetensors")["head.0.weight"].shape[1] == 1
    last = lines(folder / "eval.jsonl")[-1]["sets"]["test"]["mean"]
    assert last["psnr_rgb"] < last["psnr_y"]


def test_tensorboard_gets_the_same_figures(tiny: dict, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tiny["log"]["tensorboard"] = True
    folder = run(tiny, tmp_path / "run")
    events = accumulator.EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    written = [line["loss"]["g"]["similarity"] for line in lines(folder / "metrics.jsonl")]
    shown = [event.value for event in events.Scalars("train/loss/g/similarity")]
    assert shown == pytest.approx(written, rel=1e-6)
    assert [event.step for event in events.Scalars("eval/test/psnr_y")] == [0, 3, 6]
