"""Decode an image file to upright samples: by Pillow, and 16-bit color by tifffile and OpenCV."""

import io
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageCms
from PIL.ImageFile import ImageFile

from selfsr.errors import InputError
from selfsr.images import exif, exr, formats, jpeg, png, tiff, xmp
from selfsr.images.floats import FloatFormat, is_linear_profile
from selfsr.images.sixteen_bit import decode_by_opencv
from selfsr.images.unsupported import UnsupportedSamplesError
from selfsr.machine.memory import measure_free_bytes

# EXIF orientation: (swap rows and columns, then flip rows, then flip columns).
_ORIENTATIONS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


@dataclass(frozen=True)
class Decoded:
    """The content of an image file, upright.

    Attributes:
        pixels: `[H, W, 1 or 3]`, uint8 or uint16, or float16 or float32 with a `float_format`.
        alpha: `[H, W]` of the same dtype, or None.
        icc: ICC profile or None.
        exif: EXIF data or None, as in `DecodedImage`.
        dpi: resolution or None, as in `DecodedImage`.
        xmp: XMP packet or None, as in `DecodedImage`.
        frames: number of frames or pages in the file.
        defects: descriptions of damage to the file that does not affect its image.
        left_out: names of channels and parts of the file that are not read.
        float_format: the meaning of floating point samples; None for integers.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    icc: bytes | None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    xmp: bytes | None = None
    frames: int = 1
    defects: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    float_format: FloatFormat | None = None


def open_image(file: BinaryIO, suffix: str = "", known: tuple[formats.ImageFormat, ...] = formats.FORMATS) -> ImageFile:
    """Open an image with Pillow by its content, not by its suffix, and without `Image.open`.

    `Image.open` has a module-wide limit of pixels and warns or raises on legitimate panoramas; `decode_image` has a
    limit of its own.

    Args:
        file: the content.
        suffix: the suffix of the file's name; it decides only for TGA, which has no signature.
        known: the formats that are expected.

    Raises:
        InputError: the content has none of the supported signatures.
        MissingDecoderError: the decoder of its format is not installed.
    """
    start = file.read(formats.SIGNATURE_BYTES)
    file.seek(0)
    return formats.find_format(start, suffix, known).load_decoder()(file)


def decode_image(data: bytes, suffix: str = "", *, for_upscaling: bool = False) -> Decoded:
    """Decode the content of an image file.

    Raises whatever the decoder raises on damaged data, without the file's name.

    Args:
        data: the content.
        suffix: as in `open_image`.
        for_upscaling: whether floating point samples and GIF are expected.
    """
    if data.startswith(tiff.SIGNATURES):
        return _decode_tiff(data, suffix, with_float=for_upscaling)
    if for_upscaling and data.startswith(exr.SIGNATURE):
        formats.OPEN_EXR.load_decoder()
        _check_memory(*exr.read_size(data), 32)
        pixels, alpha, meaning, left_out = exr.decode_exr(data)
        _check_finite(pixels, alpha)
        return Decoded(pixels, alpha, None, left_out=left_out, float_format=meaning)
    if for_upscaling and formats.GIF.matches(data):
        return _decode_by_pillow(data, suffix, formats.UPSCALED_FORMATS)
    try:
        return _decode_by_pillow(data, suffix)
    except (OSError, ValueError, SyntaxError, Warning):  # Pillow warns of broken EXIF data
        decoded = _decode_repaired(data, suffix)
        if decoded is None:
            raise
        return decoded


def _decode_tiff(data: bytes, suffix: str, *, with_float: bool) -> Decoded:
    layout = tiff.read_layout(io.BytesIO(data), with_float=with_float)
    tags, dpi, packet = exif.read_tiff_tags(data)
    if layout is None:
        decoded = _decode_by_pillow(data, suffix)
    else:
        _check_memory(layout.height, layout.width, layout.samples, layout.float_bits or 16)
        pixels, alpha, icc, orientation = tiff.decode_tiff(data, layout)
        meaning = None
        if layout.float_bits is not None:
            _check_finite(pixels, alpha)
            meaning = FloatFormat(is_linear_profile(icc), layout.associated)
        decoded = Decoded(*_upright(pixels, alpha, orientation), icc, float_format=meaning)
    return replace(decoded, exif=tags, dpi=dpi, xmp=packet, frames=tiff.count_pages(io.BytesIO(data)))


def _check_finite(*arrays: np.ndarray | None) -> None:
    count = sum(int(array.size - np.isfinite(array).sum()) for array in arrays if array is not None)
    if count:
        raise InputError(f"{count:,} samples that are NaN or infinite")


def _decode_repaired(data: bytes, suffix: str) -> Decoded | None:
    """Decode a PNG or JPEG whose image is complete though Pillow refuses the file; None if that is not so."""
    if data.startswith(png.SIGNATURE):
        repaired = png.repair_png(data)
        decoded = _decode_by_pillow(repaired.data, suffix)
        return replace(decoded, icc=repaired.icc, defects=repaired.defects)
    if data.startswith(b"\xff\xd8\xff"):
        plain = jpeg.remove_exif(data)
        defects = () if plain == data or _is_open(data) else ("damaged EXIF data",)
        data = plain if defects else data
        complete = jpeg.restore_end(data)
        if complete is not None:
            defects = (*defects, "a file without its end marker")
        if defects:
            return replace(_decode_by_pillow(complete or data, suffix), defects=defects)
    return None


def _is_open(data: bytes) -> bool:
    """Return whether Pillow opens the file, without decoding its pixels."""
    try:
        open_image(io.BytesIO(data))
    except Exception:
        return False
    return True


def read_header(file: BinaryIO, suffix: str = "") -> tuple[int, int, int, str, str, int]:
    """Return (height, width, bits, mode, format, frames) of an image, upright, without decoding its pixels.

    Raises:
        InputError: the content is not an image, or of a kind that is not supported, as far as its header shows.
    """
    start = file.read(16)
    file.seek(0)
    if start.startswith(tiff.SIGNATURES):
        layout = tiff.read_layout(file)
        file.seek(0)
        frames = tiff.count_pages(file)
        file.seek(0)
        if layout is not None:
            sides = (layout.width, layout.height) if layout.orientation >= 5 else (layout.height, layout.width)
            return *sides, 16, layout.mode, "TIFF", frames
        image = open_image(file)
        return *_upright_size(image), _bits(image), image.mode, "TIFF", frames
    try:
        image = open_image(file, suffix)
    except (OSError, ValueError, SyntaxError, Warning):
        file.seek(0)
        if start.startswith(png.SIGNATURE):
            image = open_image(io.BytesIO(png.repair_png(file.read()).data))
        elif start.startswith(b"\xff\xd8\xff"):
            image = open_image(io.BytesIO(jpeg.remove_exif(file.read())))
        else:
            raise
    return *_upright_size(image), _bits(image), image.mode, image.format or "", _count_frames(image)


def _decode_by_pillow(data: bytes, suffix: str, known: tuple[formats.ImageFormat, ...] = formats.FORMATS) -> Decoded:
    image = open_image(io.BytesIO(data), suffix, known)
    bits, frames = _bits(image), _count_frames(image)
    _check_memory(image.height, image.width, len(image.getbands()), bits)
    icc = image.info.get("icc_profile") or None
    if bits == 16 and not image.mode.startswith("I"):
        layout, orientation = _layout(image), _orientation(image)
        samples = decode_by_opencv(data)
        if samples is None or samples.shape[2] == 1:
            image.load()  # raises what is wrong, if the file is damaged
            raise InputError(f"16-bit samples in a layout ({layout}) that OpenCV does not decode")
        is_gray = layout.startswith("L")  # Pillow calls 16-bit gray with alpha RGBA, and OpenCV returns it as that
        pixels, alpha = samples[:, :, :1] if is_gray else samples[:, :, :3], None
        if samples.shape[2] == 4:
            alpha = samples[:, :, 3]
    else:
        image.load()
        orientation = _orientation(image)  # after loading, since Pillow turns a TIFF when it loads it
        pixels, alpha, icc = _eight_bit_or_gray(image, icc)
    metadata = exif.read_exif(image)
    lost = formats.find_lost_bits(formats.find_format(data[: formats.SIGNATURE_BYTES], suffix, known).name, data)
    return Decoded(
        *_upright(pixels, alpha, orientation),
        icc,
        exif=metadata,
        dpi=exif.read_dpi(image, metadata),
        xmp=xmp.read_xmp(image),
        frames=frames,
        defects=() if lost is None or bits == 16 else (f"{lost} bits per sample, which are read as 8",),
    )


def _count_frames(image: ImageFile) -> int:
    try:
        return max(1, int(getattr(image, "n_frames", 1)))
    except Exception:  # of a damaged file; its first frame may still be intact
        return 1


def _eight_bit_or_gray(image: Image.Image, icc: bytes | None) -> tuple[np.ndarray, np.ndarray | None, bytes | None]:
    """Return (pixels `[H, W, C]`, alpha, profile) of an image that Pillow decodes without loss."""
    mode, transparent = image.mode, image.info.get("transparency")
    if mode.startswith("I;16") or (mode == "I" and image.format == "PNG"):
        gray = np.asarray(image).astype(np.uint16)
        alpha = None if transparent is None else np.where(gray == transparent, 0, 65535).astype(np.uint16)
        return gray[:, :, None], alpha, icc
    if mode in ("I", "F"):
        kind = "32-bit integer" if mode == "I" else "float"
        raise UnsupportedSamplesError(f"{kind} samples, where 8 or 16 bits are supported")
    if mode in ("CMYK", "LAB"):
        image, icc = _to_srgb(image, icc), None
    elif mode in ("1", "L", "La", "LA"):
        target = "L" if transparent is None and mode in ("1", "L") else "LA"
        image = image if mode == target else image.convert(target)
    else:
        target = "RGBA" if mode in ("RGBA", "RGBa", "PA") or transparent is not None else "RGB"
        image = image if mode == target else image.convert(target)
    samples = np.array(image)
    if samples.ndim == 2:
        samples = samples[:, :, None]
    if samples.shape[2] in (2, 4):
        return samples[:, :, :-1], samples[:, :, -1], icc
    return samples, None, icc


def _to_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    """Convert CMYK (by its profile, if it has a usable one) or Lab to sRGB."""
    try:
        if image.mode == "LAB":
            source = ImageCms.createProfile("LAB")
        elif icc is not None:
            source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        else:
            return image.convert("RGB")
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):  # a profile that is damaged, or of another color space
        return image.convert("RGB")
    assert converted is not None
    return converted


def _bits(image: ImageFile) -> int:
    """Return the bits per sample that `decode_image` gives: 16 or 8 (Pillow opens 16-bit color as 8 bits)."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return 16
    return 16 if image.mode != "CMYK" and ";16" in _layout(image) else 8


