"""Read size, rate, colors and streams of a video by ffprobe, without decoding it."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from selfsr.errors import InputError
from selfsr.upscaling.video.ffmpeg import find_program, shorten_reason

# A video that names no color matrix has that of HD from this number of rows on, as players assume.
_HD_ROWS = 720
_HD, _SD = "bt709", "smpte170m"
# The color matrices that ffmpeg converts, by their names in streams, and the names in its filter "scale".
MATRICES = {
    "bt709": "bt709",
    "fcc": "fcc",
    "bt470bg": "bt470",
    "smpte170m": "smpte170m",
    "smpte240m": "smpte240m",
    "bt2020nc": "bt2020",
    "bt2020c": "bt2020",
}
# A container that counts time in milliseconds rounds it to them.
_ROUNDING_S = Fraction(1, 1000)
_US = 1_000_000


@dataclass(frozen=True)
class VideoInfo:
    """The properties of a video that its upscaled version needs.

    Attributes:
        path: the file.
        height, width: of its upright frames in pixels.
        frames: number of frames; a damaged file may have fewer.
        rate: frames per second.
        times_us: when each frame is shown, in microseconds from the first one on, if the rate varies; else None.
        start_s: seconds from the start of the file to the first frame.
        bits: 8, or 16 for videos with more than 8 bits per sample.
        matrix: name of the color matrix, one of `MATRICES`.
        primaries, transfer: names of the primaries and the transfer function, or None.
        pixel_aspect: width over height of a pixel.
        is_interlaced: whether a frame consists of two fields.
        sounds: number of sound streams.
        subtitles: number of subtitle streams.
    """

    path: Path
    height: int
    width: int
    frames: int
    rate: Fraction
    times_us: tuple[int, ...] | None
    start_s: float
    bits: int
    matrix: str
    primaries: str | None
    transfer: str | None
    pixel_aspect: Fraction
    is_interlaced: bool
    sounds: int
    subtitles: int


def probe_video(path: Path) -> VideoInfo:
    """Return the properties of a video.

    Raises:
        InputError: ffprobe is missing, or the file is no video.
    """
    program = find_program("ffprobe", path)
    facts = json.loads(_run(path, program, "-show_streams", "-show_format", "-print_format", "json"))
    streams = facts.get("streams", [])
    # A cover image is a video stream also.
    videos = [one for one in streams if one.get("codec_type") == "video" and not one["disposition"]["attached_pic"]]
    if not videos or not videos[0].get("width"):
        raise InputError(f"{path}: expected a video, got a file without a video stream; replace or delete it.")
    video = videos[0]
    packets = _run(
        path, program, "-select_streams", "V:0", "-show_entries", "packet=pts,flags", "-print_format", "csv=p=0"
    )
    times = _read_times(packets.splitlines(), Fraction(video["time_base"]))
    rate = _choose_rate(video, times)
    is_turned = any(abs(int(data.get("rotation", 0))) % 180 == 90 for data in video.get("side_data_list", ()))
    height, width = (video["width"], video["height"]) if is_turned else (video["height"], video["width"])
    aspect = _read_fraction(video.get("sample_aspect_ratio", "1:1").replace(":", "/")) or Fraction(1)
    start_s = float(video.get("start_time") or 0) - float(facts["format"].get("start_time") or 0)
    return VideoInfo(
        path=path,
        height=height,
        width=width,
        frames=len(times),
        rate=rate,
        times_us=None if _is_constant(times, rate) else tuple(round((time - times[0]) * _US) for time in times),
        start_s=start_s,
        bits=16 if int(video.get("bits_per_raw_sample") or 0) > 8 or _has_many_bits(video.get("pix_fmt", "")) else 8,
        matrix=_choose_matrix(video),
        primaries=_read_name(video, "color_primaries"),
        transfer=_read_name(video, "color_transfer"),
        pixel_aspect=1 / aspect if is_turned else aspect,
        is_interlaced=video.get("field_order", "progressive") not in ("progressive", "unknown"),
        sounds=sum(one.get("codec_type") == "audio" for one in streams),
        subtitles=sum(one.get("codec_type") == "subtitle" for one in streams),
    )


def _run(path: Path, program: str, *options: str) -> str:
    command = [program, "-v", "error", *options, str(path)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").splitlines()
        reason = shorten_reason([line.strip() for line in lines if line.strip()]).removeprefix(f"{path}: ")
        raise InputError(f"{path}: expected a video that ffmpeg reads, got {reason}; replace or delete it.")
    return done.stdout.decode("utf-8", "replace")


def _read_times(lines: list[str], time_base: Fraction) -> list[Fraction]:
    """Return the times of the frames in seconds, in order; empty entries count as frames without times."""
    ticks = []
    for line in lines:
        pts, _, flags = line.partition(",")
        if "D" not in flags:  # cut by the container
            ticks.append(int(pts) if pts.lstrip("-").isdigit() else None)
    known = sorted(tick for tick in ticks if tick is not None)
    if len(known) < len(ticks):
        return [Fraction(0)] * len(ticks)
    return [tick * time_base for tick in known]


def _choose_rate(video: Mapping[str, Any], times: list[Fraction]) -> Fraction:
    """Return the rate that fits all times, or the mean rate."""
    rates = [rate for name in ("r_frame_rate", "avg_frame_rate") if (rate := _read_fraction(video.get(name, "")))]
    for rate in rates:
        if _is_constant(times, rate):
            return rate
    return rates[-1] if rates else Fraction(25)


def _is_constant(times: list[Fraction], rate: Fraction) -> bool:
    if not times or times[-1] == times[0]:  # no times are known, or there is one frame
        return True
    return all(abs(time - times[0] - index / rate) <= _ROUNDING_S for index, time in enumerate(times))


def _read_fraction(text: str) -> Fraction | None:
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None
    return value if value > 0 else None


def _choose_matrix(video: Mapping[str, Any]) -> str:
    """Return the color matrix; if it is unknown or ffmpeg cannot convert it, the one that players assume."""
    name = _read_name(video, "color_space")
    return name if name in MATRICES else _HD if video["height"] >= _HD_ROWS else _SD


def _read_name(video: Mapping[str, Any], key: str) -> str | None:
    value = video.get(key)
    return None if value in (None, "unknown", "reserved", "gbr") else str(value)


def _has_many_bits(pixel_format: str) -> bool:
    """Return whether a name of ffmpeg, such as yuv420p10le, is that of more than 8 bits per sample."""
    depth = pixel_format.removesuffix("le").removesuffix("be")
    return depth != pixel_format and any(depth.endswith(f"{bits}") for bits in (9, 10, 12, 14, 16, 48, 64))
