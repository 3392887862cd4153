"""Find the images of the sets that a model is evaluated on, and name them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selfsr.errors import InputError
from selfsr.images.paths import find_root, is_image_list, list_images
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
        root: the folder or list that was named by the user; a folder may contain several sets.
    """

    folder: Path
    paths: list[Path]
    root: Path


def find_sets(data: Sequence[str]) -> dict[str, ImageSet]:
    """Read the option `--data`: each entry is `DIR` or `NAME=DIR`; a DIR with only subfolders is several sets.

    A list of images, `.txt`, stands for a folder with these images; it gives the set its name.

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
        if is_image_list(folder):
            paths = list_images(folder)
            found = {name or folder.stem: ImageSet(find_root(folder, paths), paths, folder)}
        else:
            found = _split_sets(folder, name)
        for key, image_set in found.items():
            if key in sets:
                raise InputError(
                    f"evaluate: expected sets of different names, got two called {key}; "
                    f"name one of them with --data NAME={folder}."
                )
            sets[key] = image_set
    return sets


def _split_sets(folder: Path, name: str) -> dict[str, ImageSet]:
    """Return the sets of a folder by name: the folder itself, or each of its subfolders if all images are in some."""
    paths = list_images(folder)
    if any(path.parent == folder for path in paths):
        return {name or Path(os.path.realpath(folder)).name: ImageSet(folder, paths, folder)}
    by_subfolder: dict[str, list[Path]] = {}
    for path in paths:
        by_subfolder.setdefault(path.relative_to(folder).parts[0], []).append(path)
    return {
        "/".join(filter(None, (name, subfolder))): ImageSet(folder / subfolder, images, folder)
        for subfolder, images in by_subfolder.items()
    }
