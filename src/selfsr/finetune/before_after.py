"""Draw crops of the held-out photos before and after the training, side by side."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from selfsr.images.files import DecodedImage, read_image, write_image
from selfsr.runfolder.read import SampleFiles, read_run_folders

_CROP_PX, _LABEL_PX, _GAP_PX = 160, 18, 4
_ROWS = 4


def draw_before_after(folder: Path) -> Path | None:
    """Write `before_after.png` into a run folder: bicubic, start, end and ground truth of up to four photos.

    Each row shows the square where start and end differ most.

    Args:
        folder: the folder of a finished run.

    Returns:
        The path of the image, or None if the run has no samples.

    Raises:
        OSError: the image cannot be written.
    """
    (run,) = read_run_folders([folder])
    rows = [row for sample in run.samples.values() if (row := _draw_row(sample)) is not None][:_ROWS]
    if not rows:
        return None
    width = max(row.shape[1] for row in rows)
    sheet = np.full((_LABEL_PX + sum(row.shape[0] + _GAP_PX for row in rows), width, 3), 255, np.uint8)
    top = _LABEL_PX
    for row in rows:
        sheet[top : top + row.shape[0], : row.shape[1]] = row
        top += row.shape[0] + _GAP_PX
    image = Image.fromarray(sheet)
    for index, label in enumerate(("bicubic", "before", "after", "ground truth")):
        ImageDraw.Draw(image).text((index * (_CROP_PX + _GAP_PX) + 4, 3), label, fill=(0, 0, 0))
    path = folder / "before_after.png"
    write_image(path, DecodedImage(np.asarray(image)))
    return path


def _draw_row(sample: SampleFiles) -> np.ndarray | None:
    """Return the crops of one sample side by side, or None if one of its images is missing."""
    steps = sorted(sample.sr)
    if sample.hr is None or sample.bicubic is None or len(steps) < 2:
        return None
    paths = (sample.bicubic, sample.sr[steps[0]], sample.sr[steps[-1]], sample.hr)
    images = [np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels for pixels in map(_read_pixels, paths)]
    top, left = _find_largest_change(images[1], images[2])
    side = _CROP_PX + _GAP_PX
    row = np.full((_CROP_PX, side * len(images) - _GAP_PX, 3), 255, np.uint8)
    for index, image in enumerate(images):
        crop = image[top : top + _CROP_PX, left : left + _CROP_PX]
        row[: crop.shape[0], index * side : index * side + crop.shape[1]] = crop
    return row


def _read_pixels(path: Path) -> np.ndarray:
    return read_image(path).pixels


def _find_largest_change(before: np.ndarray, after: np.ndarray) -> tuple[int, int]:
    """Return the corner of the square with the largest mean difference, in rows and columns."""
    change = np.abs(before.astype(np.float64) - after).sum(axis=2)
    integral = np.pad(change.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    height, width = (min(_CROP_PX, side) for side in change.shape)
    sums = integral[height:, width:] - integral[:-height, width:] - integral[height:, :-width]
    sums = sums + integral[: sums.shape[0], : sums.shape[1]]
    top, left = np.unravel_index(sums.argmax(), sums.shape)
    return int(top), int(left)
