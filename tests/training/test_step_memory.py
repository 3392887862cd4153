"""The memory of a step, estimated on tensors without data: equal to what a real step allocates."""

from pathlib import Path
from typing import Any

import pytest
import torch

from selfsr.errors import InputError
from selfsr.machine.memory import PeakBytes
from selfsr.recipe import Recipe, parse_recipe
from selfsr.runfolder.log import Meter
from selfsr.step import Clock
from selfsr.training import dryrun
from selfsr.training.assemble import assemble
from selfsr.training.guard import FiniteGuard
from selfsr.training.loop import take_step
from selfsr.training.memory import _make_batches, estimate_step_bytes


def measure_step_bytes(recipe: Recipe, folder: Path) -> int:
    """Bytes of weights and EMA, and the peak of the tensors that two real steps make."""
    run = assemble(recipe, folder, device="cpu", resume=False)
    run.loader.close()
    nets = [*run.method.nets.values(), run.ema.net]
    weights = sum(tensor.numel() * tensor.element_size() for net in nets for tensor in net.state_dict().values())

    def step(number: int) -> None:
        batches = _make_batches(run)
        for batch in batches:
            batch.hr.fill_(0.5)
            batch.lr.fill_(0.4)
        take_step(run, batches, Clock(number, recipe.steps_per_epoch, recipe.steps), Meter(), FiniteGuard())

    with PeakBytes() as counted:
        step(1)
        step(2)
    return weights + counted.peak


PLAIN = {"kind": "regression", "terms": {"pixel": {"kind": "l1"}}}


@pytest.mark.parametrize(
    "changes",
    [
        {"method": PLAIN},
        {"batch": 8, "accumulate": 2},
        {"precision": "bfloat16", "method": PLAIN},
        {"method": {"kind": "regression", "terms": {"pixel": {"kind": "l1"}, "ssl": {"kind": "self_similarity"}}}},
    ],
)
def test_the_estimate_is_what_a_real_step_allocates(tiny: dict[str, Any], tmp_path: Path, changes: dict) -> None:
    network = {**tiny["network"], "features": 48}  # so that the peak is in the network
    recipe = parse_recipe({**tiny, "network": network, "precision": "float32", **changes}, "my.yaml")
    estimated = estimate_step_bytes(recipe, device="cpu")
    assert estimated == pytest.approx(measure_step_bytes(recipe, tmp_path), rel=1e-3)


def test_the_buffers_inside_of_a_compiled_loss_are_left_out(tiny: dict[str, Any], tmp_path: Path) -> None:
    recipe = parse_recipe({**tiny, "precision": "float32"}, "my.yaml")  # self-paced
    estimated, measured = estimate_step_bytes(recipe, device="cpu"), measure_step_bytes(recipe, tmp_path)
    assert estimated is not None
    assert 0.9 * measured < estimated <= measured


def test_it_grows_with_the_batch_and_takes_no_memory_itself(tiny: dict[str, Any]) -> None:
    small = estimate_step_bytes(parse_recipe({**tiny, "batch": 4}, "my.yaml"), device="cpu")
    # This batch would need over 100 GB, so it can only be estimated.
    large = estimate_step_bytes(parse_recipe({**tiny, "batch": 4_000_000}, "my.yaml"), device="cpu")
    assert small is not None
    assert large is not None
    assert large > 100 * 2**30
    assert large / small > 10_000


def test_a_step_that_does_not_fit_is_told_and_not_started(
    tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dryrun, "measure_free_bytes", lambda device: 1000)
    monkeypatch.setattr(dryrun, "measure_cost", lambda *args, **options: pytest.fail("a step was started"))
    with pytest.raises(
        InputError, match=r"dry run: expected .* MB of free memory on cpu for a step, got 0 MB"
    ) as error:
        dryrun.dry_run(parse_recipe(tiny, "my.yaml"), device="cpu")
    assert str(error.value).endswith("train on a larger GPU, or lower batch or crop_px, or raise accumulate.")
    assert "MB of tensors in each process" in capsys.readouterr().err


def test_a_step_that_needs_values_is_not_estimated(tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def read_a_value(run, batches, *_: Any) -> None:
        float(torch.zeros(()) + batches[0].hr.sum())

    monkeypatch.setattr("selfsr.training.memory.take_step", read_a_value)
    assert estimate_step_bytes(parse_recipe(tiny, "my.yaml"), device="cpu") is None
