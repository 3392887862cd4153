"""TIFF files: 16 bits agree with 8 bits in every layout, and unsupported samples are refused by their tag."""

import itertools
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from selfsr.errors import InputError
from selfsr.images.files import DecodedImage, read_header, read_image, write_image

HEIGHT, WIDTH = 21, 34


def samples_8_bit(count: int) -> np.ndarray:
    """`[H, W, count]`; the last channel is at least as large as the others, as associated alpha must be."""
    noise = np.random.default_rng(count).integers(0, 256, (HEIGHT, WIDTH, count)).astype(np.uint8)
    noise[..., -1] = noise.max(axis=2)
    noise[0, 0] = 0
    return noise


def write_twins(folder: Path, samples: np.ndarray, **options) -> tuple[Path, Path]:
    """Write 8-bit samples as they are, and times 257 with 16 bits."""
    if options.get("planarconfig") == "separate":
        samples = np.moveaxis(samples, 2, 0)
    paths = folder / "8.tif", folder / "16.tif"
    for path, factor in zip(paths, (np.uint8(1), np.uint16(257)), strict=True):
        tifffile.imwrite(path, np.squeeze(samples * factor), metadata=None, **options)
    return paths


@pytest.mark.parametrize("storage", [{}, {"compression": "zlib", "predictor": True}, {"tile": (16, 16)}])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize(
    ("photometric", "extra", "planar"),
    [
        ("minisblack", None, None),
        ("miniswhite", None, None),
        ("minisblack", "unspecified", "contig"),
        ("minisblack", "assocalpha", "contig"),
        ("minisblack", "unassalpha", "contig"),
        *itertools.product(["rgb"], [None, "unspecified", "assocalpha", "unassalpha"], ["contig"]),
        ("rgb", None, "separate"),
        ("rgb", "unassalpha", "separate"),
    ],
)
def test_16_bit_tiff_agrees_with_its_8_bit_twin(tmp_path, photometric, extra, planar, byteorder, storage):
    colors = 3 if photometric == "rgb" else 1
    samples = samples_8_bit(colors + (extra is not None))
    options = {} if planar is None else {"planarconfig": planar}
    if extra is not None:
        options["extrasamples"] = [extra]
    eight, sixteen = write_twins(tmp_path, samples, photometric=photometric, byteorder=byteorder, **options, **storage)
    expected, image = read_image(eight), read_image(sixteen)
    # Pillow rounds down where it divides by alpha.
    most = 257 if extra == "assocalpha" else 0
    assert image.pixels.dtype == np.uint16
    assert np.abs(image.pixels.astype(int) - expected.pixels.astype(int) * 257).max() <= most
    assert (image.alpha is None) == (expected.alpha is None) == (extra not in ("assocalpha", "unassalpha"))
    if image.alpha is not None:
        assert np.array_equal(image.alpha, samples[..., -1] * np.uint16(257))
    header = read_header(sixteen)
    assert (header.height, header.width, header.bits, header.format) == (HEIGHT, WIDTH, 16, "TIFF")


def test_16_bit_planar_rgb_is_read_as_colors(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 2**16, (HEIGHT, WIDTH, 3)).astype(np.uint16)
    path = tmp_path / "planar.tif"
    tifffile.imwrite(path, np.moveaxis(pixels, 2, 0), photometric="rgb", planarconfig="separate")
    assert np.array_equal(read_image(path).pixels, pixels)


def test_16_bit_min_is_white_is_inverted(tmp_path):
    gray = np.random.default_rng(0).integers(0, 2**16, (HEIGHT, WIDTH)).astype(np.uint16)
    path = tmp_path / "white.tif"
    tifffile.imwrite(path, gray, photometric="miniswhite")
    assert np.array_equal(read_image(path).pixels[..., 0], 65535 - gray)


def test_16_bit_associated_alpha_is_divided_out(tmp_path):
    colors = np.array([[[0, 1000, 2000], [100, 200, 300], [0, 0, 0], [65535, 7, 65535]]], np.uint16)
    alpha = np.array([[4000, 300, 0, 65535]], np.uint16)
    path = tmp_path / "associated.tif"
    tifffile.imwrite(path, np.dstack([colors, alpha]), photometric="rgb", extrasamples=["assocalpha"])
    image = read_image(path)
    expected = [[[0, 16384, 32768], [21845, 43690, 65535], [0, 0, 0], [65535, 7, 65535]]]
    assert image.pixels.tolist() == expected
    assert np.array_equal(image.alpha, alpha)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", ["zlib", "lzw"])
def test_16_bit_orientation_is_applied_once(tmp_path, orientation, compression):
    samples = np.random.default_rng(0).integers(0, 2**16, (HEIGHT, WIDTH, 3)).astype(np.uint16)
    path = tmp_path / "turned.tif"
    data = samples if compression == "zlib" else iter([encode_lzw(samples.tobytes())])
    options = {"shape": samples.shape, "dtype": samples.dtype, "rowsperstrip": HEIGHT}
    tag = (274, "H", 1, orientation, True)
    tifffile.imwrite(path, data, photometric="rgb", compression="zlib", extratags=[tag], **options)
    if compression == "lzw":
        overwrite_tag(path, 259, 5)
    expected = samples.swapaxes(0, 1) if orientation >= 5 else samples
    rows, columns = {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}[
        orientation
    ]
    image = read_image(path)
    assert np.array_equal(image.pixels, expected[::rows, ::columns])
    header = read_header(path)
    assert (header.height, header.width) == (image.height, image.width)


