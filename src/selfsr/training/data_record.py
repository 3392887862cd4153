"""Record the training files at the start of a run, and report changes when it resumes."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selfsr.console import print_line
from selfsr.data.datasets import Dataset
from selfsr.data.sources import MixedDataset
from selfsr.fileio import write_atomic
from selfsr.images.paths import sort_key

_NAME = "data.json"


def record_data(folder: Path, datasets: Sequence[Dataset | MixedDataset], *, resume: bool) -> None:
    """Write `data.json` at the start of a run; when it resumes, report on stderr whether files have changed since.

    A run resumes bit for bit only with the same files. The record has their number and a digest of names and sizes.

    Args:
        folder: the run folder.
        datasets: the datasets of the run, one for each scale.
        resume: compare with the record of the start.
    """
    path = folder / _NAME
    record = describe_data(datasets)
    started = _read(path) if resume else None
    if started is None:
        write_atomic(path, json.dumps(record, indent=2) + "\n")
        return
    for key in sorted({*started, *record}):
        then, now = started.get(key), record.get(key)
        if then != now:
            print_line(
                f"data.{key}: expected the files of the start of the run, got {describe_change(then, now)}; the run "
                "continues, but differs from one without a stop. Restore the files to continue bit for bit."
            )


def describe_data(datasets: Sequence[Dataset | MixedDataset]) -> dict[str, Any]:
    """Return number and digest of the files by the key of the recipe; LR has one for each scale."""
    record = {}
    for dataset in datasets:
        for key, paths in dataset.files().items():
            name = f"{key} x{dataset.scale}" if key.rpartition(".")[2] == "lr" and len(datasets) > 1 else key
            store = dataset.stores.get(key)
            record[name] = describe_files(paths, None if store is None else store.file_bytes)
    return record


def describe_files(paths: Sequence[Path], file_bytes: np.ndarray | None = None) -> dict[str, Any]:
    """Return the number of some files, and a digest of their names and sizes.

    Args:
        paths: the files.
        file_bytes: their sizes, `[n]`; None reads them.
    """
    sizes = map(_read_bytes, paths) if file_bytes is None else file_bytes.tolist()
    return {"files": len(paths), "digest": _digest(list(zip(map(str, paths), sizes, strict=True)))}


def _digest(files: list[tuple[str, int]]) -> str:
    """Return a digest of names, below the folder that all files share, and sizes in bytes."""
    files = sorted(files, key=lambda file: sort_key(file[0]))
    folders = {name[: name.rfind(os.sep) + 1] for name, _ in files}
    shared = os.path.commonpath(folders) if all(folders) else ""
    start = len(os.path.join(shared, ""))
    return hashlib.sha256(os.fsencode("".join([f"{name[start:]}\0{size}\0" for name, size in files]))).hexdigest()


def _read_bytes(path: Path) -> int:
    """Return the size of a file; -1 if it was removed since it was listed."""
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _read(path: Path) -> dict[str, Any] | None:
    """Return the record of the start; None if it is missing or broken."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def describe_change(then: Any, now: Any) -> str:
    """Return how a record of files differs from an earlier or another one; None is no files."""
    before = then.get("files") if isinstance(then, dict) else 0
    after = now["files"] if now else 0
    return f"{after} instead of {before}" if before != after else f"{after} of which names or sizes differ"
