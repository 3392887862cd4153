"""The outputs of GAN runs through training: one crop of each image at many steps, with its artifact map."""

from dataclasses import dataclass

import numpy as np
import torch

from selfsr.losses.artifact import artifact_map
from selfsr.report.crops import ReportCrop, choose_detailed_crop
from selfsr.report.encoding import encode_webp, read_rgb
from selfsr.report.images import ReportImage, choose_steps
from selfsr.runfolder.read import RunFolder

FRAMES_SHOWN = 8
TIMELINE_PX = 160
# The artifact value at the upper end of the color scale; the largest values of GANs on photos are near it.
ARTIFACT_MAX = 0.02


@dataclass(frozen=True)
class TimelineFrame:
    """The crop at one step.

    Attributes:
        step: optimizer step.
        image: the output as a data URI.
        artifacts: its artifact map as a data URI, gray; the page colors it.
        level: mean of the artifact map, in thousandths of `ARTIFACT_MAX`.
    """

    step: int
    image: str
    artifacts: str
    level: float


@dataclass(frozen=True)
class RunTimeline:
    """The frames of one run, in the order of steps."""

    run: int
    frames: list[TimelineFrame]


@dataclass(frozen=True)
class Timeline:
    """One crop of an image in every GAN run.

    Attributes:
        name: name of the sample.
        reason: the reason for the choice of the crop.
        hr: the crop of the ground truth as a data URI.
        side: side of the crop in px.
        runs: one entry for each GAN run with outputs of this image.
    """

    name: str
    reason: str
    hr: str
    side: int
    runs: list[RunTimeline]


def build_timelines(runs: list[RunFolder], images: list[ReportImage], notes: list[str]) -> list[Timeline]:
    """Return the timelines of all images with outputs of GAN runs."""
    gan_runs = [(index, run) for index, run in enumerate(runs) if run.is_gan]
    timelines = []
    for image in images if gan_runs else []:
        # The crop with the most detail depends only on the ground truth, not on the outputs.
        crop = choose_detailed_crop(image.hr, TIMELINE_PX)
        if crop is None:
            continue
        run_timelines = [RunTimeline(index, _load_frames(run, image, crop, notes)) for index, run in gan_runs]
        run_timelines = [run_timeline for run_timeline in run_timelines if run_timeline.frames]
        if run_timelines:
            hr = encode_webp(crop.cut(image.hr))
            timelines.append(Timeline(image.name, crop.reason, hr, crop.side, run_timelines))
    return timelines


def _load_frames(run: RunFolder, image: ReportImage, crop: ReportCrop, notes: list[str]) -> list[TimelineFrame]:
    paths = run.samples[image.name].sr if image.name in run.samples else {}
    frames = []
    for step in choose_steps(list(paths), FRAMES_SHOWN):
        pixels = read_rgb(paths[step], notes)
        if pixels is None or pixels.shape != image.hr.shape:
            continue
        artifacts = crop.cut(_compute_artifacts(pixels, image.hr))
        gray = np.round(255 * np.sqrt(np.clip(artifacts / ARTIFACT_MAX, 0, 1))).astype(np.uint8)
        level = 1000 * float(artifacts.mean()) / ARTIFACT_MAX
        frames.append(TimelineFrame(step, encode_webp(crop.cut(pixels)), encode_webp(gray), level))
    return frames


def _compute_artifacts(pixels: np.ndarray, hr: np.ndarray) -> np.ndarray:
    """Return LDL's artifact map `[H, W]` of an output: docs/losses.md eq. 3, without the comparison to the EMA."""
    sr, truth = (torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255 for image in (pixels, hr))
    return artifact_map(sr, truth)[0, 0].numpy()