def encode_lzw(data: bytes) -> bytes:
    """Return TIFF's LZW of the data without any compression; tifffile itself has none. Codes have 9 bits."""
    clear, end = 256, 257
    codes = []
    for start in range(0, len(data), 250):  # a clear code before the decoder's table needs 10 bits
        codes += [clear, *data[start : start + 250]]
    bits = "".join(f"{code:09b}" for code in [*codes, end])
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def overwrite_tag(path: Path, tag: int, value: int) -> None:
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags[tag].overwrite(value)


def test_16_bit_lzw_follows_the_tags(tmp_path):
    gray = np.random.default_rng(0).integers(0, 2**16, (HEIGHT, WIDTH)).astype(np.uint16)
    path = tmp_path / "gray.tif"
    Image.fromarray(gray).save(path, compression="tiff_lzw")
    assert np.array_equal(read_image(path).pixels[..., 0], gray)
    overwrite_tag(path, 262, 0)
    assert np.array_equal(read_image(path).pixels[..., 0], 65535 - gray)
    samples = np.random.default_rng(1).integers(0, 2**16, (HEIGHT, WIDTH, 4)).astype(np.uint16)
    samples[..., 3] = samples.max(axis=2)
    path = tmp_path / "rgba.tif"
    cv2.imwrite(str(path), samples[..., [2, 1, 0, 3]])
    image = read_image(path)
    assert np.array_equal(image.pixels, samples[..., :3])
    assert np.array_equal(image.alpha, samples[..., 3])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
def test_written_16_bit_tiff_is_read_by_others(tmp_path, channels, alpha):
    random = np.random.default_rng(0)
    pixels = random.integers(0, 2**16, (HEIGHT, WIDTH, channels)).astype(np.uint16)
    mask = random.integers(0, 2**16, (HEIGHT, WIDTH)).astype(np.uint16) if alpha else None
    path = tmp_path / "a.tif"
    write_image(path, DecodedImage(pixels, mask))
    read = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).reshape(HEIGHT, WIDTH, -1)
    colors = pixels if channels == 3 or not alpha else pixels.repeat(3, axis=2)
    if channels == 3 or alpha:
        read = read[..., [2, 1, 0, 3][: read.shape[2]]]
    assert np.array_equal(read[..., : colors.shape[2]], colors)
    assert not alpha or np.array_equal(read[..., 3], mask)
    with Image.open(path) as image:
        image.load()
        assert image.size == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("samples", "options", "reason"),
    [
        (np.ones((4, 4), np.float32), {}, "SampleFormat 3 (floating point), where 1 (unsigned integer) is supported"),
        (np.ones((4, 4, 3), np.float16), {}, "SampleFormat 3 (floating point)"),
        (np.ones((4, 4, 3), np.int16), {}, "SampleFormat 2 (signed integer)"),
        (np.ones((4, 4), np.int16), {}, "SampleFormat 2 (signed integer)"),
        (np.ones((4, 4), np.int8), {}, "SampleFormat 2 (signed integer)"),
        (np.ones((4, 4), np.int32), {}, "SampleFormat 2 (signed integer)"),
        (np.ones((4, 4), np.complex64), {}, "SampleFormat 6 (complex float)"),
        (np.ones((4, 4), np.uint32), {}, "BitsPerSample 32, where 1, 2, 4, 8 or 16 is supported"),
        (np.ones((4, 4, 3), np.uint16), {"photometric": "cielab"}, "PhotometricInterpretation 8 (of 16 bits)"),
        (np.ones((4, 4, 3), np.uint16), {"photometric": "ycbcr"}, "PhotometricInterpretation 6 (of 16 bits)"),
    ],
)
def test_unsupported_samples_are_refused_by_their_tag(tmp_path, samples, options, reason):
    path = tmp_path / "a.tif"
    photometric = "rgb" if samples.ndim == 3 else "minisblack"
    tifffile.imwrite(path, samples, **{"photometric": photometric, **options})
    expected = f"{path}: expected a readable image, got the TIFF tag {reason}"
    for read in (read_image, read_header):
        with pytest.raises(InputError, match=re.escape(expected)) as error:
            read(path)
        assert str(error.value).endswith("; convert it to 8 or 16 bits per sample, such as a PNG.")


def test_12_bit_gray_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((4, 4), np.uint16), photometric="minisblack")
    overwrite_tag(path, 258, 12)
    with pytest.raises(InputError, match=r"the TIFF tag BitsPerSample 12, where 1, 2, 4, 8 or 16 is supported"):
        read_image(path)


def test_samples_without_a_meaning_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((4, 4, 3), np.uint16), photometric="rgb")
    overwrite_tag(path, 262, 1)
    with pytest.raises(InputError, match=r"the TIFF tag SamplesPerPixel 3 with 0 ExtraSamples, where 2 are expected"):
        read_image(path)


def test_an_unknown_compression_is_refused_by_its_tag(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((4, 4, 3), np.uint16), photometric="rgb")
    overwrite_tag(path, 259, 34887)
    with pytest.raises(InputError, match=r"the TIFF tag Compression 34887 \(LERC, in this layout\), where 1 \(none\)"):
        read_image(path)


def test_a_missing_strip_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((4, 4, 3), np.uint16), photometric="rgb")
    overwrite_tag(path, 279, 0)
    with pytest.raises(InputError, match=r"a strip or tile outside of the file \(0 bytes from byte \d+ on\)"):
        read_image(path)
