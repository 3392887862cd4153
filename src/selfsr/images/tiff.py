"""Check the tags of TIFF files, and read and write 16-bit samples, which Pillow does not support in color.

Tags and sections are those of the TIFF 6.0 specification.
"""

import contextlib
import io
import logging
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from selfsr.errors import InputError
from selfsr.images.exif import load_exif, select_tags
from selfsr.images.sixteen_bit import decode_by_opencv
from selfsr.images.unsupported import UnsupportedSamplesError
from selfsr.images.xmp import TIFF_TAG

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_EXTRA_SAMPLES, _ICC_PROFILE, _ORIENTATION = 338, 34675, 274
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _CMYK = 0, 1, 2, 5  # PhotometricInterpretation
_ASSOCIATED, _UNASSOCIATED = 1, 2  # ExtraSamples
_BYTE = 1  # type of a tag's values
_PLANAR = 2  # PlanarConfiguration
_FLOAT_PREDICTOR = 3  # Predictor
_FLOAT, _FLOAT_BITS = 3, (16, 32, 64)  # SampleFormat, and its BitsPerSample
_SAMPLE_FORMATS = {2: "signed integer", 3: "floating point", 4: "undefined", 5: "complex integer", 6: "complex float"}
# Level 6 takes three times as long and saves a few percent: noise fills the low byte.
_ZLIB_LEVEL = 3


@dataclass(frozen=True)
class TiffLayout:
    """Storage of the samples in a TIFF file with gray or RGB of 16 bits or floating point.

    Attributes:
        height, width: rows and columns as stored, before the orientation is applied.
        samples: samples per pixel.
        colors: 1 (gray) or 3 (RGB).
        alpha: index of the alpha channel among the samples of a pixel, or None.
        associated: whether the colors are multiplied by alpha.
        inverted: whether 0 is white.
        orientation: as in EXIF, 1 to 8.
        float_bits: 16, 32 or 64 for floating point, or None.
    """

    height: int
    width: int
    samples: int
    colors: int
    alpha: int | None
    associated: bool
    inverted: bool
    orientation: int
    float_bits: int | None = None

    @property
    def mode(self) -> str:
        """Pillow's name for the layout."""
        if self.colors == 1:
            return "I;16" if self.alpha is None else "LA"
        return "RGB" if self.alpha is None else "RGBA"


def read_layout(file: BinaryIO, *, with_float: bool = False) -> TiffLayout | None:
    """Return the storage of the first page's samples, or None if Pillow reads them without loss.

    Args:
        file: a TIFF file.
        with_float: whether floating point is expected.

    Raises:
        InputError: the samples are of a kind that is not supported; names the tag.
    """
    with _open_page(file) as page:
        return _check_tags(page, with_float)


def count_pages(file: BinaryIO) -> int:
    """Return the number of pages, without reduced copies of others (NewSubfileType, bit 0); 1 if a later one is broken.

    Args:
        file: a TIFF file.
    """
    import tifffile

    try:
        with tifffile.TiffFile(file) as tiff:
            return max(1, sum(not getattr(page, "is_reduced", False) for page in tiff.pages))
    except Exception:  # the library raises nearly anything for damaged files
        return 1


def decode_tiff(data: bytes, layout: TiffLayout) -> tuple[np.ndarray, np.ndarray | None, bytes | None, int]:
    """Decode gray and RGB of 16 bits or floating point.

    Colors that are multiplied by alpha are divided by it, samples whose 0 is white are inverted, and extra samples
    that are not alpha are left out, as Pillow does for 8 bits. Floating point colors stay multiplied by alpha.

    Args:
        data: the file's content.
        layout: what `read_layout` returns for it.

    Returns:
        (pixels `[H, W, 1 or 3]` uint16, float16 or float32, alpha `[H, W]` of the same dtype or None, ICC profile or
        None, orientation to apply).

    Raises:
        InputError: the compression is not supported, or a strip or tile is missing.
    """
    with _open_page(io.BytesIO(data)) as page:
        samples, upright = _read_samples(page, data)
        icc = page.tags.valueof(_ICC_PROFILE)
    pixels, alpha = samples[:, :, : layout.colors], None
    if layout.inverted:
        pixels = (65535 if layout.float_bits is None else 1) - pixels
    if layout.alpha is not None:
        alpha = np.ascontiguousarray(samples[:, :, layout.alpha])
        if layout.associated and layout.float_bits is None:
            pixels = _divide_by_alpha(pixels, alpha)
    return np.ascontiguousarray(pixels), alpha, icc, 1 if upright else layout.orientation


