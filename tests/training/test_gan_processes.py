"""Shipped GAN recipes over two processes, batch norm included, and stopped and gone on with.

As a program it is each of two processes that train what is in a folder.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, distributed

from run_folders import assert_same, figures, leaves, saved
from selfsr.recipe import parse_recipe
from selfsr.runfolder.checkpoints import checkpoints
from selfsr.training import assemble
from selfsr.training.loop import fit
from small_gans import PUBLISHED, small_gan
from two_processes import run_in_two_processes

# A discriminator with batch norm, two of these, and a U-Net with spectral norm. The first of a group has batch norm.
SHORT = ("esrgan", "spsr", "realesrgan")
OTHERS = tuple(name for name in PUBLISHED if name not in SHORT)

# Tolerances, relative to a network's change in a step, to a logged value, and to a buffer's largest element;
# docs/numerics.md has the reasons.
CHANGE, VALUE, BUFFER = 2e-2, 1e-2, 2e-3
# What a discriminator must be off by, at least, where each process normalizes by its own half of the batch.
APART = 0.3

Weights = dict[str, Tensor]


def document(name: str, photos: Path, pretrained: Path) -> dict[str, Any]:
    """Return two steps of a recipe that forgive rounding.

    Adam divides a gradient by its size, so that one of rounding alone moves its weight a whole step. With this eps
    gradients of up to 1e-2 move weights in proportion.
    """
    recipe = small_gan(f"small_{name}_ssl_x4", hr=photos / "train", pretrained=pretrained, batch=4)
    for optimizer in recipe["optimizers"].values():
        optimizer.update(lr=1e-2, eps=1e-2)
    return {**recipe, "name": name, "checkpoints": {"every_steps": 1}}


def train(folder: Path, name: str, where: str) -> None:
    """Train a recipe of `folder` straight through."""
    recipe = parse_recipe(yaml.safe_load((folder / f"{name}.yaml").read_text()), name)
    assert fit(recipe, folder / where / name, device="cpu")


def go_on(folder: Path, name: str, where: str) -> None:
    """Train it once more from the checkpoint of step 1."""
    recipe = parse_recipe(yaml.safe_load((folder / f"{name}.yaml").read_text()), name)
    straight, resumed = folder / where / name, folder / where / f"{name}_resumed"
    if int(os.environ.get("RANK", "0")) == 0:
        shutil.copytree(straight, resumed)
        shutil.rmtree(checkpoints(resumed)[-1])
    if distributed.is_initialized():
        distributed.barrier()
    assert fit(recipe, resumed, device="cpu", resume=True)


def main(folder: Path, *names: str) -> None:
    """Train the recipes as one of two processes; the first one resumed, too, and with a batch norm for each process."""
    for name in names:
        train(folder, name, "two")
    go_on(folder, names[0], "two")
    assemble.normalize_over_processes = lambda net: None
    train(folder, names[0], "apart")
    distributed.destroy_process_group()


@pytest.fixture(scope="module", params=[SHORT, pytest.param(OTHERS, marks=pytest.mark.slow)], ids=["some", "others"])
def trained(
    request: pytest.FixtureRequest, photos: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, tuple[str, ...]]:
    """Return the folder with the runs of one process and of two, and the names of the recipes."""
    folder, names = tmp_path_factory.mktemp("processes"), request.param
    for name in names:
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(document(name, photos, pretrained)))
        train(folder, name, "one")
        go_on(folder, name, "one")
    run_in_two_processes(Path(__file__).resolve(), folder, *names, cwd=folder)
    return folder, names


def change(before: Weights, after: Weights, other: Weights) -> float:
    """Return how far the weights `other` are from those `after` a step, relative to what the step changed."""
    names = [name for name in after if not is_buffer(name)]
    start, end, found = (torch.cat([state[name].flatten() for name in names]) for state in (before, after, other))
    return ((found - end).norm() / (end - start).norm()).item()


def is_buffer(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked", "weight_u", "weight_v"))


def test_two_processes_train_as_one(trained: tuple[Path, tuple[str, ...]]) -> None:
    folder, names = trained
    for name in names:
        one, two = folder / "one" / name, folder / "two" / name
        before, after, other = (saved(*which)["nets"] for which in ((one, -2), (one, -1), (two, -1)))
        for net, state in after.items():
            assert change(before[net], state, other[net]) < CHANGE, (name, net)
            for key in filter(is_buffer, state):
                assert (other[net][key] - state[key]).abs().max() <= BUFFER * state[key].abs().max(), (name, net, key)
        for expected, got in zip(figures(one), figures(two), strict=True):
            for part in ("loss", "logits", "weight", "grad_norm"):
                wanted, found = leaves(expected[part]), leaves(got[part])
                assert found == pytest.approx(wanted, rel=VALUE, abs=1e-6), (name, expected["step"], part)


def test_batch_norm_of_each_process_would_train_another_discriminator(trained: tuple[Path, tuple[str, ...]]) -> None:
    """What the tolerances have to refuse."""
    folder, (name, *_) = trained
    one, apart = folder / "one" / name, folder / "apart" / name
    states = (saved(*which)["nets"]["d"] for which in ((one, -2), (one, -1), (apart, -1)))
    assert change(*states) > APART
    logits = [leaves(figures(run)[-1]["logits"]) for run in (one, apart)]
    assert logits[1] != pytest.approx(logits[0], rel=5 * VALUE)


def test_resumed_equals_straight_through_bit_for_bit(trained: tuple[Path, tuple[str, ...]]) -> None:
    folder, names = trained
    for straight in (*(folder / "one" / name for name in names), folder / "two" / names[0]):
        resumed = straight.with_name(f"{straight.name}_resumed")
        assert_same(saved(resumed), saved(straight))
        assert figures(resumed) == figures(straight)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
