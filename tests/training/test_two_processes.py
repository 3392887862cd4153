"""Runs over two processes equal runs in one process, batch norm and resuming included.

All runs share one launch, since each launch starts two interpreters. As a program, this file is one of the two
processes.
"""

import copy
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, distributed

from architectures import TINY
from factories import make_tiny_recipe
from run_folders import (
    LOGITS_ROUNDING,
    assert_same,
    leaves,
    measure_logits,
    read_checkpoint,
    read_lines,
    read_log,
    train,
)
from selfsr.cli import app
from selfsr.runfolder.checkpoints import list_checkpoints
from selfsr.training import assemble
from small_gans import PUBLISHED, small_gan
from tiny_bases import save_base
from two_processes import run_in_two_processes

# Discriminators with batch norm, two of them, and a U-Net with spectral norm.
DEFAULT_GANS = ("esrgan", "spsr", "realesrgan")
SLOW_GANS = tuple(name for name in PUBLISHED if name not in DEFAULT_GANS)
# The GAN that is also resumed, and trained with batch norm of each process; its discriminator has batch norm.
BATCH_NORM_GANS = {"some": "esrgan", "others": SLOW_GANS[0]}

# Tolerances, relative to a network's change in a step, to a logged value, and to a buffer's largest element;
# docs/numerics.md has the reasons.
CHANGE, VALUE, BUFFER = 2e-2, 1e-2, 2e-3
# Smallest error of a discriminator with batch norm of each process.
APART = 0.3

PATCH = {"kind": "patch", "features": 4, "layers": 1, "norm": "none"}
ADAM = {"kind": "adam", "lr": 1e-2, "eps": 1e-2}

Weights = dict[str, Tensor]


def shipped_gan(name: str, photos: Path, pretrained: Path) -> dict[str, Any]:
    """Return two steps of a shipped recipe, tolerant to rounding.

    Adam divides a gradient by its size, so a gradient that is only rounding moves its weight by a full step. With this
    eps, gradients of up to 1e-2 move weights in proportion.
    """
    recipe = small_gan(f"small_{name}_ssl_x4", hr=photos / "train", pretrained=pretrained, batch=4)
    for optimizer in recipe["optimizers"].values():
        optimizer.update(lr=1e-2, eps=1e-2)
    return {**recipe, "name": name, "checkpoints": {"every_steps": 1}}


