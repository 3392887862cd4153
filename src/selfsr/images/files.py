"""Picture files to arrays and back: any depth, with alpha, ICC profile and orientation."""

import contextlib
import io
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from selfsr.errors import InputError
from selfsr.images import decode
from selfsr.images import sixteen_bit as deep
from selfsr.images.paths import SUFFIXES, missing

# What JPEG and WebP can say of a side, and libjpeg's own limit below it.
_LARGEST_SIDE_PX = {".jpg": 65500, ".jpeg": 65500, ".webp": 16383}


@dataclass(frozen=True)
class Picture:
    """A decoded picture, upright.

    Attributes:
        pixels: `[H, W, C]` uint8 or uint16, C = 1 (gray) or 3 (RGB).
        alpha: `[H, W]` of the same dtype, or None where the file has none.
        icc: the ICC profile's bytes, or None.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    icc: bytes | None = None

    def __post_init__(self) -> None:
        assert self.pixels.ndim == 3, self.pixels.shape
        assert self.pixels.shape[2] in (1, 3), self.pixels.shape
        assert self.pixels.dtype in (np.uint8, np.uint16), self.pixels.dtype
        if self.alpha is not None:
            assert self.alpha.shape == self.pixels.shape[:2], (self.alpha.shape, self.pixels.shape)
            assert self.alpha.dtype == self.pixels.dtype, (self.alpha.dtype, self.pixels.dtype)

    @property
    def height(self) -> int:
        """Rows."""
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        """Columns."""
        return self.pixels.shape[1]

    @property
    def channels(self) -> int:
        """1 (gray) or 3 (RGB); alpha does not count."""
        return self.pixels.shape[2]

    @property
    def bits(self) -> int:
        """Bits per sample: 8 or 16."""
        return 8 * self.pixels.dtype.itemsize


@dataclass(frozen=True)
class Header:
    """What a file says of itself before it is decoded.

    Attributes:
        height: rows, once upright.
        width: columns, once upright.
        bits: 8 or 16, the depth that `read_picture` returns.
        mode: Pillow's name for the pixel layout, such as "RGB", "P", "CMYK".
        format: "PNG", "JPEG", "WEBP", "TIFF" or "BMP".
    """

    height: int
    width: int
    bits: int
    mode: str
    format: str


def read_picture(path: Path) -> Picture:
    """Decode a file: palette expanded, EXIF orientation applied, 16 bit kept, CMYK and Lab converted to sRGB.

    Of a file with several pages or frames the first is read.

    Raises:
        InputError: missing, empty, damaged, or of a kind that is not supported; the sentence names the file.
        OSError: the file cannot be read (permission, a failing disk).
    """
    data = _bytes_of(path)
    try:
        return Picture(*decode.decode(data))
    except MemoryError:
        raise
    # Decoders of damaged data raise nearly anything: OSError, SyntaxError, zlib.error, struct.error, ...
    except Exception as error:
        raise _unreadable(path, error) from error


def read_header(path: Path) -> Header:
    """Read size and layout without decoding the pixels.

    Raises:
        InputError: as `read_picture`, as far as the header shows it.
        OSError: the file cannot be read.
    """
    try:
        file = path.open("rb")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise missing(path, "a picture") from error
    with file:
        if os.fstat(file.fileno()).st_size == 0:
            raise InputError(_empty_file(path))
        try:
            image = decode.opened(file)
            return Header(*decode.upright_size(image), decode.bits(image), image.mode, image.format or "")
        except Exception as error:
            raise _unreadable(path, error) from error


def write_picture(path: Path, picture: Picture, *, png_level: int = 6) -> None:
    """Write a file in the format of the suffix, into a folder that is made if need be; the whole file or nothing.

    PNG, TIFF and WebP are lossless; JPEG has quality 95 without chroma subsampling. WebP has no gray and stores it
    as RGB, as does TIFF for gray of 16 bit with alpha. An ICC profile that does not fit the channels (a gray picture
    written as RGB) and any profile in a BMP are left out.

    Args:
        path: the file.
        picture: what to write.
        png_level: how hard an 8-bit PNG is compressed, 0 to 9; 3 takes half the time of 6 and a few percent more room.

    Raises:
        InputError: unknown suffix, or the format cannot hold the picture's depth, alpha or size.
        OSError: the file cannot be written; `filename` is `path`.
    """
    suffix = path.suffix.lower()
    check_format(path, height=picture.height, width=picture.width, bits=picture.bits, alpha=picture.alpha is not None)
    try:
        data = _encode(suffix, picture, png_level)
    except (OSError, ValueError, OverflowError) as error:
        size = f"{picture.height} x {picture.width} pixels"
        raise InputError(f"{path}: could not encode {size} as {suffix}: {error}; choose another format.") from error
    _replace(path, data)


def check_format(path: Path, *, height: int, width: int, bits: int, alpha: bool) -> None:
    """Check, before the pixels are made, that the format of the suffix can hold such a picture.

    Raises:
        InputError: unknown suffix, or the format cannot hold the depth, alpha or size.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(
            f"{path}: the suffix must be one of {', '.join(SUFFIXES)}, got {path.suffix or 'none'}; "
            "choose the format by the file's name."
        )
    lacking = None
    if bits == 16 and suffix not in (".png", ".tif", ".tiff"):
        lacking = "16 bits per sample; write PNG or TIFF"
    elif alpha and suffix in (".jpg", ".jpeg", ".bmp"):
        lacking = "an alpha channel; write PNG, TIFF or WebP"
    elif max(height, width) > _LARGEST_SIDE_PX.get(suffix, 2**31 - 1):
        lacking = f"{height} x {width} pixels; write PNG or TIFF"
    if lacking is not None:
        raise InputError(f"{path}: expected a format that can hold the picture, but {suffix} cannot hold {lacking}.")


