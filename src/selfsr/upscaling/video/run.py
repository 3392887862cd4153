"""Upscale a video: decoder, network and encoder work one frame after the other, so that memory stays constant."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from selfsr.console import print_line
from selfsr.errors import InputError
from selfsr.fileio import write_file_atomic
from selfsr.images.files import DecodedImage
from selfsr.upscaling.video import matroska
from selfsr.upscaling.video.ffmpeg import find_program, read_reason, run_quietly, start_process
from selfsr.upscaling.video.probe import MATRICES, VideoInfo, probe_video

# The containers that are written, with their names in ffmpeg.
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
# A video in another container is written in this one, which can hold all sounds.
DEFAULT_CONTAINER = ".mkv"
DEFAULT_QUALITY = 75
_SCALE_FLAGS = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"


@dataclass(frozen=True)
class _Codec:
    """An encoder of ffmpeg.

    Attributes:
        name: of the encoder.
        options: those of its speed.
        crf_at: the constant rate factor of quality 100 and of quality 0.
    """

    name: str
    options: tuple[str, ...]
    crf_at: tuple[int, int]

    def list_options(self, quality: int, bits: int) -> list[str]:
        best, worst = self.crf_at
        crf = round(worst + (best - worst) * quality / 100)
        pixels = "yuv420p" if bits == 8 else "yuv420p10le"
        return ["-c:v", self.name, "-crf", str(crf), *self.options, "-pix_fmt", pixels]


_H264 = _Codec("libx264", ("-preset", "medium"), (7, 51))
_VP9 = _Codec("libvpx-vp9", ("-b:v", "0", "-row-mt", "1", "-deadline", "good", "-cpu-used", "2"), (11, 63))


def upscale_video(
    source: Path,
    target: Path,
    upscale: Callable[[DecodedImage, tuple[int, int]], DecodedImage],
    compute_size: Callable[[int, int], tuple[int, int]],
    *,
    quality: int | None = None,
    on_frame: Callable[[int, int], None] | None = None,
    notify: Callable[[str], None] = print_line,
) -> None:
    """Upscale all frames of a video and copy its sound and subtitles.

    The rate and the length stay; frames of a video with a variable rate keep their time stamps to a microsecond.
    Interlaced videos are deinterlaced first. More than 8 bits per sample become 10. Transparency is left out.

    Args:
        source: a video in any container and codec that ffmpeg decodes.
        target: the file to write, atomically; H.264 in MP4, MOV and Matroska, VP9 in WebM.
        upscale: upscales an image to a size (height, width).
        compute_size: returns (height, width) of the output from those of the input; odd sides lose a pixel, since
            chroma is subsampled (4:2:0).
        quality: 1 to 100; None is 75.
        on_frame: called with the finished frames and all of them.
        notify: called with a sentence about each part that is left out or differs.

    Raises:
        InputError: ffmpeg is missing, the video cannot be decoded, or the container cannot hold the sound; before the
            first frame.
        OSError: the disk is full.
    """
    info = probe_video(source)
    program = find_program("ffmpeg", source)
    height, width = (max(2, side - side % 2) for side in compute_size(info.height, info.width))
    encoding = _choose_codec(target).list_options(DEFAULT_QUALITY if quality is None else quality, info.bits)
    kept = _check_container(program, info, target, encoding, notify)
    if info.is_interlaced:
        notify(f"{source}: is interlaced; it is deinterlaced first.")
    with _decode(program, info) as frames:
        first = next(frames, None)
        if first is None:
            raise InputError(f"{source}: expected a video that can be decoded, got no frame; replace or delete it.")
        with write_file_atomic(target) as temporary:
            command = _list_encoder_options(program, info, (height, width), encoding, kept, target, temporary)
            count = 0
            with _Encoder(command, info, (height, width), target) as encoder:
                for frame in _chain(first, frames):
                    encoder.write(upscale(frame, (height, width)).pixels)
                    count += 1
                    if on_frame is not None:
                        on_frame(count, max(count, info.frames))
    if count < info.frames:
        notify(f"{source}: expected {info.frames:,} frames, got {count:,}; the file is damaged, check the result.")


def _chain(first: DecodedImage, rest: Iterator[DecodedImage]) -> Iterator[DecodedImage]:
    yield first
    yield from rest


def _choose_codec(target: Path) -> _Codec:
    return _VP9 if target.suffix.lower() == ".webm" else _H264


def _check_container(
    program: str, info: VideoInfo, target: Path, encoding: Sequence[str], notify: Callable[[str], None]
) -> list[str]:
    """Return the options that copy what the container can hold, after a trial with a small black video."""
    container = CONTAINERS[target.suffix.lower()]
    sound = ["-map", "1:a?", "-c:a", "copy"]
    everything = [*sound, "-map", "1:s?", "-c:s", "copy"]
    start = [program, "-nostdin", "-y", "-v", "error", "-f", "lavfi", "-i", f"color=s=64x64:r={info.rate}", "-i"]
    start += [str(info.path), "-map", "0:v"]
    with tempfile.TemporaryDirectory() as folder:
        end = [*encoding, "-t", "0.5", "-f", container, str(Path(folder) / "trial")]
        reason = run_quietly([*start, *everything, *end])
        if reason is None:
            return everything
        if info.subtitles:
            reason = run_quietly([*start, *sound, *end])
            if reason is None:
                notify(f"{info.path}: its subtitles are left out, since {target.suffix} cannot hold them; write .mkv.")
                return sound
    raise InputError(
        f"{target}: expected a container that can hold the sound of {info.path}, and an ffmpeg with {encoding[1]}, "
        f"got: {reason}; write .mkv."
    )


def _decode(program: str, info: VideoInfo) -> "_Decoder":
    filters = ["bwdif=mode=send_frame:deint=interlaced"] if info.is_interlaced else []
    filters.append(f"scale=in_color_matrix={MATRICES[info.matrix]}:{_SCALE_FLAGS}")
    layout = "rgb24" if info.bits == 8 else "rgb48le"
    command = [program, "-nostdin", "-v", "error", "-i", str(info.path), "-map", "0:V:0", "-vf", ",".join(filters)]
    command += ["-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", layout, "pipe:1"]
    return _Decoder(command, info)


class _Decoder:
    """A process that decodes a video; entered, it is an iterator of its frames."""

    def __init__(self, command: Sequence[str], info: VideoInfo) -> None:
        self._info = info
        self._context = start_process(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)

    def __enter__(self) -> Iterator[DecodedImage]:
        process, messages = self._context.__enter__()
        assert process.stdout is not None
        return self._read(process.stdout, process, messages)

    def __exit__(self, *error: object) -> None:
        self._context.__exit__(*error)  # pyright: ignore[reportArgumentType]

    def _read(self, pipe: IO[bytes], process: subprocess.Popen[bytes], messages: IO[bytes]) -> Iterator[DecodedImage]:
        info = self._info
        shape, dtype = (info.height, info.width, 3), np.dtype("u1" if info.bits == 8 else "<u2")
        size = info.height * info.width * 3 * dtype.itemsize
        count = 0
        while len(data := pipe.read(size)) == size:
            count += 1
            yield DecodedImage(np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False))
        if process.wait() != 0 and count == 0:
            reason = read_reason(messages)
            raise InputError(f"{info.path}: expected a video that can be decoded, got {reason}; replace or delete it.")


def _list_encoder_options(
    program: str,
    info: VideoInfo,
    size: tuple[int, int],
    encoding: Sequence[str],
    kept: Sequence[str],
    target: Path,
    temporary: Path,
) -> list[str]:
    height, width = size
    command = [program, "-nostdin", "-y", "-v", "error", "-itsoffset", f"{info.start_s:.6f}"]
    if info.times_us is None:
        layout = "rgb24" if info.bits == 8 else "rgb48le"
        command += ["-f", "rawvideo", "-pix_fmt", layout, "-s", f"{width}x{height}", "-framerate", str(info.rate)]
    else:
        command += ["-f", "matroska"]
    command += [
        "-i",
        "pipe:0",
        "-i",
        str(info.path),
        "-map",
        "0:v:0",
        *kept,
        "-map_metadata",
        "1",
        "-map_chapters",
        "1",
    ]
    aspect = f"{info.pixel_aspect.numerator}/{info.pixel_aspect.denominator}"
    command += ["-vf", f"scale=out_color_matrix={MATRICES[info.matrix]}:out_range=tv:{_SCALE_FLAGS},setsar={aspect}"]
    command += [*encoding, "-colorspace", info.matrix, "-color_range", "tv"]
    for option, value in (("-color_primaries", info.primaries), ("-color_trc", info.transfer)):
        command += [] if value is None else [option, value]
    if info.times_us is not None:
        command += ["-fps_mode", "passthrough", "-enc_time_base", "-1"]
    container = CONTAINERS[target.suffix.lower()]
    if container in ("mp4", "mov"):
        command += ["-movflags", "+faststart"]
    return [*command, "-max_muxing_queue_size", "4096", "-f", container, str(temporary)]


class _Encoder:
    """A process that encodes frames.

    Args:
        command: of ffmpeg, with the frames from its standard input.
        info: of the source.
        size: (height, width) of the frames.
        target: the result, for errors.
    """

    def __init__(self, command: Sequence[str], info: VideoInfo, size: tuple[int, int], target: Path) -> None:
        self._info, self._size, self._target = info, size, target
        self._context = start_process(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        self._count = 0

    def __enter__(self) -> "_Encoder":
        self._process, self._messages = self._context.__enter__()
        if self._info.times_us is not None:
            self._send(matroska.encode_header(*self._size, self._info.bits))
        return self

    def write(self, pixels: np.ndarray) -> None:
        """Encode a frame, `[H, W, 3]`."""
        samples = np.ascontiguousarray(pixels, "u1" if self._info.bits == 8 else "<u2")
        assert samples.shape == (*self._size, 3), samples.shape
        if self._info.times_us is not None:
            time_us, duration_us = self._find_time(self._info.times_us)
            self._send(matroska.encode_frame_header(time_us, duration_us, samples.nbytes))
        self._send(samples.data)
        self._count += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                assert self._process.stdin is not None
                try:
                    self._process.stdin.close()
                except OSError as broken:
                    raise self._explain() from broken
                if self._process.wait() != 0:
                    raise self._explain()
        finally:
            self._context.__exit__(kind, error, trace)  # pyright: ignore[reportArgumentType]

    def _find_time(self, times_us: tuple[int, ...]) -> tuple[int, int]:
        """Return time and duration of the next frame; more frames than times follow at the mean rate."""
        mean_us = round(1_000_000 / self._info.rate)
        last = len(times_us) - 1
        index = min(self._count, last)
        time_us = times_us[index] + (self._count - index) * mean_us
        return time_us, times_us[index + 1] - times_us[index] if index < last else mean_us

    def _send(self, data: bytes | memoryview) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
        except BrokenPipeError as error:
            self._process.wait()
            raise self._explain() from error

    def _explain(self) -> Exception:
        reason = read_reason(self._messages)
        if "No space left" in reason:
            return OSError(28, "No space left on device", str(self._target))
        return InputError(
            f"{self._target}: expected a video that ffmpeg encodes, got: {reason}; choose another format."
        )
