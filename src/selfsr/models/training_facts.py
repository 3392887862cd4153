"""The facts about the training of a model, from the metadata of its weights file and from its run folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from selfsr.errors import InputError
from selfsr.images.paths import find_root, list_images
from selfsr.nets.weights.load import read_metadata
from selfsr.recipe.private import hide_folders
from selfsr.recipe.yaml12 import read_yaml, write_yaml
from selfsr.runfolder.read import read_run_folders


@dataclass(frozen=True)
class TrainingFacts:
    """What is known about the training of a model; None or empty where it is not.

    Attributes:
        method: "regression", "gan" or another kind of method.
        steps: optimizer steps.
        batch: samples in an optimizer step.
        crop_px: side of the ground-truth crop, in pixels.
        degrades: whether a degradation makes LR during the training; None if unknown.
        dataset: name of the folder of the training images.
        dataset_size: number of training images.
        start_model: name of the file from which the training started.
        recipe: the complete recipe as YAML, without folders of the machine.
        seconds: time of the training.
        device: device of the training.
    """

    method: str = ""
    steps: int | None = None
    batch: int | None = None
    crop_px: int | None = None
    degrades: bool | None = None
    dataset: str = ""
    dataset_size: int | None = None
    start_model: str = ""
    recipe: str = ""
    seconds: float | None = None
    device: str = ""


def read_training_facts(weights: Path) -> TrainingFacts:
    """Return the facts from the metadata of a weights file, and from the run folder that contains it.

    Raises:
        InputError: the file is not a weights file.
        OSError: it cannot be read.
    """
    metadata = read_metadata(weights)
    run = weights.parent.parent if (weights.parent.parent / "recipe.yaml").is_file() else None
    recipe = _read_recipe(metadata.get("recipe", ""), str(weights))
    data, method = _section(recipe, "data"), _section(recipe, "method")
    parts = _list_parts(data)
    seconds = _number(metadata.get("training_seconds"))
    device = metadata.get("training_device", "")
    if run is not None:
        (folder,) = read_run_folders([run])
        seconds, device = folder.seconds, folder.environment.get("device", "")
    return TrainingFacts(
        method=str(method.get("kind", "")),
        steps=_integer(metadata.get("step")),
        batch=_integer(recipe.get("batch")),
        crop_px=_integer(recipe.get("crop_px")),
        degrades=any(part.get("degrade") is not None for part in parts) if parts else None,
        dataset=metadata.get("training_data") or ", ".join(_name_dataset(part.get("hr"), run) for part in parts),
        dataset_size=None if run is None else _count_files(run),
        start_model=_last(recipe.get("start_from")),
        recipe=write_yaml(recipe) if recipe else "",
        seconds=seconds,
        device=device,
    )


def _read_recipe(text: str, source: str) -> dict[str, Any]:
    """Return the recipe in the metadata, which may be that of an earlier version; {} if it is missing or broken."""
    try:
        recipe = read_yaml(text, source)
    except InputError:
        return {}
    return hide_folders(recipe) if isinstance(recipe, dict) else {}


def _section(recipe: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = recipe.get(name)
    return section if isinstance(section, dict) else {}


def _list_parts(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the folders of all sources; one entry without sources, none without data."""
    if data.get("kind") != "sources":
        return [data] if data else []
    return [_section(source, "data") for source in _section(data, "sources").values() if isinstance(source, dict)]


def _last(path: Any) -> str:
    """Return the last component of a path, or of each of several."""
    paths = path if isinstance(path, list) else [path]
    return ", ".join(PurePosixPath(one).name for one in paths if isinstance(one, str))


def _name_dataset(path: Any, run: Path | None) -> str:
    """Return the name of the folder of the training images; of a list, that of the folder that its images share."""
    name = _last(path)
    if run is None or not isinstance(path, str) or not name.endswith(".txt"):
        return name
    path = run / name  # the lists of a fine-tuning lie in its run folder
    try:
        return find_root(path, list_images(path)).name
    except (InputError, OSError):
        return name


def _integer(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number == int(number) else None


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


def _count_files(run: Path) -> int | None:
    """Return the number of training images from `data.json`; None if the run has not recorded it."""
    try:
        record = json.loads((run / "data.json").read_bytes())
        counts = [entry["files"] for key, entry in record.items() if key.rpartition(".")[2] == "hr"]
        files = sum(counts) if counts else None
    except (AttributeError, OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return files if isinstance(files, int) else None