def to_tensor(picture: Picture) -> Tensor:
    """Return float32 `[1, 3, H, W]` in [0, 1], RGB; gray is repeated, alpha left out."""
    pixels = torch.from_numpy(picture.pixels.astype(np.float32).transpose(2, 0, 1)) / (2**picture.bits - 1)
    return pixels.expand(3, -1, -1)[None].contiguous()


def from_tensor(image: Tensor, bits: int = 8) -> np.ndarray:
    """Return `[H, W, C]` uint8 (bits 8) or uint16 (bits 16) of float `[C, H, W]`, clipped, rounded half up."""
    assert bits in (8, 16), bits
    assert image.ndim == 3, image.shape
    work = image.detach().float() if image.dtype != torch.float64 else image.detach()
    peak = 2**bits - 1
    levels = (work.clamp(0, 1) * peak + 0.5).floor().cpu().numpy()
    return np.ascontiguousarray(levels.astype(np.uint8 if bits == 8 else np.uint16).transpose(1, 2, 0))


def _bytes_of(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise missing(path, "a picture") from error
    if not data:
        raise InputError(_empty_file(path))
    return data


def _empty_file(path: Path) -> str:
    return f"{path}: expected a picture, got an empty file (0 bytes); replace or delete it."


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = str(error).strip().rstrip(".") or type(error).__name__
    return InputError(f"{path}: expected a readable picture, got {reason}; replace or delete it.")


def _encode(suffix: str, picture: Picture, png_level: int) -> bytes:
    samples = picture.pixels
    if picture.alpha is not None:
        samples = np.concatenate((samples, picture.alpha[:, :, None]), axis=2)
    icc = picture.icc
    # Bytes 16 to 20 of a profile name its color space (ICC.1, section 7.2.6).
    if icc is not None and icc[16:20] != (b"GRAY" if picture.channels == 1 else b"RGB "):
        icc = None
    if picture.bits == 16:
        if suffix == ".png":
            return deep.encode_png(samples, icc)
        if samples.shape[2] == 2:  # gray with alpha: few programs read it, Pillow not
            samples, icc = samples[:, :, [0, 0, 0, 1]], None
        return deep.encode_tiff(samples, icc)
    image = Image.fromarray(np.ascontiguousarray(samples[:, :, 0] if samples.shape[2] == 1 else samples))
    buffer = io.BytesIO()
    if suffix == ".png":
        image.save(buffer, "PNG", icc_profile=icc, compress_level=png_level)
    elif suffix in (".jpg", ".jpeg"):
        image.save(buffer, "JPEG", quality=95, subsampling=0, icc_profile=icc)
    elif suffix == ".webp":
        image = image.convert("RGB" if picture.alpha is None else "RGBA")
        icc = icc if picture.channels == 3 else None
        image.save(buffer, "WEBP", lossless=True, exact=True, icc_profile=icc or b"")
    elif suffix == ".bmp":
        image.save(buffer, "BMP")
    else:
        image.save(buffer, "TIFF", compression="tiff_adobe_deflate", icc_profile=icc)
    return buffer.getvalue()


def _replace(path: Path, data: bytes) -> None:
    """Write beside `path` and move into place, so that no reader and no crash sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        unfinished.write_bytes(data)
        os.replace(unfinished, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError):  # a full disk comes without a name, other errors with the temporary one
            error.filename, error.filename2 = str(path), None
        raise
