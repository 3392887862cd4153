"""Float images: what a network sees goes through it, the rest is bicubic, and their sum has the input's values."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from typer.testing import CliRunner

from factories import texture
from selfsr.cli import app
from selfsr.images.files import DecodedImage, read_image, write_image
from selfsr.images.floats import FloatFormat, decode_srgb
from selfsr.images.resize import imresize
from selfsr.nets.edsr import EdsrSpec
from selfsr.nets.weights import save_weights
from selfsr.upscaling.float_images import FloatOptions, encode_image, quantize_float, upscale_float

OPTIONS = FloatOptions()
LINEAR = FloatFormat(is_linear=True, is_associated=True)
IN_RANGE = texture(0, 12, 10).astype(np.float32) / 255


def nearest(image: DecodedImage) -> DecodedImage:
    """Upscale x2 by repeating pixels, after a check of the range."""
    assert image.pixels.dtype == np.float32
    assert image.pixels.min() >= 0
    assert image.pixels.max() <= 1
    alpha = None if image.alpha is None else image.alpha.repeat(2, 0).repeat(2, 1)
    return replace(image, pixels=image.pixels.repeat(2, 0).repeat(2, 1), alpha=alpha)


@pytest.mark.parametrize("meaning", [FloatFormat(), LINEAR])
def test_samples_in_range_are_what_the_network_makes_of_them(meaning: FloatFormat) -> None:
    seen = encode_image(DecodedImage(IN_RANGE, float_format=meaning), OPTIONS)
    expected = np.where(IN_RANGE <= 0.0031308, 12.92 * IN_RANGE, 1.055 * IN_RANGE ** (1 / 2.4) - 0.055)
    assert np.allclose(seen.pixels, expected if meaning.is_linear else IN_RANGE, atol=1e-6)
    result = upscale_float(DecodedImage(IN_RANGE, float_format=meaning), nearest, OPTIONS)
    assert np.allclose(result.pixels, IN_RANGE.repeat(2, 0).repeat(2, 1), atol=1e-6)
    assert result.float_format == meaning


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("meaning", [FloatFormat(), LINEAR])
def test_the_rest_is_added_bicubically_within_its_neighborhood(meaning: FloatFormat, dtype: type) -> None:
    pixels = IN_RANGE.copy()
    pixels[4:7, 3:6] = 40.0
    pixels[9, 9] = -0.5
    image = DecodedImage(pixels.astype(dtype), float_format=meaning)
    result = upscale_float(image, nearest, OPTIONS)
    samples = image.pixels.astype(np.float64)
    rest = samples - samples.clip(0, 1)
    bicubic = imresize(torch.from_numpy(rest.transpose(2, 0, 1))[None], 2)[0].permute(1, 2, 0).numpy()
    # No ringing: nothing below the darkest and above the brightest neighbor.
    bicubic = np.where(bicubic > 0, bicubic.clip(0, 39), bicubic.clip(-0.5, 0))
    expected = samples.clip(0, 1).repeat(2, 0).repeat(2, 1) + bicubic
    inner = np.ones((24, 20), bool)
    inner[5:17, 3:15] = inner[15:, 15:] = False  # where the neighborhood also limits
    assert result.pixels.dtype == dtype
    assert np.allclose(result.pixels[inner], expected[inner], atol=2e-3)
    assert np.allclose(result.pixels[10:12, 8:10], 40, rtol=2e-3)
    assert result.pixels.max() <= 40
    assert result.pixels.min() >= -0.5


def test_light_of_transparent_pixels_and_alpha_are_kept() -> None:
    alpha = np.linspace(0, 1, 120, dtype=np.float32).reshape(12, 10)
    alpha[:3] = 0
    pixels = IN_RANGE * alpha[:, :, None]
    pixels[1, 4] = 3.0  # a glow, as of fire: light without coverage
    result = upscale_float(DecodedImage(pixels, alpha, float_format=LINEAR), nearest, OPTIONS)
    assert result.alpha is not None
    assert np.array_equal(result.alpha, alpha.repeat(2, 0).repeat(2, 1))
    assert np.allclose(result.pixels[8:], pixels[4:].repeat(2, 0).repeat(2, 1), atol=1e-5)
    assert result.pixels[2:4, 8:10].max() > 1
    assert result.pixels[0, 0].tolist() == [0, 0, 0]


def test_white_and_transfer_choose_what_the_network_sees() -> None:
    image = DecodedImage(IN_RANGE * 255, float_format=FloatFormat())
    assert np.allclose(encode_image(image, FloatOptions(white=255)).pixels, IN_RANGE, atol=1e-6)
    result = upscale_float(image, nearest, FloatOptions("linear", 255))
    assert np.allclose(result.pixels, image.pixels.repeat(2, 0).repeat(2, 1), rtol=1e-4)


def test_integers_of_a_float_image_are_clipped_in_srgb() -> None:
    levels = np.arange(256, dtype=np.float32)[:, None, None] / 255
    pixels = decode_srgb(levels.repeat(3, axis=2))
    image, share = quantize_float(DecodedImage(pixels, float_format=LINEAR), 8, OPTIONS)
    assert image.pixels[:, 0, 0].tolist() == list(range(256))
    assert share == 0
    pixels[0], pixels[1] = -1, 2
    image, share = quantize_float(DecodedImage(pixels, float_format=LINEAR), 16, OPTIONS)
    assert image.pixels[:3, 0, 0].tolist() == [0, 65535, 514]
    assert share == 2 / 256


def run(*options: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["upscale", *options, "-m", "two.safetensors", "--device", "cpu"])
    return result.exit_code, " ".join((result.output + str(result.exception or "")).split())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_weights(tmp_path / "two.safetensors", EdsrSpec(features=8, blocks=1).build(2), {})
    return tmp_path


def test_float_tiff_agrees_with_its_16_bit_twin(folder: Path) -> None:
    levels = texture(1, 12, 10).astype(np.uint16) * 257
    write_image(Path("in/a.png"), DecodedImage(levels))
    tifffile.imwrite("in/b.tif", levels.astype(np.float32) / 65535, photometric="rgb", metadata=None)
    tifffile.imwrite("in/c.tif", levels.astype(np.float32) / 65535 + 1.5, photometric="rgb", metadata=None)
    assert run("in", "-o", "out", "--format", "keep")[0] == 0
    twin = read_image(Path("out/a.png")).pixels / 65535
    kept = read_image(Path("out/b.tif"), for_upscaling=True)
    assert kept.pixels.dtype == np.float32
    assert np.abs(kept.pixels - twin).max() <= 0.51 / 65535
    code, output = run("in", "-o", "png")
    assert code == 0
    assert np.array_equal(read_image(Path("png/b.png")).pixels, read_image(Path("png/a.png")).pixels)
    assert (
        output.count(
            "in/c.tif: 100.0% of the samples are outside of 0 to 1 and were clipped; TIFF and OpenEXR outputs keep them"
        )
        == 1
    )
    code, output = run("in/b.tif", "-o", "b.exr")
    assert code == 1
    code, output = run("in/a.png", "--white", "255")
    assert output.endswith(
        "expected no --white without TIFF or OpenEXR files, where it does nothing, got one; leave --white out."
    )


def test_openexr_stays_openexr_in_a_folder(folder: Path) -> None:
    pytest.importorskip("OpenEXR", reason="the package OpenEXR is not installed")
    pixels = (IN_RANGE * 4).astype(np.float16)
    write_image(Path("in/a.exr"), DecodedImage(pixels, float_format=LINEAR))
    assert run("in", "-o", "out")[0] == 0
    image = read_image(Path("out/a.exr"), for_upscaling=True)
    assert (image.pixels.dtype, image.pixels.shape) == (np.float16, (24, 20, 3))
    assert image.pixels.max() > 2
    assert run("in", "-o", "tiff", "--format", "tiff")[0] == 0
    assert np.array_equal(read_image(Path("tiff/a.tiff"), for_upscaling=True).pixels, image.pixels)
    assert run("tiff/a.tiff", "-o", "b.exr", "--transfer", "linear")[0] == 0
