"""The index of a cache on disk: what is known of each file, and where its decoded array lies, kept between runs."""

import contextlib
import hashlib
import io
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from selfsr.console import print_line
from selfsr.fileio import write_atomic

# Increase it when the index or the arrays are written in another way; older caches are then filled again.
_FORMAT = 1
# Arrays begin at multiples of this; the first bytes are the mark of `DiskArrays`.
ALIGNMENT = 64
_ARRAYS_NAME = re.compile(r"arrays-[0-9a-f]{16}\.bin")
_THREADS = 8

# Height, width and a third number of a file, such as bits; they determine the size of its array.
Facts = tuple[int, int, int]


@dataclass(frozen=True)
class CacheFolder:
    """Where caches are kept on disk.

    Attributes:
        path: the folder, shared by all runs and all sets of images.
    """

    path: Path


@dataclass(frozen=True)
class IndexedFiles:
    """Files that the index knows, in the order in which they were asked for.

    Attributes:
        arrays: the file with the decoded arrays.
        file_bytes: int64 `[n]`, the sizes of the files themselves.
        facts: int32 `[n, 3]`.
        offsets: int64 `[n]`, the first byte of each array with its mark.
        tags: uint64 `[n]`; an array belongs to its file if its mark has this number.
        end: size of `arrays` in bytes.
    """

    arrays: Path
    file_bytes: np.ndarray
    facts: np.ndarray
    offsets: np.ndarray
    tags: np.ndarray
    end: int


@dataclass
class _Table:
    """The content of an index file; its arrays have a row for each file."""

    arrays: str
    names: list[bytes]
    stats: np.ndarray
    facts: np.ndarray
    offsets: np.ndarray
    tags: np.ndarray

    @classmethod
    def start(cls) -> "_Table":
        empty = np.empty(0, np.int64)
        name = f"arrays-{os.urandom(8).hex()}.bin"
        return cls(name, [], empty.reshape(0, 2), np.empty((0, 3), np.int32), empty, np.empty(0, np.uint64))

    def take(self, rows: np.ndarray) -> "_Table":
        names = [self.names[row] for row in rows.tolist()]
        return _Table(self.arrays, names, self.stats[rows], self.facts[rows], self.offsets[rows], self.tags[rows])


def index_files(
    folder: CacheFolder,
    key: str,
    paths: Sequence[Path],
    describe: Callable[[Path], Facts],
    count_bytes: Callable[[np.ndarray], np.ndarray],
) -> IndexedFiles:
    """Return what is known of files; only those that are new or changed since the last time are read.

    A file is known by its path below the folder that all files share, its size and its time of change. Processes that
    ask at the same time wait for each other, so that each file is read once.

    Args:
        folder: where caches are kept.
        key: the key of the recipe, such as "data.hr", for messages and to keep kinds of arrays apart.
        paths: the files.
        describe: reads the facts of a file.
        count_bytes: returns the size of arrays int64 `[n]` from facts `[n, 3]`.

    Raises:
        InputError: a new file cannot be used.
        OSError: a file cannot be read, or the folder of the cache not written.
    """
    root, names = _name_files(paths)
    digest = hashlib.sha256(os.fsencode(f"{key}\0{root}")).hexdigest()[:16]
    place = folder.path / f"{root.name or 'root'}-{key.rpartition('.')[2]}-{digest}"
    place.mkdir(parents=True, exist_ok=True)
    stats = _read_stats(paths)
    with _locked(place / "lock"):
        table = _load(place / "index.npz", key)
        rows = _find_rows(table, names, stats)
        if (rows < 0).any() or not (place / table.arrays).exists():
            table, rows = _update(table, names, stats, rows, paths, describe, count_bytes, root)
            _write(place, table, count_bytes)
        end = _find_end(table, count_bytes)
        _check_length(place / table.arrays, end, key)
    return IndexedFiles(
        place / table.arrays, stats[:, 0], table.facts[rows], table.offsets[rows], table.tags[rows], end
    )


def _name_files(paths: Sequence[Path]) -> tuple[Path, list[bytes]]:
    """Return the folder that all files share, and their names below it."""
    texts = list(map(str, paths))
    pairs = [(text[: (cut := text.rfind(os.sep) + 1)], text[cut:]) for text in texts]
    folders = {folder: os.path.abspath(folder) for folder in {folder for folder, _ in pairs}}
    root = os.path.commonpath(folders.values())
    start = len(os.path.join(root, ""))
    prefixes = {folder: os.path.join(absolute, "")[start:] for folder, absolute in folders.items()}
    # One call encodes all names in a tenth of the time of a call for each.
    return Path(root), os.fsencode("\0".join([prefixes[folder] + name for folder, name in pairs])).split(b"\0")


