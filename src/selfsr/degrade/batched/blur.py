"""Convolve each image of a batch with its own kernel, and sharpen a batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from selfsr.degrade.batched.padding import gather_pixels, reflect_index, to_device_of
from selfsr.degrade.blur import USM_SIGMA_PX, USM_SIZE_PX, USM_THRESHOLD, USM_WEIGHT, Blur, trim_kernel


@dataclass(frozen=True)
class BatchedBlur:
    """Convolution of each channel with the image's kernel; the border is reflected without repeating the edge.

    Attributes:
        sizes: height and width of the images, int64 `[n, 2]`.
        kernels: rotated by 180 degrees, smaller ones padded with zeros, float32 `[n, k, k]`.
    """

    sizes: np.ndarray
    kernels: np.ndarray

    @classmethod
    def merge(cls, steps: Sequence[Blur], sizes: np.ndarray) -> "BatchedBlur":
        """Merge the steps of several images.

        Args:
            steps: one for each image.
            sizes: of the images before the step, int64 `[n, 2]`.
        """
        each = [trim_kernel(step.kernel.weights())[::-1, ::-1] for step in steps]
        side = max(len(weights) for weights in each)
        kernels = np.zeros((len(each), side, side), np.float32)
        for kernel, weights in zip(kernels, each, strict=True):
            rim = (side - len(weights)) // 2
            kernel[rim : side - rim, rim : side - rim] = weights
        return cls(sizes, kernels)

    def output_sizes(self) -> np.ndarray:
        """Return the sizes of the images after this step."""
        return self.sizes

    def __call__(self, image: Tensor, noise: Sequence[torch.Generator]) -> Tensor:  # noqa: ARG002 - as all steps
        """Return the blurred images."""
        return _correlate(image, to_device_of(self.sizes, image), to_device_of(self.kernels, image))


def sharpen(image: Tensor) -> Tensor:
    """Sharpen a batch, `[n, 3, H, W]` in [0, 1], as `degrade.blur.sharpen` sharpens one image."""
    sizes = to_device_of(np.array(image.shape[-2:]), image).expand(len(image), -1)
    axis = np.arange(USM_SIZE_PX) - USM_SIZE_PX // 2
    weights = np.exp(-(axis**2) / (2 * USM_SIGMA_PX**2))
    taps = to_device_of((weights / weights.sum()).astype(np.float32), image).expand(len(image), -1)

    def smooth(plane: Tensor) -> Tensor:
        return _correlate(_correlate(plane, sizes, taps[:, None, :]), sizes, taps[:, :, None])

    residual = image - smooth(image)
    mask = smooth((residual.abs() > USM_THRESHOLD).to(image.dtype))
    sharp = (image + USM_WEIGHT * residual).clamp(0, 1)
    return mask * sharp + (1 - mask) * image


def _correlate(image: Tensor, sizes: Tensor, kernels: Tensor) -> Tensor:
    """Correlate images of `sizes` `[n, 2]` with odd kernels `[n, h, w]`, reflecting at their borders.

    Each plane is its own group. So the order of a sum does not depend on the rest of the batch, and zeros around a
    kernel change nothing.
    """
    n, channels, height, width = image.shape
    down, across = (side // 2 for side in kernels.shape[1:])
    rows = reflect_index(-down, height + 2 * down, sizes[:, 0])
    columns = reflect_index(-across, width + 2 * across, sizes[:, 1])
    planes = gather_pixels(image, rows, columns).flatten(0, 1)[None]
    weights = kernels.repeat_interleave(channels, 0)[:, None]
    with torch.autocast(image.device.type, enabled=False):
        return functional.conv2d(planes, weights, groups=n * channels).view(n, channels, height, width)
