"""The image formats that are read: their signatures, their suffixes, and the package that decodes each."""

import importlib
import importlib.util
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from PIL import features

from selfsr.errors import InputError
from selfsr.images import exr, png, tiff
from selfsr.images.unsupported import UnsupportedSamplesError

# Enough for the signatures, and for the brands at the start of AVIF and HEIC files.
SIGNATURE_BYTES = 64
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}

# Formats whose samples are floating point, and the first bytes of their files.
_FLOAT_SIGNATURES = {"OpenEXR": exr.SIGNATURE, "Radiance HDR": b"#?"}


class MissingDecoderError(InputError):
    """The content is an image of a known format that nothing here decodes. Its message lacks the file's name."""


@dataclass(frozen=True)
class ImageFormat:
    """A format of image files.

    Attributes:
        name: the name in messages.
        suffixes: suffixes of its files, in lower case.
        matches: whether a file begins like this format; gets the first `SIGNATURE_BYTES` bytes.
        decoders: Pillow's class for it, as (module, class); the first that is installed is used. None where another
            program decodes it.
        package: the package to install where there is no decoder.
        feature: the name of Pillow's optional part, for decoders of Pillow itself.
    """

    name: str
    suffixes: tuple[str, ...]
    matches: Callable[[bytes], bool]
    decoders: tuple[tuple[str, str], ...]
    package: str = "pillow"
    feature: str | None = None

    @property
    def is_available(self) -> bool:
        """Whether a decoder is installed; true where another program decodes it."""
        return not self.decoders or _find_decoder(self) is not None

    def load_decoder(self) -> Any:
        """Import Pillow's class for the format.

        Raises:
            MissingDecoderError: none is installed; names the package.
        """
        decoder = _find_decoder(self)
        if decoder is None:
            raise MissingDecoderError(
                f"expected {list_formats()}, got {self.name}; run `pip install --upgrade {self.package}` to read it."
            )
        return getattr(importlib.import_module(decoder[0]), decoder[1])


