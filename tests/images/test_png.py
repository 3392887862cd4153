"""PNG files: written row by row, and read whatever text they have."""

import errno
import io
import os
import zlib

import numpy as np
import pytest
from PIL import Image

from selfsr.errors import InputError
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


def make_chunk(name: bytes, body: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(name + body) if checksum is None else checksum
    return len(body).to_bytes(4, "big") + name + body + checksum.to_bytes(4, "big")


def encode(original=None, icc=None) -> bytes:
    return b"".join(encode_png((original or make_image()).pixels, None, icc))


def test_repair_png_keeps_all_chunks_but_text_and_profile():
    data = encode()
    assert png.repair_png(data) == png.RepairedPng(data, None, ())
    body = zlib.compress(bytes(20))
    for name in (b"tEXt", b"zTXt", b"iTXt"):
        chunk = make_chunk(name, body)
        assert png.repair_png(data[:33] + chunk + data[33:-12] + chunk + data[-12:]).data == data
        assert png.repair_png(data[:33] + chunk[:9]).data == data[:33]
    profile = bytes(16) + b"RGB " + bytes(9)
    assert png.repair_png(encode(icc=profile)) == png.RepairedPng(data, profile, ())


@pytest.mark.parametrize("end", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_with_long_text_is_read(tmp_path, end, dtype, capfd):
    original = make_image(dtype=dtype)
    data = encode(original)
    chunk = make_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**21)))  # more than Pillow reads
    cut = len(data) - 12 if end else 33
    path = tmp_path / "a.png"
    path.write_bytes(data[:cut] + chunk + data[cut:])
    assert np.array_equal(read_image(path).pixels, original.pixels)
    assert (read_header(path).height, read_header(path).width) == original.pixels.shape[:2]
    assert capfd.readouterr().err == ""  # the file is intact


def test_png_with_more_text_in_all_than_pillow_reads_is_read(tmp_path):
    original = make_image()
    data = encode(original)
    chunk = make_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**20 - 1)))
    path = tmp_path / "a.png"
    path.write_bytes(data[:33] + 66 * chunk + data[33:])
    with pytest.raises(ValueError, match="Too much memory used"):
        Image.open(path)
    assert np.array_equal(read_image(path).pixels, original.pixels)
    assert read_header(path).width == original.width


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_with_a_large_profile_is_written_and_read(tmp_path, dtype):
    profile = bytes(16) + b"RGB " + np.random.default_rng(0).bytes(2**21)
    original = make_image(dtype=dtype, icc=profile)
    path = tmp_path / "a.png"
    write_image(path, original)
    back = read_image(path)
    assert back.icc == profile
    assert np.array_equal(back.pixels, original.pixels)
    assert read_header(path).height == original.height


def test_orientation_next_to_a_long_text_is_applied(tmp_path):
    original = make_image()
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = exif.tobytes()
    profile = b"Raw profile type exif\0\nexif\n%8d\n%s" % (len(raw), raw.hex().encode())
    long_text = make_chunk(b"tEXt", b"Comment\0" + bytes(2**20 + 1))
    data = encode(original)
    path = tmp_path / "a.png"
    path.write_bytes(data[:33] + make_chunk(b"tEXt", profile) + long_text * 66 + data[33:])
    assert np.array_equal(read_image(path).pixels, np.rot90(original.pixels, -1))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("end", [False, True])
@pytest.mark.parametrize("name", [b"tEXt", b"pHYs", b"gAMA", b"zzZz"])
def test_damaged_ancillary_chunk_is_left_out_with_a_message(tmp_path, dtype, end, name, capfd):
    original = make_image(dtype=dtype)
    data = encode(original)
    cut = len(data) - 12 if end else 33
    path = tmp_path / "[b]a.png"
    path.write_bytes(data[:cut] + make_chunk(name, bytes(9), checksum=1) + data[cut:])
    for _ in range(2):
        assert np.array_equal(read_image(path).pixels, original.pixels)
    assert read_header(path).width == original.width
    defect = f"a chunk {name.decode()} with a wrong checksum"
    expected = f"{path}: expected an intact file, got {defect}; check the image.\n"
    printed = capfd.readouterr().err
    if end:  # decoders do not need what follows the image
        assert "intact" not in printed
    else:
        assert printed == expected  # once


def test_damaged_critical_chunk_is_refused(tmp_path):
    data = bytearray(encode())
    data[29] ^= 1  # the checksum of IHDR
    (tmp_path / "a.png").write_bytes(data)
    for read in (read_image, read_header):
        with pytest.raises(InputError, match="expected a readable image"):
            read(tmp_path / "a.png")
