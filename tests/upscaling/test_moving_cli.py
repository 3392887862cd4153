"""`selfsr upscale` with animations and videos."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from factories import texture
from selfsr.cli import app
from selfsr.images.animation import AnimationReader, AnimationTiming, encode_animation
from selfsr.images.files import DecodedImage, read_image, write_image
from selfsr.nets.edsr import EdsrSpec
from selfsr.nets.weights import save_weights

TIMING = AnimationTiming((100.0, 40.0, 200.0), 3)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a model x2, and an animation of each format and a still image as GIF in `in`."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_weights(tmp_path / "two.safetensors", EdsrSpec(features=8, blocks=1).build(2), {})
    frames = np.full((3, 12, 10, 4), 255, np.uint8)
    for index, frame in enumerate(frames):
        frame[:, :, :3] = texture(index, 12, 10)
    Path("in").mkdir()
    for suffix in (".gif", ".png", ".webp"):
        Path(f"in/moving{suffix}").write_bytes(encode_animation(suffix, frames, TIMING))
    write_image(Path("one.png"), DecodedImage(texture(1, 12, 10)))
    Image.fromarray(texture(5, 12, 10)).save("in/still.gif")
    return tmp_path


def run(*options: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["upscale", *options, "-m", "two.safetensors", "--device", "cpu"])
    return result.exit_code, " ".join((result.output + str(result.exception or "")).split())


def test_animations_keep_their_format_and_timing(folder: Path) -> None:
    code, output = run("in", "-o", "out")
    assert code == 0
    assert "4 of 4 files written to out (1 image, 3 animations)." in output
    assert "frame" not in output.partition("written")[2]  # none is left out
    names = ["moving.gif", "moving.png", "moving.webp", "still.png"]
    assert sorted(path.name for path in Path("out").iterdir()) == names
    assert run("one.png", "-o", "two.png")[0] == 0
    for name in names[:3]:
        reader = AnimationReader(Path("out") / name)
        frames = [frame.pixels for frame in reader.read_frames()]
        assert [frame.shape for frame in frames] == [(24, 20, 3)] * 3
        assert reader.timing == TIMING
        if name != "moving.gif":  # the second frame is the image one.png
            assert np.array_equal(frames[1], read_image(Path("two.png")).pixels)


def test_formats_of_one_image_get_the_first_frame(folder: Path) -> None:
    code, output = run("in/moving.webp", "-o", "a.jpg")
    assert code == 0
    assert "Note: 2 further frames or pages left out; only the first of each file is read." in output
    assert run("in/moving.gif", "-o", "a.webp", "--outscale", "1.5")[0] == 0
    assert (AnimationReader(Path("a.webp")).frames, AnimationReader(Path("a.webp")).height) == (3, 18)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("one.png", "a.mp4", "for an image, got a.mp4; choose one of them."),
        ("film.mp4", "a.png", "expected a file that ends in .mp4, .m4v, .mov, .mkv, .webm for a video, got a.png; "),
        ("film.mp4", "a.avi", "expected a file that ends in .mp4, .m4v, .mov, .mkv, .webm, or a folder, got a.avi; "),
        ("in/still.gif", "a.gif", "expected an animation for a.gif, got one image in in/still.gif; write a PNG."),
    ],
)
def test_targets_of_another_kind_are_refused(folder: Path, source: str, target: str, message: str) -> None:
    Path("film.mp4").write_bytes(b"?")
    code, output = run(source, "-o", target)
    assert code != 0
    assert message in output


def test_a_video_without_ffmpeg_is_one_failure_among_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("in/film.mov").write_bytes(b"?")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    code, output = run("in", "-o", "out")
    assert code == 1
    assert "selfsr: in/film.mov: expected the program ffprobe to read a video, got none; install ffmpeg" in output
    assert "4 of 5 files written to out (1 image, 3 animations)." in output
    assert "selfsr: 1 of 5 files failed, for the reasons above: in/film.mov." in output


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_a_video_is_upscaled_in_a_folder(folder: Path) -> None:
    command = ["ffmpeg", "-nostdin", "-v", "error", "-f", "lavfi", "-i", "testsrc=s=16x12:r=10", "-f", "lavfi", "-i"]
    Path("films").mkdir()
    subprocess.run([*command, "sine=d=0.4", "-frames:v", "4", "films/a.avi"], check=True)
    code, output = run("films", "-o", "out", "--quality", "90")
    assert code == 0
    assert "1 of 1 files written to out (1 video)." in output
    assert "Upscaling a.avi, frames 4/4" in output
    assert [path.name for path in Path("out").iterdir()] == ["a.mkv"]