def encode_tiff(
    samples: np.ndarray,
    icc: bytes | None,
    exif: bytes | None = None,
    dpi: tuple[float, float] | None = None,
    xmp: bytes | None = None,
    *,
    is_associated: bool = False,
) -> bytes:
    """Return a TIFF file, compressed with deflate; larger than 4 GB it is a BigTIFF.

    Args:
        samples: uint16, float16 or float32 `[H, W, C]`; C of 1, 2, 3, 4 is gray, gray and alpha, RGB, RGB and alpha.
        icc: profile to embed.
        exif: EXIF data to embed, without the tags of how its own file is stored.
        dpi: horizontal and vertical resolution.
        xmp: XMP packet to embed.
        is_associated: whether the colors are multiplied by alpha.
    """
    import tifffile

    resolution = {} if dpi is None else {"resolution": dpi, "resolutionunit": "INCH"}
    channels = samples.shape[2]
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        samples[:, :, 0] if channels == 1 else samples,
        photometric="minisblack" if channels <= 2 else "rgb",
        planarconfig="contig" if channels > 1 else None,
        extrasamples=["assocalpha" if is_associated else "unassalpha"] if channels in (2, 4) else None,
        compression="zlib",
        compressionargs={"level": _ZLIB_LEVEL},
        predictor=samples.dtype.kind == "u",  # differences of floats are not exact
        iccprofile=icc,
        metadata=None,
        software=False,
        **resolution,
    )
    return append_tags(buffer.getvalue(), exif, xmp)


