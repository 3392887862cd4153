"""Add noise to each image of a batch, from its own generator.

The noise of an image depends on its seed only. So random numbers are drawn image by image, in the size of the image;
the rest is done for all together. All kinds of noise are one kind of step: up to three numbers per pixel, multiplied by
a matrix.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from selfsr.degrade.batched.padding import mask_valid_pixels, to_device_of
from selfsr.degrade.noise import CorrelatedNoise, GaussianNoise, PoissonNoise
from selfsr.masks import LUMA_MATLAB

Noise = GaussianNoise | CorrelatedNoise | PoissonNoise


@dataclass(frozen=True)
class BatchedNoise:
    """Normal noise (in color, gray or correlated between the channels) or shot noise, then clipping.

    Attributes:
        sizes: height and width of the images, int64 `[n, 2]`.
        shot: which images get shot noise, bool `[n]`.
        channels: random numbers per pixel for each image: 1 for gray noise, otherwise 3.
        matrices: these numbers are multiplied by them; float32 `[n, 3, 3]`, on the scale of 0 to 1.
    """

    sizes: np.ndarray
    shot: np.ndarray
    channels: tuple[int, ...]
    matrices: np.ndarray

    @classmethod
    def merge(cls, steps: Sequence[Noise], sizes: np.ndarray) -> "BatchedNoise":
        """Merge the steps of several images.

        Args:
            steps: one for each image.
            sizes: of the images before the step, int64 `[n, 2]`.
        """
        channels = [1 if not isinstance(step, CorrelatedNoise) and step.gray else 3 for step in steps]
        shot = np.array([isinstance(step, PoissonNoise) for step in steps])
        return cls(sizes, shot, tuple(channels), np.stack([_mixing_matrix(step) for step in steps]))

    def output_sizes(self) -> np.ndarray:
        """Return the sizes of the images after this step."""
        return self.sizes

    def __call__(self, image: Tensor, noise: Sequence[torch.Generator]) -> Tensor:
        """Return the noisy images."""
        samples = torch.zeros_like(image)
        mean, peak = self._compute_means(image) if self.shot.any() else (samples, samples)
        each = zip(self.sizes.tolist(), self.channels, self.shot.tolist(), noise, strict=True)
        for i, ((height, width), channels, shot, generator) in enumerate(each):
            target = samples[i, :channels, :height, :width]
            if shot:
                target.copy_(torch.poisson(mean[i, :channels, :height, :width], generator=generator))
            else:
                target.copy_(torch.randn(target.shape, generator=generator, device=image.device))
        if self.shot.any():
            samples = torch.where(to_device_of(self.shot, image)[:, None, None, None], (samples - mean) / peak, samples)
        matrices = to_device_of(self.matrices, image)[..., None, None]
        # Not a matrix product, since the last bit of its sums may depend on the batch.
        scaled = [matrices[:, :, k] * samples[:, k : k + 1] for k in range(3)]
        return (image + (scaled[0] + scaled[1] + scaled[2])).clamp(0, 1)

    def _compute_means(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean counts of shot noise, `[n, 3, H, W]`, and the mean count of white, `[n, 1, 1, 1]`."""
        valid = mask_valid_pixels(to_device_of(self.sizes, image), image)
        gray = to_device_of(np.array(self.channels) == 1, image)[:, None, None, None]
        luma = sum(weight * plane for weight, plane in zip(LUMA_MATLAB, image.split(1, dim=1), strict=True))
        levels = (torch.where(gray, luma, image).clamp(0, 1) * 255).round()
        levels = torch.where(valid, levels, 0)
        peak = _compute_peaks(levels, valid)
        return levels * peak / 255, peak


def _mixing_matrix(step: Noise) -> np.ndarray:
    """Return the matrix by which the random numbers of a pixel are multiplied, float32 `[3, 3]`."""
    if isinstance(step, CorrelatedNoise):
        return step.mixing_matrix()
    factor = step.scale if isinstance(step, PoissonNoise) else step.sigma / 255
    root = np.array([[factor, 0, 0]] * 3) if step.gray else factor * np.eye(3)
    return root.astype(np.float32)


def _compute_peaks(levels: Tensor, valid: Tensor) -> Tensor:
    """Return the number of distinct levels in each image, rounded up to a power of two, `[n, 1, 1, 1]`."""
    seen = torch.zeros(len(levels), 256 + 1, dtype=torch.int64, device=levels.device)
    seen.scatter_(1, torch.where(valid, levels, 256).flatten(1).long(), 1)
    powers = 1 << torch.arange(8, device=levels.device)
    exponent = (seen[:, :256].sum(1, keepdim=True) > powers).sum(1)
    return (1 << exponent).to(levels.dtype)[:, None, None, None]
