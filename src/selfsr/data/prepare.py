"""Cut large images into overlapping sub-images for training, in several sizes."""

import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from selfsr.console import progress_bar
from selfsr.errors import InputError
from selfsr.fileio import write_atomic
from selfsr.images.files import DecodedImage, read_image, write_image
from selfsr.images.paths import list_sources

MANIFEST = "prepared.jsonl"

# Raised when the layout of the output folder changes.
_FORMAT = 2
# As published. Disk space is cheaper than hours of compression.
_PNG_LEVEL = 3
# The ending of LR files; published names of sub-images do not have it.
_SCALE_ENDING = re.compile(r"(?<=.)x[2348]$")
# What earlier versions left out of names; their manifests do not have the names.
_FORMER_ENDING = re.compile(r"x[2348]")


@dataclass(frozen=True)
class SubImageSettings:
    """Sizes of sub-images; the defaults are those of Real-ESRGAN and SSL.

    Attributes:
        size_px: side of a sub-image.
        step_px: distance from one sub-image to the next.
        factors: further sizes of each image, as factors below 1 (Lanczos); sizes with a side below `size_px` are
            skipped.
        shortest_px: one more size with this shorter side, which may be larger than the image; None for none.

    Raises:
        InputError: a value is out of range.
    """

    size_px: int = 512
    step_px: int = 256
    factors: tuple[float, ...] = (0.75, 0.6, 1 / 3)
    shortest_px: int | None = 512

    def __post_init__(self) -> None:
        if self.step_px < 1 or self.size_px < 1:
            raise InputError(
                f"data prepare: expected a size and a step of at least 1 px, got {self.size_px} and {self.step_px}; "
                "raise them."
            )
        if self.step_px > self.size_px:
            raise InputError(
                f"data prepare: expected a step of at most the size, {self.size_px} px, got {self.step_px}; "
                "use a smaller step, or pixels between sub-images are lost."
            )
        wrong = [factor for factor in self.factors if not 0 < factor < 1]
        if wrong:
            raise InputError(f"data prepare: expected factors between 0 and 1, got {wrong[0]:g}; leave it out.")
        if self.shortest_px is not None and self.shortest_px < self.size_px:
            raise InputError(
                f"data prepare: expected a shortest side of at least the size, {self.size_px} px, got "
                f"{self.shortest_px}; raise it."
            )


@dataclass(frozen=True)
class PrepareSummary:
    """The result of preparing a folder.

    Attributes:
        images: number of images in the folder.
        skipped: number of images that an earlier call finished.
        written: number of sub-images that this call wrote.
        too_small: images without sub-images.
        failures: one sentence for each unreadable image.
        further_frames: number of frames and pages after the first ones, which are not cut.
    """

    images: int
    skipped: int
    written: int
    too_small: list[Path]
    failures: list[str]
    further_frames: int = 0


