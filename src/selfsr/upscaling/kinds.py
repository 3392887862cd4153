"""Find whether a file is an image, an animation or a video, and choose the suffix of its output."""

from pathlib import Path
from typing import Literal

from selfsr.images.animation import ANIMATION_SUFFIXES, find_animation_suffix
from selfsr.images.formats import VIDEO_SUFFIXES
from selfsr.images.paths import SUFFIXES
from selfsr.upscaling.options import OutputFormat
from selfsr.upscaling.video.run import CONTAINERS, DEFAULT_CONTAINER

JobKind = Literal["image", "animation", "video"]

# The suffixes of all files that are written.
OUTPUT_SUFFIXES = tuple(dict.fromkeys((*SUFFIXES, *ANIMATION_SUFFIXES, *CONTAINERS)))


def find_kind(source: Path, target: str) -> JobKind:
    """Return the kind of work: an animation whose target stores one frame is an image.

    Args:
        source: the input; the beginning of its content is read.
        target: the suffix of the target, in lower case.
    """
    if source.suffix.lower() in VIDEO_SUFFIXES:
        return "video"
    return "animation" if target in ANIMATION_SUFFIXES and find_animation_suffix(source) is not None else "image"


def choose_suffix(source: Path, suffix: OutputFormat | None) -> str:
    """Return the suffix of the target in a folder.

    Args:
        source: the input; the beginning of its content is read.
        suffix: the format for images; "keep" is that of the input, or png if it is only read. None is png, also for
            TIFF; OpenEXR files, animations and videos keep their formats.
    """
    own = source.suffix.lower()
    if own in VIDEO_SUFFIXES:
        return source.suffix if own in CONTAINERS else DEFAULT_CONTAINER
    if suffix not in (None, "keep"):
        return f".{suffix}"
    animation = find_animation_suffix(source)
    if animation is not None:
        return animation
    is_kept = own == ".exr" if suffix is None else own in SUFFIXES
    return source.suffix if is_kept else ".png"
