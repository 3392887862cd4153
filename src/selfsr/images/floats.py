"""The meaning of floating point samples, and the transfer function of sRGB."""

import struct
from dataclasses import dataclass

import numpy as np

# IEC 61966-2-1: the segment near black is linear, the other one is a power.
_SLOPE, _OFFSET, _EXPONENT = 12.92, 0.055, 2.4
_LINEAR_END, _ENCODED_END = 0.0031308, 0.04045


@dataclass(frozen=True)
class FloatFormat:
    """The meaning of floating point samples.

    Attributes:
        is_linear: whether they are proportional to light; otherwise they are encoded as in sRGB, where 1 is white.
        is_associated: whether the colors are multiplied by alpha.
        chromaticities: x and y of red, green, blue and white, as in the header of an OpenEXR file, or None.
    """

    is_linear: bool = False
    is_associated: bool = False
    chromaticities: tuple[float, ...] | None = None


def encode_srgb(light: np.ndarray) -> np.ndarray:
    """Encode linear light in [0, 1] by the transfer function of sRGB (IEC 61966-2-1).

    Args:
        light: float, any shape.

    Example:
        >>> encode_srgb(np.array([0.0, 0.001, 0.5, 1.0])).round(4).tolist()
        [0.0, 0.0129, 0.7354, 1.0]
    """
    power = np.maximum(light, _LINEAR_END) ** (1 / _EXPONENT)
    return np.where(light <= _LINEAR_END, light * _SLOPE, (1 + _OFFSET) * power - _OFFSET).astype(light.dtype)


def decode_srgb(encoded: np.ndarray) -> np.ndarray:
    """Return the linear light in [0, 1] of samples in sRGB; the inverse of `encode_srgb`.

    Args:
        encoded: float, any shape.
    """
    power = ((np.maximum(encoded, _ENCODED_END) + _OFFSET) / (1 + _OFFSET)) ** _EXPONENT
    return np.where(encoded <= _ENCODED_END, encoded / _SLOPE, power).astype(encoded.dtype)


def is_linear_profile(icc: bytes | None) -> bool:
    """Return whether an ICC profile says that samples are proportional to light (ICC.1, sections 7.3, 10.6 and 10.18).

    Args:
        icc: a profile; only those of RGB or gray with a matrix and curves can be linear.
    """
    if icc is None or len(icc) < 132:
        return False
    try:
        (count,) = struct.unpack_from(">I", icc, 128)
        tags = [struct.unpack_from(">4sII", icc, 132 + 12 * number) for number in range(min(count, 100))]
        curves = [
            icc[start : start + size] for name, start, size in tags if name in (b"rTRC", b"gTRC", b"bTRC", b"kTRC")
        ]
        return bool(curves) and all(_is_identity(curve) for curve in curves)
    except struct.error:
        return False


def _is_identity(curve: bytes) -> bool:
    kind = curve[:4]
    if kind == b"curv":
        (count,) = struct.unpack_from(">I", curve, 8)
        return count == 0 or (count == 1 and struct.unpack_from(">H", curve, 12)[0] == 256)  # gamma as u8Fixed8
    return kind == b"para" and struct.unpack_from(">Hxxi", curve, 8) == (0, 65536)  # gamma as s15Fixed16
