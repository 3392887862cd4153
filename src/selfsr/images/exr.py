"""Read and write OpenEXR files: one image of RGB or gray, with alpha, as half or float."""

import contextlib
import io
import sys
from typing import Any

import numpy as np

from selfsr.errors import InputError
from selfsr.images.floats import FloatFormat
from selfsr.images.unsupported import UnsupportedSamplesError

SIGNATURE = b"\x76\x2f\x31\x01"
_COLORS = ("R", "G", "B")
_GRAY, _ALPHA = "Y", "A"
_CHROMATICITIES = "chromaticities"


def decode_exr(data: bytes) -> tuple[np.ndarray, np.ndarray | None, FloatFormat, tuple[str, ...]]:
    """Decode the first part of a file: its channels R, G and B, or Y, and A.

    Its colors are proportional to light and multiplied by alpha, as the format defines. The image is the display
    window: pixels outside of it are cut off, and missing ones are 0.

    Returns:
        (pixels `[H, W, 1 or 3]` float16 or float32, alpha `[H, W]` or None, meaning, names of the channels and parts
        that were left out).

    Raises:
        InputError: the file is damaged.
        UnsupportedSamplesError: the file has no such channels, or stores them as integers, subsampled or deep.
    """
    import OpenEXR  # pyright: ignore[reportMissingImports]

    # The library prints why a file is damaged; stdout may be for JSON only.
    with contextlib.redirect_stdout(sys.stderr):
        opened = OpenEXR.File(io.BytesIO(data), separate_channels=True)
    with opened as file:
        if not file.parts:
            raise InputError("OpenEXR with damaged pixels")
        header, channels = file.header(), file.channels()
        others = [str(part.name() or f"part {index}") for index, part in enumerate(file.parts)][1:]
        if "deep" in str(header["type"]):
            raise UnsupportedSamplesError("OpenEXR with deep samples")
        names = _COLORS if all(name in channels for name in _COLORS) else (_GRAY,)
        if any(name not in channels for name in names):
            raise UnsupportedSamplesError(f"OpenEXR with the channels {', '.join(channels)}, without R, G, B or Y")
        chosen = [*names, *([_ALPHA] if _ALPHA in channels else [])]
        left_out = [name for name in channels if name not in chosen] + others
        samplings = {(channels[name].xSampling, channels[name].ySampling) for name in chosen}
        if samplings != {(1, 1)} or {"RY", "BY"} & set(channels):
            raise UnsupportedSamplesError("OpenEXR with subsampled channels")
        planes = [_place(channels[name].pixels, header) for name in chosen]
        chromaticities = _read_chromaticities(header)  # the library empties the header when it closes the file
    if not all(plane.dtype.kind == "f" for plane in planes):
        raise UnsupportedSamplesError("OpenEXR with integer samples")
    dtype = np.result_type(*planes)
    pixels = np.stack(planes[: len(names)], axis=2).astype(dtype, copy=False)
    alpha = planes[-1].astype(dtype, copy=False) if _ALPHA in chosen else None
    return pixels, alpha, FloatFormat(True, alpha is not None, chromaticities), tuple(left_out)


def read_size(data: bytes) -> tuple[int, int, int]:
    """Return (height, width, channels) that decoding a file needs memory for, without decoding it.

    Raises:
        InputError: the header is damaged.
    """
    import OpenEXR  # pyright: ignore[reportMissingImports]

    with OpenEXR.File(io.BytesIO(data), header_only=True) as file:
        if not file.parts:
            raise InputError("OpenEXR with a damaged header")
        parts = [part.header for part in file.parts]
        windows = [header[name] for header in parts for name in ("dataWindow", "displayWindow")]
        height, width = (max(int(end[axis]) - int(start[axis]) + 1 for start, end in windows) for axis in (1, 0))
        return height, width, sum(len(header["channels"]) for header in parts)


def encode_exr(pixels: np.ndarray, alpha: np.ndarray | None, meaning: FloatFormat) -> bytes:
    """Return a file with one part, compressed without loss (ZIP).

    Args:
        pixels: `[H, W, 1 or 3]`, float16 or float32, linear and multiplied by alpha.
        alpha: `[H, W]` of the same dtype, or None.
        meaning: its chromaticities are stored.
    """
    import OpenEXR  # pyright: ignore[reportMissingImports]

    names = _COLORS if pixels.shape[2] == 3 else (_GRAY,)
    channels = {name: np.ascontiguousarray(pixels[:, :, index]) for index, name in enumerate(names)}
    if alpha is not None:
        channels[_ALPHA] = np.ascontiguousarray(alpha)
    header: dict[str, Any] = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    if meaning.chromaticities is not None:
        header[_CHROMATICITIES] = meaning.chromaticities
    buffer = io.BytesIO()
    OpenEXR.File(header, channels).write(buffer)
    return buffer.getvalue()


def _place(plane: np.ndarray, header: dict[str, Any]) -> np.ndarray:
    """Return the samples of the display window from those of the data window."""
    (data_x, data_y), (data_right, data_bottom) = (corner.tolist() for corner in header["dataWindow"])
    (x, y), (right, bottom) = (corner.tolist() for corner in header["displayWindow"])
    if (data_x, data_y, data_right, data_bottom) == (x, y, right, bottom):
        return plane
    window = np.zeros((bottom - y + 1, right - x + 1), plane.dtype)
    left, top = max(x, data_x), max(y, data_y)
    end_x, end_y = min(right, data_right) + 1, min(bottom, data_bottom) + 1
    if left >= end_x or top >= end_y:
        raise InputError("OpenEXR without pixels in its display window")
    window[top - y : end_y - y, left - x : end_x - x] = plane[
        top - data_y : end_y - data_y, left - data_x : end_x - data_x
    ]
    return window


def _read_chromaticities(header: dict[str, Any]) -> tuple[float, ...] | None:
    values = header.get(_CHROMATICITIES)
    return None if values is None else tuple(np.ravel(values).astype(float).tolist())
