"""Change of size of every picture, each by a resampler and to a size of its own.

All resamplers are linear and go along one axis after the other, so that one of them is a list of taps: of which pixels
an output is the sum, with which weights. A batch is then two sums over a table, one for each axis.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from selfsr.degrade.batched.canvas import on
from selfsr.degrade.resample import Mode, Resize, Subsample, bins
from selfsr.images.resize import taps as matlab_taps
from selfsr.images.resize import weighted_sums

# Index and weight of every tap, each `[n_out, taps]`.
Taps = tuple[np.ndarray, np.ndarray]

# OpenCV leaves out pixels of which a smaller part than this is covered.
_COVERED = 1e-3


@dataclass(frozen=True)
class BatchedResample:
    """Resampling or subsampling; clipping is each picture's own choice.

    Attributes:
        sizes: of the results, int64 `[n, 2]`.
        rows: taps along the height: index int32 and weight float32, `[n, largest height, taps]`.
        columns: along the width.
        clips: which results are clipped to [0, 1], bool `[n]`.
    """

    sizes: np.ndarray
    rows: Taps
    columns: Taps
    clips: np.ndarray

    @classmethod
    def merged(cls, steps: Sequence[Resize | Subsample], sizes: np.ndarray) -> "BatchedResample":
        """Return the steps of pictures of these sizes as one."""
        each = [_step_taps(step, *size) for step, size in zip(steps, sizes.tolist(), strict=True)]
        clips = np.array([isinstance(step, Subsample) or step.clip for step in steps])
        after = np.array([[len(index) for index, _ in pair] for pair in each])
        return cls(after, _padded([pair[0] for pair in each]), _padded([pair[1] for pair in each]), clips)

    def after(self) -> np.ndarray:
        """Return the sizes that the pictures then have."""
        return self.sizes

    def __call__(self, image: Tensor, noise: Sequence[torch.Generator]) -> Tensor:  # noqa: ARG002 - as all steps
        """Return the pictures in their new sizes."""
        lines = _summed(image.permute(0, 2, 1, 3), self.rows)  # [n, new height, c, W]
        planes = _summed(lines.permute(0, 3, 2, 1), self.columns).permute(0, 2, 3, 1)
        clips = on(self.clips, image)[:, None, None, None]
        return torch.where(clips, planes.clamp(0, 1), planes)


def _summed(lines: Tensor, taps: Taps) -> Tensor:
    """Return, of lines `[n, L, ...]`, the weighted sums `[n, new L, ...]`."""
    index, weight = (on(part, lines) for part in taps)
    n, length = lines.shape[:2]
    offset = torch.arange(n, device=lines.device, dtype=index.dtype)[:, None, None] * length
    sums = weighted_sums(lines.reshape(n * length, -1), (index + offset).flatten(0, 1), weight.flatten(0, 1))
    return sums.view(n, index.shape[1], *lines.shape[2:])


def _padded(each: Sequence[Taps]) -> Taps:
    """Return the taps of several pictures side by side; what is added has weight 0 and reads the first line."""
    shape = (len(each), *np.max([index.shape for index, _ in each], axis=0).tolist())
    indices, weights = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    for i, (index, weight) in enumerate(each):
        indices[i, : len(index), : index.shape[1]] = index
        weights[i, : len(index), : index.shape[1]] = weight
    return indices, weights


def _step_taps(step: Resize | Subsample, height: int, width: int) -> tuple[Taps, Taps]:
    """Return the taps along both axes."""
    if isinstance(step, Subsample):
        first, second = (np.arange(0, length, step.step_px)[:, None] for length in (height, width))
        return (first, np.ones(first.shape)), (second, np.ones(second.shape))
    if (step.height, step.width) == (height, width):
        return _kept(height), _kept(width)
    # OpenCV's area is a mean only if no axis grows.
    shrinks = step.height <= height and step.width <= width
    return axis_taps(height, step.height, step.mode, shrinks), axis_taps(width, step.width, step.mode, shrinks)


def _kept(length: int) -> Taps:
    return np.arange(length)[:, None], np.ones((length, 1))


@lru_cache(maxsize=64)
def axis_taps(n_in: int, n_out: int, mode: Mode, shrinks: bool) -> Taps:
    """Return the taps of an axis, `shrinks` telling whether neither axis of the picture grows."""
    if mode == "area":
        first, end = bins(n_in, n_out)
        place = first[:, None] + np.arange((end - first).max())
        weight = (place < end[:, None]) / (end - first)[:, None]
    elif mode == "matlab_bicubic":
        return _kept(n_in) if n_in == n_out else matlab_taps(n_in, n_out, n_out / n_in)
    elif mode == "opencv_area" and shrinks:
        place, weight = _covered(n_in, n_out)
    else:
        place, weight = _interpolated(n_in, n_out, mode)
    return np.clip(place, 0, n_in - 1), weight


def _covered(n_in: int, n_out: int) -> Taps:
    """Return OpenCV's area: the mean, weighted by how much of a pixel is covered."""
    scale = 1 / (n_out / n_in)
    start = np.arange(n_out)[:, None] * scale
    end = start + scale
    cell = np.minimum(scale, n_in - start)
    last = np.minimum(np.floor(end), n_in - 1)
    whole = np.minimum(np.ceil(start), last)  # the first pixel that is covered from its beginning
    place = whole - 1 + np.arange(math.ceil(scale) + 2)
    before = np.where(whole - start > _COVERED, whole - start, 0)
    behind = np.where(end - last > _COVERED, np.minimum(end - last, np.minimum(1, cell)), 0)
    part = np.where(place < whole, before, np.where(place < last, 1, np.where(place == last, behind, 0)))
    return place.astype(np.int64), part / cell


def _interpolated(n_in: int, n_out: int, mode: Mode) -> Taps:
    """Return linear or Keys' cubic interpolation (a = -3/4)."""
    out = np.arange(n_out)
    scale = 1 / (n_out / n_in)
    if mode == "opencv_area":  # OpenCV's area of a picture that grows: linear, but between the edges of pixels
        left = np.floor(out * scale)
        beyond = (out + 1 - (left + 1) * (n_out / n_in)).astype(np.float32)  # where whole, it is so in float32
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
    place = left.astype(np.int64)[:, None] + np.arange(len(weights)) - (1 if mode == "bicubic" else 0)
    return place, np.stack(weights, axis=1)
