"""Find where outputs differ most and where each is worst, by the error of the luma over small squares."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from selfsr.report.crops import compute_luma, sum_boxes

PLACE_PX = 64
# Smaller values are rounding errors of the sums.
_LEAST = 1e-6


@dataclass(frozen=True)
class Place:
    """A square of an image.

    Attributes:
        image: index of the image.
        left: distance from the left side in px.
        top: distance from the upper side in px.
        side: side in px.
        worst: the model that is worst here, relative to the best one; None for a place where models differ most.
        psnr: PSNR-Y in dB of each model here, infinite where it equals HR; empty without HR.
    """

    image: int
    left: int
    top: int
    side: int
    worst: str | None
    psnr: dict[str, float]


def choose_region(versions: Sequence[np.ndarray], longest_px: int, multiple_px: int) -> tuple[int, int, int, int]:
    """Choose the part of a large image where outputs differ most.

    Args:
        versions: the outputs, uint8 `[H, W, 3]`.
        longest_px: the most pixels of a side.
        multiple_px: all four numbers are multiples of it, if the sides of the image are.

    Returns:
        Top, left, height and width; the complete image if it is small enough.
    """
    height, width = versions[0].shape[:2]
    side = longest_px // multiple_px * multiple_px
    rows, columns = min(height, side), min(width, side)
    if (rows, columns) == (height, width):
        return 0, 0, height, width
    sums = _sum_rectangles(_measure_spread(versions), rows, columns)
    sums = sums[::multiple_px, ::multiple_px]
    top, left = np.unravel_index(int(np.argmax(sums)), sums.shape)
    return int(top) * multiple_px, int(left) * multiple_px, rows, columns


def find_places(
    images: Sequence[Mapping[str, np.ndarray]], hrs: Sequence[np.ndarray | None], count: int
) -> list[Place]:
    """Find the squares where models differ most, and those where each model is worst.

    Models differ by the mean over a square of the standard deviation of their luma. A model is worst where its mean
    squared luma error exceeds the error of the best model there most. Within a list, squares are at least three
    quarters of their side apart, in one direction or the other.

    Args:
        images: for each image, the outputs by model, uint8 `[H, W, 3]`.
        hrs: the ground truth of each image; None without.
        count: the most squares of each list.

    Returns:
        The squares of all images: first the places where models differ most, then the places of each model, largest
        first.
    """
    places: list[Place] = []
    maps = [_measure_spread(list(outputs.values())) if len(outputs) > 1 else None for outputs in images]
    places += _take_largest(maps, images, hrs, count, None)
    names = list(dict.fromkeys(name for outputs in images for name in outputs))
    for name in names:
        excess = [
            _measure_excess(outputs, hr, name) if hr is not None and name in outputs and len(outputs) > 1 else None
            for outputs, hr in zip(images, hrs, strict=True)
        ]
        places += _take_largest(excess, images, hrs, count, name)
    return places


def _measure_spread(versions: Sequence[np.ndarray]) -> np.ndarray:
    """Return the standard deviation of the luma over the versions, `[H, W]`."""
    return np.std([compute_luma(pixels) for pixels in versions], axis=0)


def _measure_excess(outputs: Mapping[str, np.ndarray], hr: np.ndarray, name: str) -> np.ndarray:
    """Return the mean squared error of a model over each square, minus the smallest of the others, at its corner."""
    errors = {other: _measure_error(pixels, hr) for other, pixels in outputs.items()}
    return errors[name] - np.min([error for other, error in errors.items() if other != name], axis=0)


def _measure_error(pixels: np.ndarray, hr: np.ndarray) -> np.ndarray:
    side = min(PLACE_PX, *hr.shape[:2])
    return sum_boxes((compute_luma(pixels) - compute_luma(hr)) ** 2, side) / side**2


def _take_largest(
    maps: Sequence[np.ndarray | None],
    images: Sequence[Mapping[str, np.ndarray]],
    hrs: Sequence[np.ndarray | None],
    count: int,
    worst: str | None,
) -> list[Place]:
    """Return the squares with the largest values, over all images."""
    sums: list[np.ndarray | None] = []
    for index, values in enumerate(maps):
        side = _choose_side(images[index])
        is_boxes = worst is not None  # already over squares
        sums.append(None if values is None else values.copy() if is_boxes else sum_boxes(values, side) / side**2)
    places: list[Place] = []
    while len(places) < count:
        peaks = [-math.inf if values is None else float(values.max()) for values in sums]
        index = int(np.argmax(peaks)) if peaks else 0
        values = sums[index] if peaks else None
        if values is None or peaks[index] <= _LEAST:
            break
        top, left = (int(number) for number in np.unravel_index(int(np.argmax(values)), values.shape))
        side = _choose_side(images[index])
        apart = 3 * side // 4
        values[max(top - apart, 0) : top + apart, max(left - apart, 0) : left + apart] = -np.inf
        hr = hrs[index]
        psnr = {} if hr is None else {name: _psnr(x, hr, top, left, side) for name, x in images[index].items()}
        places.append(Place(index, left, top, side, worst, psnr))
    return places


def _choose_side(outputs: Mapping[str, np.ndarray]) -> int:
    return min(PLACE_PX, *next(iter(outputs.values())).shape[:2]) if outputs else PLACE_PX


def _psnr(pixels: np.ndarray, hr: np.ndarray, top: int, left: int, side: int) -> float:
    part = (slice(top, top + side), slice(left, left + side))
    error = float(((compute_luma(pixels[part]) - compute_luma(hr[part])) ** 2).mean())
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def _sum_rectangles(values: np.ndarray, rows: int, columns: int) -> np.ndarray:
    table = np.pad(values.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    return table[rows:, columns:] - table[:-rows, columns:] - table[rows:, :-columns] + table[:-rows, :-columns]