def prepare_folder(source: Path, out: Path, settings: SubImageSettings, threads: int | None = None) -> PrepareSummary:
    """Cut all images below `source` into sub-images in `out`, several images at a time.

    The image `a.png` becomes `a_s001.png`, `a_s002.png`, ... in its own size, `aT0_s001.png`, ... for the first factor,
    and `aS_s001.png`, ... for the size by its shorter side. In a folder of LR images of one scale, the ending is left
    out: `ax4.png` becomes `a_s001.png`. `prepared.jsonl` in `out` lists the finished images, so that the same call
    resumes after a stop. Images that changed since are cut again. Images in `out` are never cut.

    Args:
        source: folder of images.
        out: folder of sub-images; created if missing.
        settings: the sizes.
        threads: images at a time; None takes one for each core.

    Raises:
        InputError: `source` is missing or empty, two images have the same name, or `out` has other settings or files,
            or is `source`.
        OSError: a sub-image cannot be written (a full disk).
    """
    finished = _read_finished(out, settings)
    paths = _list_sources(source, out)
    stems = _choose_stems(paths, settings)
    todo = [path for path in paths if finished.get(path.stem) != (stems[path], _file_identity(path))]
    out.mkdir(parents=True, exist_ok=True)
    for path in todo:
        if path.stem in finished:
            _delete_sub_images(finished[path.stem][0], out, settings)  # the image changed and may give fewer now
    written, too_small, failures, further_frames = 0, [], [], 0
    pool = ThreadPoolExecutor(threads or os.cpu_count())
    with (out / MANIFEST).open("a", encoding="utf-8") as manifest:
        if not finished:
            _write_line(manifest, {"format": _FORMAT, "settings": asdict(settings)})
        results = pool.map(lambda path: _cut_file(path, stems[path], out, settings), todo)
        try:
            with progress_bar(f"Preparing {source}", len(paths), len(paths) - len(todo)) as advance:
                for path, result in zip(todo, results, strict=True):
                    if isinstance(result, str):
                        failures.append(result)
                    else:
                        count, frames = result
                        written += count
                        further_frames += frames - 1
                        too_small += [] if count else [path]
                        record = {"image": path.stem, "stem": stems[path], **_file_identity(path)}
                        _write_line(manifest, {**record, "sub_images": count})
                    advance(note=path.name)
        finally:  # after Ctrl-C or on a full disk do not continue to the last image
            pool.shutdown(cancel_futures=True)
    return PrepareSummary(len(paths), len(paths) - len(todo), written, too_small, failures, further_frames)


def list_starts(length: int, size_px: int, step_px: int) -> list[int]:
    """Return the starts of sub-images along one side: every `step_px`, and one at the very end."""
    if length < size_px:
        return []
    starts = list(range(0, length - size_px + 1, step_px))
    if starts[-1] + size_px < length:
        starts.append(length - size_px)
    return starts


def list_sizes(height: int, width: int, settings: SubImageSettings) -> list[tuple[str, int, int]]:
    """Return `(suffix, height, width)` of each size of an image, first its own with suffix ""."""
    sizes = [("", height, width)]
    sizes += [(f"T{index}", int(height * factor), int(width * factor)) for index, factor in enumerate(settings.factors)]
    sizes = [size for size in sizes if min(size[1:]) >= settings.size_px]
    if settings.shortest_px is not None:
        shorter = min(height, width)
        # In whole numbers, as published: the shorter side is exact, the other is rounded down.
        scaled = (height * settings.shortest_px // shorter, width * settings.shortest_px // shorter)
        if scaled not in [size[1:] for size in sizes]:
            sizes.append(("S", *scaled))
    return sizes


def _cut_file(path: Path, output_stem: str, out: Path, settings: SubImageSettings) -> tuple[int, int] | str:
    """Write the sub-images of one image; return their number and that of its frames, or an error message."""
    try:
        image = read_image(path)
    except InputError as error:
        return str(error)
    except OSError as error:
        return f"{path}: expected a readable file, got {error.strerror or error}; check its permissions and the disk."
    count, pixels = 0, image.pixels
    for suffix, height, width in list_sizes(image.height, image.width, settings):
        stem = output_stem + suffix
        for number, window in enumerate(_iterate_sub_images(resize_lanczos(pixels, height, width), settings), start=1):
            write_image(
                out / f"{stem}_s{number:03d}.png", DecodedImage(np.ascontiguousarray(window)), png_level=_PNG_LEVEL
            )
            count += 1
    return count, image.frames


def _list_sources(source: Path, out: Path) -> list[Path]:
    """List the images of `source`, without those that an earlier call wrote to a folder in it."""
    if os.path.realpath(out) == os.path.realpath(source):
        raise InputError(
            f"data prepare: expected an output folder other than the input, got {out} for both; choose another -o."
        )
    return list_sources(source, out, "data prepare")


def _list_suffixes(settings: SubImageSettings) -> list[str]:
    """Return the suffixes of all sizes that an image may have."""
    return ["", "S", *(f"T{index}" for index in range(len(settings.factors)))]


def _delete_sub_images(output_stem: str, out: Path, settings: SubImageSettings) -> None:
    suffixes = "|".join(_list_suffixes(settings))
    own = re.compile(f"{re.escape(output_stem)}(?:{suffixes})_s\\d{{3,}}\\.png")
    for old in out.iterdir():
        if own.fullmatch(old.name):
            old.unlink()


def _choose_stems(paths: list[Path], settings: SubImageSettings) -> dict[Path, str]:
    """Choose the start of the names of each image's sub-images, without the ending of LR images.

    The ending of `ax4` is left out only if no image of the folder ends in another scale: `box2` and `box3` are names.

    Raises:
        InputError: sub-images of two images would have one name.
    """
    endings = {match[0] for path in paths if (match := _SCALE_ENDING.search(path.stem))}
    stems = {path: _SCALE_ENDING.sub("", path.stem) if len(endings) == 1 else path.stem for path in paths}
    taken: dict[str, Path] = {}
    for path, stem in stems.items():
        for name in (stem + suffix for suffix in _list_suffixes(settings)):
            if name in taken:
                raise InputError(
                    f"data prepare: expected images with different names, got {taken[name]} and {path}, whose "
                    f"sub-images are both called {name}_s001.png; rename one, or prepare the folders one by one."
                )
            taken[name] = path
    return stems


def _iterate_sub_images(pixels: np.ndarray, settings: SubImageSettings) -> Iterator[np.ndarray]:
    side = settings.size_px
    for top in list_starts(pixels.shape[0], side, settings.step_px):
        for left in list_starts(pixels.shape[1], side, settings.step_px):
            yield pixels[top : top + side, left : left + side]


def resize_lanczos(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize `[H, W, C]` uint8 or uint16 by Pillow's Lanczos filter, which widens when an image shrinks."""
    if pixels.shape[:2] == (height, width):
        return pixels
    if pixels.dtype == np.uint8:
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS)).reshape(height, width, -1)
    # Pillow has no 16-bit color: resize each channel in float32, which is exact for 16 bits.
    planes = [
        np.asarray(Image.fromarray(plane.astype(np.float32)).resize((width, height), Image.Resampling.LANCZOS))
        for plane in np.moveaxis(pixels, 2, 0)
    ]
    return np.clip(np.floor(np.stack(planes, axis=2) + 0.5), 0, 65535).astype(np.uint16)


