"""Videos: all frames in order, rate, times and length as before, and the sound bit for bit. They need ffmpeg."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from selfsr.errors import InputError
from selfsr.images.files import DecodedImage
from selfsr.upscaling.video.probe import probe_video
from selfsr.upscaling.video.run import upscale_video

pytestmark = pytest.mark.skipif(
    shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None, reason="ffmpeg is not installed"
)
RATE = Fraction(30000, 1001)


def ffmpeg(*options: str) -> str:
    command = ["ffmpeg", "-nostdin", "-y", "-v", "error", *options]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def make_video(path: Path, *options: str, frames: int = 60, source: str = "testsrc=s=64x48") -> Path:
    """Write a video with a sine as its sound."""
    sound = ["-f", "lavfi", "-i", f"sine=440:d={frames / float(RATE):.6f}"]
    ffmpeg("-f", "lavfi", "-i", f"{source}:r={RATE}", *sound, "-frames:v", str(frames), *options, str(path))
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an MP4 of 60 frames of 64 x 48 pixels with AAC."""
    folder = tmp_path_factory.mktemp("video")
    return make_video(folder / "clip.mp4", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-preset", "ultrafast")


def hash_sound(path: Path) -> str:
    return ffmpeg("-i", str(path), "-map", "0:a", "-c", "copy", "-f", "streamhash", "-")


def measure_s(path: Path) -> float:
    command = ["ffprobe", "-v", "error", "-show_format", "-print_format", "json", str(path)]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["format"]["duration"])


def decode(path: Path, height: int, width: int) -> np.ndarray:
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", str(path), "-fps_mode", "passthrough"]
    command += ["-f", "rawvideo", "-pix_fmt", "gray", "-"]
    return np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, np.uint8).reshape(
        -1, height, width
    )


def double(image: DecodedImage, size: tuple[int, int]) -> DecodedImage:
    return DecodedImage(image.pixels.repeat(2, 0).repeat(2, 1)[: size[0], : size[1]])


def run(source: Path, target: Path, **options: object) -> list[str]:
    """Upscale by repeating pixels; return the sentences."""
    sentences: list[str] = []
    upscale_video(source, target, double, lambda h, w: (2 * h, 2 * w), notify=sentences.append, **options)  # pyright: ignore
    return sentences


@pytest.mark.parametrize("suffix", [".mp4", pytest.param(".mkv", marks=pytest.mark.slow)])
def test_sound_rate_and_length_are_kept(clip: Path, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"out{suffix}"
    frames: list[tuple[int, int]] = []
    assert run(clip, target, on_frame=lambda *done: frames.append(done)) == []
    assert frames == [(index, 60) for index in range(1, 61)]
    info = probe_video(target)
    assert (info.height, info.width, info.frames, info.rate, info.times_us) == (96, 128, 60, RATE, None)
    assert hash_sound(target) == hash_sound(clip)
    assert abs(measure_s(target) - measure_s(clip)) < (0.03 if suffix == ".mkv" else 0.001)  # AAC starts before 0
    before, after = decode(clip, 48, 64), decode(target, 96, 128)
    assert np.abs(before.repeat(2, 1).repeat(2, 2).astype(int) - after).mean() < 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [target.name]


def test_variable_rate_keeps_its_time_stamps(clip: Path, tmp_path: Path) -> None:
    times = "if(lt(N\\,20)\\,N*0.05\\,1+(N-20)*0.02)/TB"
    source = tmp_path / "in.mp4"
    ffmpeg("-i", str(clip), "-vf", f"setpts={times}", "-fps_mode", "vfr", "-enc_time_base", "-1", str(source))
    before = probe_video(source)
    assert before.times_us is not None
    assert before.times_us[:22][-2:] == (1_000_000, 1_020_000)
    run(source, tmp_path / "out.mp4")
    assert probe_video(tmp_path / "out.mp4").times_us == before.times_us
    assert hash_sound(tmp_path / "out.mp4") == hash_sound(source)


@pytest.mark.slow
def test_other_containers_become_matroska_or_webm(tmp_path: Path) -> None:
    avi = make_video(tmp_path / "a.avi", "-c:v", "mpeg4", "-c:a", "pcm_s16le", frames=5)
    run(avi, tmp_path / "a.mkv")
    assert hash_sound(tmp_path / "a.mkv") == hash_sound(avi)
    webm = make_video(tmp_path / "b.webm", "-c:v", "libvpx", "-c:a", "libvorbis", frames=5)
    run(webm, tmp_path / "c.webm")
    assert hash_sound(tmp_path / "c.webm") == hash_sound(webm)
    assert probe_video(tmp_path / "c.webm").frames == 5


@pytest.mark.slow
def test_turned_deep_and_odd_videos(tmp_path: Path) -> None:
    turned = make_video(tmp_path / "a.mp4", "-an", frames=3)
    ffmpeg("-i", str(turned), "-c", "copy", "-metadata:s:v:0", "rotate=90", str(tmp_path / "turned.mp4"))
    run(tmp_path / "turned.mp4", tmp_path / "upright.mp4")
    info = probe_video(tmp_path / "upright.mp4")
    assert (info.height, info.width) == (128, 96)
    deep = make_video(tmp_path / "deep.mkv", "-an", "-c:v", "ffv1", "-pix_fmt", "yuv420p10le", frames=3)
    assert probe_video(deep).bits == 16
    upscale_video(deep, tmp_path / "odd.mp4", lambda image, size: cut(image, size), lambda h, w: (h - 1, w - 3))
    info = probe_video(tmp_path / "odd.mp4")
    assert (info.height, info.width, info.bits) == (46, 60, 16)


@pytest.mark.slow
def test_fields_are_joined(tmp_path: Path) -> None:
    filters = ["-vf", "tinterlace=interleave_top", "-flags", "+ilme+ildct", "-c:v", "mpeg2video"]
    source = make_video(tmp_path / "a.mkv", "-an", *filters, frames=10)
    before = probe_video(source)
    assert before.is_interlaced
    assert run(source, tmp_path / "out.mkv") == [f"{source}: is interlaced; it is deinterlaced first."]
    after = probe_video(tmp_path / "out.mkv")
    assert (after.frames, after.rate, after.is_interlaced) == (before.frames, before.rate, False)


def cut(image: DecodedImage, size: tuple[int, int]) -> DecodedImage:
    assert image.pixels.dtype == np.uint16
    return DecodedImage(np.ascontiguousarray(image.pixels[: size[0], : size[1]]))


@pytest.mark.slow
def test_colors_of_all_matrices_are_kept(tmp_path: Path) -> None:
    for name, options in {
        "sd": [],
        "hd": ["-vf", "scale=out_color_matrix=bt709", "-colorspace", "bt709", "-color_primaries", "bt709"],
        "wide": ["-vf", "scale=out_color_matrix=bt2020", "-colorspace", "bt2020nc", "-color_trc", "smpte2084"],
        "pal": ["-vf", "scale=out_color_matrix=bt470", "-colorspace", "bt470bg"],
        "full": ["-vf", "scale=out_range=pc", "-color_range", "pc"],
    }.items():
        source = tmp_path / f"{name}.mp4"
        make_video(source, "-an", "-crf", "1", *options, frames=2, source="color=c=0x20C040:s=64x48")
        run(source, tmp_path / f"{name}_out.mp4", quality=100)
        matrix = {"hd": "bt709", "wide": "bt2020"}.get(name, "smpte170m")
        before, after = (decode_color(path, matrix) for path in (source, tmp_path / f"{name}_out.mp4"))
        assert np.abs(before - after).max() <= 2, (name, before, after)
        assert np.abs(after - [0x20, 0xC0, 0x40]).max() <= 6, (name, after)


def decode_color(path: Path, matrix: str) -> np.ndarray:
    """Return the first pixel of a video, by the matrix that it is expected to have."""
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", str(path), "-f", "rawvideo"]
    command += ["-vf", f"scale=in_color_matrix={matrix}", "-pix_fmt", "rgb24", "-"]
    return np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, np.uint8)[:3].astype(int)


