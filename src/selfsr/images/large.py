"""Pictures too large to hold: arrays that live in a file, and PNG files written row by row."""

import errno
import os
import secrets
import struct
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from selfsr.images.files import Picture, write_picture

# Below this many bytes an array is held in memory, and an encoder may copy it as often as it likes.
LARGE_BYTES = 2**28
_CHUNK_BYTES = 2**22
_ZLIB_LEVEL = 4  # a quarter of the time of level 6 for 6 % more bytes


def new_array(shape: tuple[int, ...], dtype: np.dtype, folder: Path) -> np.ndarray:
    """Return an array to be written to; a large one is kept in a nameless file in `folder` until it is freed.

    Raises:
        OSError: the disk has no room for it; `filename` is `folder`.
    """
    size = int(np.prod(shape)) * dtype.itemsize
    if size <= LARGE_BYTES:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            _reserve(file, size)
        except OSError as error:
            error.filename = str(folder)
            raise
        return np.memmap(file, dtype, "r+", shape=shape)


def write_any_picture(path: Path, picture: Picture) -> None:
    """Write a picture as `write_picture` does; a large PNG in a few megabytes of memory.

    Raises:
        InputError: as `write_picture`.
        OSError: the file cannot be written; `filename` is `path`.
    """
    if path.suffix.lower() != ".png" or picture.pixels.nbytes <= LARGE_BYTES:
        write_picture(path, picture)
        return
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        try:
            with unfinished.open("wb") as file:
                for part in png_parts(picture):
                    file.write(part)
            os.replace(unfinished, path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def png_parts(picture: Picture) -> Iterator[bytes]:
    """Yield a PNG file piece by piece: PNG specification (W3C, third edition), sections 5, 9 and 11."""
    channels = picture.channels + (picture.alpha is not None)
    color_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    yield b"\x89PNG\r\n\x1a\n"
    yield _chunk(b"IHDR", struct.pack(">IIBBBBB", picture.width, picture.height, picture.bits, color_type, 0, 0, 0))
    if picture.icc is not None and picture.icc[16:20] == (b"GRAY" if picture.channels == 1 else b"RGB "):
        yield _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(picture.icc))
    pixel_bytes = channels * picture.bits // 8
    rows_at_once = max(1, _CHUNK_BYTES // (picture.width * pixel_bytes))
    above = np.zeros((1, picture.width * pixel_bytes), np.uint8)
    packer = zlib.compressobj(_ZLIB_LEVEL)
    for top in range(0, picture.height, rows_at_once):
        samples = picture.pixels[top : top + rows_at_once]
        if picture.alpha is not None:
            samples = np.concatenate((samples, picture.alpha[top : top + rows_at_once, :, None]), axis=2)
        order = samples.dtype.newbyteorder(">")
        lines = np.ascontiguousarray(samples.astype(order)).view(np.uint8).reshape(len(samples), -1)
        packed = packer.compress(_paeth(lines, above, pixel_bytes).tobytes())
        if packed:
            yield _chunk(b"IDAT", packed)
        above = lines[-1:]
    yield _chunk(b"IDAT", packer.flush())
    yield _chunk(b"IEND", b"")


def _reserve(file: BinaryIO, size: int) -> None:
    """Claim the blocks now: on a full disk, a mapped file with holes would end the process with a signal."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    zeros = bytes(_CHUNK_BYTES)
    for start in range(0, size, _CHUNK_BYTES):
        if file.write(zeros[: size - start]) == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _paeth(lines: np.ndarray, above: np.ndarray, pixel_bytes: int) -> np.ndarray:
    """Return the rows with filter type 4 in front: each byte less the neighbor that predicts it best (section 9.4)."""
    up = np.concatenate((above, lines[:-1])).astype(np.int16)
    left = np.zeros_like(up)
    left[:, pixel_bytes:] = lines[:, :-pixel_bytes]
    corner = np.zeros_like(up)
    corner[:, pixel_bytes:] = up[:, :-pixel_bytes]
    to_left = np.abs(up - corner)
    to_up = np.abs(left - corner)
    to_corner = np.abs(left + up - 2 * corner)
    best = np.where((to_left <= to_up) & (to_left <= to_corner), left, np.where(to_up <= to_corner, up, corner))
    filtered = np.empty((lines.shape[0], lines.shape[1] + 1), np.uint8)
    filtered[:, 0] = 4
    np.subtract(lines, best.astype(np.uint8), out=filtered[:, 1:])
    return filtered


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))
