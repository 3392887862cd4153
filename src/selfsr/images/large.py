"""Arrays that are stored in a file because they are too large for memory."""

import errno
import os
import tempfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

# Up to this many bytes an array is kept in memory, and an encoder may copy it.
LARGE_BYTES = 2**28
_CHUNK_BYTES = 2**22


def new_array(shape: tuple[int, ...], dtype: np.dtype, folder: Path) -> np.ndarray:
    """Allocate an array without setting its values; a large one lives in a nameless file until it is freed.

    Args:
        shape: of the array.
        dtype: of the array.
        folder: where the file is created.

    Raises:
        OSError: the disk does not have the space; `filename` is `folder`.
    """
    size = int(np.prod(shape)) * dtype.itemsize
    if size <= LARGE_BYTES:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            reserve(file, size)
        except OSError as error:
            error.filename = str(folder)
            raise
        return np.memmap(file, dtype, "r+", shape=shape)


def reserve(file: BinaryIO, size: int) -> None:
    """Allocate the blocks of an empty file now, before it is mapped into memory.

    On a full disk, writing to a mapped file with holes ends the process with a signal.

    Args:
        file: opened for writing.
        size: in bytes, greater than 0.

    Raises:
        OSError: the disk does not have the space.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    zeros = bytes(_CHUNK_BYTES)
    for start in range(0, size, _CHUNK_BYTES):
        if file.write(zeros[: size - start]) == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
