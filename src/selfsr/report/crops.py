"""Choose the crops of a sample image to enlarge, and compute their PSNR."""

from dataclasses import dataclass

import numpy as np
import torch

from selfsr.evaluation.psnr_ssim import psnr
from selfsr.images.color import rgb_to_y_studio
from selfsr.report.images import ReportImage

CROP_PX = 96
_MOST_DETAIL = "most detail"


@dataclass(frozen=True)
class ReportCrop:
    """A square of the ground truth, enlarged on the page.

    Attributes:
        left: distance from the left side, in px of the ground truth.
        top: distance from the upper side, in px of the ground truth.
        side: side in px.
        reason: the reason for the choice.
    """

    left: int
    top: int
    side: int
    reason: str

    def cut(self, pixels: np.ndarray) -> np.ndarray:
        """Return this part of an image `[H, W, C]`."""
        return pixels[self.top : self.top + self.side, self.left : self.left + self.side]


def choose_crops(image: ReportImage, lead: int) -> list[ReportCrop]:
    """Choose crops: the largest gain over bicubic, the most detail, and the largest remaining error.

    Gain and error are of the last output of the leading run, or of another run if it has none. Crops overlap only a
    little. A criterion that is positive nowhere has no crop.
    """
    height, width = image.hr.shape[:2]
    side = min(CROP_PX, height, width)
    hr = compute_luma(image.hr)
    last = next((v for v in image.last if v.run == lead), next(iter(image.last), None))
    criteria: list[tuple[str, np.ndarray]] = []
    if last is not None:
        error = (compute_luma(last.pixels) - hr) ** 2
        if image.bicubic is not None:
            criteria.append(("largest gain over bicubic", (compute_luma(image.bicubic.pixels) - hr) ** 2 - error))
        criteria.append(("largest remaining error", error))
    criteria.insert(min(1, len(criteria)), (_MOST_DETAIL, _measure_detail(hr)))
    crops: list[ReportCrop] = []
    for reason, values in criteria:
        crop = _find_best_crop(values, side, crops, reason)
        if crop is not None:
            crops.append(crop)
    return crops


def choose_detailed_crop(hr: np.ndarray, side: int) -> ReportCrop | None:
    """Return the square of uint8 `[H, W, 3]` with the most detail; None for an image of one color."""
    return _find_best_crop(_measure_detail(compute_luma(hr)), min(side, *hr.shape[:2]), [], _MOST_DETAIL)


def _measure_detail(luma: np.ndarray) -> np.ndarray:
    rows, columns = np.gradient(luma)
    return rows**2 + columns**2


def choose_part(image: ReportImage, lead: int, longest_px: int) -> ReportCrop | None:
    """Choose the square of a large image with the largest error of the leading run; None if the image is small.

    Its position and side are multiples of the image's scale.
    """
    height, width = image.hr.shape[:2]
    if max(height, width) <= longest_px:
        return None
    multiple = image.scale or 1
    side = min(longest_px, height, width) // multiple * multiple
    hr = compute_luma(image.hr)
    last = next((v for v in image.last if v.run == lead), next(iter(image.last), None))
    values = _measure_detail(hr) if last is None else (compute_luma(last.pixels) - hr) ** 2
    sums = sum_boxes(values, side)[::multiple, ::multiple]
    top, left = np.unravel_index(int(np.argmax(sums)), sums.shape)
    return ReportCrop(int(left) * multiple, int(top) * multiple, side, "largest error")


def _find_best_crop(values: np.ndarray, side: int, crops: list[ReportCrop], reason: str) -> ReportCrop | None:
    sums = sum_boxes(values, side)
    least_distance = int(0.7 * side)
    for crop in crops:
        rows = slice(max(crop.top - least_distance + 1, 0), crop.top + least_distance)
        columns = slice(max(crop.left - least_distance + 1, 0), crop.left + least_distance)
        sums[rows, columns] = -np.inf
    top, left = np.unravel_index(int(np.argmax(sums)), sums.shape)
    return ReportCrop(int(left), int(top), side, reason) if sums[top, left] > 0 else None


def sum_boxes(values: np.ndarray, side: int) -> np.ndarray:
    """Return the sum over every `side` x `side` box of `[H, W]`, by the position of its upper left corner."""
    table = np.pad(values.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    return table[side:, side:] - table[:-side, side:] - table[side:, :-side] + table[:-side, :-side]


def compute_luma(pixels: np.ndarray) -> np.ndarray:
    """Return the studio-range luma (16 to 235) of uint8 RGB `[H, W, 3]` as float64 `[H, W]`."""
    return rgb_to_y_studio(_to_tensor(pixels))[0, 0].numpy()


def compute_psnr_y(pixels: np.ndarray, hr: np.ndarray) -> float:
    """Return the PSNR-Y of a crop in dB, without leaving out a border; infinite for equal images."""
    return float(psnr(_to_tensor(pixels), _to_tensor(hr), 0, channel="y"))


def _to_tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.astype(np.float64)).permute(2, 0, 1)[None]
