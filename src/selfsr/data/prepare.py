"""Large pictures to training sub-images: several sizes of each, cut into overlapping windows."""

import glob
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

from selfsr.console import bar
from selfsr.errors import InputError
from selfsr.images.files import Picture, read_picture, write_picture
from selfsr.images.paths import list_pictures

MANIFEST = "prepared.jsonl"

# Raised when the layout of the output folder changes.
_FORMAT = 1
# As published: such files are written once and read often, but room on a disk is cheaper than hours of compression.
_PNG_LEVEL = 3
# Suffixes that LR files carry; published names of sub-images go without them.
_SCALE_MARK = re.compile(r"x[2348]")


@dataclass(frozen=True)
class Cutting:
    """How pictures are turned into sub-images; the defaults are those of Real-ESRGAN and SSL.

    Attributes:
        crop_px: side of a sub-image.
        step_px: from one window to the next.
        factors: further sizes of each picture, as shares of it (Lanczos); one whose shorter side falls below
            `crop_px` is left out.
        shortest_px: one more size with this shorter side, for small pictures a larger one; None for none.
    """

    crop_px: int = 512
    step_px: int = 256
    factors: tuple[float, ...] = (0.75, 0.6, 1 / 3)
    shortest_px: int | None = 512

    def __post_init__(self) -> None:
        if self.step_px < 1 or self.crop_px < 1:
            raise InputError(
                f"data prepare: crop and step must be at least 1 px, got {self.crop_px} and {self.step_px}."
            )
        if self.step_px > self.crop_px:
            raise InputError(
                f"data prepare: step must be at most the crop, {self.crop_px} px, or pixels between windows are lost, "
                f"got {self.step_px}."
            )
        wrong = [factor for factor in self.factors if not 0 < factor < 1]
        if wrong:
            raise InputError(f"data prepare: factors must lie between 0 and 1, got {wrong[0]:g}.")
        if self.shortest_px is not None and self.shortest_px < self.crop_px:
            raise InputError(
                f"data prepare: shortest must be at least the crop, {self.crop_px} px, got {self.shortest_px}."
            )


@dataclass(frozen=True)
class Outcome:
    """What became of a folder.

    Attributes:
        pictures: how many there are.
        skipped: of these, how many an earlier call had finished.
        written: sub-images that were written now.
        too_small: pictures that gave none.
        failures: one sentence for each picture that could not be read.
    """

    pictures: int
    skipped: int
    written: int
    too_small: list[Path]
    failures: list[str]


def prepare(source: Path, out: Path, cutting: Cutting, threads: int | None = None) -> Outcome:
    """Cut every picture below `source` into sub-images in `out`, several pictures at a time.

    A picture `a.png` gives `a_s001.png`, `a_s002.png`, ... of its own size, `aT0_s001.png`, ... of the first factor,
    `aS_s001.png`, ... of the size by its shorter side. `prepared.jsonl` in `out` keeps what is finished, so that a
    call that was stopped goes on with the same command. Pictures that were changed since are done again.

    Args:
        source: folder of pictures.
        out: folder of sub-images; made if need be.
        cutting: the sizes.
        threads: pictures at a time; None takes one per core.

    Raises:
        InputError: `source` is missing or empty, two pictures have the same name, or `out` was made otherwise.
        OSError: a sub-image cannot be written (a full disk).
    """
    paths = list_pictures(source)
    _check_names(paths)
    finished = _finished(out, cutting)
    todo = [path for path in paths if finished.get(path.stem) != _identity(path)]
    out.mkdir(parents=True, exist_ok=True)
    for path in todo:
        if path.stem in finished:
            _drop(path.stem, out, cutting)  # the picture was changed: it may give fewer now
    written, too_small, failures = 0, [], []
    pool = ThreadPoolExecutor(threads or os.cpu_count())
    with (out / MANIFEST).open("a", encoding="utf-8") as manifest:
        if not finished:
            _write_line(manifest, {"format": _FORMAT, "cutting": asdict(cutting)})
        try:
            with bar(f"Preparing {source}", len(paths), len(paths) - len(todo)) as advance:
                for path, result in zip(todo, pool.map(lambda path: _cut_file(path, out, cutting), todo), strict=True):
                    if isinstance(result, str):
                        failures.append(result)
                    else:
                        written += result
                        too_small += [] if result else [path]
                        _write_line(manifest, {"picture": path.stem, **_identity(path), "sub_images": result})
                    advance(note=path.name)
        finally:  # after Ctrl-C or on a full disk do not go on to the last picture
            pool.shutdown(cancel_futures=True)
    return Outcome(len(paths), len(paths) - len(todo), written, too_small, failures)


def windows(length: int, crop_px: int, step_px: int) -> list[int]:
    """Return the starts of the windows along one side: every `step_px`, and one flush with the end."""
    if length < crop_px:
        return []
    starts = list(range(0, length - crop_px + 1, step_px))
    if starts[-1] + crop_px < length:
        starts.append(length - crop_px)
    return starts


