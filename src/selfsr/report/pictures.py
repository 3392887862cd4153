"""Pictures for the page: which crops to show, every version of them, and their encoding."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from selfsr.evaluation import psnr_ssim as metrics
from selfsr.runfolder.read import Run

CROP_PX = 96
OVERVIEW_PX = 560
PICTURES_SHOWN = 6
EARLIER_STEPS_SHOWN = 3


@dataclass(frozen=True)
class Crop:
    """A square of the ground truth, shown enlarged.

    Attributes:
        left, top: position in px of the ground truth.
        side: in px.
        why: what made it chosen.
    """

    left: int
    top: int
    side: int
    why: str

    def cut(self, pixels: np.ndarray) -> np.ndarray:
        """Return this part of a picture `[H, W, C]`."""
        return pixels[self.top : self.top + self.side, self.left : self.left + self.side]


@dataclass(frozen=True)
class Version:
    """One rendering of a sample picture.

    Attributes:
        label: what to call it on the page.
        pixels: uint8 `[H, W, 3]`.
        run: index of the run that made it, None for bicubic and the ground truth.
        step: at which step.
        earlier: whether the run has a later one.
    """

    label: str
    pixels: np.ndarray
    run: int | None = None
    step: int | None = None
    earlier: bool = False


@dataclass(frozen=True)
class Picture:
    """One sample picture with all that the runs made of it.

    Attributes:
        name: of the sample.
        hr: ground truth, uint8 `[H, W, 3]`.
        bicubic: the baseline, if it is there.
        versions: every run's last output, then earlier outputs of the leading run.
    """

    name: str
    hr: np.ndarray
    bicubic: Version | None
    versions: list[Version]

    @property
    def last(self) -> list[Version]:
        """The last output of each run that has one."""
        return [version for version in self.versions if not version.earlier]


def load_pictures(runs: list[Run], lead: int, notes: list[str]) -> list[Picture]:
    """Load the sample pictures that the runs share or have alone, at most `PICTURES_SHOWN`.

    Args:
        runs: the runs.
        lead: index of the run whose earlier outputs are shown, too.
        notes: gets a sentence for each picture or version that cannot be shown.
    """
    order = [runs[lead], *(run for run in runs if run is not runs[lead])]
    names = list(dict.fromkeys(name for run in order for name, s in run.samples.items() if s.sr or s.attention))
    if len(names) > PICTURES_SHOWN:
        notes.append(f"{len(names)} sample pictures exist; the page shows the first {PICTURES_SHOWN}.")
    loaded = (_load_picture(name, runs, lead, notes) for name in names[:PICTURES_SHOWN])
    return [picture for picture in loaded if picture is not None]


def _load_picture(name: str, runs: list[Run], lead: int, notes: list[str]) -> Picture | None:
    order = [lead, *(index for index in range(len(runs)) if index != lead)]
    found = [runs[index].samples[name] for index in order if name in runs[index].samples]
    hr = _first(found_hr.hr for found_hr in found)
    pixels = read_pixels(hr, notes) if hr else None
    if pixels is None:
        notes.append(f"Sample {name} has no readable hr.png and is not shown.")
        return None
    path = _first(sample.bicubic for sample in found)
    baseline = read_pixels(path, notes) if path else None
    bicubic = None
    if baseline is not None and baseline.shape == pixels.shape:
        bicubic = Version("bicubic", baseline)
    else:
        notes.append(f"Sample {name} has no bicubic.png of the size of hr.png.")
    versions = []
    for index, run in enumerate(runs):
        versions += _versions(name, run, index, index == lead, pixels.shape, notes)
    versions.sort(key=lambda version: version.earlier)
    return Picture(name, pixels, bicubic, versions)


def _first(paths) -> Path | None:
    return next((path for path in paths if path is not None), None)


def _versions(name: str, run: Run, index: int, leads: bool, shape: tuple[int, ...], notes: list[str]) -> list[Version]:
    steps = list(run.samples[name].sr) if name in run.samples else []
    if not steps:
        return []
    chosen = [*(spread(steps[:-1], EARLIER_STEPS_SHOWN) if leads else []), steps[-1]]
    versions = []
    for step in chosen:
        pixels = read_pixels(run.samples[name].sr[step], notes)
        if pixels is None:
            continue
        if pixels.shape != shape:
            notes.append(f"Sample {name} of {run.name} has another size than its ground truth and is not shown.")
            break
        label = f"{run.name}, step {step:,}"
        versions.append(Version(label, pixels, index, step, earlier=step != steps[-1]))
    return versions


def spread(steps: Sequence[int], count: int) -> list[int]:
    """Choose at most `count` steps, the first and the last among them, in about equal ratios.

    Much changes early in training and little late, so the choice is even in the logarithm of the step.
    """
    if len(steps) <= count:
        return list(steps)
    low, high = math.log1p(steps[0]), math.log1p(steps[-1])
    chosen: list[int] = []
    for index in range(count):
        wanted = low + (high - low) * index / max(count - 1, 1)
        left = [step for step in steps if step not in chosen]
        chosen.append(min(left, key=lambda step: abs(math.log1p(step) - wanted)))
    return sorted(chosen)


def read_pixels(path: Path, notes: list[str]) -> np.ndarray | None:
    """Return a picture as uint8 RGB `[H, W, 3]`, None with a note if it cannot be read."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError):  # Pillow's words for a broken PNG
        notes.append(f"{'/'.join(path.parts[-4:])} cannot be read as a picture.")
        return None


