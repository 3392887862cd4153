"""Complete runs of GANs: resumed, in micro-batches, started from weights files."""

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from run_folders import LOGITS_ROUNDING, assert_same, leaves, measure_logits, read_checkpoint, read_log, train
from selfsr.recipe import parse_recipe
from selfsr.runfolder.checkpoints import list_checkpoints
from selfsr.training.assemble import assemble

NETWORK = {"kind": "patch", "features": 4, "layers": 1, "norm": "none"}


def recipe(tiny: dict, discriminators: dict[str, dict], **changes: Any) -> dict:
    """Return a short GAN run that finds the weight of its similarity term in the first three updates."""
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
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tiny: dict, tmp_path: Path, precision: str) -> None:
    document = recipe(tiny, EVERYTHING, precision=precision)
    document["method"]["terms"]["ldl"] = {"kind": "artifact"}
    straight = train(document, tmp_path / "straight")
    resumed = tmp_path / "resumed"
    shutil.copytree(straight, resumed)
    shutil.rmtree(list_checkpoints(resumed)[-1])  # as if it had been killed after the checkpoint of step 2
    train(document, resumed, resume=True)
    assert_same(read_checkpoint(resumed), read_checkpoint(straight))
    assert read_log(resumed) == read_log(straight)

    first, _, third, last = read_log(straight)
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
    assert_same(read_checkpoint(straight, -2)["method"]["measured"], 2)


def assert_close(one: list[dict], other: list[dict], *, rel: float, logits: dict[str, float]) -> None:
    """Compare two logs; a mean of logits may be near 0, so it is compared with the size of the logits."""
    for a, b in zip(one, other, strict=True):
        for part in ("loss", "logits", "weight"):
            expected, got = leaves(a[part]), leaves(b[part])
            assert got.keys() == expected.keys()
            for name, value in expected.items():
                absolute = LOGITS_ROUNDING * logits[name.split("/")[1]] if part == "logits" else 1e-7
                close = got[name] == pytest.approx(value, rel=rel, abs=absolute)
                assert close, (a["step"], part, name, got[name], value)


def test_accumulated_micro_batches_equal_one_batch(tiny: dict, tmp_path: Path) -> None:
    """With a discriminator that scores each image by itself: without batch norm, in the standard form."""
    discriminators = {"d": {"network": NETWORK, "form": "standard", "weight": 0.1, "r1_weight": 1.0}}
    document = recipe(tiny, discriminators)
    whole, cut = train(document, tmp_path / "whole"), train({**document, "accumulate": 4}, tmp_path / "cut")
    assert read_log(whole)[-1]["weight"]["similarity"] > 0
    assert_close(read_log(whole), read_log(cut), rel=2e-4, logits=measure_logits(document, whole))


def test_networks_start_from_files(tiny: dict, tmp_path: Path) -> None:
    document = recipe(tiny, {"d": {"network": {**NETWORK, "norm": "batch"}, "weight": 0.1}})
    former = train(document, tmp_path / "former")
    state = read_checkpoint(former)
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
