"""Floating point samples: the transfer function of sRGB, linear profiles, TIFF and OpenEXR files."""

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import ImageCms

from selfsr.errors import InputError
from selfsr.images.files import DecodedImage, read_image, write_image
from selfsr.images.floats import FloatFormat, decode_srgb, encode_srgb, is_linear_profile

SAMPLES = np.random.default_rng(0).normal(0.5, 2, (9, 11, 4)).astype(np.float32)


def test_srgb_agrees_with_iec_61966_2_1() -> None:
    # The values of all 8-bit levels in float64, by the formula of the standard.
    encoded = np.arange(256) / 255
    light = np.array([e / 12.92 if e <= 0.04045 else ((e + 0.055) / 1.055) ** 2.4 for e in encoded.tolist()])
    assert np.allclose(decode_srgb(encoded), light, rtol=1e-12)
    assert np.abs(encode_srgb(light) - encoded).max() < 1e-6  # the standard's constants do not meet exactly
    assert light[188] == pytest.approx(0.5028864580)  # the level next to half the light


def make_profile(curve: bytes) -> bytes:
    tags = (b"rTRC", b"gTRC", b"bTRC")
    start = 132 + 12 * len(tags)
    table = b"".join(struct.pack(">4sII", tag, start, len(curve)) for tag in tags)
    return bytes(128) + struct.pack(">I", len(tags)) + table + curve


