"""JPEG files with a complete image that Pillow refuses: without the marker at their end, or with broken EXIF data.

Sections are those of ITU-T T.81.
"""

import io
import re

import numpy as np
from PIL import JpegImagePlugin

_END = b"\xff\xd9"
_START_OF_SCAN, _APP1 = 0xDA, 0xE1
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1, 0xC9), (0xC2, 0xCA)
# A marker that ends the data of a scan: neither a stuffed zero nor a restart (section B.1.1).
_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
# Data that a decoder would read if it lacked some. Few visible pixels may depend on it, so the patterns are many; no
# byte is 0xff, which would start a marker.
_FILLERS = [row.tobytes() for row in np.random.default_rng(0).integers(0, 255, (24, 64), dtype=np.uint8)]


def restore_end(data: bytes) -> bytes | None:
    """Return a JPEG file with the end marker that it lacks, or None if it has one, or lacks more than that.

    A decoder fills missing data with gray, silently. An image is complete if all scans are there and its pixels do not
    depend on what follows the last byte.
    """
    body = data[:-1] if data.endswith(b"\xff") else data
    if not _has_all_scans(body):
        return None
    expected = _decode(body + _END)
    if all(np.array_equal(expected, _decode(body + filler + _END)) for filler in _FILLERS):
        return body + _END
    return None


def remove_exif(data: bytes) -> bytes:
    """Return a JPEG file without its EXIF data (EXIF 2.32, section 4.7.2)."""
    kept, at = [data[:2]], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != _START_OF_SCAN:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if not (data[at + 1] == _APP1 and data[at + 4 : at + 10] == b"Exif\0\0"):
            kept.append(data[at:end])
        at = end
    return b"".join((*kept, data[at:]))


def _decode(data: bytes) -> np.ndarray:
    return np.asarray(JpegImagePlugin.JpegImageFile(io.BytesIO(data)))


def _has_all_scans(data: bytes) -> bool:
    """Return whether a file without an end marker has scans for all bits of all components (sections B.2, G.1)."""
    components: set[int] = set()
    missing: set[tuple[int, int]] = set()  # (component, coefficient)
    at, progressive = 2, False
    while at + 4 <= len(data):
        kind, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        segment = data[at + 4 : at + 2 + length]
        if data[at] != 0xFF or kind == _END[1] or len(segment) != length - 2:
            return False
        at += 2 + length
        if kind in _SEQUENTIAL + _PROGRESSIVE and len(segment) >= 6:
            progressive = kind in _PROGRESSIVE
            components = {segment[6 + 3 * index] for index in range(min(segment[5], (len(segment) - 6) // 3))}
            missing = {(component, k) for component in components for k in range(64)}
        elif kind == _START_OF_SCAN:
            count = segment[0]
            first, last, low_bit = segment[-3], segment[-2], segment[-1] & 15
            if not progressive:
                first, last, low_bit = 0, 63, 0
            if low_bit == 0:
                scanned = {segment[1 + 2 * index] for index in range(count)}
                missing -= {(component, k) for component in scanned for k in range(first, last + 1)}
            following = _MARKER.search(data, at)
            if following is None:
                return bool(components) and not missing
            at = following.end() - 2
    return False
