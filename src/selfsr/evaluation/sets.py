"""Find the images of the sets that a model is evaluated on, and name them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selfsr.errors import InputError
from selfsr.images.paths import list_images
from selfsr.spec import expand_home


def name_images(paths: Sequence[Path]) -> list[str]:
    """Name each image by its file name without type; if two are equal, all by their paths below a common folder."""
    stems = [path.stem for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    common = os.path.commonpath([path.absolute().parent for path in paths])
    return [path.absolute().relative_to(common).as_posix() for path in paths]


@dataclass(frozen=True)
class ImageSet:
    """The HR images of one set.

    Attributes:
        folder: the folder that contains them.
        paths: the images.
        root: the folder that was named by the user; it may contain several sets.
    """

    folder: Path
    paths: list[Path]
    root: Path


def find_sets(data: Sequence[str]) -> dict[str, ImageSet]:
    """Read the option `--data`: each entry is `DIR` or `NAME=DIR`; a DIR with only subfolders is several sets.

    Returns:
        The sets by name.

    Raises:
        InputError: a folder is missing or empty, or two sets have one name, or a name leads out of a folder.
    """
    sets: dict[str, ImageSet] = {}
    for entry in data:
        name, equals, rest = entry.partition("=")
        if not equals or Path(entry).is_dir():
            name, rest = "", entry
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(f"evaluate: expected a plain name in --data NAME=DIR, got {name}; use another name.")
        folder = expand_home(Path(rest))
        for subfolder, paths in _split_sets(folder).items():
            key = "/".join(filter(None, (name, subfolder))) or Path(os.path.realpath(folder)).name
            if key in sets:
                raise InputError(
                    f"evaluate: expected sets of different names, got two called {key}; "
                    f"name one of them with --data NAME={folder}."
                )
            sets[key] = ImageSet(folder / subfolder, paths, folder)
    return sets


def _split_sets(folder: Path) -> dict[str, list[Path]]:
    """Return the images by the subfolder that is their set; "" is the folder itself."""
    paths = list_images(folder)
    if any(path.parent == folder for path in paths):
        return {"": paths}
    by_subfolder: dict[str, list[Path]] = {}
    for path in paths:
        by_subfolder.setdefault(path.relative_to(folder).parts[0], []).append(path)
    return by_subfolder
