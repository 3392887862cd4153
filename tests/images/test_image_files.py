import contextlib
import errno
import io
import itertools
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from selfsr.errors import InputError
from selfsr.images import decode
from selfsr.images.files import DecodedImage, image_to_tensor, read_header, read_image, tensor_to_pixels, write_image
from selfsr.images.png import encode_png

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# A gray profile differs here in the color space of its header only.
GRAY = SRGB[:16] + b"GRAY" + SRGB[20:]


def noise(*shape: int, bits: int = 8, seed: int = 0) -> np.ndarray:
    dtype = np.uint8 if bits == 8 else np.uint16
    return np.random.default_rng(seed).integers(0, 2**bits, shape).astype(dtype)


def save(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


# --- round trips -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("suffix", "bits", "alpha"),
    [
        *itertools.product([".png", ".tif", ".webp"], [8], [False, True]),
        *itertools.product([".png", ".TIFF"], [16], [False, True]),
        (".bmp", 8, False),
    ],
)
def test_lossless_round_trip(tmp_path, suffix, bits, channels, alpha):
    written = DecodedImage(
        noise(13, 17, channels, bits=bits),
        noise(13, 17, bits=bits, seed=1) if alpha else None,
        SRGB if channels == 3 else GRAY,
    )
    path = tmp_path / f"image{suffix}"
    write_image(path, written)
    read = read_image(path)
    # WebP has no gray, and hardly anything reads 16-bit gray with alpha from a TIFF: both are stored as RGB.
    as_rgb = channels == 1 and (suffix == ".webp" or (suffix == ".TIFF" and alpha))
    assert read.channels == (3 if as_rgb else channels)
    assert read.bits == bits
    assert np.array_equal(read.pixels, np.broadcast_to(written.pixels, read.pixels.shape))
    if alpha:
        assert np.array_equal(read.alpha, written.alpha)
    else:
        assert read.alpha is None
    assert read.icc == (None if as_rgb or suffix == ".bmp" else written.icc)
    header = read_header(path)
    assert (header.height, header.width, header.bits) == (13, 17, bits)
    assert read.pixels.flags.writeable
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize(("suffix", "alpha"), list(itertools.product([".png", ".tif"], [False, True])))
def test_written_16_bit_files_are_read_by_opencv(tmp_path, suffix, alpha):
    import cv2

    written = DecodedImage(noise(9, 31, 3, bits=16), noise(9, 31, bits=16, seed=1) if alpha else None, SRGB)
    write_image(tmp_path / f"a{suffix}", written)
    read = cv2.imread(str(tmp_path / f"a{suffix}"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(read[:, :, 2::-1], written.pixels)
    assert not alpha or np.array_equal(read[:, :, 3], written.alpha)
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert image.info["icc_profile"] == SRGB


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bit_files_of_other_writers_are_exact(tmp_path, suffix):
    import cv2

    for channels in (3, 4):
        samples = noise(9, 31, channels, bits=16, seed=channels)
        cv2.imwrite(str(tmp_path / f"a{suffix}"), samples)
        read = read_image(tmp_path / f"a{suffix}")
        assert np.array_equal(read.pixels, samples[:, :, 2::-1])
        assert (read.alpha is not None) == (channels == 4)
    gray = noise(9, 31, bits=16)
    path = save(tmp_path / f"gray{suffix}", Image.fromarray(gray))
    assert np.array_equal(read_image(path).pixels[:, :, 0], gray)


def test_jpeg_is_close_and_keeps_the_profile(tmp_path):
    rows, columns = np.mgrid[:48, :64]
    smooth = np.stack([rows * 4, columns * 3, (rows + columns) * 2], axis=2).astype(np.uint8)
    write_image(tmp_path / "a.jpg", DecodedImage(smooth, None, SRGB))
    read = read_image(tmp_path / "a.jpg")
    assert np.abs(read.pixels.astype(int) - smooth).max() <= 4
    assert read.icc == SRGB
    write_image(tmp_path / "gray.jpeg", DecodedImage(smooth[:, :, :1], None, GRAY))
    read = read_image(tmp_path / "gray.jpeg")
    assert np.abs(read.pixels.astype(int) - smooth[:, :, :1]).max() <= 3
    assert (read.channels, read.icc) == (1, GRAY)


def test_a_profile_of_other_channels_is_left_out(tmp_path):
    write_image(tmp_path / "a.png", DecodedImage(noise(4, 4, 3), None, GRAY))
    assert read_image(tmp_path / "a.png").icc is None
    write_image(tmp_path / "b.png", DecodedImage(noise(4, 4, 1, bits=16), None, SRGB))
    assert read_image(tmp_path / "b.png").icc is None


# --- kinds of files ----------------------------------------------------------------------------------------------


def test_palette_is_expanded(tmp_path):
    indices = noise(8, 9) % 4
    colors = [(255, 0, 0), (0, 128, 0), (0, 0, 255), (9, 9, 9)]
    image = Image.fromarray(indices).convert("L")
    image = Image.frombytes("P", (9, 8), indices.tobytes())
    image.putpalette([sample for color in colors for sample in color])
    expected = np.array(colors, np.uint8)[indices]
    for name in ("plain.png", "plain.bmp", "plain.tif"):
        read = read_image(save(tmp_path / name, image))
        assert np.array_equal(read.pixels, expected), name
        assert read.alpha is None
    read = read_image(save(tmp_path / "one.png", image, transparency=2))
    assert np.array_equal(read.pixels[indices != 2], expected[indices != 2])
    assert np.array_equal(read.alpha, np.where(indices == 2, 0, 255))
    read = read_image(save(tmp_path / "table.png", image, transparency=bytes([10, 20, 30, 40])))
    assert np.array_equal(read.alpha, np.array([10, 20, 30, 40])[indices])
    assert np.array_equal(read.pixels, expected)


def test_one_bit_and_transparent_gray(tmp_path):
    bits = noise(5, 11) > 127
    for name in ("a.png", "a.tif", "a.bmp"):
        read = read_image(save(tmp_path / name, Image.fromarray(bits)))
        assert np.array_equal(read.pixels[:, :, 0], np.where(bits, 255, 0)), name
    gray = noise(5, 11) % 8
    read = read_image(save(tmp_path / "gray.png", Image.fromarray(gray), transparency=3))
    assert read.channels == 1
    assert np.array_equal(read.alpha, np.where(gray == 3, 0, 255))
    rgb = noise(5, 11, 3) // 200
    read = read_image(save(tmp_path / "rgb.png", Image.fromarray(rgb), transparency=(1, 0, 1)))
    assert np.array_equal(read.alpha, np.where((rgb == (1, 0, 1)).all(axis=2), 0, 255))


def test_cmyk_jpeg_is_converted(tmp_path):
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    dark = Image.new("CMYK", (16, 16), (0, 0, 0, 200))
    assert np.abs(read_image(save(tmp_path / "c.jpg", cyan)).pixels.astype(int) - (0, 255, 255)).max() <= 2
    assert np.abs(read_image(save(tmp_path / "k.jpg", dark)).pixels.astype(int) - 55).max() <= 2
    # A profile that is none, or not of CMYK, neither stops the conversion nor survives it.
    for profile in (b"nonsense" * 30, SRGB):
        read = read_image(save(tmp_path / "p.jpg", cyan, icc_profile=profile))
        assert read.icc is None
        assert np.abs(read.pixels.astype(int) - (0, 255, 255)).max() <= 2


def test_lab_tiff_is_converted(tmp_path):
    white = Image.new("LAB", (8, 8), (255, 128, 128))
    assert read_image(save(tmp_path / "white.tif", white)).pixels.min() >= 250
    red = Image.new("LAB", (8, 8), (136, 208, 195))  # L* 53, a* 80, b* 67: the red of sRGB
    assert np.abs(read_image(save(tmp_path / "red.tif", red)).pixels.astype(int) - (255, 0, 0)).max() <= 12


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("suffix", "deep"),
    [(".png", False), (".jpg", False), (".webp", False), (".tif", False), (".png", True), (".tif", True)],
)
def test_orientation_is_applied(tmp_path, suffix, orientation, deep):
    # Blocks of flat color survive JPEG.
    stored = np.kron(noise(3, 2, 3) // 64 * 64, np.ones((16, 16, 1), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    options = {".jpg": {"quality": 100, "subsampling": 0}, ".webp": {"lossless": True}}
    Image.fromarray(stored).save(path, exif=exif, **options.get(suffix, {}))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert expected.shape[:2] == ((32, 48) if orientation > 4 else (48, 32))
    if deep:
        _make_deep(path, stored, exif)
    read = read_image(path)
    if deep:
        assert read.bits == 16
        expected = expected.astype(np.uint16) * 257
    assert np.array_equal(read.pixels, expected)
    header = read_header(path)
    assert (header.height, header.width) == (read.height, read.width)


def _make_deep(path: Path, stored: np.ndarray, exif: Image.Exif) -> None:
    """Write `stored` with 16 bit per sample and the orientation of `exif`, without our reader's help."""
    samples = stored.astype(np.uint16) * 257
    if path.suffix == ".png":
        data = b"".join(encode_png(samples, None, None))
        body = exif.tobytes().removeprefix(b"Exif\0\0")
        chunk = len(body).to_bytes(4, "big") + b"eXIf" + body
        chunk += zlib.crc32(b"eXIf" + body).to_bytes(4, "big")
        path.write_bytes(data[:33] + chunk + data[33:])
    else:
        import tifffile

        tifffile.imwrite(path, samples, photometric="rgb", extratags=[(274, "H", 1, exif[0x0112], True)])


def test_format_is_detected_by_content_not_by_suffix(tmp_path):
    path = tmp_path / "really_a_jpeg.png"
    Image.fromarray(noise(9, 9, 3)).save(path, "JPEG")
    assert read_header(path).format == "JPEG"
    assert read_image(path).height == 9


def test_panoramas_beyond_pillows_limit_are_read(tmp_path):
    side = 9600
    assert side * side > Image.MAX_IMAGE_PIXELS
    path = save(tmp_path / "large.png", Image.new("1", (side, side), 1), compress_level=1)
    assert (read_header(path).height, read_header(path).width) == (side, side)
    assert read_image(path).pixels[::999, ::999].min() == 255


# --- files that cannot be read -----------------------------------------------------------------------------------


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + b"\0\0\0\x0d" + body + zlib.crc32(body).to_bytes(4, "big")


def test_decompression_bomb_is_refused_by_its_size(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(400_000, 400_000) + b"\0\0\0\x08IDAT" + bytes(12))
    with pytest.raises(InputError, match=r"bomb.png: .*400000 x 400000 pixels, which take 894.1 GB .* are free"):
        read_image(path)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"expected an image, got an empty file \(0 bytes\)"),
        (b"hello, world", r"not PNG, JPEG, WebP, TIFF, BMP.* or TGA \(it begins with b'hell'\)"),
        (b"GIF89a" + bytes(40), "not PNG, JPEG"),
        (b"\x89PNG\r\n\x1a\n" + bytes(3), "readable image"),
        (b"\xff\xd8\xff" + bytes(20), "readable image"),
        (b"BM" + bytes(30), "readable image"),
        (b"II*\0" + bytes(30), "readable image"),
        (b"RIFF\x10\0\0\0WEBP" + bytes(30), "readable image"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, data, reason):
    path = tmp_path / "bad.png"
    path.write_bytes(data)
    for read in (read_image, read_header):
        with pytest.raises(InputError, match=reason) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert str(caught.value).endswith("replace or delete it.")


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "tif", "bmp", "png16", "tif16"])
def test_truncated_files_are_refused(tmp_path, kind):
    suffix, bits = kind.removesuffix("16"), 16 if kind.endswith("16") else 8
    write_image(tmp_path / f"complete.{suffix}", DecodedImage(noise(40, 40, 3, bits=bits)))
    data = (tmp_path / f"complete.{suffix}").read_bytes()
    path = tmp_path / f"cut.{suffix}"
    for share in (0.02, 0.1, 0.3, 0.5, 0.8, 0.95):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(InputError, match=f"cut.{suffix}: expected a readable image, got "):
            read_image(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from([".png", ".jpg", ".webp", ".tif", ".bmp", "16.png", "16.tif"]))
