"""Remove folders of the machine from what goes into weights files, which are published."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from pydantic import BaseModel

from selfsr.nets.base import NETWORK_ENTRY
from selfsr.recipe.reading import order_kind_first
from selfsr.recipe.schema import Recipe
from selfsr.recipe.yaml12 import read_yaml, write_yaml

# Entries of the metadata of weights files that are saved here.
_ENTRIES = frozenset(
    (
        NETWORK_ENTRY, "architecture", "scale", "channels", "step", "selfsr", "recipe", "method", "scores",
        "training_data", "training_data_terms", "training_seconds", "training_device", "license",
    )
)  # fmt: skip
# A text with a path of Windows. Other backslashes are those of patterns.
_WINDOWS = re.compile(r"^(?:[A-Za-z]:[\\/]|\\\\)")


def hide_folders(value: Any) -> Any:
    """Return options as plain values in which every path keeps its last component only.

    A path is a value of the type `Path`, and any text with a slash or a drive. The home folder itself becomes `~`.

    Args:
        value: a recipe, a part of it, or what JSON can express.

    Returns:
        Values that JSON can express.

    Example:
        >>> from pathlib import Path
        >>> hide_folders({"hr": Path("/home/me/photos"), "start_from": "runs/a/best.safetensors", "steps": 5})
        {'hr': 'photos', 'start_from': 'best.safetensors', 'steps': 5}
    """
    if isinstance(value, BaseModel):
        texts = value.model_dump(mode="json")
        return {name: hide_folders(_keep_path(getattr(value, name), texts[name])) for name in texts}
    if isinstance(value, dict):
        return {key: hide_folders(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [hide_folders(entry) for entry in value]
    if isinstance(value, Path) or (isinstance(value, str) and ("/" in value or _WINDOWS.match(value))):
        return _take_last(str(value))
    return value


def hide_folders_in_json(text: str) -> str:
    """Return a JSON text in which every path keeps its last component only (see `hide_folders`)."""
    return json.dumps(hide_folders(json.loads(text)))


def dump_public_recipe(recipe: Recipe) -> str:
    """Return a recipe as YAML, with every default, and without the folders of this machine."""
    return write_yaml(order_kind_first(hide_folders(recipe)))


def hide_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the entries that this project writes into weights files, without the folders of a machine.

    Entries of other programs are left out, because they may contain anything.
    """
    entries = {key: text for key, text in metadata.items() if key in _ENTRIES}
    if NETWORK_ENTRY in entries:
        entries[NETWORK_ENTRY] = hide_folders_in_json(entries[NETWORK_ENTRY])
    if "recipe" in entries:
        entries["recipe"] = write_yaml(hide_folders(read_yaml(entries["recipe"], "recipe")))
    return entries


def _keep_path(value: Any, text: Any) -> Any:
    """Return a value of a model if it has parts or is a path, and else its form in JSON."""
    return value if isinstance(value, BaseModel | dict | list | tuple | Path) else text


def _take_last(text: str) -> str:
    if os.path.realpath(os.path.expanduser(text)) == os.path.realpath(os.path.expanduser("~")):
        return "~"
    path = PureWindowsPath(text) if _WINDOWS.match(text) else PurePosixPath(text)
    return path.name or "."
