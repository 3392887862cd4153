"""EXIF data and resolution: read from a file, kept with the upright image, and written to another format.

Tags and sections are those of EXIF 2.32 (CIPA DC-008) and TIFF 6.0.
"""

import io
import math
import struct
from typing import Any

from PIL import Image

from selfsr.images.xmp import TIFF_TAG, normalize_xmp

PREFIX = b"Exif\0\0"

ORIENTATION = 0x0112
_EXIF_IFD, _GPS_IFD, _INTEROPERABILITY_IFD = 0x8769, 0x8825, 0xA005
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 0x011A, 0x011B, 0x0128
_WIDTHS, _HEIGHTS = (0x0100, 0xA002), (0x0101, 0xA003)
# Tags of a TIFF file that describe the image, not the storage of its pixels: description, maker, model, software, time,
# artist, copyright.
_DESCRIPTIVE_TAGS = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)
_SOFTWARE = 0x0131
_ASCII, _SHORT, _LONG = 2, 3, 4
# JPEG has 16 bits for it.
_LARGEST_DPI = 65535


def read_orientation(image: Image.Image) -> int:
    """Return the orientation of an image, 1 to 8; 1 if its EXIF data is broken, as viewers do."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # Pillow raises nearly anything for broken data
        return 1


def read_exif(image: Image.Image) -> bytes | None:
    """Return the EXIF data of an image that is not a TIFF, with orientation 1, or None."""
    exif = image.info.get("exif")
    if exif is None and "Raw profile type exif" in image.info:
        try:
            exif = image.getexif().tobytes()
        except Exception:
            return None
    return normalize_exif(exif.removeprefix(PREFIX)) if isinstance(exif, bytes) else None


def read_tiff_tags(data: bytes) -> tuple[bytes | None, tuple[float, float] | None, bytes | None]:
    """Return the descriptive tags of a TIFF file as EXIF data, its dpi and its XMP packet; None for what it lacks."""
    tags = Image.Exif()
    try:
        tags.bigtiff = data[2:4] in (b"+\0", b"\0+")
        tags.endian = ">" if data[:2] == b"MM" else "<"
        offset = struct.unpack_from(f"{tags.endian}{'Q' if tags.bigtiff else 'I'}", data, 8 if tags.bigtiff else 4)[0]
        tags.load_from_fp(io.BytesIO(data), offset)
        kept = select_tags(tags)
        exif = normalize_exif(kept.tobytes().removeprefix(PREFIX)) if len(kept) else None
    except Exception:  # Pillow raises nearly anything for broken tags
        return None, None, None
    return exif, _dpi_of_tags(tags), normalize_xmp(tags.get(TIFF_TAG))


def read_dpi(image: Image.Image, exif: bytes | None) -> tuple[float, float] | None:
    """Return the horizontal and vertical resolution of an image that is not a TIFF, or None if it has none."""
    dpi = image.info.get("dpi")
    if image.format == "JPEG" and not image.info.get("jfif_unit"):  # Pillow makes up 72 for EXIF without resolution
        try:
            dpi = _dpi_of_tags(load_exif(exif)) if exif else None
        except Exception:
            dpi = None
    return _check_dpi(*dpi) if isinstance(dpi, tuple) and len(dpi) == 2 else None


def add_software(exif: bytes | None, text: str) -> bytes | None:
    """Return EXIF data whose tag Software names what made the image; broken data stay as they are.

    The first directory is written again at the end, and all other bytes stay where they are, since makers' notes refer
    to positions.

    Args:
        exif: from the header of the TIFF structure on, or None.
        text: the value of the tag; other characters than ASCII are replaced.
    """
    content = bytearray(exif or b"II*\0\x08\0\0\0" + bytes(6))
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(content[:4]))
    if order is None:
        return exif
    value = text.encode("ascii", "replace") + b"\0"
    try:
        (first,) = struct.unpack_from(f"{order}I", content, 4)
        entries, end = _read_entries(content, order, first)
        rows = {tag: bytes(content[position : position + 12]) for tag, position in entries.items()}
        following = bytes(content[end : end + 4])
    except struct.error:
        return exif
    content += bytes(len(content) % 2)
    start = len(content)
    size = 2 + 12 * len(rows.keys() | {_SOFTWARE}) + 4
    rows[_SOFTWARE] = struct.pack(f"{order}HHII", _SOFTWARE, _ASCII, len(value), start + size)
    content += struct.pack(f"{order}H", len(rows)) + b"".join(rows[tag] for tag in sorted(rows)) + following + value
    struct.pack_into(f"{order}I", content, 4, start)
    return bytes(content)


def load_exif(exif: bytes) -> Image.Exif:
    """Return EXIF data as Pillow's tags."""
    tags = Image.Exif()
    tags.load(PREFIX + exif)
    return tags


