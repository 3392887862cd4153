"""The benchmark of training steps: its cases are recipes, and its steps hold the losses that they are named by."""

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
    place = steps.photos(tmp_path_factory.mktemp("bench"))
    steps.random_vgg(place)
    return place


@pytest.mark.parametrize("name", steps.CASES)
def test_every_case_is_a_recipe_with_each_of_its_losses(folder: Path, name: str) -> None:
    case = steps.CASES[name]
    assert case.added
    for added in case.added.values():
        method = case.method | {"terms": case.method["terms"] | added}
        recipe = parse_recipe(steps.document(case, folder, method=method), name)
        assert set(recipe.method.terms) == set(case.method["terms"]) | set(added)


def test_each_kind_of_step_is_timed_beside_ours(folder: Path) -> None:
    case = replace(small("edsr", "edsr"), added=steps.PACED)
    rows = steps.measure(case, folder, "cpu", seconds=0)
    naive = "ours + self-paced by five convolutions"
    assert [row["step"] for row in rows] == ["plain float32 loop", "ours", "ours, float32", "ours + self-paced", naive]
    assert [row["share_of_ours"] is None for row in rows] == [True, True, True, False, False]
    assert [row["loss_alone_s"] is None for row in rows] == [True, True, True, False, True]
    assert all(row["median_s"] > 0 and row["turns"] >= 3 and row["speed_vs_plain"] > 0 for row in rows)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list:
    """What steps are taken with, in place of taking them."""
    found = []
    monkeypatch.setattr(steps, "take_step", lambda run, batches, clock, *_: found.append((run, batches, clock)))
    return found


def test_the_naive_weighting_computes_the_same_loss(folder: Path, seen: list) -> None:
    """What is timed beside the operator takes the place of the pixel loss, with the same value."""
    case = small("edsr", "edsr")
    steps.ours(case, folder, "cpu", case.added["self-paced"], precision="float32")()
    steps.ours(case, folder, "cpu", naive=True, precision="float32")()
    losses = []
    for run, (batch,), clock in seen:
        (update,) = run.method.updates(batch, clock)
        losses.append(update.terms["pixel"].detach())
    assert losses[0] > 0
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=0)


def test_what_is_timed_alone_is_the_added_loss_and_its_gradient(folder: Path, monkeypatch) -> None:
    case = small("edsr", "edsr")
    found = []
    backward = torch.Tensor.backward
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss: found.append(loss.item()) or backward(loss))
    seconds = [
        steps.loss_alone(case, folder, "cpu", terms)()
        for terms in (case.added["self-paced"], case.method["terms"], case.added["self-similarity, stride 3"])
    ]
    assert len(set(found)) == 3
    assert min(found) > 0
    assert min(seconds) > 0


def test_the_esrgan_step_has_all_its_losses(folder: Path, seen: list) -> None:
    case = small("esrgan", "rrdb")
    steps.ours(case, folder, "cpu", case.added["self-similarity, stride 3"], precision="float32")()
    ((run, (batch,), clock),) = seen
    updates = {update.net: set(update.terms) for update in run.method.updates(batch, clock)}
    assert updates == {"g": {"pixel", "perceptual", "similarity", "adversarial_d"}, "d": {"real", "fake"}}
