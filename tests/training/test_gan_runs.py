"""Whole runs of GANs: resumed, cut into micro-batches, spread over processes, started from files."""

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from run_folders import assert_same, figures, leaves, saved
from selfsr.recipe import parse_recipe
from selfsr.runfolder.checkpoints import checkpoints
from selfsr.training.assemble import assemble
from selfsr.training.loop import fit
from two_processes import run_in_two_processes

NETWORK = {"kind": "patch", "features": 4, "layers": 1, "norm": "none"}


def recipe(tiny: dict, discriminators: dict[str, dict], **changes: Any) -> dict:
    """Return a short run of a GAN whose similarity term has a weight that is found in the first three updates."""
    terms = copy.deepcopy(tiny["method"]["terms"])
    terms["similarity"]["weight"] = {"match": "largest", "calibrate_steps": 3, "factor": 0.5}
    # With so large an eps a gradient near zero is a small step, not one of full size in the direction of its rounding.
    adam = {"kind": "adam", "lr": 1e-2, "eps": 1e-2}
    return {
        **tiny,
        "steps": 4,
        "method": {"kind": "gan", "terms": terms, "discriminators": discriminators},
        "optimizers": {name: adam for name in ("g", *discriminators)},
        "evaluate": None,
        "checkpoints": {"every_steps": 2},
        **changes,
    }


def run(document: dict, folder: Path, **kwargs: Any) -> Path:
    fit(parse_recipe(document, "test"), folder, device="cpu", **kwargs)
    return folder


EVERYTHING: dict[str, dict] = {
    "d": {"network": {**NETWORK, "norm": "batch"}, "weight": 0.05, "region_aware": True},
    "d_gradient": {
        "network": {**NETWORK, "norm": "spectral"},
        "input": "gradient",
        "objective": "hinge",
        "form": "standard",
        "weight": 0.05,
        "r1_weight": 1.0,
        "r1_every_steps": 2,
    },
    "d_bounded": {
        "network": NETWORK,
        "objective": "wasserstein",
        "form": "standard",
        "weight": 0.01,
        "gradient_penalty_weight": 10.0,
    },
}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_resumed_equals_straight_through_bit_for_bit(tiny: dict, tmp_path: Path, precision: str) -> None:
    document = recipe(tiny, EVERYTHING, precision=precision)
    document["method"]["terms"]["ldl"] = {"kind": "artifact"}
    straight = run(document, tmp_path / "straight")
    resumed = tmp_path / "resumed"
    shutil.copytree(straight, resumed)
    shutil.rmtree(checkpoints(resumed)[-1])  # as if it had been killed after the checkpoint of step 2
    run(document, resumed, resume=True)
    assert_same(saved(resumed), saved(straight))
    assert figures(resumed) == figures(straight)

    first, _, third, last = figures(straight)
    assert set(first["loss"]["g"]) == {
        "pixel", "similarity", "ldl", "adversarial_d", "adversarial_d_gradient", "adversarial_d_bounded",
    }  # fmt: skip
    assert set(first["loss"]["d"]) == {"real", "fake"}
    assert "r1" not in first["loss"]["d_gradient"]
    assert last["loss"]["d_gradient"]["r1"] > 0
    assert last["loss"]["d_bounded"]["gradient_penalty"] > 0
    assert set(last["logits"]) == set(EVERYTHING) == set(last["grad_norm"]) - {"g"}
    assert first["weight"] == {"similarity": 0.0}
    assert 0 < third["weight"]["similarity"] != last["weight"]["similarity"] > 0
    assert_same(saved(straight, -2)["method"]["measured"], 2)


def assert_close(one: list[dict], other: list[dict], *, rel: float, without: str = "no discriminator") -> None:
    for a, b in zip(one, other, strict=True):
        for part in ("loss", "logits", "weight"):
            expected, got = leaves(a[part]), leaves(b[part])
            assert got.keys() == expected.keys()
            for name, value in expected.items():
                close = got[name] == pytest.approx(value, rel=rel, abs=1e-7)
                assert close or without in name, (a["step"], part, name, got[name], value)


def test_accumulated_micro_batches_equal_one_batch(tiny: dict, tmp_path: Path) -> None:
    """Where each image is judged alone: without batch norm, in the standard form."""
    discriminators = {"d": {"network": NETWORK, "form": "standard", "weight": 0.1, "r1_weight": 1.0}}
    document = recipe(tiny, discriminators)
    whole, cut = run(document, tmp_path / "whole"), run({**document, "accumulate": 4}, tmp_path / "cut")
    assert figures(whole)[-1]["weight"]["similarity"] > 0
    assert_close(figures(whole), figures(cut), rel=2e-4)


def launch(document: dict, folder: Path) -> Path:
    folder.mkdir()
    (folder / "two.yaml").write_text(yaml.safe_dump(document))
    run_in_two_processes("-m", "selfsr", "train", "two.yaml", "--device", "cpu", "--no-report", cwd=folder)
    return folder / "runs" / document["name"]


def test_two_processes_with_micro_batches_train_as_one_without(tiny: dict, tmp_path: Path) -> None:
    """Discriminators that judge each image alone; one with batch norm looks on, with next to no weight of its own.

    It makes several passes before each backward pass, under every wrapper that there is.
    """
    discriminators = {
        "d": {"network": NETWORK, "form": "standard", "weight": 0.1, "region_aware": True},
        "d_gradient": {"network": NETWORK, "input": "gradient", "form": "standard", "weight": 0.1, "r1_weight": 1.0},
        "looks_on": {"network": {**NETWORK, "norm": "batch"}, "weight": 1e-12},
    }
    document = recipe(tiny, discriminators)
    two, one = launch({**document, "accumulate": 2}, tmp_path / "two"), run(document, tmp_path / "one")
    assert figures(one)[-1]["weight"]["similarity"] > 0
    assert_close(figures(one), figures(two), rel=2e-4, without="looks_on")
    for name, expected in leaves({k: net for k, net in saved(one)["nets"].items() if k != "looks_on"}).items():
        torch.testing.assert_close(leaves(saved(two)["nets"])[name], expected, rtol=1e-3, atol=2e-5)
    passes = {
        folder: value.item()
        for folder in (one, two)
        for name, value in saved(folder)["nets"]["looks_on"].items()
        if name.endswith("num_batches_tracked")
    }
    # In four steps, two passes for the generator and two for the discriminator, of each micro-batch.
    assert passes == {one: 16, two: 32}


def test_networks_start_from_files(tiny: dict, tmp_path: Path) -> None:
    document = recipe(tiny, {"d": {"network": {**NETWORK, "norm": "batch"}, "weight": 0.1}})
    former = run(document, tmp_path / "former")
    state = saved(former)
    torch.save({"params": state["nets"]["g"], "params_ema": state["ema"]}, tmp_path / "g.pth")
    document["method"]["discriminators"]["d"]["start_from"] = str(former / "discriminators/d.safetensors")
    document["start_from"] = str(tmp_path / "g.pth")
    begun = assemble(parse_recipe(document, "x"), tmp_path / "next", device="cpu", resume=False)
    begun.loader.close()
    assert_same(begun.method.nets["d"].state_dict(), state["nets"]["d"])
    ema_net = load_file(former / "weights/last.safetensors")
    assert not torch.equal(ema_net["head.0.weight"], state["nets"]["g"]["head.0.weight"])
    assert_same(begun.method.nets["g"].state_dict(), ema_net)
    assert_same(begun.ema.state_dict(), ema_net)
