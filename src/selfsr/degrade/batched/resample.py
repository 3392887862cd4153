"""Resize each image of a batch by its own resampler and to its own size.

All resamplers are linear and separable. So a resampler is a list of taps along each axis: the pixels of which an output
pixel is the sum, and their weights. A batch then takes two weighted sums, one along each axis.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from selfsr.degrade.batched.padding import to_device_of
from selfsr.degrade.resample import Mode, Resize, Subsample, compute_bins
from selfsr.images.resize import compute_taps, weighted_sums

# Index and weight of each tap, both `[n_out, taps]`.
Taps = tuple[np.ndarray, np.ndarray]

# OpenCV leaves out pixels whose covered part is smaller than this.
_COVERED = 1e-3


@dataclass(frozen=True)
class BatchedResample:
    """Resizing or subsampling; each image is clipped or not.

    Attributes:
        sizes: height and width of the results, int64 `[n, 2]`.
        rows: taps along the height: index int32 and weight float32, `[n, largest height, taps]`.
        columns: along the width.
        clips: which results are clipped to [0, 1], bool `[n]`.
    """

    sizes: np.ndarray
    rows: Taps
    columns: Taps
    clips: np.ndarray

    @classmethod
    def merge(cls, steps: Sequence[Resize | Subsample], sizes: np.ndarray) -> "BatchedResample":
        """Merge the steps of several images.

        Args:
            steps: one for each image.
            sizes: of the images before the step, int64 `[n, 2]`.
        """
        each = [_compute_step_taps(step, *size) for step, size in zip(steps, sizes.tolist(), strict=True)]
        clips = np.array([isinstance(step, Subsample) or step.clip for step in steps])
        after = np.array([[len(index) for index, _ in pair] for pair in each])
        return cls(after, _pad_taps([pair[0] for pair in each]), _pad_taps([pair[1] for pair in each]), clips)

    def output_sizes(self) -> np.ndarray:
        """Return the sizes of the images after this step."""
        return self.sizes

    def __call__(self, image: Tensor, noise: Sequence[torch.Generator]) -> Tensor:  # noqa: ARG002 - as all steps
        """Return the resized images."""
        lines = _apply_taps(image.permute(0, 2, 1, 3), self.rows)  # [n, new height, c, W]
        planes = _apply_taps(lines.permute(0, 3, 2, 1), self.columns).permute(0, 2, 3, 1)
        clips = to_device_of(self.clips, image)[:, None, None, None]
        return torch.where(clips, planes.clamp(0, 1), planes)


def _apply_taps(lines: Tensor, taps: Taps) -> Tensor:
    """Return the weighted sums `[n, new L, ...]` of lines `[n, L, ...]`."""
    index, weight = (to_device_of(part, lines) for part in taps)
    n, length = lines.shape[:2]
    offset = torch.arange(n, device=lines.device, dtype=index.dtype)[:, None, None] * length
    sums = weighted_sums(lines.reshape(n * length, -1), (index + offset).flatten(0, 1), weight.flatten(0, 1))
    return sums.view(n, index.shape[1], *lines.shape[2:])


def _pad_taps(each: Sequence[Taps]) -> Taps:
    """Stack the taps of several images; padding has weight 0 and reads the first line."""
    shape = (len(each), *np.max([index.shape for index, _ in each], axis=0).tolist())
    indices, weights = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    for i, (index, weight) in enumerate(each):
        indices[i, : len(index), : index.shape[1]] = index
        weights[i, : len(index), : index.shape[1]] = weight
    return indices, weights


def _compute_step_taps(step: Resize | Subsample, height: int, width: int) -> tuple[Taps, Taps]:
    """Return the taps along both axes."""
    if isinstance(step, Subsample):
        first, second = (np.arange(0, length, step.step_px)[:, None] for length in (height, width))
        return (first, np.ones(first.shape)), (second, np.ones(second.shape))
    if (step.height, step.width) == (height, width):
        return _identity_taps(height), _identity_taps(width)
    # OpenCV's area is a mean only if no axis grows.
    shrinks = step.height <= height and step.width <= width
    rows = compute_axis_taps(height, step.height, step.mode, shrinks)
    return rows, compute_axis_taps(width, step.width, step.mode, shrinks)


def _identity_taps(length: int) -> Taps:
    return np.arange(length)[:, None], np.ones((length, 1))


@lru_cache(maxsize=64)
def compute_axis_taps(n_in: int, n_out: int, mode: Mode, shrinks: bool) -> Taps:
    """Return the taps along an axis.

    Args:
        n_in: length of the input.
        n_out: length of the output.
        mode: the resampler.
        shrinks: whether neither axis of the image grows.
    """
    if mode == "area":
        first, end = compute_bins(n_in, n_out)
        position = first[:, None] + np.arange((end - first).max())
        weight = (position < end[:, None]) / (end - first)[:, None]
    elif mode == "matlab_bicubic":
        return _identity_taps(n_in) if n_in == n_out else compute_taps(n_in, n_out, n_out / n_in)
    elif mode == "opencv_area" and shrinks:
        position, weight = _area_taps(n_in, n_out)
    else:
        position, weight = _interpolation_taps(n_in, n_out, mode)
    return np.clip(position, 0, n_in - 1), weight


def _area_taps(n_in: int, n_out: int) -> Taps:
    """Return the taps of OpenCV's area: the mean, weighted by the covered part of each pixel."""
    scale = 1 / (n_out / n_in)
    start = np.arange(n_out)[:, None] * scale
    end = start + scale
    cell = np.minimum(scale, n_in - start)
    last = np.minimum(np.floor(end), n_in - 1)
    first = np.minimum(np.ceil(start), last)  # the first pixel that is covered from its beginning
    position = first - 1 + np.arange(math.ceil(scale) + 2)
    before = np.where(first - start > _COVERED, first - start, 0)
    behind = np.where(end - last > _COVERED, np.minimum(end - last, np.minimum(1, cell)), 0)
    part = np.where(position < first, before, np.where(position < last, 1, np.where(position == last, behind, 0)))
    return position.astype(np.int64), part / cell


def _interpolation_taps(n_in: int, n_out: int, mode: Mode) -> Taps:
    """Return the taps of linear or Keys' cubic interpolation (a = -3/4)."""
    out = np.arange(n_out)
    scale = 1 / (n_out / n_in)
    if mode == "opencv_area":  # OpenCV's area of an image that grows: linear, but between the edges of pixels
        left = np.floor(out * scale)
        beyond = (out + 1 - (left + 1) * (n_out / n_in)).astype(np.float32)  # an integer if it is one in float32
        x = np.where(beyond <= 0, 0, beyond - np.floor(beyond))
    else:
        center = (out + 0.5) * scale - 0.5
        left = np.floor(center)
        x = center - left
    if mode == "bicubic":
        a, far, near = -0.75, 1 + x, 1 - x
        first = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
        second, third = (((a + 2) * t - (a + 3)) * t * t + 1 for t in (x, near))
        weights = [first, second, third, 1 - first - second - third]
    else:
        weights = [1 - x, x]
    position = left.astype(np.int64)[:, None] + np.arange(len(weights)) - (1 if mode == "bicubic" else 0)
    return position, np.stack(weights, axis=1)