def test_damaged_file_gives_an_image_or_an_input_error(tmp_path, data, kind):
    path = tmp_path / f"damaged{kind}"
    write_image(path, DecodedImage(noise(12, 14, 3, bits=16 if kind.startswith("16") else 8)))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    for read in (read_image, read_header):
        with contextlib.suppress(InputError):
            read(path)


def test_missing_file_proposes_the_nearest_name(tmp_path):
    write_image(tmp_path / "portrait.png", DecodedImage(noise(2, 2, 3)))
    with pytest.raises(
        InputError, match=r"portrat.png: expected an image, got a path that does not exist; .*portrait.png\?"
    ):
        read_image(tmp_path / "portrat.png")
    with pytest.raises(InputError, match=r"zzz.png: .*check the path; .* has no zzz.png"):
        read_header(tmp_path / "zzz.png")
    with pytest.raises(InputError, match="expected an image, got a folder; name a file"):
        read_image(tmp_path)


# --- writing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "image", "message"),
    [
        ("a.gif", DecodedImage(noise(2, 2, 3)), r"the suffix must be one of \.png, .*got \.gif"),
        ("a", DecodedImage(noise(2, 2, 3)), "got none; choose the format by the file's name"),
        (
            "a.jpg",
            DecodedImage(noise(2, 2, 3), noise(2, 2)),
            r"\.jpg cannot hold an alpha channel; write PNG, TIFF or WebP",
        ),
        ("a.bmp", DecodedImage(noise(2, 2, 3), noise(2, 2)), r"\.bmp cannot hold an alpha channel"),
        ("a.webp", DecodedImage(noise(2, 2, 3, bits=16)), r"\.webp cannot hold 16 bits per sample; write PNG or TIFF"),
        (
            "a.webp",
            DecodedImage(np.zeros((2, 17_000, 3), np.uint8)),
            r"\.webp cannot hold 2 x 17000 pixels; write PNG or TIFF",
        ),
    ],
)
def test_write_image_refuses_what_a_format_cannot_store(tmp_path, name, image, message):
    with pytest.raises(InputError, match=message):
        write_image(tmp_path / name, image)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("suffix", "bits"), [(".png", 8), (".jpg", 8), (".png", 16), (".tif", 16)])
