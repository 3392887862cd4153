"""`selfsr upscale`: sizes, names, qualities, several models, and folders with files of all kinds."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, JpegImagePlugin
from typer.testing import CliRunner

from factories import texture
from selfsr.cli import app
from selfsr.console import set_log_style
from selfsr.images.files import DecodedImage, read_header, read_image, tensor_to_pixels, write_image
from selfsr.images.resize import imresize
from selfsr.nets.edsr import EdsrSpec
from selfsr.nets.weights import save_weights


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with two models (x2 and x3) and an image of 24 x 20 pixels."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_weights(tmp_path / "two.safetensors", EdsrSpec(features=8, blocks=1).build(2), {})
    save_weights(tmp_path / "three.safetensors", EdsrSpec(features=8, blocks=1).build(3), {})
    write_image(tmp_path / "in" / "a.png", DecodedImage(texture(0, 24, 20)))
    return tmp_path


def run(*options: str, model: str = "two") -> tuple[int, str]:
    command = ["upscale", *options, "-m", f"{model}.safetensors", "--device", "cpu"]
    result = CliRunner().invoke(app, command, catch_exceptions=True)
    return result.exit_code, " ".join((result.output + str(result.exception or "")).split())


def size(path: str) -> tuple[int, int]:
    header = read_header(Path(path))
    return header.height, header.width


def test_outscale_resizes_the_output_of_the_model(folder: Path) -> None:
    assert run("in/a.png", "-o", "x2.png")[0] == 0
    code, output = run("in/a.png", "--outscale", "2.6")
    assert code == 0
    assert "The model upscales x2; bicubic interpolation then resizes its output to x2.6." in output
    model_output = torch.from_numpy(read_image(Path("x2.png")).pixels.transpose(2, 0, 1) / 255.0)[None].float()
    expected = tensor_to_pixels(imresize(model_output, size=(62, 52))[0])
    resized = read_image(Path("in/a_x2.6.png")).pixels
    assert resized.shape == (62, 52, 3)
    assert np.abs(resized.astype(int) - expected.astype(int)).max() <= 1


def test_max_side_limits_only_larger_outputs(folder: Path) -> None:
    write_image(Path("in/small.png"), DecodedImage(texture(1, 8, 16)))
    assert run("in", "-o", "out", "--max-side", "36")[0] == 0
    assert (size("out/a.png"), size("out/small.png")) == ((36, 30), (16, 32))
    assert run("in", "-o", "large", "--outscale", "4", "--max-side", "60")[0] == 0
    assert (size("large/a.png"), size("large/small.png")) == ((60, 50), (30, 60))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            (
                ("--outscale", factor),
                f"upscale: expected an output factor from 1/64 to 64, got {factor}; pass one such as 2.5, or limit "
                "the size in pixels with --max-side.",
            )
            for factor in ("0", "nan", "0.0001", "1000")
        ),
        (
            ("--outscale", "2.5", "--scale", "3"),
            "upscale: with --outscale, expected a --scale of the model, got 3 for two.safetensors, which has x2; "
            "leave --scale out.",
        ),
        (
            ("--suffix", "a/b"),
            "upscale: expected a --suffix of letters that a file name may have, got 'a/b'; pass one such as _hr.",
        ),
        (
            ("--suffix", "_hr", "-o", "b.png"),
            "upscale: expected no --suffix with a file as --output, where it does nothing, got one; "
            "leave --suffix out.",
        ),
        (
            ("--quality", "90"),
            "upscale: expected --quality with JPEG, WebP or a video, got it with a_x2.png; add --format jpg, or leave "
            "--quality out.",
        ),
        (
            ("-m", "three.safetensors"),
            "upscale: expected an output folder for 2 models, got none; name one with --output.",
        ),
        (
            ("-m", "in/../two.safetensors", "-o", "out"),
            "upscale: expected models with different names, got two twice; rename a file or leave it out.",
        ),
    ],
)
def test_impossible_options_are_refused_in_one_sentence(folder: Path, options: tuple[str, ...], message: str) -> None:
    code, output = run("in/a.png", *options)
    assert code != 0
    assert output.endswith(message)
    assert sorted(path.name for path in Path().rglob("*.png")) == ["a.png"]


def test_quality_is_that_of_the_file(folder: Path) -> None:
    for quality in (None, 30, 90):
        given = () if quality is None else ("--quality", str(quality))
        assert run("in", "-o", f"q{quality}", "--format", "jpg", "--suffix", "_hr", *given)[0] == 0
        with Image.open(f"q{quality}/a_hr.jpg") as image:
            assert isinstance(image, JpegImagePlugin.JpegImageFile)
            # The tables of libjpeg: 16 in the corner of table K.1 of ISO/IEC 10918-1, scaled by the quality.
            scale = 5000 / quality if quality == 30 else 200 - 2 * (quality or 95)
            assert image.quantization[0][0] == int((16 * int(scale) + 50) / 100)
    assert run("in/a.png", "-o", "exact.webp")[0] == 0
    assert run("in/a.png", "-o", "x2.png")[0] == 0
    assert run("in/a.png", "-o", "lossy.webp", "--quality", "20")[0] == 0
    assert np.array_equal(read_image(Path("exact.webp")).pixels, read_image(Path("x2.png")).pixels)
    assert Path("lossy.webp").read_bytes()[12:16] == b"VP8 "  # the lossy kind of WebP
    assert size("lossy.webp") == (48, 40)


def test_several_models_write_next_to_each_other(folder: Path) -> None:
    code, output = run("in", "-m", "three.safetensors", "-o", "in/out")
    assert code == 0
    assert "2 of 2 images written to in/out." in output
    assert (size("in/out/two/a.png"), size("in/out/three/a.png")) == ((48, 40), (72, 60))
    assert run("in/a.png", "-m", "three.safetensors", "-o", "b.png", "--outscale", "1.5")[0] == 0
    assert (size("b_two.png"), size("b_three.png")) == ((36, 30), (36, 30))
    assert run("in/a.png", "-o", "alone.png")[0] == 0
    assert np.array_equal(read_image(Path("alone.png")).pixels, read_image(Path("in/out/two/a.png")).pixels)


def write_mixed_files(folder: Path) -> None:
    """Write 15 readable images and 9 other files: of all formats, with one name, broken, and of other kinds."""
    folder.mkdir()
    pixels = texture(3, 12, 10)
    for name in ("one.png", "one.jpg", "one.webp", "one.tiff", "two.bmp", "deep/one.png"):
        write_image(folder / name, DecodedImage(pixels))
    for name in ("three.jp2", "four.tga", "five.avif"):
        Image.fromarray(pixels).save(folder / name)
    write_image(folder / "gray.png", DecodedImage(pixels[:, :, :1]))
    write_image(folder / "alpha.webp", DecodedImage(pixels, pixels[:, :, 0].copy()))
    write_image(folder / "deep16.png", DecodedImage(pixels.astype(np.uint16) * 257))
    write_image(folder / "deep16.tif", DecodedImage(pixels.astype(np.uint16) * 257))
    Image.fromarray(pixels).convert("P").save(folder / "palette.png")
    Image.fromarray(pixels).convert("CMYK").save(folder / "cmyk.jpg")
    whole = (folder / "one.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.webp").write_text("no image")
    (folder / "zeros.tif").write_bytes(bytes(100))
    (folder / "header.bmp").write_bytes(b"BM" + bytes(20))
    for name in ("notes.txt", "code.py", "table.csv", ".hidden.png"):
        (folder / name).write_bytes(b"?")


def test_a_folder_of_mixed_files_is_upscaled_with_a_summary(folder: Path) -> None:
    write_mixed_files(Path("mixed"))
    code, output = run("mixed", "-o", "out")
    assert code == 1
    written = {path.relative_to("out").as_posix() for path in Path("out").rglob("*.*")}
    singles = ("two", "three", "four", "five", "gray", "alpha", "palette", "cmyk", "deep/one")
    assert written == {f"{name}.png" for name in singles} | {
        *(f"one_{name}.png" for name in ("png", "jpg", "webp", "tiff")),
        *(f"deep16_{name}.png" for name in ("png", "tif")),
    }
    assert all(size(f"out/{name}") == (24, 20) for name in written)
    assert read_image(Path("out/deep16_tif.png")).bits == 16
    assert read_image(Path("out/gray.png")).channels == 1
    assert read_image(Path("out/alpha.png")).alpha is not None
    assert "15 of 20 images written to out." in output
    assert "Images with the same name are kept apart: mixed/deep16.png as deep16_png.png, " in output
    assert "Note: mixed: 3 files of other kinds left out (1 .csv, 1 .py, 1 .txt)." in output
    broken = ("cut.png", "empty.jpg", "header.bmp", "text.webp", "zeros.tif")
    for name in broken:
        assert output.count(f"selfsr: mixed/{name}: expected ") == 1
    names = ", ".join(f"mixed/{name}" for name in broken)
    assert f"selfsr: 5 of 20 images failed, for the reasons above: {names}." in output
    code, output = run("mixed", "-o", "out", "--skip-existing")
    assert code == 1
    assert "0 of 5 images written, 15 skipped because their outputs exist." in output


def test_a_broken_file_is_reported_once_for_several_models(folder: Path) -> None:
    Path("in/cut.png").write_bytes(Path("in/a.png").read_bytes()[:100])
    code, output = run("in", "-m", "three.safetensors", "-o", "out")
    assert code == 1
    assert output.count("selfsr: in/cut.png: expected ") == 1
    assert "2 of 4 images written to out." in output
    assert "selfsr: 2 of 4 images failed, for the reasons above: in/cut.png." in output


def test_radiance_hdr_is_named(folder: Path) -> None:
    Path("a.hdr").write_bytes(b"#?RADIANCE\n")
    code, output = run("a.hdr", "-o", "b.png")
    assert code == 1
    assert (
        "selfsr: a.hdr: expected a readable image, got Radiance HDR with floating point samples; convert it to 8 or 16 "
        "bits per sample, such as a PNG."
    ) in output


def test_the_last_json_line_counts_what_failed(folder: Path) -> None:
    Path("in/empty.png").write_bytes(b"")
    result = CliRunner().invoke(
        app, ["upscale", "in", "-m", "two.safetensors", "-o", "out", "--device", "cpu", "--log", "json"]
    )
    set_log_style("auto")  # of the process, which the next tests share
    assert result.exit_code == 1
    assert json.loads(result.stdout.splitlines()[-1]) == {
        "event": "end",
        "written": 1,
        "images": 2,
        "skipped": 0,
        "failed": 1,
    }
