"""XMP metadata: read from a file, and kept with the upright image (ISO 16684-1; embedding: part 3 of Adobe's XMP)."""

import re

from PIL import Image

# The key of its text chunk in a PNG, and the tag in a TIFF.
PNG_KEY = "XML:com.adobe.xmp"
TIFF_TAG = 700
# A JPEG marker segment has 16 bits for its length, and begins with a name of 29 bytes.
LARGEST_JPEG_BYTES = 65533 - 29

# A property is an attribute, tiff:Orientation="6", or an element, <tiff:Orientation>6</tiff:Orientation>.
_PROPERTY = r"((?:{})(?:\s*=\s*[\"']|>))\s*\d+"
_ORIENTATION = re.compile(_PROPERTY.format("tiff:Orientation"))
# What Pillow applies.
_APPLIED = re.compile(r"tiff:Orientation(?:=\"|>)([0-9])")
_WIDTH = re.compile(_PROPERTY.format("tiff:ImageWidth|exif:PixelXDimension"))
_HEIGHT = re.compile(_PROPERTY.format("tiff:ImageLength|exif:PixelYDimension"))
# Names a second packet, in which a JPEG has what does not fit into the first. It is not kept. The lookbehind keeps the
# time linear in long runs of white space, with which packets are padded.
_EXTENDED = re.compile(r"(?<!\s)\s+xmpNote:HasExtendedXMP\s*=\s*(\"[^\"]*\"|'[^']*')")


def read_xmp(image: Image.Image) -> bytes | None:
    """Return the XMP packet of an image that is not a TIFF, with orientation 1, or None."""
    xmp = image.info.get("xmp") or image.info.get(PNG_KEY)
    return normalize_xmp(xmp.encode() if isinstance(xmp, str) else xmp)


def read_orientation(image: Image.Image) -> int:
    """Return the orientation in the XMP packet of an image, which counts where there is no EXIF data; 1 without one."""
    xmp = image.info.get(PNG_KEY) or image.info.get("xmp") or ""
    match = _APPLIED.search(xmp.decode("latin-1") if isinstance(xmp, bytes) else xmp)
    return int(match[1]) if match else 1


def normalize_xmp(xmp: object, height: int | None = None, width: int | None = None) -> bytes | None:
    """Return the XMP packet of an upright image: orientation 1, and its size; None if it is not UTF-8 text.

    Nothing else changes, and the packet is not parsed.

    Args:
        xmp: the packet's bytes, in UTF-8 as all formats but TIFF require.
        height: rows; None leaves the properties of the size.
        width: columns.

    Example:
        >>> normalize_xmp(b'<rdf:Description tiff:Orientation="6" tiff:ImageWidth="30"/>', 80, 60)
        b'<rdf:Description tiff:Orientation="1" tiff:ImageWidth="60"/>'
    """
    if not isinstance(xmp, bytes):
        return None
    try:
        text = xmp.rstrip(b"\0").decode("utf-8")
    except UnicodeDecodeError:
        return None
    if not text.strip() or "\0" in text:
        return None
    text = _EXTENDED.sub("", _ORIENTATION.sub(r"\g<1>1", text))
    if height is not None and width is not None:
        text = _HEIGHT.sub(rf"\g<1>{height}", _WIDTH.sub(rf"\g<1>{width}", text))
    return text.encode()