def _tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.astype(np.float64)).permute(2, 0, 1)[None]


def luma(pixels: np.ndarray) -> np.ndarray:
    """Return the luma Y (16 to 235) of uint8 RGB `[H, W, 3]` as float64 `[H, W]`."""
    return metrics.luma(_tensor(pixels))[0, 0].numpy()


def psnr_y(pixels: np.ndarray, hr: np.ndarray) -> float:
    """Return PSNR-Y in dB of a crop, to its very border; infinite for equal pictures."""
    return float(metrics.psnr(_tensor(pixels), _tensor(hr), 0, channel="y"))


def choose_crops(picture: Picture, lead: int) -> list[Crop]:
    """Choose where to look: the largest gain over bicubic, the most detail, the largest error that remains.

    Gain and error are those of the leading run's last output (of any run's, where it has none). A place that
    overlaps an earlier choice by more than a little is passed over, and so is a reason that holds nowhere.
    """
    height, width = picture.hr.shape[:2]
    side = min(CROP_PX, height, width)
    truth = luma(picture.hr)
    last = next((v for v in picture.last if v.run == lead), next(iter(picture.last), None))
    maps: list[tuple[str, np.ndarray]] = []
    if last is not None:
        error = (luma(last.pixels) - truth) ** 2
        if picture.bicubic is not None:
            maps.append(("largest gain over bicubic", (luma(picture.bicubic.pixels) - truth) ** 2 - error))
        maps.append(("largest remaining error", error))
    rows, columns = np.gradient(truth)
    maps.insert(min(1, len(maps)), ("most detail", rows**2 + columns**2))
    crops: list[Crop] = []
    for why, score in maps:
        crop = _best_place(score, side, crops, why)
        if crop is not None:
            crops.append(crop)
    return crops


def _best_place(score: np.ndarray, side: int, taken: list[Crop], why: str) -> Crop | None:
    sums = box_sums(score, side)
    apart = int(0.7 * side)
    for crop in taken:
        rows = slice(max(crop.top - apart + 1, 0), crop.top + apart)
        columns = slice(max(crop.left - apart + 1, 0), crop.left + apart)
        sums[rows, columns] = -np.inf
    top, left = np.unravel_index(int(np.argmax(sums)), sums.shape)
    return Crop(int(left), int(top), side, why) if sums[top, left] > 0 else None


def box_sums(values: np.ndarray, side: int) -> np.ndarray:
    """Return the sum over every `side` x `side` box of `[H, W]`, at the box's top left corner."""
    table = np.pad(values.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    return table[side:, side:] - table[:-side, side:] - table[side:, :-side] + table[:-side, :-side]


def shrink(pixels: np.ndarray, longest_px: int) -> np.ndarray:
    """Return the picture with its longer side at most `longest_px`."""
    height, width = pixels.shape[:2]
    factor = longest_px / max(height, width)
    if factor >= 1:
        return pixels
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def data_uri(pixels: np.ndarray, *, quality: int | None = None) -> str:
    """Return a WebP data URI of uint8 pixels `[H, W, 3]` or `[H, W]`, lossless unless a quality is given."""
    buffer = io.BytesIO()
    # Without loss, `quality` is the effort spent on a small file.
    options = {"lossless": quality is None, "quality": 80 if quality is None else quality}
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "WEBP", method=4, **options)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
