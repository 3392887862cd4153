"""Read and write image files of 8 or 16 bits, with alpha, ICC profile, EXIF and XMP data, dpi and orientation."""

import errno
import io
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from selfsr.console import print_line
from selfsr.errors import InputError
from selfsr.fileio import write_atomic
from selfsr.images import decode, exif, large
from selfsr.images.exr import encode_exr
from selfsr.images.floats import FloatFormat
from selfsr.images.formats import OPEN_EXR, MissingDecoderError
from selfsr.images.paths import SUFFIXES, missing_path_error
from selfsr.images.png import encode_png
from selfsr.images.tiff import append_tags, encode_tiff
from selfsr.images.unsupported import UnsupportedSamplesError
from selfsr.images.xmp import LARGEST_JPEG_BYTES, PNG_KEY, normalize_xmp

# The formats that store floating point samples.
FLOAT_SUFFIXES = (".tif", ".tiff", ".exr")
# The largest side that WebP can store, and libjpeg's own limit, below that of the format.
_LARGEST_SIDE_PX = {".jpg": 65500, ".jpeg": 65500, ".webp": 16383}
_JPEG_QUALITY = 95
# A JPEG marker segment has 16 bits for its length.
_LARGEST_JPEG_EXIF_BYTES = 65533
# The errors of a path that is not a file; a symbolic link to itself causes one of them.
_NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image, upright.

    Attributes:
        pixels: `[H, W, C]`, C = 1 (gray) or 3 (RGB); uint8 or uint16, or float16 or float32 with a `float_format`.
        alpha: `[H, W]` of the same dtype, or None where the file has none.
        icc: the ICC profile's bytes, or None.
        exif: EXIF data from the header of its TIFF structure on, with orientation 1 and no thumbnail, or None.
        dpi: horizontal and vertical resolution in dots per inch, or None.
        xmp: XMP packet in UTF-8, with orientation 1, or None.
        frames: number of frames or pages in the file; the image is the first of them.
        float_format: the meaning of floating point samples, which may be any finite values; None for integers.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    xmp: bytes | None = None
    frames: int = 1
    float_format: FloatFormat | None = None

    def __post_init__(self) -> None:
        assert self.pixels.ndim == 3, self.pixels.shape
        assert self.pixels.shape[2] in (1, 3), self.pixels.shape
        dtypes = (np.uint8, np.uint16) if self.float_format is None else (np.float16, np.float32)
        assert self.pixels.dtype in dtypes, self.pixels.dtype
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
        """Bits per sample: 8 or 16, or 16 or 32 of floating point."""
        return 8 * self.pixels.dtype.itemsize

    @property
    def peak(self) -> int:
        """White: the largest integer sample, or 1 for floating point."""
        return 2**self.bits - 1 if self.float_format is None else 1


@dataclass(frozen=True)
class ImageHeader:
    """Size and layout of an image file, known before its pixels are decoded.

    Attributes:
        height: rows, once upright.
        width: columns, once upright.
        bits: 8 or 16, the depth that `read_image` returns.
        mode: Pillow's name for the pixel layout, such as "RGB", "P", "CMYK".
        format: Pillow's name for the format: "PNG", "JPEG", "WEBP", "TIFF", "BMP" and so on.
        frames: number of frames or pages in the file, of which the first is read.
    """

    height: int
    width: int
    bits: int
    mode: str
    format: str
    frames: int = 1


def read_image(path: Path, *, for_upscaling: bool = False) -> DecodedImage:
    """Read an image file.

    Palettes are expanded, the EXIF orientation is applied, 16 bits are kept, CMYK and Lab are converted to sRGB.
    Only the first page or frame of a file is read. A file whose image is complete in spite of a defect, such as a JPEG
    without its end marker, is read with a message on stderr, once in a process.

    Args:
        path: the file.
        for_upscaling: whether floating point samples (TIFF and OpenEXR) and GIF are read, as they are only by
            upscaling; others get an error for them.

    Raises:
        InputError: the file is missing, empty, damaged, too large for the memory, or of a kind that is not supported;
            names the file.
        OSError: the file cannot be read (permission, a failing disk).
    """
    data = _read_bytes(path)
    try:
        decoded = decode.decode_image(data, path.suffix, for_upscaling=for_upscaling)
    except MemoryError as error:
        raise InputError(
            f"{path}: expected an image that fits into memory, got one whose pixels could not be allocated; "
            "check its size, or close other programs."
        ) from error
    # Decoders of damaged data raise nearly anything: OSError, SyntaxError, zlib.error, struct.error, ...
    except Exception as error:
        raise _unreadable(path, error) from error
    if decoded.defects and path not in _reported:
        _reported.add(path)
        print_line(f"{path}: expected an intact file, got {' and '.join(decoded.defects)}; check the image.")
    if decoded.left_out and path not in _reported:
        _reported.add(path)
        print_line(f"{path}: read without {', '.join(decoded.left_out)}.")
    return DecodedImage(
        decoded.pixels,
        decoded.alpha,
        decoded.icc,
        decoded.exif,
        decoded.dpi,
        decoded.xmp,
        decoded.frames,
        decoded.float_format,
    )


