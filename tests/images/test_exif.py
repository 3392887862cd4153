"""EXIF data and resolution: read, made upright, and kept in every format that can hold them."""

import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from selfsr.images import large
from selfsr.images.exif import normalize_exif
from selfsr.images.files import DecodedImage, read_header, read_image, write_image

MAKE, ORIENTATION, ARTIST, EXIF_IFD, GPS_IFD = 0x010F, 0x0112, 0x013B, 0x8769, 0x8825
EXPOSURE, MAKER_NOTE, WIDTH, HEIGHT = 0x829A, 0x927C, 0xA002, 0xA003


def make_exif(orientation: int = 6) -> Image.Exif:
    exif = Image.Exif()
    exif[MAKE], exif[ARTIST], exif[ORIENTATION] = "Maker", "A. Person", orientation
    exif[EXIF_IFD] = {EXPOSURE: 0.25, MAKER_NOTE: b"secret\0bytes", WIDTH: 8, HEIGHT: 6}
    exif[GPS_IFD] = {1: "N", 2: (48.0, 8.0, 30.5)}
    return exif


def noise(bits: int = 8, height: int = 6, width: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2**bits, (height, width, 3), np.uint16 if bits == 16 else np.uint8)


def read_tags(path) -> Image.Exif:
    """Return the EXIF tags of a file, read by Pillow only."""
    with Image.open(path) as image:
        tags = image.getexif()
        for tag in (EXIF_IFD, GPS_IFD):
            tags.get_ifd(tag)
        return tags


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("source", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("target", [".jpg", ".png", ".webp", ".tif"])
def test_exif_is_kept_with_the_new_size_and_upright(tmp_path, source, target, bits):
    if bits == 16 and target not in (".png", ".tif"):
        pytest.skip("holds 8 bits")
    path = tmp_path / f"in{source}"
    Image.fromarray(noise()).save(path, exif=make_exif().tobytes(), dpi=(300, 150))
    image = read_image(path)
    assert (image.height, image.width) == (8, 6)  # orientation 6 swaps the sides
    if source != ".webp":
        assert image.dpi == pytest.approx((300, 150), abs=0.02)
    enlarged = DecodedImage(noise(bits, 80, 60), exif=image.exif, dpi=image.dpi)
    out = tmp_path / f"out{target}"
    write_image(out, enlarged)
    tags = read_tags(out)
    assert (tags[MAKE], tags[ARTIST]) == ("Maker", "A. Person")
    assert tags.get(ORIENTATION, 1) == 1
    assert tags.get_ifd(EXIF_IFD)[EXPOSURE] == 0.25
    assert tags.get_ifd(EXIF_IFD)[MAKER_NOTE] == b"secret\0bytes"
    assert (tags.get_ifd(EXIF_IFD)[WIDTH], tags.get_ifd(EXIF_IFD)[HEIGHT]) == (60, 80)
    assert tags.get_ifd(GPS_IFD)[2] == (48.0, 8.0, 30.5)
    again = read_image(out)
    assert again.exif is not None
    if target != ".jpg":
        assert np.array_equal(again.pixels, enlarged.pixels)
    if source != ".webp" and target != ".webp":
        assert again.dpi == pytest.approx((300, 150), abs=0.03)
        with Image.open(out) as other:
            assert other.info["dpi"] == pytest.approx((300, 150), abs=0.03)


def test_header_and_image_are_turned_by_exif_in_a_text_of_a_png(tmp_path):
    """As ImageMagick writes it: a line with the length, then lines of hexadecimal digits."""
    content = make_exif(6).tobytes()
    texts = PngInfo()
    texts.add_text("Raw profile type exif", f"\nexif\n{len(content):8}\n{content.hex()}\n", zip=True)
    Image.fromarray(noise()).save(tmp_path / "a.png", pnginfo=texts)
    header, image = read_header(tmp_path / "a.png"), read_image(tmp_path / "a.png")
    assert (header.height, header.width) == (image.height, image.width) == (8, 6)


def test_exif_without_a_change_is_kept_byte_for_byte(tmp_path):
    exif = make_exif(1).tobytes()
    Image.fromarray(noise()).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").exif == exif.removeprefix(b"Exif\0\0")


def test_bmp_keeps_dpi_and_files_without_metadata_get_none(tmp_path):
    write_image(tmp_path / "a.bmp", DecodedImage(noise(), exif=make_exif().tobytes()[6:], dpi=(300, 300)))
    read = read_image(tmp_path / "a.bmp")
    assert read.dpi == pytest.approx((300, 300), abs=0.02)
    assert read.exif is None
    for name in ("a.png", "a.jpg", "a.tif", "a.webp", "b.tif"):
        write_image(tmp_path / name, DecodedImage(noise(16 if name == "b.tif" else 8)))
        read = read_image(tmp_path / name)
        assert (read.exif, read.dpi) == (None, None), name


def test_exif_without_resolution_gives_no_dpi(tmp_path):
    Image.fromarray(noise()).save(tmp_path / "a.jpg", exif=make_exif(1).tobytes())
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.info["dpi"] == (72, 72)  # made up by Pillow
    assert read_image(tmp_path / "a.jpg").dpi is None


def test_large_png_keeps_exif_and_dpi(tmp_path, monkeypatch):
    monkeypatch.setattr(large, "LARGE_BYTES", 10)
    write_image(tmp_path / "a.png", DecodedImage(noise(), exif=make_exif().tobytes()[6:], dpi=(72, 300)))
    read = read_image(tmp_path / "a.png")
    assert read.dpi == pytest.approx((72, 300), abs=0.02)
    assert read_tags(tmp_path / "a.png")[MAKE] == "Maker"
    assert np.array_equal(read.pixels, noise())


def test_exif_that_jpeg_cannot_hold_is_left_out(tmp_path):
    exif = make_exif(1)
    exif[EXIF_IFD] = {MAKER_NOTE: bytes(70_000)}
    Image.fromarray(noise()).save(tmp_path / "a.png", exif=exif)
    image = read_image(tmp_path / "a.png")
    write_image(tmp_path / "a.jpg", image)
    assert read_image(tmp_path / "a.jpg").exif is None
    write_image(tmp_path / "a.webp", image)
    assert read_image(tmp_path / "a.webp").exif == image.exif


def test_tags_of_storage_do_not_reach_a_tiff(tmp_path):
    exif = make_exif(1)
    exif[0x0106], exif[0x0116], exif[0x0103] = 0, 1, 5  # min-is-white, rows per strip, LZW
    gray = noise()[:, :, :1]
    write_image(tmp_path / "a.tif", DecodedImage(gray, exif=exif.tobytes()[6:]))
    assert np.array_equal(read_image(tmp_path / "a.tif").pixels, gray)
    assert read_tags(tmp_path / "a.tif")[MAKE] == "Maker"


@pytest.mark.parametrize(
    "broken",
    [b"", b"garbage garbage", b"II*\0", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff", b"II*\0" + b"\x08" * 99],
)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_broken_exif_does_not_spoil_the_image(tmp_path, broken, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(noise()).save(path, exif=b"Exif\0\0" + broken, **({"lossless": True} if suffix == ".webp" else {}))
    for read in (read_header, read_image):
        assert (read(path).height, read(path).width) == (6, 8)
    image = read_image(path)
    for name in ("b.png", "b.jpg", "b.tif", "b.webp"):
        write_image(tmp_path / name, image)
        assert read_image(tmp_path / name).height == 6


def test_normalize_exif_sets_orientation_and_drops_the_thumbnail():
    entry = struct.pack(">HHIHxx", ORIENTATION, 3, 1, 8)
    exif = b"MM\0*" + struct.pack(">IH", 8, 1) + entry + struct.pack(">I", 26) + struct.pack(">H", 0) + bytes(4)
    expected = exif[:18] + b"\0\1\0\0" + bytes(4) + exif[26:]
    assert normalize_exif(exif) == expected
    wide = b"MM\0*" + struct.pack(">IH", 8, 1) + struct.pack(">HHIHxx", 0x0100, 3, 1, 8) + bytes(4)
    assert normalize_exif(wide, 1, 70_000)[10:22] == struct.pack(">HHII", 0x0100, 4, 1, 70_000)
    assert normalize_exif(b"no TIFF") is None


@pytest.mark.filterwarnings("ignore::UserWarning")  # by Pillow, for broken tags
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), suffix=st.sampled_from([".png", ".jpg", ".webp", ".tif", "16.tif"]))
def test_any_exif_can_be_written(tmp_path, data, suffix):
    content = bytearray(make_exif(1).tobytes()[6:])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    image = DecodedImage(noise(16 if "16" in suffix else 8), exif=normalize_exif(bytes(content)))
    path = tmp_path / f"a{suffix}"
    write_image(path, image)
    with Image.open(path) as other:
        assert other.size == (8, 6)
    assert read_image(path).width == 8
