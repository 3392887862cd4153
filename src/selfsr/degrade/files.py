"""Degrade a folder: what goes where, reproducibly whatever else lies in it, with the parameters written beside."""

import json
import os
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from selfsr.degrade.blur import sharpened
from selfsr.degrade.jpeg import levels
from selfsr.degrade.plan import Plan, carry_out, described
from selfsr.degrade.presets import PresetSpec, one_thread
from selfsr.errors import InputError
from selfsr.images.files import Picture, read_picture, write_picture
from selfsr.images.paths import list_pictures

PARAMETERS = "degradations.jsonl"


@dataclass(frozen=True)
class Job:
    """One degraded picture to make.

    Attributes:
        source: the HR file.
        name: its path below the input folder, which seeds its randomness.
        draw: number of the draw, from 1.
        target: the file to write.
    """

    source: Path
    name: str
    draw: int
    target: Path


@dataclass
class Outcome:
    """What became of the jobs.

    Attributes:
        written: how many pictures were written.
        failures: a sentence for each picture that could not be read or is too small.
    """

    written: int = 0
    failures: list[str] = field(default_factory=list)


def plan_jobs(folder: Path, output: Path, *, scale: int, per_image: int = 1, overwrite: bool = False) -> list[Job]:
    """Decide where each picture goes, before anything is read or written.

    `a/b.png` becomes `a/bx4.png` (with the scale) below `output`; with several draws below `output/1`, `output/2` and
    so on, so that each of these is the LR folder of a whole set.

    Raises:
        InputError: the folder is missing or empty, two pictures have one target, or a target is there already.
    """
    inside = output.resolve()
    if inside == folder.resolve():
        raise InputError(f"degrade: {output} is the folder of the originals; name another one with -o.")
    jobs = []
    for path in list_pictures(folder):
        if inside in path.resolve().parents:
            continue
        below = path.relative_to(folder)
        for draw in range(1, per_image + 1):
            place = output if per_image == 1 else output / str(draw)
            jobs.append(Job(path, below.as_posix(), draw, place / below.with_name(f"{path.stem}x{scale}.png")))
    if not jobs:
        raise InputError(f"degrade: {folder} holds no picture outside of {output}; name another folder with -o.")
    target, count = Counter(job.target for job in jobs).most_common(1)[0]
    if count > 1:
        raise InputError(f"degrade: {count} pictures would be written to {target}; give them different names.")
    present = [job.target for job in jobs if job.target.exists()]
    if present and not overwrite:
        more = f" (and {len(present) - 1} more)" if len(present) > 1 else ""
        raise InputError(f"degrade: {present[0]} is already there{more}; add --overwrite to replace it.")
    return jobs


def degrade_files(
    jobs: list[Job],
    output: Path,
    degradation: PresetSpec,
    *,
    scale: int,
    seed: int,
    advance: Callable[[], None],
) -> Outcome:
    """Degrade each file; the parameters of all go to `degradations.jsonl` in `output`, in the order of the jobs.

    A file that cannot be read or is smaller than `scale` is told and left out.
    """
    one_thread()
    outcome = Outcome()
    output.mkdir(parents=True, exist_ok=True)

    def run(job: Job) -> dict[str, Any] | str:
        try:
            image = read_hr(job.source, degradation, scale)
            lr, plan = draw(image, degradation, job.name, job.draw, scale=scale, seed=seed)
        except InputError as error:
            return str(error)
        write_picture(job.target, Picture(levels(lr)))
        found = {"file": job.target.relative_to(output).as_posix(), "source": job.name, "draw": job.draw}
        return {**found, "seed": seed, "scale": scale, "steps": described(plan)}

    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        with (output / PARAMETERS).open("w", encoding="utf-8") as file:
            for found in pool.map(run, jobs):
                if isinstance(found, str):
                    outcome.failures.append(found)
                else:
                    outcome.written += 1
                    file.write(json.dumps(found) + "\n")
                advance()
    finally:  # after Ctrl-C do not go on to the last file
        pool.shutdown(cancel_futures=True)
    return outcome


def read_hr(path: Path, degradation: PresetSpec, scale: int) -> np.ndarray:
    """Return a picture as the degradation wants it: float32 RGB `[H, W, 3]`, both sides cut to multiples of `scale`.

    Raises:
        InputError: the file is no picture, or smaller than the degradation can shrink it.
    """
    picture = read_picture(path)
    height, width = (side - side % scale for side in (picture.height, picture.width))
    if min(height, width) < scale or degradation.smallest_px(min(height, width), scale) < 1:
        raise InputError(
            f"{path}: expected a picture that leaves at least one pixel at every step, got "
            f"{picture.height} x {picture.width} (height x width); leave it out."
        )
    pixels = picture.pixels[:height, :width]
    image = np.repeat(pixels, 3, 2) if picture.channels == 1 else pixels
    image = np.ascontiguousarray(image).astype(np.float32) / (2**picture.bits - 1)
    return sharpened(image) if degradation.sharpens else image


def draw(
    image: np.ndarray, degradation: PresetSpec, name: str, number: int, *, scale: int, seed: int
) -> tuple[np.ndarray, Plan]:
    """Return LR and how it was made: a function of the picture, its name, the number of the draw and the seed."""
    rng = np.random.default_rng((seed, zlib.crc32(name.encode()), number))
    height, width = image.shape[:2]
    plan = degradation.draw(rng, height, width, scale)
    return carry_out(plan, image, rng), plan
