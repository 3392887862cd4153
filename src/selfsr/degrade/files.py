"""Degrade the images of a folder, reproducibly, and save the parameters with them."""

import contextlib
import json
import os
import zlib
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from selfsr.degrade.blur import sharpen
from selfsr.degrade.jpeg import to_uint8
from selfsr.degrade.plan import DegradationPlan, apply_plan, plan_to_json
from selfsr.degrade.presets import PresetSpec, disable_opencv_threads
from selfsr.errors import InputError
from selfsr.fileio import write_atomic
from selfsr.images.files import DecodedImage, read_image, write_image
from selfsr.images.paths import is_inside, list_images

PARAMETERS = "degradations.jsonl"
# The largest name on the file systems in use.
_LARGEST_NAME_BYTES = 255


@dataclass(frozen=True)
class DegradeJob:
    """One LR image to make.

    Attributes:
        source: the HR file.
        name: its path relative to the input folder; part of the seed. Bytes that are not UTF-8 are surrogates, as in
            `os.fsdecode`.
        draw: number of the variant of this image, from 1.
        target: the LR file to write.
    """

    source: Path
    name: str
    draw: int
    target: Path


@dataclass
class DegradeResult:
    """Result of the jobs.

    Attributes:
        written: number of images written.
        failures: a sentence for each image that could not be read or is too small.
        further_frames: number of frames and pages after the first ones, which are not degraded.
    """

    written: int = 0
    failures: list[str] = field(default_factory=list)
    further_frames: int = 0


def plan_jobs(
    folder: Path, output: Path, *, scale: int, per_image: int = 1, overwrite: bool = False
) -> list[DegradeJob]:
    """List the images to make, before anything is read or written.

    `a/b.png` becomes `output/a/bx4.png`, where 4 is the scale, or `output/a/b.png` if that name is too long for a file.
    With several draws, these go to `output/1`, `output/2` and so on, so that each of these folders is a complete LR
    folder. Images in the output folder are left out, and so are those in other folders with a `degradations.jsonl`.

    Raises:
        InputError: the folder is missing or empty, two images have the same target, or a target exists.
    """
    if os.path.realpath(output) == os.path.realpath(folder):
        raise InputError(
            f"degrade: expected an output folder other than the input, got {output} for both; pass another one with -o."
        )
    jobs, has_output = [], is_inside(output, folder)
    for path in list_images(folder):
        relative = path.relative_to(folder)
        if (has_output and is_inside(path, output)) or any(
            (folder / parent / PARAMETERS).exists() for parent in relative.parents[:-1]
        ):
            continue
        for draw in range(1, per_image + 1):
            target_folder = output if per_image == 1 else output / str(draw)
            target = target_folder / relative.with_name(_name_lr(path, scale))
            jobs.append(DegradeJob(path, relative.as_posix(), draw, target))
    if not jobs:
        raise InputError(
            f"degrade: expected images in {folder}, got none outside of {output}; pass another folder with -o."
        )
    target, count = Counter(job.target for job in jobs).most_common(1)[0]
    if count > 1:
        raise InputError(
            f"degrade: expected different names, got {count} images that would be written to {target}; rename them."
        )
    existing = [job.target for job in jobs if job.target.exists()]
    if existing and not overwrite:
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise InputError(f"degrade: {existing[0]} exists already{more}; add --overwrite to replace it.")
    return jobs


def degrade_files(
    jobs: list[DegradeJob],
    output: Path,
    degradation: PresetSpec,
    *,
    scale: int,
    seed: int,
    advance: Callable[[], None],
) -> DegradeResult:
    """Degrade the files and append the parameters to `degradations.jsonl` in `output`, in the order of the jobs.

    Records of other images stay; those of images that are written again are replaced. Files that cannot be read or are
    too small are reported in the result and left out.

    Args:
        jobs: from `plan_jobs`.
        output: folder of `degradations.jsonl`.
        degradation: the distribution of the plans.
        scale: how many times smaller LR is.
        seed: seed of all random numbers.
        advance: called after each job.

    Raises:
        OSError: a file cannot be written.
    """
    disable_opencv_threads()
    result = DegradeResult()
    output.mkdir(parents=True, exist_ok=True)
    run = partial(_degrade_file, output=output, degradation=degradation, scale=scale, seed=seed)
    path = output / PARAMETERS
    with ThreadPoolExecutor(os.cpu_count()) as pool, _open_records(path) as file:
        remaining = deque((job, pool.submit(run, job)) for job in jobs)

        def collect(job: DegradeJob, future: Future[tuple[dict[str, Any], int] | str]) -> None:
            outcome = future.result()
            if isinstance(outcome, str):
                result.failures.append(outcome)
                return
            record, further_frames = outcome
            result.written += 1
            result.further_frames += further_frames if job.draw == 1 else 0
            file.write(json.dumps(record).encode() + b"\n")
            file.flush()

        try:
            while remaining:
                collect(*remaining[0])
                remaining.popleft()
                advance()
        finally:  # after Ctrl-C or on a full disk: no further image, and the parameters of those that are finished
            pool.shutdown(cancel_futures=True)
            for job, future in remaining:
                with contextlib.suppress(Exception):  # not started, or another failure; the first is raised
                    collect(job, future)
    _remove_replaced_records(path)
    return result


