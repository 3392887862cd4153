"""The self-paced weight maps through training, as the frames of a film."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from selfsr.report.pictures import PICTURES_SHOWN, data_uri, read_pixels, shrink, spread
from selfsr.runfolder.read import Run

FRAMES_SHOWN = 10
FRAME_PX = 320


@dataclass(frozen=True)
class Frame:
    """The weights at one step.

    Attributes:
        step: optimizer step.
        image: gray picture as a data URI; the page colors it.
        mean: mean weight as a share of the largest, 0 to 1.
        low, high: what 98 % of the pixels lie between, as shares of the largest.
    """

    step: int
    image: str
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Film:
    """The weight maps of one picture in one run.

    Attributes:
        run: index of the run.
        peak: the largest weight of the schedule, None if the recipe does not tell.
        frames: by rising step.
        recorded: how many maps the run wrote, of which `frames` may show fewer.
    """

    run: int
    peak: float | None
    frames: list[Frame]
    recorded: int


@dataclass(frozen=True)
class Screening:
    """The films of one picture.

    Attributes:
        picture: name of the sample.
        photo: the ground truth as a data URI, None if it is missing.
        width, height: of a frame, in px.
        films: one for each run with maps.
    """

    picture: str
    photo: str | None
    width: int
    height: int
    films: list[Film]


def screenings(runs: list[Run], notes: list[str]) -> list[Screening]:
    """Return the films of every sample picture with weight maps, at most `PICTURES_SHOWN`."""
    names = dict.fromkeys(name for run in runs for name, sample in run.samples.items() if sample.attention)
    found = []
    for name in list(names)[:PICTURES_SHOWN]:
        films, size = [], (0, 0)
        for index, run in enumerate(runs):
            paths = run.samples[name].attention if name in run.samples else {}
            frames, size = _frames(paths, size, notes)
            if frames:
                films.append(Film(index, _peak(run.recipe), frames, len(paths)))
        if films:
            found.append(Screening(name, _photo(name, runs, notes), *size, films))
    return found


def _photo(name: str, runs: list[Run], notes: list[str]) -> str | None:
    path = next((run.samples[name].hr for run in runs if name in run.samples and run.samples[name].hr), None)
    pixels = read_pixels(path, notes) if path else None
    return None if pixels is None else data_uri(shrink(pixels, FRAME_PX), quality=84)


def _frames(paths: dict[int, Path], size: tuple[int, int], notes: list[str]) -> tuple[list[Frame], tuple[int, int]]:
    frames = []
    for step in spread(list(paths), FRAMES_SHOWN):
        gray = _read_gray(paths[step], notes)
        if gray is None:
            continue
        small = shrink(gray, FRAME_PX)
        size = (small.shape[1], small.shape[0])
        low, high = np.percentile(gray, (1, 99)) / 255
        # The stretched view enlarges what the encoding loses, hence the better quality.
        image = data_uri(small, quality=92)
        frames.append(Frame(step, image, float(gray.mean()) / 255, float(low), float(high)))
    return frames, size


def _read_gray(path: Path, notes: list[str]) -> np.ndarray | None:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("L"))
    except (OSError, SyntaxError, ValueError):  # Pillow's words for a broken PNG
        notes.append(f"{'/'.join(path.parts[-4:])} cannot be read as a picture.")
        return None


def _peak(tree: Any) -> float | None:
    """Return the largest weight of the first self-paced schedule in a recipe."""
    if isinstance(tree, dict):
        pace = tree.get("pace")
        if isinstance(pace, dict) and isinstance(pace.get("peak"), int | float):
            return float(pace["peak"])
        tree = list(tree.values())
    if isinstance(tree, list):
        return next((peak for peak in map(_peak, tree) if peak is not None), None)
    return None
