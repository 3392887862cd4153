"""Read a run folder, whole or not: what a run left behind, and in words what it did not."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from selfsr.errors import InputError
from selfsr.evaluation.metrics import METRICS

LOOKED_FOR = ("recipe.yaml", "metrics.jsonl", "eval.jsonl", "samples")
_NUMBERED = re.compile(r"(sr|attention)_(\d+)\.png")


@dataclass(frozen=True)
class Sample:
    """The files of one sample picture, each None or missing if it is not there.

    Attributes:
        name: the folder's name.
        hr: the ground truth.
        bicubic: the bicubic baseline.
        sr: the output by step.
        attention: the self-paced weight map by step (gray, 255 is the largest weight of the schedule).
    """

    name: str
    hr: Path | None
    bicubic: Path | None
    sr: dict[int, Path]
    attention: dict[int, Path]


@dataclass(frozen=True)
class Run:
    """What a run folder holds.

    Attributes:
        name: the folder's name, or more of its path where two runs share it.
        folder: where it is.
        recipe: the resolved recipe, {} if it is missing or broken.
        recipe_text: the file as written.
        log: the lines of `metrics.jsonl`, steps rising.
        evaluations: the lines of `eval.jsonl`, steps rising.
        bicubic: scores of the bicubic baseline, shaped like an evaluation's `sets`.
        samples: the sample pictures by name.
        environment: versions and devices, if the run wrote them down.
        notes: one sentence for each thing that is missing or broken.
    """

    name: str
    folder: Path
    recipe: dict[str, Any]
    recipe_text: str
    log: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    bicubic: dict[str, Any]
    samples: dict[str, Sample]
    environment: dict[str, str]
    notes: list[str]

    @property
    def step(self) -> int:
        """The last step that any file speaks of."""
        steps = [int(line["step"]) for line in (*self.log[-1:], *self.evaluations[-1:])]
        return max(steps + [step for sample in self.samples.values() for step in sample.sr], default=0)

    @property
    def steps_planned(self) -> int | None:
        """How many steps the recipe asks for."""
        steps = self.recipe.get("steps")
        return steps if isinstance(steps, int) else None

    @property
    def finished(self) -> bool:
        """Whether the run took every step of its recipe."""
        return self.steps_planned is not None and self.step >= self.steps_planned

    @property
    def is_gan(self) -> bool:
        """Whether the recipe trains against discriminators."""
        method = self.recipe.get("method")
        return isinstance(method, dict) and method.get("kind") == "gan"

    @property
    def has_similarity_term(self) -> bool:
        """Whether the recipe trains with the self-similarity loss."""
        return any(node.get("kind") == "self_similarity" for node in _mappings(self.recipe))

    @property
    def seconds(self) -> float | None:
        """Time spent in steps, summed over the log (evaluation and start-up are not in it)."""
        points = self.clock()
        return points[-1][1] if points else None

    def clock(self) -> list[tuple[int, float]]:
        """Return (step, seconds since the start) for every logged line with a speed."""
        points: list[tuple[int, float]] = []
        step_before, seconds = 0, 0.0
        for line in self.log:
            speed = line.get("steps_per_s")
            if isinstance(speed, int | float) and math.isfinite(speed) and speed > 0:
                seconds += (line["step"] - step_before) / speed
                points.append((line["step"], seconds))
            step_before = line["step"]
        return points

    @property
    def best_by(self) -> str:
        """The metric, on the first set, that chooses the best evaluation: the recipe's own choice."""
        evaluate = self.recipe.get("evaluate")
        chosen = evaluate.get("best_by") if isinstance(evaluate, dict) else None
        return chosen if chosen in METRICS else "psnr_y"

    def best(self) -> dict[str, Any] | None:
        """Return the evaluation that gave `weights/best`; the untrained network counts only if it is all there is."""
        trained = [line for line in self.evaluations if line["step"] > 0] or self.evaluations
        scored = [(line.get("score", first_score(line, self.best_by)), line) for line in trained]
        scored = [(score, line) for score, line in scored if score is not None]
        choose = min if METRICS[self.best_by].better == "lower" else max
        return choose(scored, key=lambda pair: pair[0])[1] if scored else None


def first_score(evaluation: dict[str, Any], metric: str) -> float | None:
    """Return the mean of a metric over the first set of an evaluation, None where it has none."""
    scores = next(iter(evaluation["sets"].values()))
    value = scores.get("mean", {}).get(metric)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def read_runs(folders: list[Path]) -> list[Run]:
    """Read run folders and give each run a name of its own.

    Raises:
        InputError: a folder is missing, or holds nothing that a run writes.
    """
    return [_read_run(folder, name) for folder, name in zip(folders, _names(folders), strict=True)]


