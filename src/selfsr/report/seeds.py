"""Show the randomness of networks that sample: several seeds, their standard deviation, and the stages."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from selfsr.nets.diffusion.residual_shifting import ResidualShiftingSpec
from selfsr.report.crops import CROP_PX, ReportCrop, sum_boxes
from selfsr.report.encoding import encode_webp, read_gray, read_rgb, shrink
from selfsr.report.images import IMAGES_SHOWN
from selfsr.runfolder.read import SEED_STD_PEAK, RunFolder, SampleFiles

SEEDS_SHOWN = 4
MAP_PX = 320
# The map in gray levels of 255, as the page states its scale.
PEAK_LEVELS = 255 * SEED_STD_PEAK
_QUALITY = 92


@dataclass(frozen=True)
class Square:
    """A square part of an image, with its caption in two lines."""

    image: str
    label: str
    detail: str = ""
    is_map: bool = False


@dataclass(frozen=True)
class RunSeeds:
    """The newest samples of one image in one run.

    Attributes:
        run: index of the run.
        step: optimizer step.
        map: map of the standard deviation over seeds as a data URI, gray; the page colors it.
        width: width of the map in px.
        height: height of the map in px.
        mean: mean of the map in gray levels of 255.
        place: left, top, width and height of the crop, in percent of the map.
        squares: the crop in the ground truth, in the sample of each seed and in the map.
        stages: another part of the image from x_T to x_0, and in the ground truth.
    """

    run: int
    step: int
    map: str
    width: int
    height: int
    mean: float
    place: tuple[float, float, float, float]
    squares: list[Square]
    stages: list[Square]


@dataclass(frozen=True)
class ImageSeeds:
    """The samples of one image.

    Attributes:
        name: name of the sample image.
        side: side of the crop in px.
        runs: one entry for each run with samples of several seeds.
    """

    name: str
    side: int
    runs: list[RunSeeds]


def collect_seeds(runs: list[RunFolder], notes: list[str]) -> list[ImageSeeds]:
    """Return the samples of several seeds of all images that have them, at most `IMAGES_SHOWN`.

    The crop is where the seeds of the first run differ most.
    """
    names = dict.fromkeys(name for run in runs for name, files in run.samples.items() if files.seed_std)
    images = []
    for name in list(names)[:IMAGES_SHOWN]:
        crop, of_runs = None, []
        for index, run in enumerate(runs):
            files = run.samples.get(name)
            if files is None or not files.seed_std:
                continue
            step = max(files.seed_std)
            std = read_gray(files.seed_std[step], notes)
            if std is None:
                continue
            if crop is None or (crop.top + crop.side, crop.left + crop.side) > std.shape:
                crop = _find_crop(std)
            of_runs.append(_load_run(index, run, files, step, std, crop, notes))
        if crop is not None:
            images.append(ImageSeeds(name, crop.side, of_runs))
    return images


def _find_crop(std: np.ndarray) -> ReportCrop:
    side = min(CROP_PX, *std.shape)
    sums = sum_boxes(std, side)
    top, left = np.unravel_index(int(np.argmax(sums)), sums.shape)
    return ReportCrop(int(left), int(top), side, "where the seeds differ most")


def _load_run(
    index: int, run: RunFolder, files: SampleFiles, step: int, std: np.ndarray, crop: ReportCrop, notes: list[str]
) -> RunSeeds:
    small = shrink(std, MAP_PX)
    height, width = std.shape
    squares = [_cut(files.hr, std, crop, "ground truth", notes)]
    for seed, path in list(files.seeds.get(step, {}).items())[:SEEDS_SHOWN]:
        squares.append(_cut(path, std, crop, f"seed {seed}", notes))
    squares.append(Square(encode_webp(crop.cut(std), quality=_QUALITY), "standard deviation", is_map=True))
    return RunSeeds(
        index,
        step,
        encode_webp(small, quality=_QUALITY),
        small.shape[1],
        small.shape[0],
        SEED_STD_PEAK * float(std.mean()),  # of 255 gray levels of the file, which are SEED_STD_PEAK
        (
            100 * crop.left / width,
            100 * crop.top / height,
            100 * crop.side / width,
            100 * crop.side / height,
        ),
        [square for square in squares if square is not None],
        _load_stages(run, files.stages.get(step), notes),
    )


def _cut(path: Path | None, std: np.ndarray, crop: ReportCrop, label: str, notes: list[str]) -> Square | None:
    pixels = None if path is None else read_rgb(path, notes)
    if pixels is None or pixels.shape[:2] != std.shape:
        return None
    return Square(encode_webp(crop.cut(pixels)), label)


def _load_stages(run: RunFolder, path: Path | None, notes: list[str]) -> list[Square]:
    """Return the squares of a file with one in each stage of sampling, and with the ground truth at last."""
    strip = None if path is None else read_rgb(path, notes)
    if strip is None or strip.shape[1] < 2 * strip.shape[0] or strip.shape[1] % strip.shape[0]:
        return []
    images = np.split(strip, strip.shape[1] // strip.shape[0], axis=1)
    labels = [*_label_stages(run, len(images) - 1), ("ground truth", "")]
    return [Square(encode_webp(image, quality=_QUALITY), *label) for image, label in zip(images, labels, strict=True)]


def _label_stages(run: RunFolder, count: int) -> Sequence[tuple[str, str]]:
    """Return the captions of the stages from x_T to x_0; without the noise level if the recipe does not have it."""
    try:
        spec = ResidualShiftingSpec.model_validate(run.recipe.get("network"))
    except ValidationError:
        spec = None
    if spec is not None:
        schedule = spec.shift.build()
        indices = schedule.choose_indices(1 if spec.one_step else spec.sample.steps)
        if len(indices) == count - 1:
            noisy = [(f"x{i + 1}", f"noise {schedule.noise_std[i]:.2f}") for i in indices]
            return [*noisy, ("x0", "")]
    return [("start", ""), *[("", "")] * (count - 2), ("end", "")]