def sizes(height: int, width: int, cutting: Cutting) -> list[tuple[str, int, int]]:
    """Return `(suffix, height, width)` of each size in which a picture is cut, its own first with suffix ""."""
    found = [("", height, width)]
    found += [(f"T{index}", int(height * factor), int(width * factor)) for index, factor in enumerate(cutting.factors)]
    found = [size for size in found if min(size[1:]) >= cutting.crop_px]
    if cutting.shortest_px is not None:
        shorter = min(height, width)
        # In whole numbers: the shorter side comes out exactly, the other rounded down, as published.
        scaled = (height * cutting.shortest_px // shorter, width * cutting.shortest_px // shorter)
        if scaled not in [size[1:] for size in found]:
            found.append(("S", *scaled))
    return found


def _cut_file(path: Path, out: Path, cutting: Cutting) -> int | str:
    """Write the sub-images of one picture; return how many, or why there are none."""
    try:
        pixels = read_picture(path).pixels
    except InputError as error:
        return str(error)
    count = 0
    own_height, own_width = pixels.shape[:2]
    for suffix, height, width in sizes(own_height, own_width, cutting):
        stem = _output_stem(path.stem) + suffix
        for number, window in enumerate(_cut(resized(pixels, height, width), cutting), start=1):
            write_picture(
                out / f"{stem}_s{number:03d}.png", Picture(np.ascontiguousarray(window)), png_level=_PNG_LEVEL
            )
            count += 1
    return count


def _drop(stem: str, out: Path, cutting: Cutting) -> None:
    for suffix in ("", "S", *(f"T{index}" for index in range(len(cutting.factors)))):
        for old in out.glob(glob.escape(_output_stem(stem) + suffix) + "_s*.png"):
            old.unlink()


def _output_stem(stem: str) -> str:
    return _SCALE_MARK.sub("", stem)


def _cut(pixels: np.ndarray, cutting: Cutting) -> Iterator[np.ndarray]:
    side = cutting.crop_px
    for top in windows(pixels.shape[0], side, cutting.step_px):
        for left in windows(pixels.shape[1], side, cutting.step_px):
            yield pixels[top : top + side, left : left + side]


def resized(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize `[H, W, C]` uint8 or uint16 by Pillow's Lanczos filter, which widens when an image shrinks."""
    if pixels.shape[:2] == (height, width):
        return pixels
    if pixels.dtype == np.uint8:
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS)).reshape(height, width, -1)
    # Pillow has no color of 16 bit: channel by channel in float32, which holds 16 bit exactly.
    planes = [
        np.asarray(Image.fromarray(plane.astype(np.float32)).resize((width, height), Image.Resampling.LANCZOS))
        for plane in np.moveaxis(pixels, 2, 0)
    ]
    return np.clip(np.floor(np.stack(planes, axis=2) + 0.5), 0, 65535).astype(np.uint16)


def _check_names(paths: list[Path]) -> None:
    """Refuse two pictures whose sub-images would overwrite each other's."""
    seen: dict[str, Path] = {}
    for path in paths:
        stem = _output_stem(path.stem)
        if stem in seen:
            raise InputError(
                f"data prepare: expected pictures of different names, but the sub-images of {seen[stem]} and {path} "
                f"would both be called {stem}_s001.png; rename one, or prepare the folders one by one."
            )
        seen[stem] = path


def _identity(path: Path) -> dict[str, int]:
    status = path.stat()
    return {"bytes": status.st_size, "modified_ns": status.st_mtime_ns}


def _finished(out: Path, cutting: Cutting) -> dict[str, dict[str, int]]:
    """Return the identity of every finished picture by its stem, and check that `out` was made by `cutting`."""
    manifest = out / MANIFEST
    if not manifest.exists():
        if out.exists() and any(out.iterdir()):
            raise InputError(
                f"data prepare: expected {out} to be new, empty or made by this command, but it holds other files; "
                "choose another folder."
            )
        return {}
    lines = manifest.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [json.loads(line) for line in lines if line.endswith("\n")]
    if not whole:
        return {}
    if lines and not lines[-1].endswith("\n"):  # killed while it wrote
        manifest.write_text("".join(lines[:-1]), encoding="utf-8")
    head = whole[0]
    wanted = json.loads(json.dumps(asdict(cutting)))
    if head.get("format") != _FORMAT or head.get("cutting") != wanted:
        was = head.get("cutting", {})
        differing = [key for key in wanted if was.get(key) != wanted[key]] or ["format"]
        raise InputError(
            f"data prepare: {out} was made with other settings ({', '.join(differing)}: "
            f"{', '.join(str(was.get(key)) for key in differing)}); use those, or choose another folder."
        )
    return {line["picture"]: {key: line[key] for key in ("bytes", "modified_ns")} for line in whole[1:]}


def _write_line(file: Any, record: dict[str, Any]) -> None:
    file.write(json.dumps(record) + "\n")
    file.flush()
