"""Resize images with the resamplers of the published code.

A target is always a size in pixels, never a factor: a factor whose product is not an integer would shift the image
against its ground truth, by up to a pixel at the far edge.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import cv2
import numpy as np
import torch

from selfsr.images.resize import imresize

# area, bilinear, bicubic: as torch's `interpolate` without antialiasing: the mean of the covered pixels, and 2 or 4
# taps (Keys' cubic with a = -3/4) at any factor. opencv_area: the mean weighted by the covered area. matlab_bicubic:
# Keys' cubic with a = -1/2, stretched when the image shrinks.
Mode = Literal["area", "bilinear", "bicubic", "opencv_area", "matlab_bicubic"]


@dataclass(frozen=True)
class Resize:
    """Resizing to a given size.

    Attributes:
        height, width: size of the result in pixels.
        mode: the resampler.
        clip: whether the result is clipped to [0, 1]; cubic ones overshoot.
    """

    name: ClassVar[str] = "resize"
    height: int
    width: int
    mode: Mode
    clip: bool = False

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # noqa: ARG002 - a step's signature
        """Return the resized image."""
        out = resize(image, (self.height, self.width), self.mode)
        return np.clip(out, 0, 1) if self.clip else out


@dataclass(frozen=True)
class Subsample:
    """Subsampling: every n-th pixel, beginning with the first.

    Attributes:
        step_px: n.
    """

    name: ClassVar[str] = "subsample"
    step_px: int

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # noqa: ARG002 - a step's signature
        """Return the subsampled image, clipped to [0, 1]."""
        return np.ascontiguousarray(np.clip(image[:: self.step_px, :: self.step_px], 0, 1))


def resize(image: np.ndarray, size: tuple[int, int], mode: Mode) -> np.ndarray:
    """Resize an image.

    Args:
        image: float32 `[H, W, C]`.
        size: height and width of the result.
        mode: the resampler.

    Returns:
        float32 `[height, width, C]`; cubic resamplers overshoot the range of the input.
    """
    if image.shape[:2] == size:  # every mode is the identity then
        return image
    if mode == "area":
        return _average(image, size)
    if mode == "matlab_bicubic":
        planes = torch.from_numpy(image).permute(2, 0, 1)[None]
        return np.ascontiguousarray(imresize(planes, size=size)[0].permute(1, 2, 0).numpy())
    codes = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC, "opencv_area": cv2.INTER_AREA}
    return cv2.resize(image, size[::-1], interpolation=codes[mode]).reshape(*size, image.shape[2])


def _average(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Average over bins of complete pixels: bin i of n covers [floor(i * H / n), ceil((i + 1) * H / n)).

    One axis after the other, which is exact: all bins of a row have the same height, all of a column the same width.
    Along an axis, the k-th pixels of all bins are added at once; bins differ in length by at most one.
    """
    for axis in (0, 1):
        first, end = compute_bins(image.shape[axis], size[axis])
        count = (end - first).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        total = image.take(first, axis)
        for k in range(1, int(count.max())):
            inside = (count > k).astype(np.float32)
            total += image.take(np.minimum(first + k, image.shape[axis] - 1), axis) * inside
        image = total / count.astype(np.float32)
    return image


def compute_bins(n_in: int, n_out: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first pixel of each of `n_out` bins and the one after its last."""
    index = np.arange(n_out)
    return index * n_in // n_out, -(-(index + 1) * n_in // n_out)
