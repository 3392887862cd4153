"""The formats beyond the usual ones: read where a decoder is installed, else a sentence that names the package."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from selfsr.errors import InputError
from selfsr.images import formats
from selfsr.images.files import read_header, read_image
from selfsr.images.formats import find_format, find_lost_bits, readable_suffixes
from selfsr.images.paths import is_image_name, list_folder, list_images

# The start of an AVIF and of a HEIC file, and of two containers that may be either.
AVIF = b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf"
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
MIF1_AVIF = b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf"
MIF1_HEIC = b"\0\0\0\x1cftypmif1\0\0\0\0mif1heicmiaf"
NAMES = {
    "PNG": b"\x89PNG\r\n\x1a\n",
    "JPEG": b"\xff\xd8\xff\xe0",
    "AVIF": AVIF,
    "HEIC": HEIC,
    "JPEG XL": b"\xff\x0a\0\0",
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n",
}
without_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow lacks AVIF")
without_jpeg2000 = pytest.mark.skipif(not features.check("jpg_2000"), reason="this Pillow lacks JPEG 2000")


def noise(channels: int = 3) -> np.ndarray:
    shape = (17, 23, channels) if channels > 1 else (17, 23)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_formats_are_known_by_their_content():
    for name, start in NAMES.items():
        assert find_format(start).name == name
        assert find_format(start, ".tga").name == name
    assert find_format(MIF1_AVIF).name == "AVIF"
    assert find_format(MIF1_HEIC).name == "HEIC"
    assert find_format(bytes(20), ".TGA").name == "TGA"
    with pytest.raises(InputError, match="not PNG"):
        find_format(b"\0\0\0\x1cftypisom\0\0\0\0isom")  # a video


@without_jpeg2000
@pytest.mark.parametrize("suffix", [".jp2", ".j2k"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_jpeg2000_is_read(tmp_path, suffix, channels, capfd):
    pixels = noise(channels)
    path = tmp_path / f"a{suffix}"
    Image.fromarray(pixels).save(path)
    image = read_image(path)
    expected = pixels[:, :, None] if channels == 1 else pixels[:, :, :3]
    assert np.array_equal(image.pixels, expected)
    assert (image.alpha is not None) == (channels == 4)
    header = read_header(path)
    assert (header.height, header.width, header.bits) == (17, 23, 8)
    assert list_images(tmp_path) == [path]
    assert capfd.readouterr().err == ""


@without_jpeg2000
def test_gray_jpeg2000_keeps_16_bits(tmp_path):
    gray = np.random.default_rng(0).integers(0, 65536, (17, 23), dtype=np.uint16)
    Image.fromarray(gray).save(tmp_path / "a.jp2")
    assert np.array_equal(read_image(tmp_path / "a.jp2").pixels[:, :, 0], gray)
    assert read_header(tmp_path / "a.jp2").bits == 16


@without_avif
def test_avif_is_read_upright(tmp_path):
    smooth = np.kron(noise() // 64 * 64, np.ones((16, 16, 1), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.avif"
    Image.fromarray(smooth).save(path, quality=100, subsampling="4:4:4", exif=exif.tobytes())
    image = read_image(path)
    assert image.pixels.shape == (23 * 16, 17 * 16, 3)
    assert np.abs(image.pixels.astype(int) - np.rot90(smooth, -1)).mean() < 3
    assert (read_header(path).height, read_header(path).width) == (image.height, image.width)
    assert read_header(path).frames == 1


@pytest.mark.parametrize("options", [{}, {"compression": "tga_rle"}])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tga_is_read_by_its_suffix(tmp_path, options, channels):
    pixels = noise(channels)
    Image.fromarray(pixels).save(tmp_path / "a.tga", **options)
    image = read_image(tmp_path / "a.tga")
    assert np.array_equal(image.pixels, pixels[:, :, None] if channels == 1 else pixels[:, :, :3])
    assert (image.alpha is not None) == (channels == 4)
    assert read_header(tmp_path / "a.tga").height == 17
    (tmp_path / "a.tga").rename(tmp_path / "a.png")
    with pytest.raises(InputError, match="not PNG"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".jfif", ".JPE", ".jif"])
def test_jpeg_with_another_suffix_is_read(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(noise()).save(path, "JPEG")
    assert list_images(tmp_path) == [path]
    assert read_image(path).height == 17


@pytest.mark.parametrize(
    ("start", "suffix", "name", "package"),
    [(HEIC, ".heic", "HEIC", "pillow-heif"), (b"\xff\x0a", ".jxl", "JPEG XL", "pillow-jxl-plugin")],
)
def test_missing_decoder_is_named(tmp_path, monkeypatch, start, suffix, name, package):
    real = formats._find_decoder
    monkeypatch.setattr(formats, "_find_decoder", lambda entry: None if entry.name == name else real(entry))
    readable_suffixes.cache_clear()
    try:
        path = tmp_path / f"a{suffix}"
        path.write_bytes(start + bytes(40))
        expected = f"a{suffix}: expected PNG, .*, got {name}; run `pip install --upgrade {package}` to read it."
        for read in (read_image, read_header):
            with pytest.raises(InputError, match=expected):
                read(path)
        with pytest.raises(InputError, match=rf"got only other files \(1 \{suffix}\); run `pip .* {package}`"):
            list_images(tmp_path)
        Image.fromarray(noise()).save(tmp_path / "b.png")
        listing = list_folder(tmp_path)
        assert listing.images == [tmp_path / "b.png"]
        assert listing.describe_left_out() == (
            f"1 file of another kind left out (1 {suffix}); run `pip install --upgrade {package}` to read more of them."
        )
    finally:
        readable_suffixes.cache_clear()


def test_reduction_to_8_bits_is_found():
    segment = b"\xff\x4f\xff\x51" + b"\0\x2f" + bytes(34) + b"\0\3" + bytes([15, 1, 1]) * 3
    assert find_lost_bits("JPEG 2000", segment) == 16
    assert find_lost_bits("JPEG 2000", segment.replace(b"\x0f\1\1", b"\x07\1\1")) is None
    assert find_lost_bits("AVIF", AVIF + b"....pixi\0\0\0\0\x03\x0a\x0a\x0a") == 10
    assert find_lost_bits("AVIF", AVIF + b"....pixi\0\0\0\0\x03\x08\x08\x08") is None
    assert find_lost_bits("PNG", b"") is None


def test_image_names_include_formats_without_a_decoder():
    assert all(is_image_name(Path(name)) for name in ("A.PNG", "a.heic", "a.jxl", "a.avif"))
    assert not any(is_image_name(Path(name)) for name in ("a.txt", "a", "png", "a.csv"))


# --- frames and pages ----------------------------------------------------------------------------------------------


def save_frames(kind: str, count: int) -> bytes:
    frames = [Image.fromarray(noise() // (index + 1)) for index in range(count)]
    buffer = io.BytesIO()
    options = {"WEBP": {"lossless": True}, "AVIF": {}}.get(kind, {})
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", pytest.param("AVIF", marks=without_avif)])
@pytest.mark.parametrize("count", [1, 3])
def test_frames_are_counted_and_the_first_is_read(tmp_path, kind, count):
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(save_frames(kind, count))
    image = read_image(path)
    assert image.frames == count
    assert read_header(path).frames == count
    if kind != "AVIF":
        assert np.array_equal(image.pixels, noise())


def test_pages_with_16_bits_are_counted_without_reduced_copies(tmp_path):
    import tifffile

    deep = noise().astype(np.uint16) * 257
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(deep, photometric="rgb")
        writer.write(np.ascontiguousarray(deep[::2, ::2]), photometric="rgb", subfiletype=1)
        writer.write(deep, photometric="rgb")
    assert read_image(tmp_path / "a.tif").frames == 2
    assert read_header(tmp_path / "a.tif").frames == 2
