"""Short runs, and the contents of their run folders."""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfsr.methods.gan import Gan
from selfsr.recipe import parse_recipe
from selfsr.runfolder.checkpoints import list_checkpoints
from selfsr.training.assemble import assemble
from selfsr.training.loop import fit

# Values of a log record that depend on the machine and its load.
_MACHINE_KEYS = ("steps_per_s", "data_wait_share", "memory_mb")


def train(document: dict[str, Any], folder: Path, **options: Any) -> Path:
    """Train a recipe on the CPU; return the run folder."""
    assert fit(parse_recipe(document, "test"), folder, device="cpu", **options)
    return folder


def read_lines(path: Path) -> list[dict]:
    """Return the records of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_log(folder: Path) -> list[dict]:
    """Return the records of `metrics.jsonl` without the values that depend on the machine."""
    records = read_lines(folder / "metrics.jsonl")
    return [{key: value for key, value in record.items() if key not in _MACHINE_KEYS} for record in records]


def read_checkpoint(folder: Path, index: int = -1) -> dict[str, Any]:
    """Return a checkpoint, the newest one by default."""
    return torch.load(list_checkpoints(folder)[index] / "state.pt", weights_only=True)


def assert_resumes(document: dict[str, Any], folder: Path) -> Path:
    """Assert that a run, resumed at its last checkpoint but one, equals one straight through, and return the latter."""
    straight, resumed = train(document, folder / "straight"), folder / "resumed"
    shutil.copytree(straight, resumed)
    shutil.rmtree(list_checkpoints(resumed)[-1])
    train(document, resumed, resume=True)
    assert_same(read_checkpoint(resumed), read_checkpoint(straight))
    assert read_log(resumed) == read_log(straight)
    return straight


# Largest difference of the mean of logits between one batch and its micro-batches, relative to the size of the logits.
# Measured: 1.5e-4 with one thread and 1.0e-4 with two, in the second step; the sums over the batch round differently.
LOGITS_ROUNDING = 3e-4


def measure_logits(document: dict[str, Any], folder: Path) -> dict[str, float]:
    """Return the root mean square of each discriminator's logits, at the next batch after the newest checkpoint."""
    run = assemble(parse_recipe(document, "test"), folder, device="cpu", resume=True)
    assert isinstance(run.method, Gan)
    with contextlib.closing(run.loader) as loader, torch.no_grad():
        hr = loader.prepare(next(loader), torch.device("cpu"))[0].hr
        logits = {each.name: each.net(each._inputs(hr, hr)[1]) for each in run.method.discriminators.values()}
    return {name: values.square().mean().sqrt().item() for name, values in logits.items()}


def leaves(tree: Any, path: str = "") -> dict[str, Any]:
    """Return the leaves of nested dictionaries and lists by their paths."""
    if isinstance(tree, dict | list):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {name: leaf for key, value in items for name, leaf in leaves(value, f"{path}/{key}").items()}
    return {path: tree}


def assert_same(a: Any, b: Any) -> None:
    """Assert that two trees are equal bit for bit."""
    a_leaves, b_leaves = leaves(a), leaves(b)
    assert a_leaves.keys() == b_leaves.keys()
    for name, value in a_leaves.items():
        same = torch.equal(value, b_leaves[name]) if isinstance(value, Tensor) else value == b_leaves[name]
        assert same, name
