"""Samples of GAN runs through training: one fixed crop of each picture at many steps, and where it looks wrong."""

from dataclasses import dataclass

import numpy as np
import torch

from selfsr.losses.artifact import artifact_map
from selfsr.report.pictures import Crop, Picture, choose_crops, data_uri, read_pixels, spread
from selfsr.runfolder.read import Run

FRAMES_SHOWN = 8
# The artifact value that is drawn as the largest; a GAN's worst places on photographs come near it.
WHITE = 0.02


@dataclass(frozen=True)
class Moment:
    """The crop at one step.

    Attributes:
        step: optimizer step.
        image: the output as a data URI.
        artifacts: its artifact map, gray, as a data URI; the page colors it.
        level: the mean of the map, in thousandths of `WHITE`.
    """

    step: int
    image: str
    artifacts: str
    level: float


@dataclass(frozen=True)
class Strip:
    """One run's moments, by rising step."""

    run: int
    moments: list[Moment]


@dataclass(frozen=True)
class Timeline:
    """One picture's crop in every GAN run.

    Attributes:
        picture: name of the sample.
        why: what the crop was chosen for.
        truth: the crop of the ground truth as a data URI.
        side: of the crop, in px.
        strips: one for each GAN run with outputs of this picture.
    """

    picture: str
    why: str
    truth: str
    side: int
    strips: list[Strip]


def timelines(runs: list[Run], pictures: list[Picture], lead: int, notes: list[str]) -> list[Timeline]:
    """Return the timelines of all pictures that GAN runs have outputs of."""
    gans = [(index, run) for index, run in enumerate(runs) if run.is_gan]
    found = []
    for picture in pictures if gans else []:
        crops = choose_crops(picture, lead)
        if not crops:
            continue
        # The place with the most detail is chosen on the ground truth alone, and so is fixed whatever the runs do.
        crop = next((crop for crop in crops if crop.why == "most detail"), crops[0])
        strips = [Strip(index, _moments(run, picture, crop, notes)) for index, run in gans]
        strips = [strip for strip in strips if strip.moments]
        if strips:
            found.append(Timeline(picture.name, crop.why, data_uri(crop.cut(picture.hr)), crop.side, strips))
    return found


def _moments(run: Run, picture: Picture, crop: Crop, notes: list[str]) -> list[Moment]:
    paths = run.samples[picture.name].sr if picture.name in run.samples else {}
    moments = []
    for step in spread(list(paths), FRAMES_SHOWN):
        pixels = read_pixels(paths[step], notes)
        if pixels is None or pixels.shape != picture.hr.shape:
            continue
        where = crop.cut(_artifacts(pixels, picture.hr))
        gray = np.round(255 * np.sqrt(np.clip(where / WHITE, 0, 1))).astype(np.uint8)
        level = 1000 * float(where.mean()) / WHITE
        moments.append(Moment(step, data_uri(crop.cut(pixels)), data_uri(gray), level))
    return moments


def _artifacts(pixels: np.ndarray, hr: np.ndarray) -> np.ndarray:
    """Return LDL's map `[H, W]` of a whole output, docs/losses.md eq. 3 without the average: what is judged is it."""
    sr, truth = (torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255 for image in (pixels, hr))
    return artifact_map(sr, truth)[0, 0].numpy()