def test_impossible_videos_are_refused_in_one_sentence_before_the_first_frame(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: str, *parts: str) -> None:
        with pytest.raises(InputError) as error:
            run(source, tmp_path / target)
        assert all(part in str(error.value) for part in parts), str(error.value)
        assert str(error.value).count("; ") == 1
        assert not (tmp_path / target).exists()

    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\0\0\0\x20ftypisom" + bytes(500))
    refuse(broken, "out.mp4", f"{broken}: expected a video that ffmpeg reads, got ", "; replace or delete it.")
    sound = tmp_path / "sound.mp4"
    ffmpeg("-f", "lavfi", "-i", "sine=d=0.1", str(sound))
    refuse(sound, "out.mp4", f"{sound}: expected a video, got a file without a video stream; replace or delete it.")
    refuse(clip, "out.webm", f"out.webm: expected a container that can hold the sound of {clip}", "; write .mkv.")
    monkeypatch.setenv("PATH", str(tmp_path))
    refuse(clip, "out.mp4", "expected the program ffprobe to read a video, got none; install ffmpeg (apt, brew or")


@pytest.mark.slow
def test_damaged_end_is_told(clip: Path, tmp_path: Path) -> None:
    whole = make_video(tmp_path / "a.mkv", "-c:v", "libx264", "-g", "1", "-preset", "ultrafast", frames=20)
    data = bytearray(whole.read_bytes())
    data[len(data) // 2 :] = os.urandom(len(data) - len(data) // 2)
    (tmp_path / "b.mkv").write_bytes(data)
    sentences = run(tmp_path / "b.mkv", tmp_path / "out.mkv")
    assert probe_video(tmp_path / "out.mkv").frames <= 20
    assert all(sentence.endswith("the file is damaged, check the result.") for sentence in sentences)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_interruption_leaves_nothing(clip: Path, tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from selfsr.upscaling.video.run import upscale_video\n"
        "def slow(image, size):\n"
        "    print('frame', flush=True)\n"
        "    time.sleep(0.2)\n"
        "    return type(image)(image.pixels)\n"
        "try:\n"
        "    upscale_video(Path(sys.argv[1]), Path(sys.argv[2]), slow, lambda h, w: (h, w))\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(130)\n"
    )
    target = tmp_path / "out" / "a.mp4"
    with subprocess.Popen([sys.executable, "-c", code, str(clip), str(target)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        assert len(list(target.parent.iterdir())) == 1  # the temporary file
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
    time.sleep(0.1)
    assert list(target.parent.iterdir()) == []