def test_profiles_of_linear_samples_are_known() -> None:
    identity = b"curv" + bytes(4) + struct.pack(">I", 0)
    gamma = b"curv" + bytes(4) + struct.pack(">IH", 1, 256)
    parametric = b"para" + bytes(4) + struct.pack(">Hxxi", 0, 65536)
    assert all(is_linear_profile(make_profile(curve)) for curve in (identity, gamma, parametric))
    for curve in (gamma[:-2] + b"\2\x33", parametric[:-4] + struct.pack(">i", 144179), b"curv"):
        assert not is_linear_profile(make_profile(curve))
    assert not is_linear_profile(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    assert not is_linear_profile(None)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_float_tiff_is_read_as_it_is(tmp_path: Path, dtype: type, channels: int) -> None:
    path = tmp_path / "a.tif"
    samples = np.squeeze(SAMPLES[:, :, :channels]).astype(dtype)
    options = {"extrasamples": ["assocalpha"]} if channels == 4 else {}
    photometric = "rgb" if channels > 1 else "minisblack"
    tifffile.imwrite(path, samples, photometric=photometric, metadata=None, compression="zlib", **options)
    image = read_image(path, for_upscaling=True)
    colors = samples.reshape(9, 11, -1)[:, :, : 3 if channels > 1 else 1]
    assert image.pixels.dtype == (np.float16 if dtype == np.float16 else np.float32)
    assert np.array_equal(image.pixels, colors.astype(image.pixels.dtype))
    assert (image.alpha is not None) == (channels == 4)
    assert image.float_format == FloatFormat(is_linear=False, is_associated=channels == 4)
    with pytest.raises(InputError, match=r"SampleFormat 3 \(floating point\), where 1 \(unsigned integer\)"):
        read_image(path)


def test_float_tiff_by_lzw_and_predictor_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    options = [cv2.IMWRITE_TIFF_COMPRESSION, 5, cv2.IMWRITE_TIFF_PREDICTOR, 3]
    assert cv2.imwrite(str(path), np.ascontiguousarray(SAMPLES[:, :, 2::-1]), options)
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        assert (page.compression, page.predictor) == (5, 3)
    assert np.array_equal(read_image(path, for_upscaling=True).pixels, SAMPLES[:, :, :3])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("has_alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", [".tiff", ".exr"])
def test_float_files_keep_all_samples(tmp_path: Path, suffix: str, channels: int, has_alpha: bool, dtype: type) -> None:
    if suffix == ".exr":
        pytest.importorskip("OpenEXR", reason="the package OpenEXR is not installed")
    alpha = np.abs(SAMPLES[:, :, 3]).astype(dtype) if has_alpha else None
    is_exr = suffix == ".exr"
    primaries = (0.7, 0.25, 0.25, 0.75, 0.125, 0.0, 0.25, 0.375) if is_exr else None
    meaning = FloatFormat(is_linear=is_exr, is_associated=is_exr and has_alpha, chromaticities=primaries)
    image = DecodedImage(SAMPLES[:, :, :channels].astype(dtype), alpha, float_format=meaning)
    write_image(tmp_path / f"a{suffix}", image)
    again = read_image(tmp_path / f"a{suffix}", for_upscaling=True)
    assert again.pixels.dtype == dtype
    assert np.array_equal(again.pixels, image.pixels)
    assert again.alpha is None if alpha is None else np.array_equal(again.alpha, alpha)
    assert again.float_format is not None
    assert (again.float_format.is_linear, again.float_format.is_associated) == (is_exr, is_exr and has_alpha)
    if primaries is not None:
        assert again.float_format.chromaticities == pytest.approx(primaries)


def test_samples_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    samples = SAMPLES[:, :, :3].copy()
    samples[1, 2, 0], samples[0, 0, 1] = np.nan, np.inf
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb")
    with pytest.raises(InputError) as error:
        read_image(tmp_path / "a.tif", for_upscaling=True)
    assert str(error.value) == (
        f"{tmp_path / 'a.tif'}: expected a readable image, got 2 samples that are NaN or infinite; replace or delete "
        "it."
    )


def test_other_formats_refuse_floats_and_openexr_refuses_integers(tmp_path: Path) -> None:
    image = DecodedImage(SAMPLES[:, :, :3], float_format=FloatFormat())
    with pytest.raises(InputError, match=r"\.png cannot hold floating point samples; write TIFF or OpenEXR\.$"):
        write_image(tmp_path / "a.png", image)
    with pytest.raises(InputError, match=r"only floating point; write PNG or TIFF\.$|expected the package OpenEXR"):
        write_image(tmp_path / "a.exr", DecodedImage(np.zeros((2, 2, 3), np.uint8)))


class TestOpenExr:
    """Layouts of OpenEXR files, written by the format's own library."""

    @pytest.fixture(autouse=True)
    def _library(self) -> None:
        self.exr = pytest.importorskip("OpenEXR", reason="the package OpenEXR is not installed")

    def write(self, path: Path, channels: dict[str, np.ndarray], **header: object) -> Path:
        start = {"compression": self.exr.ZIP_COMPRESSION, "type": self.exr.scanlineimage}
        planes = {name: np.ascontiguousarray(plane) for name, plane in channels.items()}
        self.exr.File({**start, **header}, planes).write(str(path))
        return path

    def test_display_window_is_the_image(self, tmp_path: Path) -> None:
        plane = SAMPLES[:4, :6, 0]
        corners = {
            "dataWindow": (np.array([-2, 1], np.int32), np.array([3, 4], np.int32)),
            "displayWindow": (np.array([0, 0], np.int32), np.array([4, 6], np.int32)),
        }
        path = self.write(tmp_path / "a.exr", dict.fromkeys("RGB", plane), **corners)
        pixels = read_image(path, for_upscaling=True).pixels
        expected = np.zeros((7, 5), np.float32)
        expected[1:5, :4] = plane[:, 2:]
        assert np.array_equal(pixels, np.stack([expected] * 3, axis=2))

    def test_other_channels_are_named(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        names = ("R", "G", "B", "Z", "normal.X")
        path = self.write(tmp_path / "a.exr", {name: SAMPLES[:, :, index % 4] for index, name in enumerate(names)})
        assert np.array_equal(read_image(path, for_upscaling=True).pixels, SAMPLES[:, :, :3])
        assert capfd.readouterr().err == f"{path}: read without Z, normal.X.\n"
        with pytest.raises(InputError, match="got OpenEXR with floating point samples; convert it to 8 or 16 bits"):
            read_image(path)

    def test_an_image_too_large_for_memory_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        corners = {"displayWindow": (np.array([0, 0], np.int32), np.array([99_999, 49_999], np.int32))}
        path = self.write(tmp_path / "a.exr", dict.fromkeys("RGB", SAMPLES[:, :, 0]), **corners)
        monkeypatch.setattr("selfsr.images.decode.measure_free_bytes", lambda device: 2**30)
        with pytest.raises(InputError, match="got 50000 x 100000 pixels, which take "):
            read_image(path, for_upscaling=True)

    def test_what_is_no_image_is_refused(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / "a.exr", {"Z": SAMPLES[:, :, 0]})
        with pytest.raises(InputError, match="got OpenEXR with the channels Z, without R, G, B or Y"):
            read_image(path, for_upscaling=True)
        path = self.write(tmp_path / "b.exr", {"Y": np.ones((4, 4), np.uint32)})
        with pytest.raises(InputError, match="got OpenEXR with integer samples"):
            read_image(path, for_upscaling=True)
        content = path.read_bytes()
        path.write_bytes(content[:200])
        with pytest.raises(InputError, match="replace or delete it"):
            read_image(path, for_upscaling=True)

    def test_damaged_pixels_are_refused_without_words_on_stdout(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        path = self.write(tmp_path / "a.exr", dict.fromkeys("RGB", SAMPLES[:, :, 0]))
        content = bytearray(path.read_bytes())
        content[-60:] = bytes(60)
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"got OpenEXR with damaged pixels; replace or delete it\.$"):
            read_image(path, for_upscaling=True)
        assert capfd.readouterr().out == ""