def _file_identity(path: Path) -> dict[str, int]:
    status = path.stat()
    return {"bytes": status.st_size, "modified_ns": status.st_mtime_ns}


def _read_finished(out: Path, settings: SubImageSettings) -> dict[str, tuple[str, dict[str, int]]]:
    """Return (start of the output names, identity) of each finished image by its stem; check the settings."""
    manifest = out / MANIFEST
    if not manifest.exists():
        if out.exists() and any(out.iterdir()):
            raise InputError(
                f"data prepare: expected a folder that is new, empty or made by this command, got {out} with other "
                "files; choose another folder."
            )
        return {}
    content = manifest.read_bytes()
    lines = content.splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):  # killed while writing
        write_atomic(manifest, b"".join(lines[:-1]))
        lines.pop()
    if not lines:
        return {}
    try:
        header, *records = (json.loads(line) for line in lines)
        present = {"format": header["format"], **header["settings"]}
        finished = {
            record["image"]: (
                record.get("stem", _FORMER_ENDING.sub("", record["image"])),
                {key: record[key] for key in ("bytes", "modified_ns")},
            )
            for record in records
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{manifest}: expected the list of finished images that this command writes, got other content; "
            "choose another folder with -o."
        ) from error
    expected = {"format": _FORMAT, **json.loads(json.dumps(asdict(settings)))}
    differing = [key for key in expected if present.get(key) != expected[key]]
    if differing:
        raise InputError(
            f"data prepare: expected {out} with the same settings, got others ({', '.join(differing)}: "
            f"{', '.join(str(present.get(key)) for key in differing)}); use those, or choose another folder."
        )
    return finished


def _write_line(file: Any, record: dict[str, Any]) -> None:
    file.write(json.dumps(record) + "\n")
    file.flush()