# The files that have a message; they are read many times.
_reported: set[Path] = set()


def read_header(path: Path) -> ImageHeader:
    """Read size and layout without decoding the pixels.

    Raises:
        InputError: as `read_image`, as far as the header shows it.
        OSError: the file cannot be read.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise _not_a_file(path, error) from error
    with file:
        if os.fstat(file.fileno()).st_size == 0:
            raise InputError(_empty_file(path))
        try:
            return ImageHeader(*decode.read_header(file, path.suffix))
        except Exception as error:
            raise _unreadable(path, error) from error


def write_image(path: Path, image: DecodedImage, *, png_level: int = 6, quality: int | None = None) -> None:
    """Write an image in the format of the suffix, atomically, in a folder that is created if needed.

    PNG, TIFF and WebP are lossless, WebP unless it has a quality; JPEG has no chroma subsampling. WebP has no gray and
    stores it as RGB, as TIFF does for 16-bit gray with alpha. An ICC profile that does not fit the channels (a gray
    image written as RGB) is left out, as is any profile in a BMP.

    Floating point samples are stored as they are in TIFF and OpenEXR.

    EXIF data is kept in PNG, JPEG (up to 64 KB), WebP and TIFF (without tags of the camera's file), and so is the XMP
    packet, both with the size of the written image; the resolution in PNG, JPEG, TIFF and BMP.

    Args:
        path: the file.
        image: the image to write. A large PNG takes a few megabytes of memory more.
        png_level: zlib level of an 8-bit PNG, 0 to 9; 3 takes half the time of 6 and a few percent more space. Large
            and 16-bit ones have a level of their own.
        quality: of JPEG and WebP, 1 to 100; None is 95 for JPEG, and WebP without loss. Other formats do not use it.

    Raises:
        InputError: unknown suffix, or the format cannot hold the image's depth, alpha or size.
        OSError: the file cannot be written; `filename` is `path`.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_image(folder / "gray.png", DecodedImage(np.full((2, 3, 1), 128, np.uint8)))
        >>> read_image(folder / "gray.png").pixels[:, :, 0].tolist()
        [[128, 128, 128], [128, 128, 128]]
    """
    suffix = path.suffix.lower()
    is_float = image.float_format is not None
    has_alpha = image.alpha is not None
    check_format(path, height=image.height, width=image.width, bits=image.bits, alpha=has_alpha, is_float=is_float)
    if suffix == ".png" and (image.bits == 16 or image.pixels.nbytes > large.LARGE_BYTES):
        profile, tags, packet = _fitting_profile(image), _fit_exif(image), _fit_xmp(image)
        write_atomic(path, encode_png(image.pixels, image.alpha, profile, tags, image.dpi, packet))
        return
    try:
        data = _encode(suffix, image, png_level, quality)
    except (OSError, ValueError, OverflowError) as error:
        size = f"{image.height} x {image.width} pixels"
        raise InputError(f"{path}: could not encode {size} as {suffix}: {error}; choose another format.") from error
    write_atomic(path, data)


def check_format(path: Path, *, height: int, width: int, bits: int, alpha: bool, is_float: bool = False) -> None:
    """Check that the format of the suffix can hold such an image, before its pixels are computed.

    Raises:
        InputError: unknown suffix, or the format cannot hold the depth, alpha or size.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(
            f"{path}: the suffix must be one of {', '.join(SUFFIXES)}, got {path.suffix or 'none'}; "
            "choose the format by the file's name."
        )
    if suffix == ".exr" and not OPEN_EXR.is_available:
        raise InputError(f"{path}: expected the package OpenEXR to write it, got none; run `pip install OpenEXR`.")
    lacking = None
    if suffix == ".exr" and not is_float:
        lacking = f"{bits} bits per sample, only floating point; write PNG or TIFF"
    elif is_float and suffix not in FLOAT_SUFFIXES:
        lacking = "floating point samples; write TIFF or OpenEXR"
    elif bits == 16 and not is_float and suffix not in (".png", ".tif", ".tiff"):
        lacking = "16 bits per sample; write PNG or TIFF"
    elif alpha and suffix in (".jpg", ".jpeg", ".bmp"):
        lacking = "an alpha channel; write PNG, TIFF or WebP"
    elif max(height, width) > _LARGEST_SIDE_PX.get(suffix, 2**31 - 1):
        lacking = f"{height} x {width} pixels; write PNG or TIFF"
    if lacking is not None:
        raise InputError(f"{path}: expected a format that can hold the image, but {suffix} cannot hold {lacking}.")


def image_to_tensor(image: DecodedImage) -> Tensor:
    """Convert an image to RGB, float32 `[1, 3, H, W]` in [0, 1]; gray is repeated, alpha left out."""
    pixels = torch.from_numpy(image.pixels.astype(np.float32).transpose(2, 0, 1)) / image.peak
    return pixels.expand(3, -1, -1)[None].contiguous()


def tensor_to_pixels(image: Tensor, bits: int = 8) -> np.ndarray:
    """Convert float `[C, H, W]` in [0, 1] to pixels, clipped and rounded half up.

    Args:
        image: any float dtype, on any device.
        bits: 8 or 16, or 32 for floating point, which is clipped but not rounded.

    Returns:
        `[H, W, C]`, uint8, uint16 or float32.
    """
    assert bits in (8, 16, 32), bits
    assert image.ndim == 3, image.shape
    work = image.detach().float() if image.dtype != torch.float64 else image.detach()
    if bits == 32:
        return np.ascontiguousarray(work.clamp(0, 1).float().cpu().numpy().transpose(1, 2, 0))
    peak = 2**bits - 1
    levels = (work.clamp(0, 1) * peak + 0.5).floor().cpu().numpy()
    return np.ascontiguousarray(levels.astype(np.uint8 if bits == 8 else np.uint16).transpose(1, 2, 0))


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _not_a_file(path, error) from error
    if not data:
        raise InputError(_empty_file(path))
    return data


def _not_a_file(path: Path, error: OSError) -> Exception:
    """Return an `InputError` if the path is not a file, else the error itself."""
    return missing_path_error(path, "an image") if error.errno in _NO_FILE else error


def _empty_file(path: Path) -> str:
    return f"{path}: expected an image, got an empty file (0 bytes); replace or delete it."


def _unreadable(path: Path, error: Exception) -> InputError:
    if isinstance(error, MissingDecoderError):
        return InputError(f"{path}: {error}")
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if isinstance(error, struct.error | IndexError):  # of a file that ends in its header
        reason = "a damaged header"
    is_intact = isinstance(error, UnsupportedSamplesError)
    advice = "convert it to 8 or 16 bits per sample, such as a PNG" if is_intact else "replace or delete it"
    return InputError(f"{path}: expected a readable image, got {reason}; {advice}.")


def _fitting_profile(image: DecodedImage) -> bytes | None:
    """Return the ICC profile if it is for the channels that the image has."""
    # Bytes 16 to 20 of a profile name its color space (ICC.1, section 7.2.6).
    if image.icc is None or image.icc[16:20] != (b"GRAY" if image.channels == 1 else b"RGB "):
        return None
    return image.icc


def _fit_exif(image: DecodedImage) -> bytes | None:
    """Return the EXIF data with the size of the image."""
    return None if image.exif is None else exif.normalize_exif(image.exif, image.height, image.width)


def _fit_xmp(image: DecodedImage) -> bytes | None:
    """Return the XMP packet with the size of the image."""
    return normalize_xmp(image.xmp, image.height, image.width)


def _encode(suffix: str, image: DecodedImage, png_level: int, quality: int | None) -> bytes:
    samples, icc, metadata, packet = image.pixels, _fitting_profile(image), _fit_exif(image), _fit_xmp(image)
    if image.alpha is not None:
        samples = np.concatenate((samples, image.alpha[:, :, None]), axis=2)
    if image.float_format is not None:
        if suffix == ".exr":
            return encode_exr(image.pixels, image.alpha, image.float_format)
        is_associated = image.float_format.is_associated
        return encode_tiff(samples, icc, metadata, image.dpi, packet, is_associated=is_associated)
    if image.bits == 16:  # TIFF
        if samples.shape[2] == 2:  # gray with alpha: few programs read it
            samples, icc = samples[:, :, [0, 0, 0, 1]], None
        return encode_tiff(samples, icc, metadata, image.dpi, packet)
    by_pillow = Image.fromarray(np.ascontiguousarray(samples[:, :, 0] if samples.shape[2] == 1 else samples))
    buffer = io.BytesIO()
    dpi = {} if image.dpi is None else {"dpi": image.dpi}
    prefixed = b"" if metadata is None else exif.PREFIX + metadata
    if suffix == ".png":
        texts = PngInfo()
        if packet is not None:
            texts.add_itxt(PNG_KEY, packet.decode())
        by_pillow.save(
            buffer, "PNG", icc_profile=icc, compress_level=png_level, exif=prefixed or None, pnginfo=texts, **dpi
        )
    elif suffix in (".jpg", ".jpeg"):
        prefixed = prefixed if len(prefixed) <= _LARGEST_JPEG_EXIF_BYTES else b""
        packet = packet if packet is not None and len(packet) <= LARGEST_JPEG_BYTES else None
        options = {"quality": quality or _JPEG_QUALITY, "subsampling": 0, **dpi}
        by_pillow.save(buffer, "JPEG", icc_profile=icc, exif=prefixed, xmp=packet, **options)
    elif suffix == ".webp":
        by_pillow = by_pillow.convert("RGB" if image.alpha is None else "RGBA")
        embedded = {
            "icc_profile": icc if icc and image.channels == 3 else b"",
            "exif": metadata or b"",
            "xmp": packet or b"",
        }
        compression = {"lossless": True} if quality is None else {"quality": quality}
        by_pillow.save(buffer, "WEBP", exact=True, **compression, **embedded)
    elif suffix == ".bmp":
        by_pillow.save(buffer, "BMP", **dpi)
    else:
        by_pillow.save(buffer, "TIFF", compression="tiff_adobe_deflate", icc_profile=icc, **dpi)
        return append_tags(buffer.getvalue(), metadata, packet)
    return buffer.getvalue()