def _read_stats(paths: Sequence[Path]) -> np.ndarray:
    """Return size and time of the last change of each file, int64 `[n, 2]`, in bytes and nanoseconds.

    A copy that keeps the time of the original has another time of its own, that of its status.
    """

    def read(part: Sequence[Path]) -> list[tuple[int, int]]:
        stats = [os.stat(path) for path in part]
        return [(stat.st_size, max(stat.st_mtime_ns, stat.st_ctime_ns)) for stat in stats]

    # A round trip on a network drive for each file; a thread for each would cost more than the system call.
    step = -(-len(paths) // _THREADS)
    with ThreadPoolExecutor(_THREADS) as pool:
        parts = pool.map(read, [paths[start : start + step] for start in range(0, len(paths), step)])
        return np.array([pair for part in parts for pair in part], np.int64).reshape(-1, 2)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait until no other process has the lock; where the system has no locks, nothing is waited for."""
    with path.open("ab") as file:
        with contextlib.suppress(ImportError, OSError):  # Windows, and some network drives
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _load(path: Path, key: str) -> _Table:
    if not path.exists():
        return _Table.start()
    table, is_valid = _Table.start(), False
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            names = bytes(file["names"]).split(b"\0")[:-1]
            table = _Table(str(file["arrays"]), names, *(file[name] for name in ("stats", "facts", "offsets", "tags")))
            is_valid = int(file["format"]) == _FORMAT and _is_consistent(table)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        pass
    if not is_valid:
        print_line(f"{key}: expected the index of a cache in {path}, got another file; the cache is filled again.")
        return _Table.start()
    return table


def _is_consistent(table: _Table) -> bool:
    count = len(table.names)
    shapes = {"stats": (count, 2), "facts": (count, 3), "offsets": (count,), "tags": (count,)}
    kinds = {"stats": np.int64, "facts": np.int32, "offsets": np.int64, "tags": np.uint64}
    return _ARRAYS_NAME.fullmatch(table.arrays) is not None and all(
        getattr(table, name).shape == shape and getattr(table, name).dtype == kinds[name]
        for name, shape in shapes.items()
    )


def _find_rows(table: _Table, names: list[bytes], stats: np.ndarray) -> np.ndarray:
    """Return the row of each file that is unchanged, -1 for the others."""
    if names == table.names:
        rows = np.arange(len(names))
    else:
        known = {name: row for row, name in enumerate(table.names)}
        rows = np.array([known.get(name, -1) for name in names], np.int64)
    if not len(table.names):
        return rows
    return np.where((rows >= 0) & (table.stats[rows] == stats).all(axis=1), rows, -1)


def _update(
    table: _Table,
    names: list[bytes],
    stats: np.ndarray,
    rows: np.ndarray,
    paths: Sequence[Path],
    describe: Callable[[Path], Facts],
    count_bytes: Callable[[np.ndarray], np.ndarray],
    root: Path,
) -> tuple[_Table, np.ndarray]:
    """Return a table with all files, and their rows."""
    new: list[int] = np.flatnonzero(rows < 0).tolist()
    with ThreadPoolExecutor(_THREADS) as pool:
        facts = list(pool.map(describe, [paths[i] for i in new]))
    new_facts = np.array(facts, np.int32).reshape(-1, 3)
    asked, folder = set(names), os.fsencode(root)
    others = [i for i, name in enumerate(table.names) if name not in asked and os.path.exists(folder + b"/" + name)]
    kept = table.take(np.concatenate([rows[rows >= 0], np.array(others, np.int64)]))
    start = _find_end(table, count_bytes)
    used = int(_align(count_bytes(np.concatenate([kept.facts, new_facts]))).sum())
    sizes = _align(count_bytes(new_facts))
    if start + int(sizes.sum()) > 2 * used:  # most of the file is of images that changed or are gone
        kept, start = _Table.start(), 0
        new = list(range(len(names)))
        new_facts = _join_facts(table, rows, new_facts)
        sizes = _align(count_bytes(new_facts))
    offsets = start + np.concatenate(([0], np.cumsum(sizes)[:-1])) if len(sizes) else np.empty(0, np.int64)
    tags = np.frombuffer(os.urandom(8 * len(new)), np.uint64)
    merged = _Table(
        kept.arrays,
        kept.names + [names[i] for i in new],
        np.concatenate([kept.stats, stats[new]]),
        np.concatenate([kept.facts, new_facts]),
        np.concatenate([kept.offsets, offsets.astype(np.int64)]),
        np.concatenate([kept.tags, tags]),
    )
    known = {name: row for row, name in enumerate(merged.names)}
    return merged, np.array([known[name] for name in names], np.int64)


def _join_facts(table: _Table, rows: np.ndarray, new_facts: np.ndarray) -> np.ndarray:
    """Return the facts of all files in order: known ones from the table, others from `new_facts`."""
    facts = np.empty((len(rows), 3), np.int32)
    facts[rows >= 0] = table.facts[rows[rows >= 0]]
    facts[rows < 0] = new_facts
    return facts


def _align(sizes: np.ndarray) -> np.ndarray:
    """Return the bytes that arrays take with their marks."""
    return ALIGNMENT + -(-sizes // ALIGNMENT) * ALIGNMENT


def _find_end(table: _Table, count_bytes: Callable[[np.ndarray], np.ndarray]) -> int:
    return int((table.offsets + _align(count_bytes(table.facts))).max(initial=0))


def _write(place: Path, table: _Table, count_bytes: Callable[[np.ndarray], np.ndarray]) -> None:
    """Write the index, and give the file of arrays its size; it takes space on the disk only as it is filled."""
    with (place / table.arrays).open("ab") as file:
        file.truncate(max(file.tell(), _find_end(table, count_bytes)))
    content = io.BytesIO()
    np.savez(
        content,
        format=_FORMAT,
        arrays=table.arrays,
        names=np.frombuffer(b"".join(name + b"\0" for name in table.names), np.uint8),
        stats=table.stats,
        facts=table.facts,
        offsets=table.offsets,
        tags=table.tags,
    )
    write_atomic(place / "index.npz", content.getvalue())
    for old in place.glob("arrays-*.bin"):
        if old.name != table.arrays:  # a run that still reads it keeps its content
            for file in (old, old.with_suffix(".full")):
                with contextlib.suppress(OSError):
                    file.unlink()


def _check_length(path: Path, end: int, key: str) -> None:
    """Lengthen a file of arrays that was cut; the arrays that are missing have no mark and are decoded again."""
    size = path.stat().st_size
    if size < end:
        print_line(
            f"{key}: expected a cache of {end:,} bytes in {path}, got {size:,}; what is missing is decoded again."
        )
        with path.open("ab") as file:
            file.truncate(end)
