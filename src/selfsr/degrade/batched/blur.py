"""Convolution of every picture with a kernel of its own, and unsharp masking of a batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from selfsr.degrade.batched.canvas import gathered, on, reflected
from selfsr.degrade.blur import USM_SIGMA_PX, USM_SIZE_PX, USM_THRESHOLD, USM_WEIGHT, Blur, trimmed


@dataclass(frozen=True)
class BatchedBlur:
    """Convolution of each channel with the picture's kernel; the border is mirrored, its pixel not repeated.

    Attributes:
        sizes: of the pictures, int64 `[n, 2]`.
        kernels: turned by 180 degrees, zeros around the smaller ones, float32 `[n, k, k]`.
    """

    sizes: np.ndarray
    kernels: np.ndarray

    @classmethod
    def merged(cls, steps: Sequence[Blur], sizes: np.ndarray) -> "BatchedBlur":
        """Return the steps of pictures of these sizes as one."""
        each = [trimmed(step.kernel.weights())[::-1, ::-1] for step in steps]
        side = max(len(weights) for weights in each)
        kernels = np.zeros((len(each), side, side), np.float32)
        for kernel, weights in zip(kernels, each, strict=True):
            rim = (side - len(weights)) // 2
            kernel[rim : side - rim, rim : side - rim] = weights
        return cls(sizes, kernels)

    def after(self) -> np.ndarray:
        """Return the sizes that the pictures then have."""
        return self.sizes

    def __call__(self, image: Tensor, noise: Sequence[torch.Generator]) -> Tensor:  # noqa: ARG002 - as all steps
        """Return the blurred pictures."""
        return _correlated(image, on(self.sizes, image), on(self.kernels, image))


def sharpened(image: Tensor) -> Tensor:
    """Return the unsharp mask of `[n, 3, H, W]` in [0, 1], as `degrade.blur.sharpened` makes it of one picture."""
    sizes = on(np.array(image.shape[-2:]), image).expand(len(image), -1)
    axis = np.arange(USM_SIZE_PX) - USM_SIZE_PX // 2
    weights = np.exp(-(axis**2) / (2 * USM_SIGMA_PX**2))
    taps = on((weights / weights.sum()).astype(np.float32), image).expand(len(image), -1)

    def smooth(picture: Tensor) -> Tensor:
        return _correlated(_correlated(picture, sizes, taps[:, None, :]), sizes, taps[:, :, None])

    residual = image - smooth(image)
    where = smooth((residual.abs() > USM_THRESHOLD).to(image.dtype))
    sharp = (image + USM_WEIGHT * residual).clamp(0, 1)
    return where * sharp + (1 - where) * image


def _correlated(image: Tensor, sizes: Tensor, kernels: Tensor) -> Tensor:
    """Correlate the pictures, of `sizes` `[n, 2]`, with odd kernels `[n, h, w]`, mirroring at their borders.

    Each plane is a group of its own: a sum then runs over one kernel in one order, whatever else is in the batch, and
    zeros around a kernel change nothing.
    """
    n, channels, height, width = image.shape
    down, across = (side // 2 for side in kernels.shape[1:])
    rows = reflected(-down, height + 2 * down, sizes[:, 0])
    columns = reflected(-across, width + 2 * across, sizes[:, 1])
    planes = gathered(image, rows, columns).flatten(0, 1)[None]
    weights = kernels.repeat_interleave(channels, 0)[:, None]
    with torch.autocast(image.device.type, enabled=False):
        return functional.conv2d(planes, weights, groups=n * channels).view(n, channels, height, width)
