"""Change of size, by the resamplers of the published codes; every target size is given in whole pixels.

A target is always a size, never a factor: a factor whose product is not whole would move the picture against its
ground truth, by up to a pixel at the far edge.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import cv2
import numpy as np
import torch

from selfsr.images.resize import imresize

# area, bilinear, bicubic: as torch's `interpolate` without antialiasing: mean over the covered pixels, 2 and 4 taps
# (Keys' cubic with a = -3/4) whatever the factor. opencv_area: mean weighted by the covered area. matlab_bicubic:
# Keys' cubic with a = -1/2, widened when the image shrinks.
Mode = Literal["area", "bilinear", "bicubic", "opencv_area", "matlab_bicubic"]


@dataclass(frozen=True)
class Resize:
    """Resampling to a size.

    Attributes:
        height, width: of the result.
        mode: the resampler.
        clip: whether the result is clipped to [0, 1]; cubic ones overshoot.
    """

    name: ClassVar[str] = "resize"
    height: int
    width: int
    mode: Mode
    clip: bool = False

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # noqa: ARG002 - a step's signature
        """Return the image in its new size."""
        out = resized(image, (self.height, self.width), self.mode)
        return np.clip(out, 0, 1) if self.clip else out


@dataclass(frozen=True)
class Subsample:
    """Every n-th pixel, from the first on.

    Attributes:
        step_px: n.
    """

    name: ClassVar[str] = "subsample"
    step_px: int

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # noqa: ARG002 - a step's signature
        """Return the pixels."""
        return np.ascontiguousarray(np.clip(image[:: self.step_px, :: self.step_px], 0, 1))


def resized(image: np.ndarray, size: tuple[int, int], mode: Mode) -> np.ndarray:
    """Return float32 `[H, W, C]` in another size (height, width)."""
    if image.shape[:2] == size:  # every mode is the identity then
        return image
    if mode == "area":
        return _averaged(image, size)
    if mode == "matlab_bicubic":
        planes = torch.from_numpy(image).permute(2, 0, 1)[None]
        return np.ascontiguousarray(imresize(planes, size=size)[0].permute(1, 2, 0).numpy())
    codes = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC, "opencv_area": cv2.INTER_AREA}
    return cv2.resize(image, size[::-1], interpolation=codes[mode]).reshape(*size, image.shape[2])


def _averaged(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Average over bins of whole pixels: bin i of n covers [floor(i * H / n), ceil((i + 1) * H / n)).

    One axis after the other, which is exact, for all bins of a row have one height and all of a column one width; and
    pixel by pixel of the bins, which differ in length by one: the longer ones decide how often.
    """
    for axis in (0, 1):
        first, end = bins(image.shape[axis], size[axis])
        count = (end - first).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        total = image.take(first, axis)
        for k in range(1, int(count.max())):
            inside = (count > k).astype(np.float32)
            total += image.take(np.minimum(first + k, image.shape[axis] - 1), axis) * inside
        image = total / count.astype(np.float32)
    return image


def bins(n_in: int, n_out: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where each of `n_out` bins of whole pixels begins, and where it ends."""
    place = np.arange(n_out)
    return place * n_in // n_out, -(-(place + 1) * n_in // n_out)
