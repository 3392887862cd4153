"""The benchmark of training steps: its cases are valid recipes, and its steps contain the losses of their names."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import steps
from selfsr.recipe import parse_recipe

SMALL = {"crop_px": 32, "batch": 2}


def small(name: str, network: str) -> steps.Case:
    case = steps.CASES[name]
    return replace(case, settings=case.settings | SMALL | {"network": {"kind": network, "blocks": 1, "features": 8}})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("skimage", reason="the photo to measure on comes with scikit-image")
    folder = steps.write_photo(tmp_path_factory.mktemp("bench"))
    steps.write_random_vgg(folder)
    return folder


@pytest.mark.parametrize("name", steps.CASES)
def test_case_is_a_valid_recipe_with_each_added_loss(folder: Path, name: str) -> None:
    case = steps.CASES[name]
    assert case.added
    for added in case.added.values():
        method = case.method | {"terms": case.method["terms"] | added}
        recipe = parse_recipe(steps.make_recipe(case, folder, method=method), name)
        assert set(recipe.method.terms) == set(case.method["terms"]) | set(added)


def test_measure_times_every_step_and_each_added_loss(folder: Path) -> None:
    case = replace(small("edsr", "edsr"), added=steps.PACED)
    rows = steps.measure(case, folder, "cpu", seconds=0)
    naive = "ours + self-paced by five convolutions"
    assert [row["step"] for row in rows] == ["plain float32 loop", "ours", "ours, float32", "ours + self-paced", naive]
    assert [row["share_of_ours"] is None for row in rows] == [True, True, True, False, False]
    assert [row["loss_alone_s"] is None for row in rows] == [True, True, True, False, True]
    assert all(row["median_s"] > 0 and row["turns"] >= 3 and row["speed_vs_plain"] > 0 for row in rows)


@pytest.fixture
def recorded_steps(monkeypatch: pytest.MonkeyPatch) -> list:
    """Record the arguments of training steps instead of taking the steps."""
    calls = []
    monkeypatch.setattr(steps, "take_step", lambda run, batches, clock, *_: calls.append((run, batches, clock)))
    return calls


def test_naive_weighting_has_the_value_of_the_operator(folder: Path, recorded_steps: list) -> None:
    case = small("edsr", "edsr")
    steps.make_step(case, folder, "cpu", case.added["self-paced"], precision="float32")()
    steps.make_step(case, folder, "cpu", naive=True, precision="float32")()
    losses = []
    for run, (batch,), clock in recorded_steps:
        (update,) = run.method.updates(batch, clock)
        losses.append(update.losses["pixel"].detach())
    assert losses[0] > 0
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=0)


def test_make_loss_step_differentiates_only_the_added_loss(folder: Path, monkeypatch) -> None:
    case = small("edsr", "edsr")
    losses = []
    backward = torch.Tensor.backward
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss: losses.append(loss.item()) or backward(loss))
    seconds = [
        steps.make_loss_step(case, folder, "cpu", terms)()
        for terms in (case.added["self-paced"], case.method["terms"], case.added["self-similarity, stride 3"])
    ]
    assert len(set(losses)) == 3
    assert min(losses) > 0
    assert min(seconds) > 0


def test_esrgan_step_has_all_losses(folder: Path, recorded_steps: list) -> None:
    case = small("esrgan", "rrdb")
    steps.make_step(case, folder, "cpu", case.added["self-similarity, stride 3"], precision="float32")()
    ((run, (batch,), clock),) = recorded_steps
    updates = {update.net: set(update.losses) for update in run.method.updates(batch, clock)}
    assert updates == {"g": {"pixel", "perceptual", "similarity", "adversarial_d"}, "d": {"real", "fake"}}
