"""Paths of images: which files are images, listing a folder, and the error for a path that does not exist."""

import difflib
import os
from collections.abc import Iterator
from pathlib import Path

from selfsr.errors import InputError
from selfsr.images.decode import KINDS

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")


def list_pictures(folder: Path) -> list[Path]:
    """Return the picture files below `folder`, sorted by path; hidden files and folders are passed over.

    Raises:
        InputError: the folder is missing, is a file, or holds no picture.
    """
    if not folder.is_dir():
        if folder.exists():
            raise InputError(f"{folder}: expected a folder of pictures, got a file; name the folder it lies in.")
        raise missing(folder, "a folder of pictures")
    found = sorted(p for p in _files_below(folder) if p.suffix.lower() in SUFFIXES)
    if not found:
        others = sorted({p.suffix for p in _files_below(folder) if p.suffix})[:5]
        came = f"only files of other kinds ({', '.join(others)})" if others else "none"
        raise InputError(f"{folder}: expected pictures ({KINDS}), got {came}; name a folder that holds some.")
    return found


def missing(path: Path, what: str) -> InputError:
    """Return the error for a path that is not there, with the nearest name that is."""
    if path.is_dir():
        return InputError(f"{path}: expected {what}, got a folder; name a file.")
    lost, parent = path.name, path.parent
    while not parent.is_dir() and parent != parent.parent:
        lost, parent = parent.name, parent.parent
    try:
        names = os.listdir(parent)
    except OSError:
        names = []
    close = difflib.get_close_matches(lost, names, n=1, cutoff=0.6)
    hint = f"did you mean {parent / close[0]}?" if close else f"check the path; {parent.resolve()} has no {lost}."
    return InputError(f"{path}: expected {what}, but there is nothing of this name; {hint}")


def _files_below(folder: Path) -> Iterator[Path]:
    seen = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root, name) for name in names if not name.startswith("."))