def several_scales(tiny: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe for MDSR at x2 and x3, with micro-batches."""
    network = {"kind": "mdsr", "features": 4, "blocks": 1, "factors": [2, 3]}
    recipe = {**tiny, "name": "several", "scale": [2, 3], "crop_px": [24, 36], "network": network, "accumulate": 2}
    del recipe["method"]["terms"]["similarity"]
    return recipe


def independent_gan(tiny: dict[str, Any]) -> dict[str, Any]:
    """Return a GAN with discriminators that score each image by itself, and one with batch norm and a tiny weight.

    The latter makes several passes before each backward pass, under every wrapper.
    """
    terms = copy.deepcopy(tiny["method"]["terms"])
    terms["similarity"]["weight"] = {"match": "largest", "calibrate_steps": 3, "factor": 0.5}
    discriminators = {
        "d": {"network": PATCH, "form": "standard", "weight": 0.1, "region_aware": True},
        "d_gradient": {"network": PATCH, "input": "gradient", "form": "standard", "weight": 0.1, "r1_weight": 1.0},
        "observer": {"network": {**PATCH, "norm": "batch"}, "weight": 1e-12},
    }
    return {
        **tiny,
        "name": "independent",
        "steps": 4,
        "method": {"kind": "gan", "terms": terms, "discriminators": discriminators},
        "optimizers": {name: ADAM for name in ("g", *discriminators)},
        "evaluate": None,
        "checkpoints": {"every_steps": 2},
        "accumulate": 2,
    }


def normalized_weights(tiny: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe whose pixel weights have the mean 1 over the batch; in its first step all underflow."""
    terms = {"pixel": {"kind": "l1", "pace": {"normalize": True, "alpha": 0.003}}}
    method = {"kind": "regression", "terms": terms}
    return {**tiny, "name": "normalized", "method": method, "optimizers": {"g": ADAM}, "accumulate": 2}


def gated_diffusion(tiny: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe that samples; only the predictions at low noise have terms."""
    terms = copy.deepcopy(tiny["method"]["terms"])
    del terms["pixel"]["pace"]
    terms["similarity"]["weight"] = {"match": "largest", "calibrate_steps": 3, "factor": 0.5}
    method = {"kind": "denoising", "terms": terms, "image_loss": {"max_noise": 0.6, "weigh": "snr"}}
    network = {"kind": "residual_shifting", "unet": {"channels": [8, 16], "groups": 4}}
    recipe = {**tiny, "name": "diffusion", "network": network, "method": method, "optimizers": {"g": ADAM}}
    return {**recipe, "accumulate": 2, "evaluate": None, "checkpoints": {"every_steps": 3}}


def latent_diffusion(tiny: dict[str, Any], base: Path) -> dict[str, Any]:
    """Return the recipe of `gated_diffusion` for a pretrained base, with gates and weights by noise of its kind."""
    recipe = gated_diffusion(tiny)
    network = {"kind": "latent_diffusion", "base": str(base), "base_precision": "float32", "lora": {"rank": 2}}
    gates = {"image_loss": {"max_gain": 2.0, "weigh": "snr"}, "min_snr_gamma": 5.0}
    return {**recipe, "name": "latent", "network": network, "method": {**recipe["method"], **gates}}


def architecture(tiny: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe for an architecture of spandrel some of whose parameters no output depends on."""
    network = {"kind": "spandrel", "architecture": "FDAT", "options": TINY["FDAT"]}
    recipe = {**tiny, "name": "architecture", "network": network, "optimizers": {"g": ADAM}, "accumulate": 2}
    return {**recipe, "evaluate": None}


def read_recipe(folder: Path, name: str) -> dict[str, Any]:
    return yaml.safe_load((folder / f"{name}.yaml").read_text())


def resume(folder: Path, name: str, runs: str) -> None:
    """Copy a run without its last checkpoint, and resume the copy."""
    straight, resumed = folder / runs / name, folder / runs / f"{name}_resumed"
    if int(os.environ.get("RANK", "0")) == 0:
        shutil.copytree(straight, resumed)
        shutil.rmtree(list_checkpoints(resumed)[-1])
    if distributed.is_initialized():
        distributed.barrier()
    train(read_recipe(folder, name), resumed, resume=True)


def main(folder: Path, batch_norm_gan: str, *names: str) -> None:
    """Train recipes as one of two processes; resume one, and train it with batch norm of each process."""
    if (folder / "tiny.yaml").exists():
        recipe = str(folder / "tiny.yaml")
        app(["train", recipe, "--runs", str(folder / "two"), "--device", "cpu", "--no-report"], standalone_mode=False)
    for name in names:
        train(read_recipe(folder, name), folder / "two" / name)
    resume(folder, batch_norm_gan, "two")
    assemble.normalize_over_processes = lambda net: None
    train(read_recipe(folder, batch_norm_gan), folder / "apart" / batch_norm_gan)
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def trained(
    request: pytest.FixtureRequest, photos: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, tuple[str, ...], str]:
    """Return the folder with the runs of one process and of two, the names of the GANs, and that with batch norm."""
    folder, some = tmp_path_factory.mktemp("processes"), request.param == "some"
    gans = DEFAULT_GANS if some else SLOW_GANS
    recipes = {name: shipped_gan(name, photos, pretrained) for name in gans}
    if some:
        tiny = make_tiny_recipe(photos)
        recipes |= {"tiny": tiny, "independent": independent_gan(copy.deepcopy(tiny))}
        recipes |= {"several": several_scales(copy.deepcopy(tiny)), "normalized": normalized_weights(tiny)}
        recipes |= {"diffusion": gated_diffusion(copy.deepcopy(tiny)), "architecture": architecture(tiny)}
        recipes |= {"latent": latent_diffusion(copy.deepcopy(tiny), save_base(folder / "base"))}
    for name, recipe in recipes.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
        # Micro-batches in two processes against none in one.
        complete = name in ("independent", "normalized", "diffusion", "latent")
        train(recipe | {"accumulate": 1} if complete else recipe, folder / "one" / name)
        if name in gans:
            resume(folder, name, "one")
    batch_norm_gan = BATCH_NORM_GANS[request.param]
    names = [name for name in recipes if name != "tiny"]
    run_in_two_processes(Path(__file__).resolve(), folder, batch_norm_gan, *names, cwd=folder)
    return folder, gans, batch_norm_gan


some = pytest.mark.parametrize("trained", ["some"], indirect=True)
some_and_others = pytest.mark.parametrize(
    "trained", ["some", pytest.param("others", marks=pytest.mark.slow)], indirect=True
)


def last_weights(folder: Path) -> Weights:
    return load_file(folder / "weights/last.safetensors")


@some
def test_a_regression_by_command_trains_as_in_one_process(trained: tuple) -> None:
    folder = trained[0]
    one, two = folder / "one/tiny", folder / "two/tiny"
    for record, expected in zip(read_log(two), read_log(one), strict=True):
        assert record["loss"]["g"] == pytest.approx(expected["loss"]["g"], rel=2e-5)
    for key, weights in last_weights(one).items():
        torch.testing.assert_close(last_weights(two)[key], weights, rtol=1e-3, atol=2e-5)


@some
def test_an_evaluation_over_two_processes_has_the_scores_of_one(trained: tuple) -> None:
    one, two = (read_lines(trained[0] / runs / "tiny/eval.jsonl") for runs in ("one", "two"))
    assert [list(record["sets"]["test"]["images"]) for record in two] == 3 * [["t0", "t1"]]
    assert two[0] == one[0]  # the same network at the start, and bicubic
    for record, expected in zip(two[1:], one[1:], strict=True):
        values, expected_values = (leaves(each["sets"]["test"]["images"]) for each in (record, expected))
        assert values == pytest.approx(expected_values, rel=1e-3)
    names = [sorted(path.name for path in (trained[0] / runs / "tiny").rglob("*.png")) for runs in ("one", "two")]
    assert names[0] == names[1]
    assert names[0]


@some
def test_several_scales_train_as_in_one_process(trained: tuple) -> None:
    folder = trained[0]
    for key, weights in last_weights(folder / "one/several").items():
        torch.testing.assert_close(last_weights(folder / "two/several")[key], weights, rtol=1e-3, atol=2e-5)


@some
def test_normalized_weights_train_as_in_one_process(trained: tuple) -> None:
    one, two = (trained[0] / runs / "normalized" for runs in ("one", "two"))
    for record, expected in zip(read_log(two), read_log(one), strict=True):
        assert record["loss"]["g"] == pytest.approx(expected["loss"]["g"], rel=2e-4)
    for key, weights in last_weights(one).items():
        torch.testing.assert_close(last_weights(two)[key], weights, rtol=1e-3, atol=2e-5)


@some
def test_an_architecture_of_spandrel_trains_as_in_one_process(trained: tuple) -> None:
    one, two = (trained[0] / runs / "architecture" for runs in ("one", "two"))
    for record, expected in zip(read_log(two), read_log(one), strict=True):
        assert record["loss"]["g"] == pytest.approx(expected["loss"]["g"], rel=2e-4)


@some
@pytest.mark.parametrize("name", ["diffusion", "latent"])
def test_gated_diffusion_trains_as_in_one_process(trained: tuple, name: str) -> None:
    one, two = (trained[0] / runs / name for runs in ("one", "two"))
    for record, expected in zip(read_log(two), read_log(one), strict=True):
        for section in ("loss", "denoising", "weight"):
            values, expected_values = leaves(record[section]), leaves(expected[section])
            assert values == pytest.approx(expected_values, rel=1e-3, abs=1e-7), (record["step"], section)
    assert 0 < read_log(one)[-1]["denoising"]["decoded_share"] < 1
    for key, weights in last_weights(one).items():
        torch.testing.assert_close(last_weights(two)[key], weights, rtol=1e-2, atol=1e-4)


@some
def test_micro_batches_train_as_one_process_without(trained: tuple) -> None:
    one, two = (trained[0] / runs / "independent" for runs in ("one", "two"))
    assert read_log(one)[-1]["weight"]["similarity"] > 0
    logits = measure_logits(read_recipe(trained[0], "independent"), one)
    for expected, record in zip(read_log(one), read_log(two), strict=True):
        for section in ("loss", "logits", "weight"):
            expected_values, values = leaves(expected[section]), leaves(record[section])
            assert values.keys() == expected_values.keys()
            for name, value in expected_values.items():
                # A mean of logits may be near 0, so it is compared with the size of the logits.
                absolute = LOGITS_ROUNDING * logits[name.split("/")[1]] if section == "logits" else 1e-7
                close = values[name] == pytest.approx(value, rel=2e-4, abs=absolute)
                assert close or "observer" in name, (expected["step"], section, name, values[name], value)
    nets = {name: net for name, net in read_checkpoint(one)["nets"].items() if name != "observer"}
    of_two = leaves(read_checkpoint(two)["nets"])
    for name, weights in leaves(nets).items():
        torch.testing.assert_close(of_two[name], weights, rtol=1e-3, atol=2e-5)
    passes = {
        folder: value.item()
        for folder in (one, two)
        for name, value in read_checkpoint(folder)["nets"]["observer"].items()
        if name.endswith("num_batches_tracked")
    }
    # In four steps, two passes for the generator and two for the discriminator, of each micro-batch.
    assert passes == {one: 16, two: 32}


def relative_error(before: Weights, after: Weights, other: Weights) -> float:
    """Return the distance of `other` from the weights `after` a step, relative to the change in the step."""
    names = [name for name in after if not is_buffer(name)]
    start, end, weights = (torch.cat([state[name].flatten() for name in names]) for state in (before, after, other))
    return ((weights - end).norm() / (end - start).norm()).item()


def is_buffer(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked", "weight_u", "weight_v"))


@some_and_others
def test_shipped_gans_train_as_in_one_process(trained: tuple) -> None:
    folder, gans, _ = trained
    for name in gans:
        one, two = folder / "one" / name, folder / "two" / name
        before, after, other = (read_checkpoint(*run)["nets"] for run in ((one, -2), (one, -1), (two, -1)))
        for net, state in after.items():
            assert relative_error(before[net], state, other[net]) < CHANGE, (name, net)
            for key in filter(is_buffer, state):
                assert (other[net][key] - state[key]).abs().max() <= BUFFER * state[key].abs().max(), (name, net, key)
        for expected, record in zip(read_log(one), read_log(two), strict=True):
            for section in ("loss", "logits", "weight", "grad_norm"):
                expected_values, values = leaves(expected[section]), leaves(record[section])
                assert values == pytest.approx(expected_values, rel=VALUE, abs=1e-6), (name, expected["step"], section)


@some_and_others
def test_batch_norm_of_each_process_trains_another_discriminator(trained: tuple) -> None:
    """The tolerances above must refuse this."""
    folder, _, name = trained
    one, apart = folder / "one" / name, folder / "apart" / name
    states = (read_checkpoint(*run)["nets"]["d"] for run in ((one, -2), (one, -1), (apart, -1)))
    assert relative_error(*states) > APART
    logits = [leaves(read_log(run)[-1]["logits"]) for run in (one, apart)]
    assert logits[1] != pytest.approx(logits[0], rel=5 * VALUE)


@some_and_others
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(trained: tuple) -> None:
    folder, gans, batch_norm_gan = trained
    for straight in (*(folder / "one" / name for name in gans), folder / "two" / batch_norm_gan):
        resumed = straight.with_name(f"{straight.name}_resumed")
        assert_same(read_checkpoint(resumed), read_checkpoint(straight))
        assert read_log(resumed) == read_log(straight)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