def _degrade_file(
    job: DegradeJob, *, output: Path, degradation: PresetSpec, scale: int, seed: int
) -> tuple[dict[str, Any], int] | str:
    """Write one LR image; return its record and the number of further frames, or a sentence if HR is unusable."""
    try:
        source = read_image(job.source)
        image = prepare_hr(source, job.source, degradation, scale)
        lr, plan = sample_lr(image, degradation, job.name, job.draw, scale=scale, seed=seed)
    except InputError as error:
        return str(error)
    except OSError as error:  # of this file only: a failing disk, no permission
        return f"{job.source}: expected a readable file, got {error.strerror or error}; check it."
    write_image(job.target, DecodedImage(to_uint8(lr)))
    record = {"file": job.target.relative_to(output).as_posix(), "source": job.name, "draw": job.draw}
    return {**record, "seed": seed, "scale": scale, "steps": plan_to_json(plan)}, source.frames - 1


def read_hr(path: Path, degradation: PresetSpec, scale: int) -> np.ndarray:
    """Read an image for a degradation; `prepare_hr` has the rest.

    Raises:
        InputError: the file is not an image, or so small that a step could leave no pixel.
    """
    return prepare_hr(read_image(path), path, degradation, scale)


def prepare_hr(source: DecodedImage, path: Path, degradation: PresetSpec, scale: int) -> np.ndarray:
    """Prepare an image for a degradation; sharpened if the degradation sharpens HR.

    Args:
        source: the HR image.
        path: its file, for messages.
        degradation: the distribution of the plans.
        scale: how many times smaller LR is.

    Returns:
        float32 RGB `[H, W, 3]` in [0, 1], both sides cropped to multiples of `scale`.

    Raises:
        InputError: the image is so small that a step could leave no pixel.
    """
    height, width = check_degradable(path, source.height, source.width, degradation, scale)
    pixels = source.pixels[:height, :width]
    image = np.repeat(pixels, 3, 2) if source.channels == 1 else pixels
    image = np.ascontiguousarray(image).astype(np.float32) / (2**source.bits - 1)
    return sharpen(image) if degradation.sharpens else image


def check_degradable(path: Path, height: int, width: int, degradation: PresetSpec, scale: int) -> tuple[int, int]:
    """Return height and width, cropped to multiples of the scale.

    Raises:
        InputError: the image is so small that a step of the degradation could leave no pixel.
    """
    cropped = height - height % scale, width - width % scale
    if min(cropped) < scale or degradation.smallest_px(min(cropped), scale) < 1:
        raise InputError(
            f"{path}: expected an image that leaves at least one pixel at every step, got "
            f"{height} x {width} (height x width); leave it out."
        )
    return cropped


def sample_lr(
    image: np.ndarray, degradation: PresetSpec, name: str, number: int, *, scale: int, seed: int
) -> tuple[np.ndarray, DegradationPlan]:
    """Degrade an image with random numbers from its name, the number of the draw and the seed only.

    Args:
        image: HR, float32 RGB `[H, W, 3]` in [0, 1].
        degradation: the distribution of the plans.
        name: path of the image relative to its folder.
        number: number of the draw, from 1.
        scale: how many times smaller LR is.
        seed: seed of all images.

    Returns:
        LR, float32 `[H / scale, W / scale, 3]`, and the plan that made it.
    """
    rng = np.random.default_rng((seed, zlib.crc32(name.encode(errors="surrogateescape")), number))
    height, width = image.shape[:2]
    plan = degradation.sample(rng, height, width, scale)
    return apply_plan(plan, image, rng), plan


def _name_lr(path: Path, scale: int) -> str:
    """Return the name of the LR image: with the scale if the file system allows a name so long."""
    name = f"{path.stem}x{scale}.png"
    return name if len(os.fsencode(name)) <= _LARGEST_NAME_BYTES else f"{path.stem}.png"


def _open_records(path: Path) -> BinaryIO:
    """Open the file of parameters to append to it; close a line that an interrupted program left open."""
    file = path.open("ab+")
    if file.tell() > 0:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")
    return file


def _remove_replaced_records(path: Path) -> None:
    """Remove the records of images that were written again; all other lines stay as they are."""
    lines = path.read_bytes().splitlines(keepends=True)
    names = [_read_file_name(line) for line in lines]
    last = {name: number for number, name in enumerate(names)}
    kept = [line for number, line in enumerate(lines) if names[number] is None or last[names[number]] == number]
    if len(kept) < len(lines):
        write_atomic(path, b"".join(kept))


def _read_file_name(line: bytes) -> str | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    name = record.get("file") if isinstance(record, dict) else None
    return name if isinstance(name, str) else None