def _names(folders: list[Path]) -> list[str]:
    """Name each folder by as few of its last path parts as tell them all apart."""
    parts = [folder.resolve().parts for folder in folders]
    depth = 1
    while len({p[-depth:] for p in parts}) < len(set(parts)):
        depth += 1
    return ["/".join(p[-depth:]).strip("/") for p in parts]


def _read_run(folder: Path, name: str) -> Run:
    if not any((folder / entry).exists() for entry in LOOKED_FOR):
        state = "holds none of these" if folder.is_dir() else "is not a folder"
        raise InputError(
            f"report: expected a run folder with {', '.join(LOOKED_FOR[:-1])} or {LOOKED_FOR[-1]}/, but {folder} "
            f"{state}; name a folder that selfsr train made."
        )
    notes: list[str] = []
    recipe, text = _read_recipe(folder / "recipe.yaml", notes)
    log = _read_jsonl(folder / "metrics.jsonl", notes)
    evaluations = _read_jsonl(folder / "eval.jsonl", notes)
    bicubic = next((line["bicubic"] for line in evaluations if isinstance(line.get("bicubic"), dict)), {})
    evaluations = [line for line in evaluations if isinstance(line.get("sets"), dict) and line["sets"]]
    if not evaluations and (folder / "eval.jsonl").exists():
        notes.append("eval.jsonl holds no evaluation of the network yet.")
    elif evaluations and not bicubic:
        notes.append("eval.jsonl holds no bicubic baseline: gains are not shown.")
    samples = _read_samples(folder / "samples")
    if not any(sample.sr for sample in samples.values()):
        notes.append("There are no sample pictures yet: no comparison, attention map or graph is shown.")
    return Run(name, folder, recipe, text, log, evaluations, bicubic, samples, _read_environment(folder), notes)


def _read_recipe(path: Path, notes: list[str]) -> tuple[dict[str, Any], str]:
    if not path.exists():
        notes.append("recipe.yaml is missing: network, scale and planned steps are unknown.")
        return {}, ""
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        recipe = yaml.safe_load(text)
    except yaml.YAMLError:
        recipe = None
    if not isinstance(recipe, dict):
        notes.append("recipe.yaml is not readable as YAML: network, scale and planned steps are unknown.")
        return {}, text
    return recipe, text


def _read_jsonl(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """Return the whole lines that have a step, steps rising.

    Where a resumed run wrote a step again, the later line counts and what had followed the earlier is dropped.
    """
    if not path.exists():
        notes.append(f"{path.name} is missing.")
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    kept: list[dict[str, Any]] = []
    broken: list[int] = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line) if line.strip() else None
        except json.JSONDecodeError:
            broken.append(number)
            continue
        if record is None:
            continue
        if not isinstance(record, dict) or not isinstance(record.get("step"), int):
            broken.append(number)
            continue
        while kept and kept[-1]["step"] > record["step"]:
            kept.pop()
        # The baseline and the first evaluation may share a step: what the later line lacks stays.
        same_step = kept.pop() if kept and kept[-1]["step"] == record["step"] else {}
        kept.append({**same_step, **record})
    if broken == [len(lines)]:
        notes.append(f"The last line of {path.name} is incomplete, as a killed run leaves it; it is left out.")
    elif broken:
        noun = "line" if len(broken) == 1 else "lines"
        shown = ", ".join(map(str, broken[:5])) + (", ..." if len(broken) > 5 else "")
        notes.append(f"{path.name} has unreadable {noun} ({shown}), left out.")
    elif not kept:
        notes.append(f"{path.name} is empty.")
    return kept


def _read_samples(folder: Path) -> dict[str, Sample]:
    samples = {}
    for place in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not place.is_dir():
            continue
        numbered: dict[str, dict[int, Path]] = {"sr": {}, "attention": {}}
        for path in place.iterdir():
            if match := _NUMBERED.fullmatch(path.name):
                numbered[match[1]][int(match[2])] = path
        samples[place.name] = Sample(
            place.name,
            _existing(place / "hr.png"),
            _existing(place / "bicubic.png"),
            dict(sorted(numbered["sr"].items())),
            dict(sorted(numbered["attention"].items())),
        )
    return samples


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


def _read_environment(folder: Path) -> dict[str, str]:
    path = folder / "environment.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return dict(flatten(found)) if isinstance(found, dict) else {}


def flatten(tree: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the leaves of nested mappings and lists as ("a.b.0", "value")."""
    if isinstance(tree, dict | list) and tree:
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for key, value in items:
            yield from flatten(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, "none" if tree is None else str(tree)


def _mappings(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield every mapping in nested mappings and lists."""
    if isinstance(tree, dict):
        yield tree
    for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _mappings(value)
