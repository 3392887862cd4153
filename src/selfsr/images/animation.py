"""Read and write animations: GIF, animated PNG and animated WebP."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from selfsr.errors import InputError
from selfsr.images.decode import open_image
from selfsr.images.files import DecodedImage
from selfsr.images.formats import ANIMATED_PNG, FORMATS, GIF

ANIMATION_SUFFIXES = (".gif", ".png", ".apng", ".webp")
# Pillow's name of each format, and the suffixes that have it; the first one is that of new files.
_SUFFIXES = {"GIF": (".gif",), "PNG": (".png", ".apng"), "WEBP": (".webp",)}
_KNOWN = (*FORMATS, GIF, ANIMATED_PNG)
# A color of a GIF is the transparent one.
_GIF_COLORS = 255
_OPAQUE_FROM = 128


@dataclass(frozen=True)
class AnimationTiming:
    """When the frames of an animation are shown.

    Attributes:
        durations_ms: the time of each frame in milliseconds; GIF has steps of 10, WebP of 1.
        plays: how often the animation is shown; 0 is without end.
        has_poster: whether the first frame of an animated PNG is a still image for programs that show no animations.
    """

    durations_ms: tuple[float, ...]
    plays: int
    has_poster: bool = False


def find_animation_suffix(path: Path) -> str | None:
    """Return the suffix of files like this one if it has several frames, else None.

    Args:
        path: a file of any kind; one that cannot be read is no animation.
    """
    if path.suffix.lower() not in ANIMATION_SUFFIXES:
        return None
    try:
        with path.open("rb") as file:
            image = open_image(file, path.suffix, _KNOWN)
            suffixes = _SUFFIXES.get(image.format or "", ())
            is_animated = bool(suffixes) and getattr(image, "n_frames", 1) > 1
    except Exception:  # of a damaged file
        return None
    if not is_animated:
        return None
    return path.suffix.lower() if path.suffix.lower() in suffixes else suffixes[0]


class AnimationReader:
    """The frames of an animation, one after the other.

    Args:
        path: an animation.

    Attributes:
        frames: number of frames.
        height, width: of each frame in pixels.
        icc: ICC profile or None.

    Raises:
        InputError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._image: Any = self._open(io.BytesIO(path.read_bytes()))
        self.frames: int = self._image.n_frames
        self.width, self.height = self._image.size
        self.icc: bytes | None = self._image.info.get("icc_profile") or None
        loop = self._image.info.get("loop")
        if self._image.format == "GIF":  # it counts the repetitions, and has none without the number
            loop = 1 if loop is None else loop and loop + 1
        self._plays: int = loop or 0
        self._has_poster = bool(getattr(self._image, "default_image", False))
        self._durations_ms: list[float] = []

    def read_frames(self) -> Iterator[DecodedImage]:
        """Yield each frame as it is shown: RGB of 8 bits, with alpha where it is not opaque.

        Raises:
            InputError: a frame is damaged.
        """
        self._durations_ms.clear()
        for index in range(self.frames):
            try:
                self._image.seek(index)
                self._image.load()  # WebP has the duration only then
                samples = np.asarray(self._image.convert("RGBA"))
            except Exception as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                raise InputError(
                    f"{self.path}: expected {self.frames} frames, got {reason} at frame {index + 1}; replace the file."
                ) from error
            self._durations_ms.append(float(self._image.info.get("duration", 0)))
            alpha = None if bool((samples[:, :, 3] == 255).all()) else np.ascontiguousarray(samples[:, :, 3])
            yield DecodedImage(np.ascontiguousarray(samples[:, :, :3]), alpha)

    @property
    def timing(self) -> AnimationTiming:
        """When the frames are shown, once all are read."""
        assert len(self._durations_ms) == self.frames, "read all frames first"
        return AnimationTiming(tuple(self._durations_ms), self._plays, self._has_poster)

    def _open(self, file: BinaryIO) -> Any:
        try:
            return open_image(file, self.path.suffix, _KNOWN)
        except Exception as error:
            raise InputError(f"{self.path}: expected an animation, got {error}; replace the file.") from error


def encode_animation(
    suffix: str,
    frames: np.ndarray,
    timing: AnimationTiming,
    *,
    icc: bytes | None = None,
    quality: int | None = None,
) -> bytes:
    """Return the file of an animation.

    PNG is lossless, and so is WebP without a quality. Each frame of a GIF has 255 colors of its own, with error
    diffusion, and alpha of 128 and more is opaque.

    Args:
        suffix: .gif, .png, .apng or .webp.
        frames: `[N, H, W, 4]` uint8, RGB and alpha.
        timing: when they are shown.
        icc: profile to embed; a GIF has none.
        quality: of WebP, 1 to 100.
    """
    is_opaque = all(bool((frame[:, :, 3] == 255).all()) for frame in frames)
    options: dict[str, Any] = {"loop": timing.plays}
    durations: list[float] = list(timing.durations_ms)
    buffer = io.BytesIO()
    if suffix == ".gif":
        options = {} if timing.plays == 1 else {"loop": max(0, timing.plays - 1)}
        images = [_reduce_colors(frame, is_opaque) for frame in frames]
        options |= {"disposal": 0 if is_opaque else 2} | ({} if is_opaque else {"transparency": _GIF_COLORS})
        durations = [round(duration) for duration in durations]
        images[0].save(
            buffer, "GIF", save_all=True, append_images=images[1:], duration=durations, optimize=False, **options
        )
        return buffer.getvalue()
    images = [Image.fromarray(np.ascontiguousarray(frame[:, :, :3]) if is_opaque else frame) for frame in frames]
    first, rest = images[0], images[1:]
    if suffix == ".webp":
        compression = {"lossless": True} if quality is None else {"quality": quality}
        durations = [round(duration) for duration in durations]
        options |= {"icc_profile": icc or b"", "exact": True, **compression}
        first.save(buffer, "WEBP", save_all=True, append_images=rest, duration=durations, **options)
        return buffer.getvalue()
    if timing.has_poster:
        options["default_image"] = True
        durations = durations[1:]
    options |= {"icc_profile": icc} if icc else {}
    # Each frame replaces what was shown before, so that transparent pixels stay transparent.
    first.save(buffer, "PNG", save_all=True, append_images=rest, duration=durations, disposal=0, blend=0, **options)
    return buffer.getvalue()


def _reduce_colors(frame: np.ndarray, is_opaque: bool) -> Image.Image:
    """Return a frame with a palette of 255 colors; index 255 is transparent."""
    image = Image.fromarray(np.ascontiguousarray(frame[:, :, :3]))
    palette = image.quantize(_GIF_COLORS)
    reduced = image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    if is_opaque:
        return reduced
    levels = np.where(frame[:, :, 3] < _OPAQUE_FROM, _GIF_COLORS, np.asarray(reduced)).astype(np.uint8)
    transparent = Image.fromarray(levels, "P")
    transparent.putpalette([*(reduced.getpalette() or [])[: 3 * _GIF_COLORS], 0, 0, 0])
    return transparent
