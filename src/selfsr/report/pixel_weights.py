"""The self-paced pixel weights through training, as a series of maps."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selfsr.report.encoding import encode_webp, read_gray, read_rgb, shrink
from selfsr.report.images import IMAGES_SHOWN, choose_steps
from selfsr.runfolder.read import RunFolder

MAPS_SHOWN = 10
MAP_PX = 320


@dataclass(frozen=True)
class WeightMap:
    """The pixel weights at one step.

    Attributes:
        step: optimizer step.
        image: gray image as a data URI; the page colors it.
        mean: mean weight, as a share of the largest possible weight.
        low: first percentile of the weights, as a share of the largest possible weight.
        high: 99th percentile, likewise.
    """

    step: int
    image: str
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class RunWeightMaps:
    """The weight maps of one image in one run.

    Attributes:
        run: index of the run.
        peak: the largest possible weight; None if the recipe does not have it.
        maps: the maps to show, in the order of steps.
        recorded: number of maps in the run folder.
    """

    run: int
    peak: float | None
    maps: list[WeightMap]
    recorded: int


@dataclass(frozen=True)
class ImageWeightMaps:
    """The weight maps of one image in all runs.

    Attributes:
        name: name of the sample.
        hr: the ground truth as a data URI; None if it is missing.
        width: width of a map in px.
        height: height of a map in px.
        runs: one entry for each run with maps.
    """

    name: str
    hr: str | None
    width: int
    height: int
    runs: list[RunWeightMaps]


def collect_weight_maps(runs: list[RunFolder], notes: list[str]) -> list[ImageWeightMaps]:
    """Return the weight maps of all sample images that have them, at most `IMAGES_SHOWN`."""
    names = dict.fromkeys(name for run in runs for name, files in run.samples.items() if files.pixel_weights)
    images = []
    for name in list(names)[:IMAGES_SHOWN]:
        maps_of_runs, size = [], (0, 0)
        for index, run in enumerate(runs):
            paths = run.samples[name].pixel_weights if name in run.samples else {}
            maps, size = _load_maps(paths, size, notes)
            if maps:
                maps_of_runs.append(RunWeightMaps(index, _find_peak(run.recipe), maps, len(paths)))
        if maps_of_runs:
            images.append(ImageWeightMaps(name, _load_hr(name, runs, notes), *size, maps_of_runs))
    return images


def _load_hr(name: str, runs: list[RunFolder], notes: list[str]) -> str | None:
    path = next((run.samples[name].hr for run in runs if name in run.samples and run.samples[name].hr), None)
    pixels = read_rgb(path, notes) if path else None
    return None if pixels is None else encode_webp(shrink(pixels, MAP_PX), quality=84)


def _load_maps(
    paths: dict[int, Path], size: tuple[int, int], notes: list[str]
) -> tuple[list[WeightMap], tuple[int, int]]:
    maps = []
    for step in choose_steps(list(paths), MAPS_SHOWN):
        gray = read_gray(paths[step], notes)
        if gray is None:
            continue
        small = shrink(gray, MAP_PX)
        size = (small.shape[1], small.shape[0])
        low, high = np.percentile(gray, (1, 99)) / 255
        # The stretched view enlarges coding errors, hence the higher quality.
        image = encode_webp(small, quality=92)
        maps.append(WeightMap(step, image, float(gray.mean()) / 255, float(low), float(high)))
    return maps, size


def _find_peak(tree: Any) -> float | None:
    """Return the largest possible weight of the first self-paced term in a recipe."""
    if isinstance(tree, dict):
        pace = tree.get("pace")
        if isinstance(pace, dict) and isinstance(pace.get("peak"), int | float):
            return float(pace["peak"])
        tree = list(tree.values())
    if isinstance(tree, list):
        return next((peak for peak in map(_find_peak, tree) if peak is not None), None)
    return None
