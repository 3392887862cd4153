"""Read a run folder, complete or not; missing and broken files become notes."""

import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfsr.errors import InputError
from selfsr.evaluation.metrics import METRICS
from selfsr.recipe.yaml12 import read_text, read_yaml

EXPECTED_ENTRIES = ("recipe.yaml", "metrics.jsonl", "eval.jsonl", "samples")
# The standard deviation over seeds that is white in its maps, for images in [0, 1].
SEED_STD_PEAK = 0.1
_NUMBERED = re.compile(r"(sr|pixel_weights|seed_std|stages)_(\d{1,18})\.png")
_SEEDED = re.compile(r"sr_(\d{1,18})_seed(\d{1,18})\.png")
# A recipe has some hundred values, a few levels deep. YAML's aliases can describe many more in a small file.
_MAX_VALUES, _MAX_DEPTH = 100_000, 50
_MAX_STEP = 2**53
_MAX_SECONDS = 1e12
_MAX_NUMBER = 1e300


@dataclass(frozen=True)
class SampleFiles:
    """The files of one sample image.

    Attributes:
        name: path of the folder below `samples/`.
        hr: the ground truth; None if it is missing.
        lr: the input of the network; None if it is missing.
        bicubic: the bicubic baseline; None if it is missing.
        sr: the outputs by step.
        pixel_weights: the self-paced weight maps by step (gray; 255 is the largest possible weight).
        seeds: the samples of several seeds, by step and seed.
        seed_std: their standard deviation by step (gray; 255 is `SEED_STD_PEAK`).
        stages: a square in each stage of sampling and in the ground truth, side by side, by step.
    """

    name: str
    hr: Path | None
    lr: Path | None
    bicubic: Path | None
    sr: dict[int, Path]
    pixel_weights: dict[int, Path]
    seeds: dict[int, dict[int, Path]]
    seed_std: dict[int, Path]
    stages: dict[int, Path]


@dataclass(frozen=True)
class RunFolder:
    """The contents of a run folder.

    Attributes:
        name: name of the folder, with parents if several runs have the same name.
        folder: its path.
        recipe: the resolved recipe; {} if it is missing or broken.
        recipe_text: the text of the recipe file.
        log: the lines of `metrics.jsonl`, in the order of steps.
        evaluations: the lines of `eval.jsonl`, in the order of steps.
        bicubic: scores of the bicubic baseline, in the form of an evaluation's `sets`.
        samples: the files of the sample images, by name.
        environment: versions and devices; {} if the run has not recorded them.
        notes: one sentence about each missing or broken file.
    """

    name: str
    folder: Path
    recipe: dict[str, Any]
    recipe_text: str
    log: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    bicubic: dict[str, Any]
    samples: dict[str, SampleFiles]
    environment: dict[str, str]
    notes: list[str]

    @property
    def step(self) -> int:
        """The last step in any file."""
        steps = [int(line["step"]) for line in (*self.log[-1:], *self.evaluations[-1:])]
        return max(steps + [step for sample in self.samples.values() for step in sample.sr], default=0)

    @property
    def steps_planned(self) -> int | None:
        """The number of steps in the recipe; None without a recipe."""
        steps = self.recipe.get("steps")
        return steps if isinstance(steps, int) else None

    @property
    def finished(self) -> bool:
        """Whether the run has reached the last step of its recipe."""
        return self.steps_planned is not None and self.step >= self.steps_planned

    @property
    def is_gan(self) -> bool:
        """Whether the recipe's method is a GAN."""
        method = self.recipe.get("method")
        return isinstance(method, dict) and method.get("kind") == "gan"

    @property
    def has_similarity_term(self) -> bool:
        """Whether the recipe trains with the self-similarity loss."""
        return any(node.get("kind") == "self_similarity" for node in _walk_mappings(self.recipe))

    @property
    def seconds(self) -> float | None:
        """Training time from the log, without evaluation and start; None without logged speeds."""
        points = self.elapsed_times()
        return points[-1][1] if points else None

    def elapsed_times(self) -> list[tuple[int, float]]:
        """Return `(step, seconds of training)` for every logged line with a speed."""
        points: list[tuple[int, float]] = []
        previous_step, seconds = 0, 0.0
        for line in self.log:
            speed = line.get("steps_per_s")
            if isinstance(speed, int | float) and math.isfinite(speed) and speed > 0:
                seconds = min(seconds + (line["step"] - previous_step) / speed, _MAX_SECONDS)
                points.append((line["step"], seconds))
            previous_step = line["step"]
        return points

    @property
    def is_fine_tune(self) -> bool:
        """Whether the network started from a weights file and was evaluated before the first step."""
        return isinstance(self.recipe.get("start_from"), str) and self.start_evaluation() is not None

    @property
    def has_combined_best_by(self) -> bool:
        """Whether several weighted scores choose the best evaluation, by their relative improvement."""
        evaluate = self.recipe.get("evaluate")
        best_by = evaluate.get("best_by") if isinstance(evaluate, dict) else None
        return isinstance(best_by, dict) and any(name in METRICS for name in best_by)

    @property
    def best_by(self) -> dict[str, float]:
        """The metrics that choose the best evaluation, on the first set, with their weights."""
        evaluate = self.recipe.get("evaluate")
        best_by = evaluate.get("best_by") if isinstance(evaluate, dict) else None
        if isinstance(best_by, dict):
            weights = {name: _number(weight) for name, weight in best_by.items() if name in METRICS}
            return {name: weight for name, weight in weights.items() if weight} or {"psnr_y": 1.0}
        return {best_by if isinstance(best_by, str) and best_by in METRICS else "psnr_y": 1.0}

    def start_evaluation(self) -> dict[str, Any] | None:
        """Return the evaluation of step 0; None without one."""
        return next((line for line in self.evaluations if line["step"] == 0), None)

    def best_evaluation(self) -> dict[str, Any] | None:
        """Return the evaluation of `weights/best`; step 0 counts only if there is no other. None without scores."""
        trained = [line for line in self.evaluations if line["step"] > 0] or self.evaluations
        metric = next(iter(self.best_by))
        scored = [(_number(line["score"]) if "score" in line else first_score(line, metric), line) for line in trained]
        scored = [(score, line) for score, line in scored if score is not None]
        choose = min if METRICS[metric].better == "lower" and not self.has_combined_best_by else max
        return choose(scored, key=lambda pair: pair[0])[1] if scored else None


