"""List the images of a folder, and describe a path that does not exist."""

import difflib
import os
from collections.abc import Iterator
from pathlib import Path

from selfsr.errors import InputError
from selfsr.images.decode import FORMATS

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")


def list_images(folder: Path) -> list[Path]:
    """List the image files in a folder and its subfolders, sorted by path; hidden files and folders are left out.

    Raises:
        InputError: the folder is missing, is a file, or contains no image.
    """
    if not folder.is_dir():
        if folder.exists():
            raise InputError(f"{folder}: expected a folder of images, got a file; name the folder that contains it.")
        raise missing_path_error(folder, "a folder of images")
    images = sorted(path for path in _walk_files(folder) if path.suffix.lower() in SUFFIXES)
    if not images:
        suffixes = sorted({path.suffix for path in _walk_files(folder) if path.suffix})[:5]
        got = f"only other files ({', '.join(suffixes)})" if suffixes else "none"
        raise InputError(f"{folder}: expected images ({FORMATS}), got {got}; name a folder that contains some.")
    return images


def missing_path_error(path: Path, expected: str) -> InputError:
    """Return the error for a path that does not exist, or is a folder; proposes the most similar existing name.

    Args:
        path: the missing path.
        expected: what was expected there, with its article, such as "an image".
    """
    if path.is_dir():
        return InputError(f"{path}: expected {expected}, got a folder; name a file.")
    lost, parent = path.name, path.parent
    while not parent.is_dir() and parent != parent.parent:
        lost, parent = parent.name, parent.parent
    try:
        names = os.listdir(parent)
    except OSError:
        names = []
    close = difflib.get_close_matches(lost, names, n=1, cutoff=0.6)
    hint = f"did you mean {parent / close[0]}?" if close else f"check the path; {parent.resolve()} has no {lost}."
    return InputError(f"{path}: expected {expected}, got a path that does not exist; {hint}")


def _walk_files(folder: Path) -> Iterator[Path]:
    seen = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root, name) for name in names if not name.startswith("."))
