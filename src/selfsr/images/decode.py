"""Bytes of a picture file to upright samples, by Pillow and, where it cannot, by OpenCV."""

import io
from typing import BinaryIO

import numpy as np
import torch
from PIL import BmpImagePlugin, Image, ImageCms, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin
from PIL.ImageFile import ImageFile

from selfsr.errors import InputError
from selfsr.images import sixteen_bit as deep
from selfsr.machine.memory import free_bytes

KINDS = "PNG, JPEG, WebP, TIFF or BMP"

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
_ORIENTATION_TAG = 0x0112


def opened(file: BinaryIO) -> ImageFile:
    """Open by content, not by suffix, and without `Image.open`.

    `Image.open` consults a module-wide limit of pixels and warns or raises on legitimate panoramas; `decode` has
    a limit of its own.
    """
    start = file.read(16)
    file.seek(0)
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImagePlugin.PngImageFile(file)
    if start.startswith(b"\xff\xd8\xff"):
        return JpegImagePlugin.JpegImageFile(file)
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile(file)
    if start.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return TiffImagePlugin.TiffImageFile(file)
    if start.startswith(b"BM"):
        return BmpImagePlugin.BmpImageFile(file)
    raise InputError(f"a file that is not {KINDS} (it begins with {start[:4]!r})")


def decode(data: bytes) -> tuple[np.ndarray, np.ndarray | None, bytes | None]:
    """Return (pixels `[H, W, 1 or 3]`, alpha `[H, W]` or None, ICC profile or None), upright, uint8 or uint16.

    Raises whatever the decoder raises on damaged data, without the file's name.
    """
    image = opened(io.BytesIO(data))
    _check_memory(image)
    icc = image.info.get("icc_profile") or None
    if bits(image) == 16 and not image.mode.startswith("I"):
        # OpenCV turns a TIFF by its orientation, a PNG not.
        layout, orientation = _layout(image), 1 if image.format == "TIFF" else _orientation(image)
        samples = deep.decode(data)
        if samples is None:
            image.load()  # says what is wrong, unless the file is whole
            raise InputError(f"16-bit samples in a layout ({layout}) that OpenCV does not decode")
        gray = layout.startswith("L")  # Pillow calls gray with alpha of 16 bit RGBA, and so does OpenCV
        colors, alpha = samples[:, :, :1] if gray else samples[:, :, :3], None
        if samples.shape[2] == 4:
            alpha = samples[:, :, 3]
    else:
        image.load()
        orientation = _orientation(image)  # after loading, for a TIFF is turned by then
        colors, alpha, icc = _eight_bit_or_gray(image, icc)
    return _upright(colors, orientation), None if alpha is None else _upright(alpha, orientation), icc


def _eight_bit_or_gray(image: Image.Image, icc: bytes | None) -> tuple[np.ndarray, np.ndarray | None, bytes | None]:
    """Return (pixels `[H, W, C]`, alpha, profile) of what Pillow holds without loss."""
    mode, transparent = image.mode, image.info.get("transparency")
    if mode.startswith("I;16") or (mode == "I" and image.format == "PNG"):
        gray = np.asarray(image).astype(np.uint16)
        alpha = None if transparent is None else np.where(gray == transparent, 0, 65535).astype(np.uint16)
        return gray[:, :, None], alpha, icc
    if mode in ("I", "F"):
        raise InputError(f"{'32-bit integer' if mode == 'I' else 'float'} samples, where 8 or 16 bit are supported")
    if mode in ("CMYK", "LAB"):
        image, icc = _to_srgb(image, icc), None
    elif mode in ("1", "L", "La", "LA"):
        wanted = "L" if transparent is None and mode in ("1", "L") else "LA"
        image = image if mode == wanted else image.convert(wanted)
    else:
        wanted = "RGBA" if mode in ("RGBA", "RGBa", "PA") or transparent is not None else "RGB"
        image = image if mode == wanted else image.convert(wanted)
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


def bits(image: ImageFile) -> int:
    """Return the depth that `decode` gives: 16 or 8 (Pillow opens color of 16 bit as 8 bit)."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return 16
    return 16 if image.mode != "CMYK" and ";16" in _layout(image) else 8


def upright_size(image: ImageFile) -> tuple[int, int]:
    """Return (height, width) once the EXIF orientation is applied, without decoding."""
    width, height = image.size
    # Pillow has already turned a TIFF's size; a PNG is asked only where that does not decode it.
    ask = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
    swap = ask and _ORIENTATIONS.get(_orientation(image), (False,))[0]
    return (width, height) if swap else (height, width)


def _layout(image: ImageFile) -> str:
    """Return Pillow's name for the samples as they lie in the file, such as "RGB;16B"; known before loading only."""
    args = image.tile[0].args if image.tile else None
    return args if isinstance(args, str) else str((args or ("",))[0])


def _orientation(image: Image.Image) -> int:
    return image.getexif().get(_ORIENTATION_TAG, 1)


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Undo the EXIF orientation (CIPA DC-008, tag 274) of `[H, W, ...]`."""
    swap, flip_rows, flip_columns = _ORIENTATIONS.get(orientation, (False, False, False))
    if swap:
        array = array.swapaxes(0, 1)
    if flip_rows:
        array = array[::-1]
    if flip_columns:
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def _check_memory(image: ImageFile) -> None:
    """Refuse what cannot be decoded here, so that a file of a few bytes cannot take the machine down."""
    width, height = image.size
    if width * height < 2**26:
        return
    # Twice: the decoder's own copy and ours.
    need_bytes = width * height * len(image.getbands()) * bits(image) // 4
    there_are_bytes = free_bytes(torch.device("cpu"))
    if need_bytes > there_are_bytes:
        raise InputError(
            f"{height} x {width} pixels, which take {need_bytes / 2**30:.1f} GB to decode where "
            f"{there_are_bytes / 2**30:.1f} GB are free"
        )
