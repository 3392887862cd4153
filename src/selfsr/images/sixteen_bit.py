"""16 bit per sample in color or with alpha: the PNG and TIFF kinds that Pillow cannot hold."""

import struct
import zlib
from typing import Any

import numpy as np

from selfsr.errors import InputError

# Level 6 takes three times as long and saves a few per cent: noise fills the low byte.
_ZLIB_LEVEL = 3


def decode(data: bytes) -> np.ndarray | None:
    """Return the samples of a 16-bit PNG or TIFF file as uint16 `[H, W, 3 or 4]`, RGB(A), or None if damaged.

    A TIFF comes upright, a PNG as stored. Gray with alpha comes as R = G = B.
    """
    import cv2

    log: Any = getattr(cv2.utils, "logging", cv2)  # OpenCV 5 moved it
    level = log.getLogLevel()
    log.setLogLevel(0)
    try:
        samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        log.setLogLevel(level)
    if samples is None or samples.dtype != np.uint16 or samples.ndim != 3 or samples.shape[2] not in (3, 4):
        return None
    order = [2, 1, 0, 3][: samples.shape[2]]
    return np.ascontiguousarray(samples[:, :, order])


def encode_png(samples: np.ndarray, icc: bytes | None) -> bytes:
    """Return a PNG file of uint16 `[H, W, C]`; C of 1, 2, 3, 4 is gray, gray and alpha, RGB, RGBA.

    PNG specification (W3C, third edition), sections 5 and 11: IHDR, iCCP, IDAT, IEND.
    """
    height, width, channels = samples.shape
    lines = np.ascontiguousarray(samples, ">u2").view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, lines.shape[1] + 1), np.uint8)
    filtered[:, 0] = 1  # filter "Sub": the difference to the pixel on the left, byte by byte
    pixel_bytes = 2 * channels
    filtered[:, 1 : 1 + pixel_bytes] = lines[:, :pixel_bytes]
    np.subtract(lines[:, pixel_bytes:], lines[:, :-pixel_bytes], out=filtered[:, 1 + pixel_bytes :])
    color_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0))]
    if icc is not None:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(icc)))
    chunks += [(b"IDAT", zlib.compress(filtered.tobytes(), _ZLIB_LEVEL)), (b"IEND", b"")]
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, body in chunks:
        parts += [struct.pack(">I", len(body)), name, body, struct.pack(">I", zlib.crc32(name + body))]
    return b"".join(parts)


def encode_tiff(samples: np.ndarray, icc: bytes | None) -> bytes:
    """Return a TIFF file of uint16 `[H, W, C]`, deflate-compressed in one strip; C is 1, 3 or 4.

    TIFF 6.0 specification, sections 2, 4, 6 and 18 (unassociated alpha); ICC.1 annex B.4 (tag 34675).
    """
    height, width, channels = samples.shape
    strip = zlib.compress(samples.astype("<u2").tobytes(), _ZLIB_LEVEL)
    short, long, undefined = 3, 4, 7
    photometric = 1 if channels == 1 else 2
    tags: list[tuple[int, int, bytes]] = [
        (256, long, struct.pack("<I", width)),
        (257, long, struct.pack("<I", height)),
        (258, short, struct.pack(f"<{channels}H", *[16] * channels)),
        (259, short, struct.pack("<H", 8)),  # Adobe deflate
        (262, short, struct.pack("<H", photometric)),
        (273, long, struct.pack("<I", 8)),  # the strip follows the 8 bytes of the header
        (277, short, struct.pack("<H", channels)),
        (278, long, struct.pack("<I", height)),
        (279, long, struct.pack("<I", len(strip))),
        (284, short, struct.pack("<H", 1)),
    ]
    if channels == 4:
        tags.append((338, short, struct.pack("<H", 2)))
    if icc is not None:
        tags.append((34675, undefined, icc))
    item_bytes = {short: 2, long: 4, undefined: 1}
    strip += b"\0" * (len(strip) % 2)
    directory_at = 8 + len(strip)
    overflow_at = directory_at + 2 + 12 * len(tags) + 4
    entries, overflow = b"", b""
    for tag, kind, value in tags:
        count = len(value) // item_bytes[kind]
        if len(value) <= 4:
            field = value.ljust(4, b"\0")
        else:
            field = struct.pack("<I", overflow_at + len(overflow))
            overflow += value + b"\0" * (len(value) % 2)
        entries += struct.pack("<HHI", tag, kind, count) + field
    if overflow_at + len(overflow) > 2**32 - 1:
        raise InputError("more than 4 GB, which a TIFF file cannot hold")
    header = b"II*\0" + struct.pack("<I", directory_at)
    return header + strip + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0" + overflow