def test_write_image_on_a_full_disk_keeps_the_old_file(tmp_path, monkeypatch, suffix, bits):
    path = tmp_path / f"a{suffix}"
    write_image(path, DecodedImage(noise(5, 5, 3, bits=bits)))
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_image(path, DecodedImage(noise(5, 5, 3, seed=1, bits=bits)))
    assert caught.value.filename == str(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_write_image_creates_folders_with_default_permissions(tmp_path):
    path = tmp_path / "new" / "deeper" / "a.png"
    write_image(path, DecodedImage(noise(5, 5, 3)))
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


# --- tensors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 16])
def test_every_level_survives_conversion_to_tensor(bits):
    levels = np.arange(2**bits).astype(np.uint8 if bits == 8 else np.uint16).reshape(1, -1, 1)
    tensor = image_to_tensor(DecodedImage(levels))
    assert tensor.shape == (1, 3, 1, 2**bits)
    assert tensor.dtype == torch.float32
    assert torch.equal(tensor[0, 0], tensor[0, 2])
    assert tensor.max() == 1
    for image in (tensor[0], tensor[0].double()):
        assert np.array_equal(tensor_to_pixels(image, bits)[:, :, :1], levels)


def test_channels_keep_their_order():
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 1] = (255, 51, 0)
    tensor = image_to_tensor(DecodedImage(pixels))
    assert tensor[0, :, 0, 1].tolist() == pytest.approx([1, 0.2, 0])
    assert np.array_equal(tensor_to_pixels(tensor[0]), pixels)


def test_tensor_to_pixels_clips_and_rounds_half_up():
    image = torch.tensor([-0.2, 0.5 / 255, 0.49 / 255, 1.7, 254.5 / 255], dtype=torch.float64).reshape(1, 1, 5)
    assert tensor_to_pixels(image).ravel().tolist() == [0, 1, 0, 255, 255]
    assert tensor_to_pixels(torch.full((3, 1, 1), 0.5, dtype=torch.bfloat16), 16).ravel().tolist() == [32768] * 3


def test_reading_prints_nothing(tmp_path, capfd):
    write_image(tmp_path / "a.tif", DecodedImage(noise(5, 5, 3, bits=16), noise(5, 5, bits=16)))
    read_image(tmp_path / "a.tif")
    assert capfd.readouterr() == ("", "")
    assert decode.open_image(io.BytesIO((tmp_path / "a.tif").read_bytes())).mode == "RGBA"


def test_read_image_too_large_for_memory_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "large.png", DecodedImage(np.zeros((4, 4, 3), np.uint8)))

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("selfsr.images.files.decode.decode_image", fail)
    with pytest.raises(InputError, match=r"large\.png: expected an image that fits into memory, got one whose pixels"):
        read_image(tmp_path / "large.png")
