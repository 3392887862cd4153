"""What a run writes down as it goes: `metrics.jsonl` and `eval.jsonl`, and TensorBoard if asked for."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from selfsr.errors import InputError


class Meter:
    """Means of scalars that stay on the device until they are read, so that a step never waits for the device."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._steps: dict[str, float] = {}

    def add(self, name: str, value: Tensor, steps: float = 1.0) -> None:
        """Add a scalar that belongs to `steps` steps; a micro-batch's share of a sum belongs to a part of one."""
        value = value.detach().double()
        self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._steps[name] = self._steps.get(name, 0.0) + steps

    def read(self, accelerator: Accelerator) -> dict[str, float]:
        """Return the means over steps and processes since the last reading, with one transfer; start afresh."""
        if not self._sums:
            return {}
        sums = torch.as_tensor(accelerator.reduce(torch.stack(list(self._sums.values())), reduction="mean"))
        means = {name: value / self._steps[name] for name, value in zip(self._sums, sums.tolist(), strict=True)}
        self._sums.clear()
        self._steps.clear()
        return means


def nested(flat: Mapping[str, float]) -> dict[str, Any]:
    """Turn `{"g/pixel": 1.0}` into `{"g": {"pixel": 1.0}}`."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, leaf = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree


class Jsonl:
    """A file of one JSON object a line, each with a `step`.

    Args:
        path: the file; made when the first line is written.
        after_step: drop lines of later steps first. A resumed run writes those steps again.
    """

    def __init__(self, path: Path, after_step: int) -> None:
        self.path = path
        if path.exists():
            kept = [line for line in self._whole_lines() if json.loads(line)["step"] <= after_step]
            temporary = path.with_name(path.name + ".tmp")
            temporary.write_text("".join(kept))
            os.replace(temporary, path)

    def _whole_lines(self) -> list[str]:
        # A run that was killed while it wrote leaves half a line at the end.
        lines = self.path.read_text().splitlines(keepends=True)
        return [line for line in lines if line.endswith("\n")]

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one line."""
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """Return all whole lines."""
        return [json.loads(line) for line in self._whole_lines()] if self.path.exists() else []


class RunLog:
    """The log of one run.

    Args:
        folder: the run folder.
        after_step: the step at which the run goes on; later lines of an earlier attempt are dropped.
        tensorboard: also write TensorBoard events to `folder/tensorboard`.
    """

    def __init__(self, folder: Path, *, after_step: int, tensorboard: bool) -> None:
        self.metrics = Jsonl(folder / "metrics.jsonl", after_step)
        self.evaluations = Jsonl(folder / "eval.jsonl", after_step)
        self._tensorboard = _tensorboard_writer(folder, after_step) if tensorboard else None

    def step(self, record: Mapping[str, Any]) -> None:
        """Write a line of training figures."""
        self.metrics.write(record)
        self._mirror(record, "train")

    def evaluation(self, record: Mapping[str, Any]) -> None:
        """Write a line of scores."""
        self.evaluations.write(record)
        means = {name: scores["mean"] for name, scores in record["sets"].items()}
        self._mirror({"step": record["step"], **means}, "eval")

    def _mirror(self, record: Mapping[str, Any], prefix: str) -> None:
        if self._tensorboard is None:
            return
        for path, value in _leaves(record, prefix):
            self._tensorboard.add_scalar(path, value, record["step"])

    def close(self) -> None:
        """Write out what is buffered."""
        if self._tensorboard is not None:
            self._tensorboard.close()


def _leaves(tree: Mapping[str, Any], path: str) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found += _leaves(value, f"{path}/{key}")
        elif isinstance(value, int | float) and key not in ("step", "epoch"):
            found.append((f"{path}/{key}", float(value)))
    return found


def _tensorboard_writer(folder: Path, after_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            "recipe: log.tensorboard is true, but tensorboard is not installed; "
            'install it with pip install "selfsr[track]" or set log.tensorboard to false.'
        ) from error
    return SummaryWriter(str(folder / "tensorboard"), purge_step=after_step + 1)
