"""PNG files: written row by row with 8 or 16 bits per sample, and repaired before reading.

Sections are those of the PNG specification (W3C, third edition).
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from selfsr.images.xmp import PNG_KEY

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_CHUNK_BYTES = 2**22
_ZLIB_LEVEL = 4  # a quarter of the time of level 6 for 6 % more bytes
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
# Texts with the orientation, which Pillow looks at.
_METADATA_KEYS = (b"Raw profile type exif\0", PNG_KEY.encode() + b"\0")
_SMALL_TEXT_BYTES = 2**20
_LARGEST_PROFILE_BYTES = 2**26


@dataclass(frozen=True)
class RepairedPng:
    """A PNG file without the chunks that Pillow refuses.

    Attributes:
        data: the file's content.
        icc: the ICC profile, which was removed from `data`, or None.
        defects: what was wrong with the file, in words; empty if the file is intact.
    """

    data: bytes
    icc: bytes | None
    defects: tuple[str, ...]


def encode_png(
    pixels: np.ndarray,
    alpha: np.ndarray | None,
    icc: bytes | None,
    exif: bytes | None = None,
    dpi: tuple[float, float] | None = None,
    xmp: bytes | None = None,
) -> Iterator[bytes]:
    """Yield a PNG file piece by piece, in a few megabytes of memory (sections 5, 9 and 11).

    Args:
        pixels: uint8 or uint16 `[H, W, C]`, C = 1 (gray) or 3 (RGB).
        alpha: `[H, W]` of the same dtype, or None.
        icc: profile to embed.
        exif: EXIF data to embed, from the header of its TIFF structure on.
        dpi: horizontal and vertical resolution.
        xmp: XMP packet to embed, in UTF-8.
    """
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] + (alpha is not None)
    sample_bytes = pixels.dtype.itemsize
    color_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    yield SIGNATURE
    yield _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8 * sample_bytes, color_type, 0, 0, 0))
    if icc is not None:
        yield _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc))
    if dpi is not None:  # in pixels per meter
        yield _chunk(b"pHYs", struct.pack(">IIB", *(round(value / 0.0254) for value in dpi), 1))
    if exif is not None:
        yield _chunk(b"eXIf", exif)
    if xmp is not None:  # not compressed, in no language (section 11.3.3.4)
        yield _chunk(b"iTXt", PNG_KEY.encode() + b"\0\0\0\0\0" + xmp)
    pixel_bytes = channels * sample_bytes
    rows_at_once = max(1, _CHUNK_BYTES // (width * pixel_bytes))
    above = np.zeros((1, width * pixel_bytes), np.uint8)
    compressor = zlib.compressobj(_ZLIB_LEVEL)
    for top in range(0, height, rows_at_once):
        samples = pixels[top : top + rows_at_once]
        if alpha is not None:
            samples = np.concatenate((samples, alpha[top : top + rows_at_once, :, None]), axis=2)
        big_endian = samples.astype(samples.dtype.newbyteorder(">"))
        rows = np.ascontiguousarray(big_endian).view(np.uint8).reshape(len(samples), -1)
        compressed = compressor.compress(_paeth_filter(rows, above, pixel_bytes).tobytes())
        if compressed:
            yield _chunk(b"IDAT", compressed)
        above = rows[-1:]
    yield _chunk(b"IDAT", compressor.flush())
    yield _chunk(b"IEND", b"")


def repair_png(data: bytes) -> RepairedPng:
    """Return a PNG file without its text and profile, which Pillow limits, and without damaged ancillary chunks.

    Ancillary chunks have a name that begins with a lower-case letter; an image can be shown without them (section 5.4).
    """
    kept, icc, defects, start = [SIGNATURE], None, [], len(SIGNATURE)
    while start + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, start)
        name, end = data[start + 4 : start + 8], start + 12 + length
        body, checksum = data[start + 8 : end - 4], data[end - 4 : end]
        if name[:1].islower() and len(checksum) == 4 and int.from_bytes(checksum, "big") != zlib.crc32(name + body):
            defects.append(f"a chunk {name.decode('latin-1')} with a wrong checksum")
        elif name == b"iCCP" and end <= len(data):
            icc = _inflate(body.partition(b"\0")[2][1:], _LARGEST_PROFILE_BYTES)
            if icc is None:
                defects.append("an ICC profile that is damaged or larger than 64 MB")
        elif name not in _TEXT_CHUNKS or _has_small_metadata(name, body):
            kept.append(data[start:end])
        start = end
    return RepairedPng(b"".join(kept), icc, tuple(defects))


def _has_small_metadata(name: bytes, body: bytes) -> bool:
    """Return whether a text chunk contains EXIF or XMP data within Pillow's limit."""
    if not body.startswith(_METADATA_KEYS) or len(body) > _SMALL_TEXT_BYTES:
        return False
    compressed = body.partition(b"\0")[2][1:]  # after the key and the method (sections 11.3.3.2 and 11.3.3.3)
    if name == b"iTXt":
        if body.partition(b"\0")[2][:1] == b"\0":
            return True
        compressed = body.split(b"\0", 4)[-1]
    return name == b"tEXt" or _inflate(compressed, _SMALL_TEXT_BYTES) is not None


def _inflate(compressed: bytes, largest_bytes: int) -> bytes | None:
    """Return decompressed data, or None if it is damaged or larger than that."""
    decompressor = zlib.decompressobj()
    try:
        content = decompressor.decompress(compressed, largest_bytes)
    except zlib.error:
        return None
    return content if decompressor.eof else None


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))


def _paeth_filter(rows: np.ndarray, above: np.ndarray, pixel_bytes: int) -> np.ndarray:
    """Return the rows with filter type 4 in front: each byte less the neighbor that predicts it best (section 9.4)."""
    up = np.concatenate((above, rows[:-1])).astype(np.int16)
    left = np.zeros_like(up)
    left[:, pixel_bytes:] = rows[:, :-pixel_bytes]
    corner = np.zeros_like(up)
    corner[:, pixel_bytes:] = up[:, :-pixel_bytes]
    to_left = np.abs(up - corner)
    to_up = np.abs(left - corner)
    to_corner = np.abs(left + up - 2 * corner)
    best = np.where((to_left <= to_up) & (to_left <= to_corner), left, np.where(to_up <= to_corner, up, corner))
    filtered = np.empty((rows.shape[0], rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = 4
    np.subtract(rows, best.astype(np.uint8), out=filtered[:, 1:])
    return filtered
