"""Folders of two machines that have no files in common."""

import shutil
from pathlib import Path
from typing import Any

import yaml

from factories import make_tiny_recipe

# Checkpoints are written at 3, 6 and 8.
STEPS, SAVED_STEP = 8, 3


def make_machines(folder: Path, photos: Path) -> dict[str, Any]:
    """Make a folder for each machine, with a recipe and a copy of the photos; return the recipe."""
    recipe = {**make_tiny_recipe(photos), "steps": STEPS, "data": {"kind": "folder", "hr": "photos/train"}}
    recipe["evaluate"]["sets"] = {"test": "photos/test"}
    recipe["method"]["terms"] = {"pixel": {"kind": "l1"}}
    for rank in range(2):
        machine = folder / f"machine{rank}"
        shutil.copytree(photos, machine / "photos")
        (machine / "tiny.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    return recipe
