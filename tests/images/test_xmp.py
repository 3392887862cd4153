"""XMP metadata: read, made upright, and kept in every format that can hold it."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from selfsr.images import large
from selfsr.images.files import DecodedImage, read_header, read_image, write_image
from selfsr.images.xmp import normalize_xmp

XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/"
 xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4" xmp:Label="Grün" tiff:Orientation="6" tiff:ImageWidth="8"
 tiff:ImageLength="6"><exif:PixelXDimension>8</exif:PixelXDimension><exif:PixelYDimension>6</exif:PixelYDimension>
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>""".encode()
ENLARGED = (
    XMP.replace(b'Orientation="6"', b'Orientation="1"')
    .replace(b'ImageWidth="8"', b'ImageWidth="60"')
    .replace(b'ImageLength="6"', b'ImageLength="80"')
    .replace(b"XDimension>8<", b"XDimension>60<")
    .replace(b"YDimension>6<", b"YDimension>80<")
)


def noise(bits: int = 8, height: int = 6, width: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2**bits, (height, width, 3), np.uint16 if bits == 16 else np.uint8)


def save(path, xmp: bytes = XMP) -> None:
    """Save an image with an XMP packet by Pillow only."""
    image = Image.fromarray(noise())
    if path.suffix == ".png":
        texts = PngInfo()
        texts.add_itxt("XML:com.adobe.xmp", xmp.decode(), zip=True)
        image.save(path, pnginfo=texts)
    elif path.suffix == ".tif":
        tags = ImageFileDirectory_v2()
        tags.tagtype[700], tags[700] = 1, xmp
        image.save(path, tiffinfo=tags)
    else:
        image.save(path, xmp=xmp)


def read_by_pillow(path) -> bytes | None:
    with Image.open(path) as image:
        return image.info.get("xmp")


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("source", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("target", [".jpg", ".png", ".webp", ".tif"])
def test_xmp_is_kept_with_the_new_size_and_upright(tmp_path, source, target, bits):
    if bits == 16 and target not in (".png", ".tif"):
        pytest.skip("holds 8 bits")
    save(tmp_path / f"in{source}")
    image = read_image(tmp_path / f"in{source}")
    enlarged = DecodedImage(noise(bits, 80, 60), xmp=image.xmp)
    out = tmp_path / f"out{target}"
    write_image(out, enlarged)
    assert read_by_pillow(out) == ENLARGED
    again = read_image(out)
    assert (again.xmp, again.height, again.width) == (ENLARGED, 80, 60)
    if target != ".jpg":
        assert np.array_equal(again.pixels, enlarged.pixels)


def test_the_orientation_of_xmp_is_applied_once(tmp_path):
    """Readers use it where there is no EXIF data."""
    save(tmp_path / "in.png")
    image = read_image(tmp_path / "in.png")
    turned = np.rot90(noise(), -1)  # orientation 6 is a quarter turn clockwise
    assert np.array_equal(image.pixels, turned)
    header = read_header(tmp_path / "in.png")
    assert (header.height, header.width) == turned.shape[:2] == (8, 6)
    write_image(tmp_path / "out.png", image)
    assert np.array_equal(read_image(tmp_path / "out.png").pixels, turned)


def test_exif_dpi_and_xmp_are_kept_together(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    packet = normalize_xmp(XMP, 6, 8)
    for name, bits in (("a.png", 8), ("b.png", 16), ("a.jpg", 8), ("a.webp", 8), ("a.tif", 8), ("b.tif", 16)):
        write_image(tmp_path / name, DecodedImage(noise(bits), exif=exif.tobytes()[6:], dpi=(300, 150), xmp=packet))
        image = read_image(tmp_path / name)
        assert image.xmp == packet, name
        assert image.exif is not None, name
        assert b"Maker" in image.exif, name
        assert name == "a.webp" or image.dpi == pytest.approx((300, 150), abs=0.03), name


def test_large_png_keeps_xmp(tmp_path, monkeypatch):
    monkeypatch.setattr(large, "LARGE_BYTES", 10)
    write_image(tmp_path / "a.png", DecodedImage(noise(), xmp=XMP))
    assert read_by_pillow(tmp_path / "a.png") == normalize_xmp(XMP, 6, 8)


def test_files_without_xmp_get_none(tmp_path):
    for name in ("a.png", "a.jpg", "a.tif", "a.webp", "a.bmp"):
        write_image(tmp_path / name, DecodedImage(noise()))
        assert read_image(tmp_path / name).xmp is None, name


def test_xmp_that_jpeg_cannot_hold_is_left_out(tmp_path):
    for size, kept in ((65504, True), (65505, False)):
        packet = XMP + b" " * (size - len(normalize_xmp(XMP, 6, 8) or b""))
        write_image(tmp_path / "a.jpg", DecodedImage(noise(), xmp=packet))
        assert (read_image(tmp_path / "a.jpg").xmp is not None) == kept
        write_image(tmp_path / "a.webp", DecodedImage(noise(), xmp=packet))
        assert read_image(tmp_path / "a.webp").xmp == normalize_xmp(packet, 6, 8)


@pytest.mark.parametrize("broken", [b"\xff\xfe<\0x\0", b"a\0b", b" \0", b"\xe9"])
@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".tif"])
def test_xmp_that_is_not_text_is_left_out(tmp_path, broken, suffix):
    save(tmp_path / f"a{suffix}", broken)
    image = read_image(tmp_path / f"a{suffix}")
    assert (image.xmp, image.width) == (None, 8)


def test_the_second_packet_of_a_jpeg_is_not_named():
    packet = b'<rdf:Description xmp:Rating="4" xmpNote:HasExtendedXMP="0123456789ABCDEF0123456789ABCDEF"/>'
    assert normalize_xmp(packet) == b'<rdf:Description xmp:Rating="4"/>'


def test_a_sixteen_bit_tiff_stays_readable_by_others(tmp_path):
    import tifffile

    write_image(tmp_path / "a.tif", DecodedImage(noise(16), xmp=XMP))
    with tifffile.TiffFile(io.BytesIO((tmp_path / "a.tif").read_bytes())) as file:
        assert np.array_equal(file.asarray(), noise(16))
        page: Any = file.pages[0]
        assert bytes(page.tags[700].value) == normalize_xmp(XMP, 6, 8)