FORMATS: tuple[ImageFormat, ...] = (
    ImageFormat(
        "PNG", (".png",), lambda start: start.startswith(png.SIGNATURE), (("PIL.PngImagePlugin", "PngImageFile"),)
    ),
    ImageFormat(
        "JPEG",
        (".jpg", ".jpeg", ".jpe", ".jfif", ".jif"),
        lambda start: start.startswith(b"\xff\xd8\xff"),
        (("PIL.JpegImagePlugin", "JpegImageFile"),),
    ),
    ImageFormat(
        "WebP",
        (".webp",),
        lambda start: start.startswith(b"RIFF") and start[8:12] == b"WEBP",
        (("PIL.WebPImagePlugin", "WebPImageFile"),),
        feature="webp",
    ),
    ImageFormat(
        "TIFF",
        (".tif", ".tiff"),
        lambda start: start.startswith(tiff.SIGNATURES),
        (("PIL.TiffImagePlugin", "TiffImageFile"),),
    ),
    ImageFormat("BMP", (".bmp",), lambda start: start.startswith(b"BM"), (("PIL.BmpImagePlugin", "BmpImageFile"),)),
    ImageFormat(
        "AVIF",
        (".avif",),
        lambda start: bool(_read_brands(start) & {b"avif", b"avis"}),
        (("PIL.AvifImagePlugin", "AvifImageFile"), ("pillow_avif.AvifImagePlugin", "AvifImageFile")),
        feature="avif",
    ),
    ImageFormat(
        "JPEG 2000",
        (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
        lambda start: start.startswith((b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n")),
        (("PIL.Jpeg2KImagePlugin", "Jpeg2KImageFile"),),
        feature="jpg_2000",
    ),
    # A TGA file has no signature: it is known by its suffix, once all others do not match.
    ImageFormat("TGA", (".tga",), lambda _: False, (("PIL.TgaImagePlugin", "TgaImageFile"),)),
    ImageFormat(
        "HEIC",
        (".heic", ".heif", ".hif"),
        lambda start: bool(_read_brands(start) & _HEIC_BRANDS),
        (("pillow_heif", "HeifImageFile"),),
        "pillow-heif",
    ),
    ImageFormat(
        "JPEG XL",
        (".jxl",),
        lambda start: start.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")),
        (("pillow_jxl.JpegXLImagePlugin", "JXLImageFile"),),
        "pillow-jxl-plugin",
    ),
)

OPEN_EXR = ImageFormat(
    "OpenEXR", (".exr",), lambda start: start.startswith(exr.SIGNATURE), (("OpenEXR", "File"),), "OpenEXR"
)
GIF = ImageFormat(
    "GIF", (".gif",), lambda start: start.startswith((b"GIF87a", b"GIF89a")), (("PIL.GifImagePlugin", "GifImageFile"),)
)
ANIMATED_PNG = ImageFormat("animated PNG", (".apng",), lambda _: False, (("PIL.PngImagePlugin", "PngImageFile"),))
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".flv", ".mpg", ".mpeg", ".m2ts", ".mts", ".vob"),
    *(".ogv", ".3gp"),  # not .ts, which is more often a program's source
)
VIDEO = ImageFormat("video", VIDEO_SUFFIXES, lambda _: False, ())
# Floating point, animations and videos are only upscaled: other commands work with images of 8 or 16 bits.
UPSCALED_FORMATS = (*FORMATS, OPEN_EXR, GIF, ANIMATED_PNG, VIDEO)


def find_format(start: bytes, suffix: str = "", formats: Sequence[ImageFormat] = FORMATS) -> ImageFormat:
    """Return the format of a file by its content; the suffix decides only for TGA, which has no signature.

    Args:
        start: the first `SIGNATURE_BYTES` bytes of the file.
        suffix: the suffix of its name.
        formats: the formats that are expected.

    Raises:
        InputError: it is none of the known formats.
        UnsupportedSamplesError: it is OpenEXR or Radiance HDR.
    """
    for image_format in formats:
        if image_format.matches(start):
            return image_format
    if suffix.lower() == ".tga":
        return next(image_format for image_format in FORMATS if image_format.name == "TGA")
    for name, signature in _FLOAT_SIGNATURES.items():
        if start.startswith(signature):
            raise UnsupportedSamplesError(f"{name} with floating point samples")
    raise InputError(f"a file that is not {list_formats(formats)} (it begins with {start[:4]!r})")


def list_formats(formats: Sequence[ImageFormat] = FORMATS) -> str:
    """Return the names of the formats that can be read here, such as "PNG, JPEG or BMP"."""
    names = [image_format.name for image_format in formats if image_format.is_available]
    return f"{', '.join(names[:-1])} or {names[-1]}"


@cache
def readable_suffixes(formats: tuple[ImageFormat, ...] = FORMATS) -> frozenset[str]:
    """Return the suffixes of the formats that can be read here."""
    return frozenset(suffix for entry in formats if entry.is_available for suffix in entry.suffixes)


def find_missing_package(suffix: str, formats: Sequence[ImageFormat] = FORMATS) -> str | None:
    """Return the package to install to read files with this suffix, or None if none is missing or known."""
    for image_format in formats:
        if suffix.lower() in image_format.suffixes and not image_format.is_available:
            return image_format.package
    return None


def find_lost_bits(name: str, data: bytes) -> int | None:
    """Return the bits per sample of an image that Pillow reads as 8 bits, or None if it does not reduce them.

    Args:
        name: name of the format.
        data: the file's content.
    """
    if name in ("AVIF", "HEIC"):  # the box with the bits of each channel (ISO/IEC 23008-12, section 6.5.6)
        match = re.search(rb"pixi\0\0\0\0(.)(.)", data[:65536], re.DOTALL)
        bits = match[2][0] if match else 8
    elif name == "JPEG 2000":  # the marker segment of the image's size (ISO/IEC 15444-1, section A.5.1)
        match = re.search(rb"\xff\x4f\xff\x51.{36}(..)(.)", data[:65536], re.DOTALL)
        bits = (match[2][0] & 0x7F) + 1 if match and match[1] > b"\0\x02" else 8
    else:
        return None
    return bits if bits > 8 else None


@cache
def _find_decoder(image_format: ImageFormat) -> tuple[str, str] | None:
    """Return the first installed decoder of a format as (module, class)."""
    for module, name in image_format.decoders:
        parent = module.partition(".")[0]
        if importlib.util.find_spec(parent) is None or importlib.util.find_spec(module) is None:
            continue
        if parent == "PIL" and image_format.feature is not None and not features.check(image_format.feature):
            continue
        return module, name
    return None


def _read_brands(start: bytes) -> set[bytes]:
    """Return the brands of a file of the ISO base media format (ISO/IEC 14496-12, section 4.3)."""
    if start[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(start[:4], "big"), len(start))
    return {start[8:12], *(start[at : at + 4] for at in range(16, end - 3, 4))}
