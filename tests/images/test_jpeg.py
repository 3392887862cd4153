"""JPEG files that lack their end: read if the image is complete, refused if it is not."""

import io

import numpy as np
import pytest
from PIL import Image

from selfsr.errors import InputError
from selfsr.images.files import read_header, read_image
from selfsr.images.jpeg import restore_end


def encode(mode: str = "RGB", **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (45, 61, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


KINDS = {
    "baseline": encode(),
    "subsampled": encode(quality=60, subsampling=2),
    "progressive": encode(progressive=True),
    "gray": encode("L"),
    "gray_progressive": encode("L", progressive=True, quality=30),
    "cmyk": encode("CMYK"),
    "restarts": encode(restart_marker_blocks=2),
    "smooth": encode(quality=1),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lost_bytes", [1, 2])
def test_jpeg_without_its_end_marker_is_read_with_a_message(tmp_path, kind, lost_bytes, capfd):
    complete, cut = tmp_path / "complete.jpg", tmp_path / "cut.jpg"
    complete.write_bytes(KINDS[kind])
    cut.write_bytes(KINDS[kind][:-lost_bytes])
    assert np.array_equal(read_image(cut).pixels, read_image(complete).pixels)
    assert read_header(cut).width == 61
    sentence = f"{cut}: expected an intact file, got a file without its end marker; check the image.\n"
    # Pillow itself reads some of these files.
    assert capfd.readouterr().err == ("" if kind == "baseline" else sentence)


@pytest.mark.parametrize("kind", KINDS)
def test_jpeg_that_lacks_more_is_refused(tmp_path, kind):
    path, data = tmp_path / "a.jpg", KINDS[kind]
    # The last byte of the data may be nothing but filling bits.
    for lost_bytes in [*range(4, 60), *range(60, len(data), 97)]:
        path.write_bytes(data[:-lost_bytes])
        with pytest.raises(InputError, match="expected a readable image"):
            read_image(path)


def test_progressive_jpeg_cut_between_two_scans_is_refused(tmp_path):
    data = KINDS["progressive"]
    starts = [at for at in range(len(data) - 1) if data[at : at + 2] in (b"\xff\xda", b"\xff\xc4")]
    scans = [at for at in starts if at > data.index(b"\xff\xda")]
    assert len(scans) > 5
    for at in scans:
        assert restore_end(data[:at]) is None


def test_restore_end_returns_the_file_itself():
    data = KINDS["baseline"]
    assert restore_end(data[:-2]) == data
    assert restore_end(data[:-1]) == data
    assert restore_end(data[:100]) is None
