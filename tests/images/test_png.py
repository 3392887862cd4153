"""PNG files: written row by row, and read whatever text they have."""

import errno
import io
import os
import zlib

import numpy as np
import pytest
from PIL import Image

from selfsr.images import files, large, png
from selfsr.images.files import DecodedImage, read_header, read_image, write_image
from selfsr.images.png import encode_png


def make_image(height=37, width=21, channels=3, dtype=np.uint8, alpha=False, icc=None):
    random = np.random.default_rng(0)
    peak = np.iinfo(dtype).max
    pixels = random.integers(0, peak, (height, width, channels), dtype, endpoint=True)
    return DecodedImage(pixels, pixels[:, :, 0] // 2 if alpha else None, icc)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
def test_png_by_rows_reads_back(dtype, channels, alpha, tmp_path, monkeypatch):
    monkeypatch.setattr(png, "_CHUNK_BYTES", 700)  # several rows at a time, several chunks
    original = make_image(channels=channels, dtype=dtype, alpha=alpha)
    (tmp_path / "a.png").write_bytes(b"".join(encode_png(original.pixels, original.alpha, original.icc)))
    back = read_image(tmp_path / "a.png")
    colors = back.pixels if back.channels == channels else back.pixels[:, :, :1]
    assert np.array_equal(colors, original.pixels)
    assert alpha == (back.alpha is not None)
    if alpha:
        assert np.array_equal(back.alpha, original.alpha)


def test_large_png_keeps_a_fitting_profile(tmp_path, monkeypatch):
    monkeypatch.setattr(large, "LARGE_BYTES", 100)
    profile = bytes(16) + b"RGB " + bytes(200)
    for channels, expected in ((3, profile), (1, None)):
        write_image(tmp_path / "a.png", make_image(channels=channels, icc=profile))
        with Image.open(tmp_path / "a.png") as image:
            assert image.info.get("icc_profile") == expected


def test_png_is_nearly_as_small_as_pillows():
    slope = np.add.outer(np.arange(200), np.arange(300))[:, :, None].repeat(3, 2) // 3
    original = DecodedImage((slope + np.random.default_rng(0).integers(0, 2, slope.shape)).astype(np.uint8))
    ours = sum(map(len, encode_png(original.pixels, original.alpha, original.icc)))
    buffer = io.BytesIO()
    Image.fromarray(original.pixels).save(buffer, "PNG")
    assert ours < 1.1 * len(buffer.getvalue())
    assert ours < 0.95 * len(zlib.compress(original.pixels.tobytes()))


def test_large_png_is_complete_or_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(large, "LARGE_BYTES", 100)
    monkeypatch.setattr(files, "_encode", None)  # not for large PNGs
    path = tmp_path / "a.png"
    original = make_image()
    write_image(path, original)
    assert np.array_equal(read_image(path).pixels, original.pixels)
    before = path.read_bytes()

    def breaks(*_):
        yield b"some"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "encode_png", breaks)
    with pytest.raises(OSError, match="No space left") as error:
        write_image(path, original)
    assert error.value.filename == str(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_remove_text_keeps_all_other_chunks():
    original = make_image()
    data = b"".join(encode_png(original.pixels, None, bytes(16) + b"RGB " + bytes(9)))
    assert png.remove_text(data) == data
    body = zlib.compress(bytes(20))
    for name in (b"tEXt", b"zTXt", b"iTXt"):
        chunk = len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")
        assert png.remove_text(data[:33] + chunk + data[33:-12] + chunk + data[-12:]) == data
        assert png.remove_text(data[:33] + chunk[:9]) == data[:33]


@pytest.mark.parametrize("end", [False, True])
def test_png_with_long_text_is_read(tmp_path, end):
    original = make_image()
    data = b"".join(encode_png(original.pixels, None, None))
    body = b"Comment\0\0" + zlib.compress(bytes(2**21))  # more than Pillow reads
    chunk = len(body).to_bytes(4, "big") + b"zTXt" + body + zlib.crc32(b"zTXt" + body).to_bytes(4, "big")
    cut = len(data) - 12 if end else 33
    path = tmp_path / "a.png"
    path.write_bytes(data[:cut] + chunk + data[cut:])
    assert np.array_equal(read_image(path).pixels, original.pixels)
    assert (read_header(path).height, read_header(path).width) == original.pixels.shape[:2]