def first_score(evaluation: dict[str, Any], metric: str) -> float | None:
    """Return the mean of a metric over the first set of an evaluation; None if it is missing."""
    scores = next(iter(evaluation["sets"].values()))
    return _number(scores.get("mean", {}).get(metric))


def _number(value: Any) -> float | None:
    """Return a finite number, or None for anything else that a broken file may have."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MAX_NUMBER
    return float(value) if is_number else None


def read_run_folders(folders: list[Path]) -> list[RunFolder]:
    """Read run folders and give each run a different name.

    Raises:
        InputError: a folder is missing or has none of the files of a run.
    """
    return [_read_run(folder, name) for folder, name in zip(folders, _choose_names(folders), strict=True)]


def _choose_names(folders: list[Path]) -> list[str]:
    """Name each folder by the fewest last parts of its path that make all names different."""
    parts = [Path(os.path.realpath(folder)).parts for folder in folders]
    depth = 1
    while len({p[-depth:] for p in parts}) < len(set(parts)):
        depth += 1
    return ["/".join(p[-depth:]).strip("/") for p in parts]


def _read_run(folder: Path, name: str) -> RunFolder:
    if not any((folder / entry).exists() for entry in EXPECTED_ENTRIES):
        state = "which has none of these" if folder.is_dir() else "which is not a folder"
        raise InputError(
            f"report: expected a run folder with {', '.join(EXPECTED_ENTRIES[:-1])} or {EXPECTED_ENTRIES[-1]}/, "
            f"got {folder}, {state}; pass a folder made by selfsr train."
        )
    notes: list[str] = []
    recipe, text = _read_recipe(folder / "recipe.yaml", notes)
    log = _read_jsonl(folder / "metrics.jsonl", notes)
    evaluations = _read_jsonl(folder / "eval.jsonl", notes)
    bicubic = next((scores for line in evaluations if (scores := _keep_scores(line.get("bicubic")))), {})
    evaluations = [{**line, "sets": sets} for line in evaluations if (sets := _keep_scores(line.get("sets")))]
    if not evaluations and (folder / "eval.jsonl").exists():
        notes.append("eval.jsonl has no evaluation of the network yet.")
    elif evaluations and not bicubic:
        notes.append("eval.jsonl has no bicubic baseline, so gains are not shown.")
    samples = _read_samples(folder / "samples")
    if not any(sample.sr for sample in samples.values()):
        notes.append("There are no sample images yet, so comparisons, weight maps and graphs are not shown.")
    environment = _read_environment(folder, notes)
    return RunFolder(name, folder, recipe, text, log, evaluations, bicubic, samples, environment, notes)


def _read_recipe(path: Path, notes: list[str]) -> tuple[dict[str, Any], str]:
    if not path.exists():
        notes.append("recipe.yaml is missing: network, scale and planned steps are unknown.")
        return {}, ""
    text = ""
    try:
        text = read_text(path)
        recipe = read_yaml(text, path.name)
    except (InputError, OSError):
        recipe = None
    if not isinstance(recipe, dict) or not _is_small(recipe):
        notes.append("recipe.yaml is not readable as YAML: network, scale and planned steps are unknown.")
        return {}, text
    return recipe, text


def _is_small(tree: Any) -> bool:
    """Return whether nested mappings and lists have a usual number of values, each counted as often as it is shown."""
    remaining, values = [(tree, 0)], 0
    while remaining:
        node, depth = remaining.pop()
        values += 1
        if values > _MAX_VALUES or depth > _MAX_DEPTH:
            return False
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        remaining += [(child, depth + 1) for child in children]
    return True


def _keep_scores(sets: Any) -> dict[str, Any]:
    """Return the sets of an evaluation that have the form of scores: `mean`, and optionally `images` by name."""
    if not isinstance(sets, dict):
        return {}
    kept = {}
    for name, scores in sets.items():
        if isinstance(scores, dict) and isinstance(scores.get("mean", {}), dict):
            images = scores.get("images", {})
            rows = (
                {key: row for key, row in images.items() if isinstance(row, dict)} if isinstance(images, dict) else {}
            )
            kept[name] = {**scores, "images": rows}
    return kept


def _read_jsonl(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """Return the complete lines with a step, in the order of steps.

    If a resumed run has repeated a step, the later line counts, and the lines after the earlier one are dropped.
    """
    if not path.exists():
        notes.append(f"{path.name} is missing.")
        return []
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        notes.append(f"{path.name} cannot be read: {error.strerror or error}.")
        return []
    kept: list[dict[str, Any]] = []
    broken: list[int] = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError):
            broken.append(number)
            continue
        if record is None:
            continue
        step = record.get("step") if isinstance(record, dict) else None
        if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step < _MAX_STEP or not _is_small(record):
            broken.append(number)
            continue
        while kept and kept[-1]["step"] > record["step"]:
            kept.pop()
        # The baseline and the first evaluation can have the same step. Then they are merged.
        same_step = kept.pop() if kept and kept[-1]["step"] == record["step"] else {}
        kept.append({**same_step, **record})
    if broken == [len(lines)]:
        notes.append(f"The last line of {path.name} is incomplete and left out; the run was probably killed.")
    elif broken:
        noun = "line" if len(broken) == 1 else "lines"
        shown = ", ".join(map(str, broken[:5])) + (", ..." if len(broken) > 5 else "")
        notes.append(f"{path.name}: unreadable {noun} left out: {shown}.")
    elif not kept:
        notes.append(f"{path.name} is empty.")
    return kept


def _read_samples(folder: Path) -> dict[str, SampleFiles]:
    """Return the samples by their paths below `folder`; those of images in subfolders are in subfolders as well."""
    samples = {}
    for root, subfolders, names in os.walk(folder):
        subfolders.sort()
        sample = Path(root)
        numbered: dict[str, dict[int, Path]] = {"sr": {}, "pixel_weights": {}, "seed_std": {}, "stages": {}}
        seeds: dict[int, dict[int, Path]] = {}
        for name in names:
            if match := _NUMBERED.fullmatch(name):
                numbered[match[1]][int(match[2])] = sample / name
            elif match := _SEEDED.fullmatch(name):
                seeds.setdefault(int(match[1]), {})[int(match[2])] = sample / name
        if sample == folder or not (any(numbered.values()) or "hr.png" in names):
            continue
        key = sample.relative_to(folder).as_posix()
        samples[key] = SampleFiles(
            key,
            _none_if_missing(sample / "hr.png"),
            _none_if_missing(sample / "lr.png"),
            _none_if_missing(sample / "bicubic.png"),
            dict(sorted(numbered["sr"].items())),
            dict(sorted(numbered["pixel_weights"].items())),
            {step: dict(sorted(paths.items())) for step, paths in sorted(seeds.items())},
            dict(sorted(numbered["seed_std"].items())),
            dict(sorted(numbered["stages"].items())),
        )
    return samples


def _none_if_missing(path: Path) -> Path | None:
    return path if path.is_file() else None


def _read_environment(folder: Path, notes: list[str]) -> dict[str, str]:
    path = folder / "environment.json"
    if not path.exists():
        return {}
    try:
        environment = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        environment = None
    if not isinstance(environment, dict):
        notes.append("environment.json is not readable as JSON: versions and devices are unknown.")
        return {}
    return dict(flatten(environment))


def flatten(tree: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the leaves of nested mappings and lists as `("a.b.0", "value")`."""
    if isinstance(tree, dict | list) and tree:
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for key, value in items:
            yield from flatten(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, "none" if tree is None else str(tree)


def _walk_mappings(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield every mapping in nested mappings and lists."""
    if isinstance(tree, dict):
        yield tree
    for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _walk_mappings(value)