def select_tags(tags: Image.Exif) -> Image.Exif:
    """Return the tags that describe an image, without those of how its pixels are stored."""
    kept = Image.Exif()
    for tag in _DESCRIPTIVE_TAGS:
        if isinstance(tags.get(tag), str):
            kept[tag] = tags[tag]
    for tag in (_EXIF_IFD, _GPS_IFD):
        if tag not in tags:
            continue
        directory = {key: value for key, value in tags.get_ifd(tag).items() if key != _INTEROPERABILITY_IFD}
        if directory:
            kept[tag] = directory
    return kept


def normalize_exif(exif: bytes, height: int | None = None, width: int | None = None) -> bytes | None:
    """Return EXIF data of an upright image: orientation 1, no thumbnail, and its size; None if it is broken.

    All other bytes stay as they are, since makers' notes refer to positions.

    Args:
        exif: from the header of the TIFF structure on.
        height: rows; None leaves the tags of the size.
        width: columns.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return None
    content = bytearray(exif)
    values = {ORIENTATION: 1}
    if height is not None and width is not None:
        values |= dict.fromkeys(_WIDTHS, width) | dict.fromkeys(_HEIGHTS, height)
    try:
        (first,) = struct.unpack_from(f"{order}I", content, 4)
        entries, end = _read_entries(content, order, first)
        struct.pack_into(f"{order}I", content, end, 0)  # no further directory: that of the thumbnail
        _set_values(content, order, entries, values)
        if _EXIF_IFD in entries:
            (second,) = struct.unpack_from(f"{order}I", content, entries[_EXIF_IFD] + 8)
            _set_values(content, order, _read_entries(content, order, second)[0], values)
    except struct.error:
        return None
    return bytes(content)


def _read_entries(content: bytearray, order: str, start: int) -> tuple[dict[int, int], int]:
    """Return the positions of a directory's entries by tag, and the position after them."""
    (count,) = struct.unpack_from(f"{order}H", content, start)
    positions = [start + 2 + 12 * index for index in range(count)]
    entries = {struct.unpack_from(f"{order}H", content, position)[0]: position for position in positions}
    return entries, start + 2 + 12 * count


def _set_values(content: bytearray, order: str, entries: dict[int, int], values: dict[int, int]) -> None:
    for tag in entries.keys() & values.keys():
        kind, count = struct.unpack_from(f"{order}HI", content, entries[tag] + 2)
        if count != 1 or kind not in (_SHORT, _LONG):
            continue
        value = values[tag]
        if value > 65535 and kind == _SHORT:
            struct.pack_into(f"{order}H", content, entries[tag] + 2, _LONG)
            kind = _LONG
        struct.pack_into(f"{order}I" if kind == _LONG else f"{order}Hxx", content, entries[tag] + 8, value)


def _dpi_of_tags(tags: Image.Exif) -> tuple[float, float] | None:
    horizontal, vertical = tags.get(_X_RESOLUTION), tags.get(_Y_RESOLUTION)
    factor = {2: 1.0, 3: 2.54}.get(tags.get(_RESOLUTION_UNIT, 2))  # inch or centimeter
    if horizontal is None or factor is None:
        return None
    return _check_dpi(horizontal, horizontal if vertical is None else vertical, factor)


def _check_dpi(horizontal: Any, vertical: Any, factor: float = 1.0) -> tuple[float, float] | None:
    """Return the resolution if it is valid, else None."""
    try:
        dpi = (float(horizontal) * factor, float(vertical) * factor)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    # Some writers store 1 x 1 if the resolution is unknown.
    usable = all(math.isfinite(value) and 1 <= value <= _LARGEST_DPI for value in dpi) and dpi != (1, 1)
    return dpi if usable else None
