"""The logs of a run: `metrics.jsonl`, `eval.jsonl`, and what trackers get of them."""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from selfsr.console import print_line
from selfsr.errors import shorten
from selfsr.fileio import write_atomic
from selfsr.images.files import read_image
from selfsr.runfolder.trackers import Trackers


class _Entry(NamedTuple):
    """An entry of a vector of sums: the sum of a value, or the size of the parts that it covers."""

    name: str
    is_count: bool


class Meter:
    """Average scalars over steps; they stay on the device until `read`, so that a step never waits for it."""

    def __init__(self) -> None:
        self._pending: list[tuple[_Entry, Tensor]] = []
        self._sums: dict[tuple[_Entry, ...], Tensor] = {}  # vectors, by their entries in order
        self._steps: dict[str, float] = {}

    def add(self, name: str, value: Tensor, steps: float = 1.0) -> None:
        """Add a scalar that covers `steps` steps; the part of one micro-batch covers a fraction of a step."""
        self._pending.append((_Entry(name, is_count=False), value.detach()))
        self._steps[name] = self._steps.get(name, 0.0) + steps

    def add_part(self, name: str, total: Tensor, count: Tensor) -> None:
        """Add the sum over a part of the batch, and its size, which may be 0."""
        self._pending.append((_Entry(name, is_count=False), total.detach()))
        self._pending.append((_Entry(name, is_count=True), count.detach()))

    def finish_step(self) -> None:
        """Sum up what was added, all scalars in one vector: a kernel for each would cost more than the sums."""
        if not self._pending:
            return
        entries = tuple(entry for entry, _ in self._pending)
        values = stack_scalars([value for _, value in self._pending])
        self._sums[entries] = self._sums[entries] + values if entries in self._sums else values
        self._pending.clear()

    def read(self, accelerator: Accelerator) -> dict[str, float]:
        """Return the means over steps and processes since the last call, in one transfer; then reset them.

        A value over parts of batches that were all empty is left out.
        """
        self.finish_step()
        if not self._sums:
            return {}
        values = torch.as_tensor(accelerator.reduce(torch.cat(list(self._sums.values())), reduction="mean")).tolist()
        sums: dict[str, float] = {}
        divisors = dict(self._steps)
        for entry, value in zip(itertools.chain(*self._sums), values, strict=True):
            added_to = divisors if entry.is_count else sums
            added_to[entry.name] = added_to.get(entry.name, 0.0) + value
        self._sums.clear()
        self._steps.clear()
        return {name: value / divisors[name] for name, value in sums.items() if divisors[name]}


def stack_scalars(values: Sequence[Tensor]) -> Tensor:
    """Return scalars of any dtype as one float64 vector, in as few launches as their dtypes allow."""
    dtype = values[0].dtype
    return torch.stack([value if value.dtype == dtype else value.double() for value in values]).double()


def nest(flat: Mapping[str, float]) -> dict[str, Any]:
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
    """A JSON Lines file: one JSON object per line, each with a `step`.

    Args:
        path: the file; the first `write` creates it.
        after_step: remove the lines of later steps, since a resumed run writes those steps again. Broken lines are
            removed and reported.
    """

    def __init__(self, path: Path, after_step: int) -> None:
        self.path = path
        if not path.exists():
            return
        kept, broken = [], []
        for number, line in enumerate(self._complete_lines(), 1):
            record = parse_line(line)
            if record is None:
                broken.append(str(number))
            elif record["step"] <= after_step:
                kept.append(line)
        if broken and after_step >= 0:
            print_line(
                f"{path}: expected a JSON object with a step in every line, got broken lines, which are removed: "
                f"{shorten(', '.join(broken))}."
            )
        write_atomic(path, b"".join(kept))

    def _complete_lines(self) -> list[bytes]:
        # A run that was killed during a write leaves an incomplete line at the end.
        return [line + b"\n" for line in self.path.read_bytes().split(b"\n")[:-1]]

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """Return the records of all complete lines that are not broken."""
        records = [parse_line(line) for line in self._complete_lines()] if self.path.exists() else []
        return [record for record in records if record is not None]


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line; None if it is broken."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # broken UTF-8 and numbers of too many digits are ValueErrors as well
        return None
    step = record.get("step") if isinstance(record, dict) else None
    return record if isinstance(step, int) and not isinstance(step, bool) and step >= 0 else None


class RunLog:
    """The log of one run.

    Args:
        folder: the run folder.
        after_step: the last finished step; lines of later steps are removed. -1 begins both logs again.
        trackers: also get the values and the sample images.
    """

    def __init__(self, folder: Path, *, after_step: int, trackers: Trackers | None) -> None:
        self.metrics: Jsonl = Jsonl(folder / "metrics.jsonl", after_step)
        self.evaluations: Jsonl = Jsonl(folder / "eval.jsonl", after_step)
        self._samples = folder / "samples"
        self._trackers = trackers

    def step(self, record: Mapping[str, Any]) -> None:
        """Write a record of losses and speed."""
        self.metrics.write(record)
        self._track(record, "train")

    def evaluation(self, record: Mapping[str, Any]) -> None:
        """Write a record of scores; trackers also get the sample images of its step."""
        self.evaluations.write(record)
        means = {name: scores["mean"] for name, scores in record["sets"].items()}
        self._track({"step": record["step"], **means}, "eval")
        if self._trackers is not None:
            self._trackers.log_images(self._read_samples(record["step"]), record["step"])

    def _track(self, record: Mapping[str, Any], prefix: str) -> None:
        if self._trackers is not None:
            self._trackers.log(dict(_leaves(record, prefix)), record["step"])

    def _read_samples(self, step: int) -> dict[str, np.ndarray]:
        """Return the sample images of an evaluation, `[H, W, 3]` in uint8; in step 0 also ground truth and bicubic."""
        names = {f"sr_{step:08d}.png": "sr"} | ({"hr.png": "hr", "bicubic.png": "bicubic"} if step == 0 else {})
        images = {}
        for path in sorted(self._samples.glob("*/*/*.png")):
            if kind := names.get(path.name):
                pixels = read_image(path).pixels
                label = f"samples/{path.parent.parent.name}/{path.parent.name}/{kind}"
                images[label] = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
        return images

    def close(self) -> None:
        """Finish the run in its trackers."""
        if self._trackers is not None:
            self._trackers.close()


def _leaves(tree: Mapping[str, Any], path: str) -> list[tuple[str, float]]:
    leaves: list[tuple[str, float]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            leaves += _leaves(value, f"{path}/{key}")
        elif isinstance(value, int | float) and key not in ("step", "epoch"):
            leaves.append((f"{path}/{key}", float(value)))
    return leaves
