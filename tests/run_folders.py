"""What tests read out of run folders."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfsr.runfolder.checkpoints import checkpoints

_CLOCKS = ("steps_per_s", "data_wait_share", "memory_mb")


def figures(folder: Path) -> list[dict]:
    """Return what a run logged of each step, but for what depends on the clock and the machine."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in _CLOCKS} for line in lines]


def saved(folder: Path, which: int = -1) -> dict[str, Any]:
    """Return a checkpoint, the newest one by default."""
    return torch.load(checkpoints(folder)[which] / "state.pt", weights_only=True)


def leaves(tree: Any, path: str = "") -> dict[str, Any]:
    """Return the leaves of nested dictionaries and lists by their paths."""
    if isinstance(tree, dict | list):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {name: leaf for key, value in items for name, leaf in leaves(value, f"{path}/{key}").items()}
    return {path: tree}


def assert_same(a: Any, b: Any) -> None:
    """Assert that two trees are equal to the last bit."""
    one, other = leaves(a), leaves(b)
    assert one.keys() == other.keys()
    for name, value in one.items():
        equal = torch.equal(value, other[name]) if isinstance(value, Tensor) else value == other[name]
        assert equal, name
