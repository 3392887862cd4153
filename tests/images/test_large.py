"""Large outputs: an array in a file, a PNG row by row."""

import errno
import io
import os
import zlib

import numpy as np
import pytest
from PIL import Image

from selfsr.images import large
from selfsr.images.files import Picture, read_picture
from selfsr.images.large import new_array, png_parts, write_any_picture


def picture(height=37, width=21, channels=3, dtype=np.uint8, alpha=False, icc=None):
    random = np.random.default_rng(0)
    peak = np.iinfo(dtype).max
    pixels = random.integers(0, peak, (height, width, channels), dtype, endpoint=True)
    return Picture(pixels, pixels[:, :, 0] // 2 if alpha else None, icc)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
def test_png_by_rows_reads_back(dtype, channels, alpha, tmp_path, monkeypatch):
    monkeypatch.setattr(large, "_CHUNK_BYTES", 700)  # several rows at a time, several chunks
    original = picture(channels=channels, dtype=dtype, alpha=alpha)
    (tmp_path / "a.png").write_bytes(b"".join(png_parts(original)))
    back = read_picture(tmp_path / "a.png")
    colors = back.pixels if back.channels == channels else back.pixels[:, :, :1]
    assert np.array_equal(colors, original.pixels)
    assert alpha == (back.alpha is not None)
    if alpha:
        assert np.array_equal(back.alpha, original.alpha)


def test_png_keeps_a_fitting_profile():
    profile = bytes(16) + b"RGB " + bytes(200)
    for channels, expected in ((3, profile), (1, None)):
        data = b"".join(png_parts(picture(channels=channels, icc=profile)))
        assert Image.open(io.BytesIO(data)).info.get("icc_profile") == expected


def test_png_is_nearly_as_small_as_pillows():
    slope = np.add.outer(np.arange(200), np.arange(300))[:, :, None].repeat(3, 2) // 3
    original = Picture((slope + np.random.default_rng(0).integers(0, 2, slope.shape)).astype(np.uint8))
    ours = sum(map(len, png_parts(original)))
    buffer = io.BytesIO()
    Image.fromarray(original.pixels).save(buffer, "PNG")
    assert ours < 1.1 * len(buffer.getvalue())
    assert ours < 0.95 * len(zlib.compress(original.pixels.tobytes()))


def test_small_arrays_are_plain_and_large_ones_leave_no_file(tmp_path, monkeypatch):
    assert type(new_array((10, 10), np.dtype(np.uint16), tmp_path)) is np.ndarray
    monkeypatch.setattr(large, "LARGE_BYTES", 100)
    array = new_array((10, 10), np.dtype(np.uint16), tmp_path)
    assert isinstance(array, np.memmap)
    assert array.shape == (10, 10)
    array[3] = 7
    assert int(array.sum()) == 70
    assert list(tmp_path.iterdir()) == []


def test_reserving_without_fallocate_writes_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(large, "LARGE_BYTES", 100)
    monkeypatch.setattr(large, "_CHUNK_BYTES", 64)
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    array = new_array((15, 10), np.dtype(np.uint8), tmp_path)
    assert array.shape == (15, 10)
    assert int(array.sum()) == 0


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_told_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(large, "LARGE_BYTES", 100)
    monkeypatch.setattr(large, "_reserve", full_disk)
    with pytest.raises(OSError, match="No space left") as error:
        new_array((20, 10), np.dtype(np.uint8), tmp_path)
    assert error.value.filename == str(tmp_path)


def test_large_pngs_are_whole_or_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(large, "LARGE_BYTES", 100)
    monkeypatch.setattr(large, "write_picture", full_disk)  # not for large PNGs
    path = tmp_path / "a.png"
    original = picture()
    write_any_picture(path, original)
    assert np.array_equal(read_picture(path).pixels, original.pixels)
    before = path.read_bytes()

    def breaks(_):
        yield b"some"
        full_disk()

    monkeypatch.setattr(large, "png_parts", breaks)
    with pytest.raises(OSError, match="No space left") as error:
        write_any_picture(path, original)
    assert error.value.filename == str(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
