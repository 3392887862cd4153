"""The unfinished output of a large image: a folder next to the result, from which the same command continues.

The folder has the arrays of the output as raw files, and `state.npz`: the key, the number of finished tiles, and the
fades that the next tiles need. The arrays are written to disk before the state, and the state is replaced atomically.
So after a kill or a power cut, the tiles that the state counts are complete, and the following ones are upscaled again.
It needs the space of the output without compression, which a large image needs in any case.
"""

import contextlib
import io
import json
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from selfsr.errors import InputError
from selfsr.fileio import write_atomic
from selfsr.images.large import LARGE_BYTES, new_array, reserve
from selfsr.upscaling.tiling import TileProgress

SUFFIX = ".partial"
_STATE = "state.npz"
_LOCK = "lock"
# Seconds between two states, and until the first one: shorter work leaves no folder.
_SAVE_S = 10.0

ArrayShape = tuple[tuple[int, ...], np.dtype[Any]]


def name_partial(target: Path) -> Path:
    """Return the folder of the unfinished output of `target`."""
    return target.with_name(target.name + SUFFIX)


def remove_partial(target: Path) -> None:
    """Remove the folder of the unfinished output, after the result is written."""
    shutil.rmtree(name_partial(target), ignore_errors=True)


class PartialOutput:
    """The output arrays of one image, which are saved every few seconds.

    Args:
        target: the result.
        shapes: shape and dtype of each array, by its name.
        make_key: returns the facts that the output depends on, as JSON; called at most once.
        notify: called with a sentence where an older folder is used or replaced.

    Attributes:
        arrays: the arrays by name. They are replaced at the first state, so look them up at each use.
        options: what the interrupted work chose itself, such as its tile size; empty for new work.

    Raises:
        InputError: another process writes the folder.
        OSError: the disk has no space.
    """

    def __init__(
        self,
        target: Path,
        shapes: Mapping[str, ArrayShape],
        make_key: Callable[[], dict[str, Any]],
        notify: Callable[[str], None],
    ) -> None:
        self.folder: Path = name_partial(target)
        self.options: dict[str, Any] = {}
        self._shapes, self._make_key, self._notify = shapes, make_key, notify
        self._key: dict[str, Any] | None = None
        self._lock: int | None = None
        self._start: TileProgress | None = None
        self._last: TileProgress | None = None
        self._saved_tiles = 0
        self._next_save = time.monotonic() + _SAVE_S
        self.arrays: dict[str, np.ndarray] = {}
        self._files: dict[str, np.memmap] = {}
        if self.folder.exists():
            self._take_folder()
            self._restore()
        for name, (shape, dtype) in shapes.items():
            if name not in self.arrays:
                is_large = int(np.prod(shape)) * dtype.itemsize > LARGE_BYTES
                # A small one stays in memory until the first state.
                if is_large:
                    self._files[name] = self.arrays[name] = self._create(name)
                else:
                    self.arrays[name] = new_array(shape, dtype, target.parent)

    def start_from(self, options: dict[str, Any]) -> TileProgress | None:
        """Return where to start with these options: the saved state if it has the same, or None for the first tile."""
        start = self._start if options == self.options else None
        self.options, self._start, self._last = options, None, start
        self._saved_tiles = start.tiles if start else 0
        return start

    def save(self, progress: TileProgress) -> None:
        """Take the state after a tile, and save it if it is time; the last one only if others were saved.

        Args:
            progress: the state.
        """
        self._last = progress
        is_last = progress.tiles == progress.all_tiles
        if self.folder.exists() if is_last else time.monotonic() >= self._next_save:
            self._write(progress)

    def interrupt(self) -> None:
        """Save the state of interrupted work and print how to continue; without a finished tile, leave nothing."""
        if self._last is None:
            self.discard()
            return
        if self._last.tiles > self._saved_tiles:
            self._write(self._last)
        self._notify(
            f"Saved {self._last.tiles} of {self._last.all_tiles} tiles in {self.folder}; continue with the same "
            "command, or delete the folder."
        )
        self.release()

    def discard(self) -> None:
        """Remove the folder; the arrays stay usable."""
        self.release()
        shutil.rmtree(self.folder, ignore_errors=True)

    def release(self) -> None:
        """Let other processes use the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _write(self, progress: TileProgress) -> None:
        self._take_folder()
        for name, array in list(self.arrays.items()):
            if name not in self._files:
                self._files[name] = self._create(name)
                self._files[name][...] = array
                self.arrays[name] = self._files[name]
            self._files[name].flush()
        fades = {f"above_{index}": fade for index, fade in enumerate(progress.above) if fade is not None}
        fades |= {} if progress.left is None else {"left": progress.left}
        facts = {
            "key": self._get_key(),
            "options": self.options,
            "tiles": progress.tiles,
            "all_tiles": progress.all_tiles,
            "columns": len(progress.above),
        }
        arrays = {name: fade.cpu().numpy() for name, fade in fades.items()}
        arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        write_atomic(self.folder / _STATE, buffer.getvalue())
        self._saved_tiles = progress.tiles
        self._next_save = time.monotonic() + _SAVE_S

    def _restore(self) -> None:
        """Open the arrays and the state of an interrupted call; without a usable state, start again."""
        path = self.folder / _STATE
        if not path.exists():
            return
        try:
            facts, progress = _read_state(path)
            other = [name for name, value in self._get_key().items() if facts["key"].get(name) != value]
            files = {} if other else {name: self._open(name) for name in self._shapes}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile):
            self._notify(f"{self.folder}: expected an unfinished result, got one that is damaged; starting again.")
        else:
            if other:
                self._notify(
                    f"{self.folder}: expected the unfinished result of this command, got one with another "
                    f"{', '.join(other)}; starting again."
                )
            else:
                self._notify(f"Continuing after {progress.tiles} tiles, from {self.folder}")
                self._files, self.options, self._start = files, facts["options"], progress
                self.arrays.update(files)
                return
        path.unlink(missing_ok=True)

    def _get_key(self) -> dict[str, Any]:
        key = self._key or json.loads(json.dumps(self._make_key()))
        self._key = key
        return key

    def _create(self, name: str) -> np.memmap:
        self._take_folder()
        shape, dtype = self._shapes[name]
        path = self._path(name)
        with path.open("wb") as file:
            reserve(file, int(np.prod(shape)) * dtype.itemsize)
        return np.memmap(path, dtype, "r+", shape=shape)

    def _open(self, name: str) -> np.memmap:
        shape, dtype = self._shapes[name]
        if self._path(name).stat().st_size != int(np.prod(shape)) * dtype.itemsize:
            raise ValueError(name)
        return np.memmap(self._path(name), dtype, "r+", shape=shape)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.raw"

    def _take_folder(self) -> None:
        """Create the folder and lock it, where the system has locks."""
        if self._lock is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise InputError(
                f"upscale: expected a result that no other process writes, got {self.folder}, which one uses; wait "
                "for it or stop it."
            ) from error
        except (ImportError, OSError):  # Windows, some network drives
            pass
        self._lock = descriptor


def _read_state(path: Path) -> tuple[dict[str, Any], TileProgress]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as state:
        facts = json.loads(state["facts"].tobytes())
        fades = {name: torch.from_numpy(state[name]) for name in state.files if name != "facts"}
    above = tuple(fades.get(f"above_{index}") for index in range(facts["columns"]))
    return facts, TileProgress(facts["tiles"], facts["all_tiles"], above, fades.get("left"))


@contextlib.contextmanager
def keep_on_interruption(partial: PartialOutput) -> Iterator[None]:
    """Save the work if Ctrl-C ends the block, and remove it if an error does that would come again."""
    try:
        yield
    except KeyboardInterrupt:
        partial.interrupt()
        raise
    except OSError:  # a full disk: what is saved stays
        partial.release()
        raise
    except BaseException:
        partial.discard()
        raise