def append_tags(data: bytes, exif: bytes | None, xmp: bytes | None = None) -> bytes:
    """Return a TIFF file of one page with the tags of EXIF data that describe the image, and with an XMP packet.

    They follow the rest, with a new directory (TIFF 6.0, section 2). BigTIFF files stay as they are.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None or (exif is None and xmp is None):
        return data
    content = bytearray(data + bytes(len(data) % 2))
    position = len(content)
    directory = ImageFileDirectory_v2(data[:4] + bytes(4))
    try:
        for tag, value in select_tags(load_exif(exif)).items() if exif is not None else ():
            directory[tag] = value
        if xmp is not None:
            directory.tagtype[TIFF_TAG] = _BYTE
            directory[TIFF_TAG] = xmp
        content += directory.tobytes(position)
    except Exception:  # Pillow raises nearly anything for broken tags
        return data
    entries = {}
    for start in (struct.unpack_from(f"{order}I", content, 4)[0], position):
        (count,) = struct.unpack_from(f"{order}H", content, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            entries[struct.unpack_from(f"{order}H", content, at)[0]] = content[at : at + 12]
    content += bytes(len(content) % 2)
    struct.pack_into(f"{order}I", content, 4, len(content))
    content += struct.pack(f"{order}H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries)) + bytes(4)
    return bytes(content)


@contextlib.contextmanager
def _open_page(file: BinaryIO) -> Iterator[Any]:
    """Yield the first page of a file."""
    import tifffile

    # What the library logs about damaged files is also in the exception; this keeps it from standard error.
    if not (logger := logging.getLogger("tifffile")).handlers:
        logger.addHandler(logging.NullHandler())
    with tifffile.TiffFile(file) as tiff:
        yield tiff.pages[0]


def _check_tags(page: Any, with_float: bool) -> TiffLayout | None:
    """Return the layout of gray or RGB of 16 bits or floats, or None if Pillow reads the file; refuse all others."""
    kinds = set(np.atleast_1d(page.sampleformat or 1).tolist())
    is_float = with_float and kinds == {_FLOAT}
    for value in kinds - {1}:
        if not is_float:
            raise _unsupported("SampleFormat", value, _SAMPLE_FORMATS.get(value, "unknown"), "1 (unsigned integer)")
    bits = page.bitspersample
    supported = _FLOAT_BITS if is_float else (1, 2, 4, 8, 16)
    if bits not in supported:
        raise _unsupported("BitsPerSample", bits, None, f"{', '.join(map(str, supported[:-1]))} or {supported[-1]}")
    photometric = int(page.photometric)
    if not is_float and (bits != 16 or photometric == _CMYK):
        return None
    if photometric not in (_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB):
        meaning, colors = ("of floats", "") if is_float else ("of 16 bits", " or 5 (CMYK)")
        raise _unsupported("PhotometricInterpretation", photometric, meaning, f"0, 1 (gray), 2 (RGB){colors}")
    colors = 3 if photometric == _RGB else 1
    extra_count = page.samplesperpixel - colors
    tag = page.tags.valueof(_EXTRA_SAMPLES)
    extras = [int(kind) for kind in np.atleast_1d(tag).tolist()] if tag is not None else []
    if tag is None and (colors, extra_count) == (3, 1):
        extras = [_UNASSOCIATED]  # some writers of RGBA leave the tag out; Pillow assumes this for 8 bits
    if len(extras) != extra_count:
        raise InputError(
            f"the TIFF tag SamplesPerPixel {page.samplesperpixel} with {len(extras)} ExtraSamples, "
            f"where {extra_count} are expected"
        )
    if page.imagedepth != 1:
        raise _unsupported("ImageDepth", page.imagedepth, None, "1")
    alphas = [index for index, kind in enumerate(extras) if kind in (_ASSOCIATED, _UNASSOCIATED)]
    alpha = alphas[0] if alphas else None
    return TiffLayout(
        height=page.imagelength,
        width=page.imagewidth,
        samples=page.samplesperpixel,
        colors=colors,
        alpha=None if alpha is None else colors + alpha,
        associated=alpha is not None and extras[alpha] == _ASSOCIATED,
        inverted=photometric == _MIN_IS_WHITE,
        orientation=int(page.tags.valueof(_ORIENTATION, 1)),
        float_bits=bits if is_float else None,
    )


def _unsupported(tag: str, value: Any, meaning: str | None, supported: str) -> InputError:
    described = f"{tag} {value}" if meaning is None else f"{tag} {value} ({meaning})"
    return UnsupportedSamplesError(f"the TIFF tag {described}, where {supported} is supported")


def _read_samples(page: Any, data: bytes) -> tuple[np.ndarray, bool]:
    """Return the samples as stored, `[H, W, samples]`, and whether the orientation is applied already.

    They are uint16, float16 or float32; float64 is rounded.
    """
    import tifffile

    if page.compression not in tifffile.TIFF.DECOMPRESSORS or page.predictor == _FLOAT_PREDICTOR:
        return _read_by_opencv(page, data), True
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if count <= 0 or offset + count > len(data):
            raise InputError(f"a strip or tile outside of the file ({count} bytes from byte {offset} on)")
    samples = page.asarray(maxworkers=1)
    if samples.ndim == 2:
        samples = samples[:, :, None]
    elif page.planarconfig == _PLANAR:
        samples = samples.transpose(1, 2, 0)
    expected = (page.imagelength, page.imagewidth, page.samplesperpixel)
    assert samples.shape == expected, (samples.shape, expected)
    half_or_single = np.float16 if samples.dtype.itemsize == 2 else np.float32
    return samples.astype(half_or_single if samples.dtype.kind == "f" else np.uint16, copy=False), False


def _read_by_opencv(page: Any, data: bytes) -> np.ndarray:
    """Return the samples of a file with a compression that tifffile does not have, such as LZW; upright."""
    samples = None
    # OpenCV reads planes as noise, and gray with alpha as 8 bits.
    if page.samplesperpixel in (1, 3, 4) and (page.planarconfig != _PLANAR or page.samplesperpixel == 1):
        samples = decode_by_opencv(data)
    if samples is None or samples.shape[2] != page.samplesperpixel:
        name = getattr(page.compression, "name", "unknown")
        raise _unsupported("Compression", int(page.compression), f"{name}, in this layout", "1 (none) or 8 (deflate)")
    return samples


def _divide_by_alpha(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return the colors of pixels that are multiplied by alpha; those with alpha 0 stay as they are."""
    # The largest value, 65535^2 + 32767, fits in 32 bits.
    divisor = np.where(alpha == 0, 65535, alpha).astype(np.uint32)[:, :, None]
    colors = (pixels.astype(np.uint32) * 65535 + divisor // 2) // divisor
    return np.minimum(colors, 65535).astype(np.uint16)
