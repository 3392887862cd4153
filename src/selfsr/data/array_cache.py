"""Decoded arrays by number: in memory, or in a file that all processes of a machine share."""

import contextlib
import errno
import math
import mmap
import shutil
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from selfsr.console import print_line
from selfsr.data.file_index import ALIGNMENT, IndexedFiles
from selfsr.errors import InputError

# How many arrays are looked at to find out whether a cache on disk is filled.
_PROBES = 64
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
# The mark of an array: the tag of its file and a checksum of its bytes.
_MARK = struct.Struct("<QQ")


@dataclass(frozen=True)
class ArrayLayouts:
    """Shapes and types of arrays.

    Attributes:
        shapes: int64 `[n, dimensions]`.
        item_bytes: 1 for uint8 and 2 for uint16, `[n]`.
    """

    shapes: np.ndarray
    item_bytes: np.ndarray

    def __len__(self) -> int:
        return len(self.shapes)

    @property
    def bytes(self) -> np.ndarray:
        """Sizes in bytes, int64 `[n]`."""
        return self.shapes.astype(np.int64).prod(axis=1) * self.item_bytes

    def view(self, index: int, buffer: mmap.mmap, offset: int) -> np.ndarray:
        """Return array `index`, whose bytes begin at `offset` of a buffer, without a copy."""
        shape = self.shapes[index].tolist()
        dtype = np.dtype(f"u{self.item_bytes[index]}")
        return np.frombuffer(buffer, dtype, count=math.prod(shape), offset=offset).reshape(shape)


class MemoryArrays:
    """Arrays in one block of memory that forked processes share.

    Args:
        layouts: shapes and types.
    """

    def __init__(self, layouts: ArrayLayouts) -> None:
        self._layouts = layouts
        self._start = np.concatenate(([0], np.cumsum(layouts.bytes)))
        # The first bytes are flags: byte i is 1 once array i is there. Memory is allocated when written to.
        self._memory = mmap.mmap(-1, len(layouts) + int(self._start[-1]))

    def get(self, index: int) -> np.ndarray | None:
        """Return array `index`, or None if it is not there yet."""
        return self._view(index) if self._memory[index] else None

    def put(self, index: int, array: np.ndarray) -> np.ndarray:
        """Keep array `index`; return the kept one."""
        kept = self._view(index)
        kept[:] = array
        self._memory[index] = 1
        return kept

    @property
    def is_filled(self) -> bool:
        """True: what is missing at the start is decoded once, and by the process that needs it."""
        return True

    def _view(self, index: int) -> np.ndarray:
        return self._layouts.view(index, self._memory, len(self._layouts) + int(self._start[index]))


class DiskArrays:
    """Arrays in a file that is mapped into memory, shared by all processes of a machine and kept between runs.

    Each array has a mark before its bytes, written after them. An array counts only if its mark has the tag of its
    file and, at its first use in a process, the checksum of its bytes; so a kill, a power cut or a file of other images
    costs no more than decoding again. If the disk is full, arrays that are not in the file are decoded each time.

    Args:
        key: the key of the recipe for messages, such as "data.hr".
        layouts: shapes and types.
        files: where the arrays lie, in the same order.

    Raises:
        InputError: the disk has no room for arrays that are missing.
    """

    def __init__(self, key: str, layouts: ArrayLayouts, files: IndexedFiles) -> None:
        self._key, self._layouts, self._files = key, layouts, files
        self._checked = np.zeros(len(layouts), bool)
        self._is_full = False
        self._notice = files.arrays.with_suffix(".full")
        with contextlib.suppress(OSError):
            self._notice.unlink(missing_ok=True)
        self._map: mmap.mmap | None = None
        _check_space(key, files.arrays, int(layouts.bytes.sum()))
        self.is_filled: bool = self._probe()

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_map": None}

    def get(self, index: int) -> np.ndarray | None:
        """Return array `index`, or None if it is not there yet."""
        mapped = self._open()
        if mapped is None:
            return None
        offset = int(self._files.offsets[index])
        tag, checksum = _MARK.unpack_from(mapped, offset)
        if tag != int(self._files.tags[index]):
            return None
        array = self._layouts.view(index, mapped, offset + ALIGNMENT)
        if not self._checked[index]:
            if zlib.crc32(array.data) != checksum:
                return None
            self._checked[index] = True
        return array

    def put(self, index: int, array: np.ndarray) -> np.ndarray:
        """Keep array `index` if the disk has room; return the kept one, or the same."""
        if self._is_full:
            return array
        data = np.ascontiguousarray(array)
        offset = int(self._files.offsets[index])
        try:
            # Not through the map: a full disk would end the process there. A file of its own, since forked processes
            # share the position in an open one.
            with self._files.arrays.open("r+b") as file:
                _write_at(file, offset + ALIGNMENT, data.data.cast("B"))
                _write_at(file, offset, _MARK.pack(int(self._files.tags[index]), zlib.crc32(data.data)))
        except OSError as error:
            self._is_full = True
            if not self._is_first_notice():
                return array
            reason = "a full disk" if error.errno in _FULL else error.strerror or str(error)
            print_line(
                f"{self._key}: expected to write the cache {self._files.arrays}, got {reason}; the run continues, and "
                "decodes again what the cache lacks. Make room to fill it in the next run."
            )
            return array
        kept = self.get(index)
        return array if kept is None else kept

    def _is_first_notice(self) -> bool:
        """Return whether no other process has printed since the start of the run that the cache cannot be written."""
        try:
            self._notice.touch(exist_ok=False)
        except FileExistsError:
            return False
        except OSError:  # not even an empty file
            return True
        return True

    def _probe(self) -> bool:
        """Return whether arrays all over the file are there."""
        mapped = self._open()
        chosen = np.unique(np.linspace(0, len(self._layouts) - 1, _PROBES).astype(int))
        return mapped is not None and all(
            _MARK.unpack_from(mapped, int(self._files.offsets[i]))[0] == int(self._files.tags[i]) for i in chosen
        )

    def _open(self) -> mmap.mmap | None:
        """Return the map of the file; None if another process has replaced it since."""
        if self._map is None:
            with contextlib.suppress(OSError, ValueError), self._files.arrays.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), self._files.end, access=mmap.ACCESS_READ)
        return self._map


def _write_at(file: BinaryIO, offset: int, data: memoryview | bytes) -> None:
    file.seek(offset)
    file.write(data)
    file.flush()


def _check_space(key: str, path: Path, needed_bytes: int) -> None:
    written_bytes = 512 * getattr(path.stat(), "st_blocks", 0)
    missing_bytes, free_bytes = needed_bytes - written_bytes, shutil.disk_usage(path.parent).free
    if missing_bytes > free_bytes:
        raise InputError(
            f"{key}: expected {missing_bytes / 2**30:.1f} GB of free disk space in {path.parent} for cache: disk, got "
            f"{free_bytes / 2**30:.1f} GB; make room, set data.cache_folder to another disk, or set cache: off."
        )
