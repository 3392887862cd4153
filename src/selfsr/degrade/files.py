"""Degrade the images of a folder, reproducibly, and save the parameters with them."""

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

from selfsr.degrade.blur import sharpen
from selfsr.degrade.jpeg import to_uint8
from selfsr.degrade.plan import DegradationPlan, apply_plan, plan_to_json
from selfsr.degrade.presets import PresetSpec, disable_opencv_threads
from selfsr.errors import InputError
from selfsr.images.files import DecodedImage, read_image, write_image
from selfsr.images.paths import list_images

PARAMETERS = "degradations.jsonl"


@dataclass(frozen=True)
class DegradeJob:
    """One LR image to make.

    Attributes:
        source: the HR file.
        name: its path relative to the input folder; part of the seed.
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
    """

    written: int = 0
    failures: list[str] = field(default_factory=list)


def plan_jobs(
    folder: Path, output: Path, *, scale: int, per_image: int = 1, overwrite: bool = False
) -> list[DegradeJob]:
    """List the images to make, before anything is read or written.

    `a/b.png` becomes `output/a/bx4.png`, where 4 is the scale. With several draws, these go to `output/1`, `output/2`
    and so on, so that each of these folders is a complete LR folder.

    Raises:
        InputError: the folder is missing or empty, two images have the same target, or a target exists.
    """
    output_path = output.resolve()
    if output_path == folder.resolve():
        raise InputError(
            f"degrade: expected an output folder other than the input, got {output} for both; pass another one with -o."
        )
    jobs = []
    for path in list_images(folder):
        if output_path in path.resolve().parents:
            continue
        relative = path.relative_to(folder)
        for draw in range(1, per_image + 1):
            target_folder = output if per_image == 1 else output / str(draw)
            target = target_folder / relative.with_name(f"{path.stem}x{scale}.png")
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
    """Degrade the files and save the parameters to `degradations.jsonl` in `output`, in the order of the jobs.

    Files that cannot be read or are too small are reported in the result and left out.

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

    def run(job: DegradeJob) -> dict[str, Any] | str:
        try:
            image = read_hr(job.source, degradation, scale)
            lr, plan = sample_lr(image, degradation, job.name, job.draw, scale=scale, seed=seed)
        except InputError as error:
            return str(error)
        write_image(job.target, DecodedImage(to_uint8(lr)))
        record = {"file": job.target.relative_to(output).as_posix(), "source": job.name, "draw": job.draw}
        return {**record, "seed": seed, "scale": scale, "steps": plan_to_json(plan)}

    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        with (output / PARAMETERS).open("w", encoding="utf-8") as file:
            for record in pool.map(run, jobs):
                if isinstance(record, str):
                    result.failures.append(record)
                else:
                    result.written += 1
                    file.write(json.dumps(record) + "\n")
                advance()
    finally:  # after Ctrl-C, do not start the remaining jobs
        pool.shutdown(cancel_futures=True)
    return result


def read_hr(path: Path, degradation: PresetSpec, scale: int) -> np.ndarray:
    """Read an image for a degradation; sharpened if the degradation sharpens HR.

    Returns:
        float32 RGB `[H, W, 3]` in [0, 1], both sides cropped to multiples of `scale`.

    Raises:
        InputError: the file is not an image, or so small that a step could leave no pixel.
    """
    source = read_image(path)
    height, width = (side - side % scale for side in (source.height, source.width))
    if min(height, width) < scale or degradation.smallest_px(min(height, width), scale) < 1:
        raise InputError(
            f"{path}: expected an image that leaves at least one pixel at every step, got "
            f"{source.height} x {source.width} (height x width); leave it out."
        )
    pixels = source.pixels[:height, :width]
    image = np.repeat(pixels, 3, 2) if source.channels == 1 else pixels
    image = np.ascontiguousarray(image).astype(np.float32) / (2**source.bits - 1)
    return sharpen(image) if degradation.sharpens else image


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
    rng = np.random.default_rng((seed, zlib.crc32(name.encode()), number))
    height, width = image.shape[:2]
    plan = degradation.sample(rng, height, width, scale)
    return apply_plan(plan, image, rng), plan