def _upright_size(image: ImageFile) -> tuple[int, int]:
    """Return (height, width) once the EXIF orientation is applied, without decoding."""
    width, height = image.size
    if image.format == "TIFF":  # Pillow has already turned its size
        orientation = 1
    elif image.format == "PNG" and not {"exif", "Raw profile type exif"} & image.info.keys():
        orientation = xmp.read_orientation(image)  # asking Pillow would decode the image
    else:
        orientation = _orientation(image)
    swap = _ORIENTATIONS.get(orientation, (False,))[0]
    return (width, height) if swap else (height, width)


def _layout(image: ImageFile) -> str:
    """Return Pillow's name for the samples in the file, such as "RGB;16B"; known before loading only."""
    args = image.tile[0].args if image.tile else None
    return args if isinstance(args, str) else str((args or ("",))[0])


def _orientation(image: ImageFile) -> int:
    """Return the orientation to apply; decoders of JPEG XL apply the one that counts (ISO/IEC 18181-1) themselves."""
    return 1 if image.format == "JXL" else exif.read_orientation(image)


def _upright(pixels: np.ndarray, alpha: np.ndarray | None, orientation: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Return pixels and alpha after the EXIF orientation (CIPA DC-008, tag 274) is applied."""
    return _apply_orientation(pixels, orientation), None if alpha is None else _apply_orientation(alpha, orientation)


def _apply_orientation(array: np.ndarray, orientation: int) -> np.ndarray:
    swap, flip_rows, flip_columns = _ORIENTATIONS.get(orientation, (False, False, False))
    if swap:
        array = array.swapaxes(0, 1)
    if flip_rows:
        array = array[::-1]
    if flip_columns:
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def _check_memory(height: int, width: int, channels: int, bits: int) -> None:
    """Refuse an image that does not fit into memory, so that a file of a few bytes cannot take the machine down."""
    if width * height < 2**26:
        return
    # Twice: the decoder's own copy and ours.
    need_bytes = width * height * channels * bits // 4
    available_bytes = measure_free_bytes(torch.device("cpu"))
    if need_bytes > available_bytes:
        raise InputError(
            f"{height} x {width} pixels, which take {need_bytes / 2**30:.1f} GB to decode where "
            f"{available_bytes / 2**30:.1f} GB are free"
        )
