"""The sample images of the runs, in all versions."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from selfsr.report.encoding import read_rgb
from selfsr.runfolder.read import RunFolder

IMAGES_SHOWN = 6
EARLIER_STEPS_SHOWN = 3


@dataclass(frozen=True)
class ImageVersion:
    """One version of a sample image: an output, the bicubic baseline or the ground truth.

    Attributes:
        label: its name on the page.
        pixels: uint8 `[H, W, 3]`.
        run: index of the run; None for bicubic and the ground truth.
        step: step of the output; None for bicubic and the ground truth.
        earlier: whether the run has a later output.
    """

    label: str
    pixels: np.ndarray
    run: int | None = None
    step: int | None = None
    earlier: bool = False


@dataclass(frozen=True)
class ReportImage:
    """A sample image with the outputs of all runs.

    Attributes:
        name: name of the sample.
        hr: ground truth, uint8 `[H, W, 3]`.
        bicubic: the bicubic baseline; None if its file is missing.
        versions: the last output of each run, then earlier outputs of the leading run.
        lr: the input of the leading run, uint8 `[H / scale, W / scale, 3]`; None if its file is missing.
    """

    name: str
    hr: np.ndarray
    bicubic: ImageVersion | None
    versions: list[ImageVersion]
    lr: np.ndarray | None = None

    @property
    def last(self) -> list[ImageVersion]:
        """The last output of each run."""
        return [version for version in self.versions if not version.earlier]

    @property
    def scale(self) -> int | None:
        """How many times larger the ground truth is than the input; None without an input, or for another ratio."""
        if self.lr is None or self.hr.shape[0] % self.lr.shape[0]:
            return None
        scale = self.hr.shape[0] // self.lr.shape[0]
        return scale if self.hr.shape[1] == scale * self.lr.shape[1] else None

    def cut(self, top: int, left: int, height: int, width: int) -> "ReportImage":
        """Return a part of the image in all versions; the input only if its pixels fit the part."""
        rows, columns = slice(top, top + height), slice(left, left + width)
        scale = self.scale
        lr = None
        if self.lr is not None and scale is not None and not any(n % scale for n in (top, left, height, width)):
            lr = self.lr[top // scale : (top + height) // scale, left // scale : (left + width) // scale]
        return replace(
            self,
            hr=self.hr[rows, columns],
            lr=lr,
            bicubic=self.bicubic and replace(self.bicubic, pixels=self.bicubic.pixels[rows, columns]),
            versions=[replace(version, pixels=version.pixels[rows, columns]) for version in self.versions],
        )


def load_images(runs: list[RunFolder], lead: int, notes: list[str]) -> list[ReportImage]:
    """Load the sample images of the runs, at most `IMAGES_SHOWN`.

    Args:
        runs: the runs.
        lead: index of the leading run, which shows earlier outputs.
        notes: receives a sentence about each image or output that cannot be shown.
    """
    lead_first = [runs[lead], *(run for run in runs if run is not runs[lead])]
    names = list(
        dict.fromkeys(
            name for run in lead_first for name, files in run.samples.items() if files.sr or files.pixel_weights
        )
    )
    if len(names) > IMAGES_SHOWN:
        notes.append(f"The page shows the first {IMAGES_SHOWN} of {len(names)} sample images.")
    images = (_load_image(name, runs, lead, notes) for name in names[:IMAGES_SHOWN])
    return [image for image in images if image is not None]


def _load_image(name: str, runs: list[RunFolder], lead: int, notes: list[str]) -> ReportImage | None:
    order = [lead, *(index for index in range(len(runs)) if index != lead)]
    samples = [runs[index].samples[name] for index in order if name in runs[index].samples]
    hr_path = _find_first(sample.hr for sample in samples)
    hr = read_rgb(hr_path, notes) if hr_path else None
    if hr is None:
        notes.append(f"Sample {name} is not shown, since it has no readable hr.png.")
        return None
    bicubic_path = _find_first(sample.bicubic for sample in samples)
    pixels = read_rgb(bicubic_path, notes) if bicubic_path else None
    bicubic = None
    if pixels is not None and pixels.shape == hr.shape:
        bicubic = ImageVersion("bicubic", pixels)
    else:
        notes.append(f"Sample {name} has no bicubic.png of the size of hr.png.")
    lr_path = _find_first(sample.lr for sample in samples)
    lr = read_rgb(lr_path, notes) if lr_path else None
    versions = []
    for index, run in enumerate(runs):
        versions += _load_outputs(name, run, index, index == lead, hr, notes)
    versions.sort(key=lambda version: version.earlier)
    return ReportImage(name, hr, bicubic, versions, lr)


def _find_first(paths: Iterable[Path | None]) -> Path | None:
    return next((path for path in paths if path is not None), None)


def _load_outputs(
    name: str, run: RunFolder, index: int, leads: bool, hr: np.ndarray, notes: list[str]
) -> list[ImageVersion]:
    steps = list(run.samples[name].sr) if name in run.samples else []
    if not steps:
        return []
    own_hr = run.samples[name].hr
    own_pixels = read_rgb(own_hr, []) if own_hr else None
    if own_pixels is not None and own_pixels.shape == hr.shape and not np.array_equal(own_pixels, hr):
        notes.append(f"Sample {name} of {run.name} is not shown, since its ground truth is another image.")
        return []
    starts = [0] if run.is_fine_tune and steps[0] == 0 and len(steps) > 1 else []
    earlier = choose_steps(steps[len(starts) : -1], EARLIER_STEPS_SHOWN) if leads else []
    shown = [*starts, *earlier, steps[-1]]
    versions = []
    for step in shown:
        pixels = read_rgb(run.samples[name].sr[step], notes)
        if pixels is None:
            continue
        if pixels.shape != hr.shape:
            notes.append(f"Sample {name} of {run.name} is not shown, since its size differs from the ground truth.")
            break
        label = f"{run.name}, start" if step in starts else f"{run.name}, step {step:,}"
        versions.append(ImageVersion(label, pixels, index, step, earlier=step != steps[-1]))
    return versions


def choose_steps(steps: Sequence[int], count: int) -> list[int]:
    """Choose at most `count` steps, including the first and the last, spaced evenly in the logarithm of the step.

    Outputs change much early in training and little later.
    """
    if len(steps) <= count:
        return list(steps)
    low, high = math.log1p(steps[0]), math.log1p(steps[-1])
    chosen: list[int] = []
    for index in range(count):
        target = low + (high - low) * index / max(count - 1, 1)
        remaining = [step for step in steps if step not in chosen]
        chosen.append(min(remaining, key=lambda step: abs(math.log1p(step) - target)))
    return sorted(chosen)
