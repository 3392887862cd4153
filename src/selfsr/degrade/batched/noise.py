"""Noise of every picture, from a generator of its own.

What a picture meets is a function of its seed alone, so random numbers are drawn picture by picture, in its size; all
the rest is done together. All kinds of noise are one kind of step: up to three numbers a pixel, times a matrix.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from selfsr.degrade.batched.canvas import inside, on
from selfsr.degrade.noise import LUMA, CorrelatedNoise, GaussianNoise, PoissonNoise

Noise = GaussianNoise | CorrelatedNoise | PoissonNoise


@dataclass(frozen=True)
class BatchedNoise:
    """Normal noise (in color, gray or correlated between the channels) or shot noise, then clipping.

    Attributes:
        sizes: of the pictures, int64 `[n, 2]`.
        shot: which pictures have shot noise, bool `[n]`.
        channels: how many numbers a pixel of each picture needs: 1 if it is gray, 3 otherwise.
        roots: what these numbers are multiplied by, float32 `[n, 3, 3]`, on the scale of 0 to 1.
    """

    sizes: np.ndarray
    shot: np.ndarray
    channels: tuple[int, ...]
    roots: np.ndarray

    @classmethod
    def merged(cls, steps: Sequence[Noise], sizes: np.ndarray) -> "BatchedNoise":
        """Return the steps of pictures of these sizes as one."""
        channels = [1 if not isinstance(step, CorrelatedNoise) and step.gray else 3 for step in steps]
        shot = np.array([isinstance(step, PoissonNoise) for step in steps])
        return cls(sizes, shot, tuple(channels), np.stack([_root(step) for step in steps]))

    def after(self) -> np.ndarray:
        """Return the sizes that the pictures then have."""
        return self.sizes

    def __call__(self, image: Tensor, noise: Sequence[torch.Generator]) -> Tensor:
        """Return the noisy pictures."""
        drawn = torch.zeros_like(image)
        mean, peak = self._means(image) if self.shot.any() else (drawn, drawn)
        each = zip(self.sizes.tolist(), self.channels, self.shot.tolist(), noise, strict=True)
        for i, ((height, width), channels, shot, source) in enumerate(each):
            target = drawn[i, :channels, :height, :width]
            if shot:
                target.copy_(torch.poisson(mean[i, :channels, :height, :width], generator=source))
            else:
                target.copy_(torch.randn(target.shape, generator=source, device=image.device))
        if self.shot.any():
            drawn = torch.where(on(self.shot, image)[:, None, None, None], (drawn - mean) / peak, drawn)
        roots = on(self.roots, image)[..., None, None]
        # Written out, as the sums of a matrix product may depend on the batch in their last bit.
        scaled = [roots[:, :, k] * drawn[:, k : k + 1] for k in range(3)]
        return (image + (scaled[0] + scaled[1] + scaled[2])).clamp(0, 1)

    def _means(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the means of the counts of shot noise, `[n, 3, H, W]`, and the count of white, `[n, 1, 1, 1]`."""
        valid = inside(on(self.sizes, image), image)
        gray = on(np.array(self.channels) == 1, image)[:, None, None, None]
        luma = sum(weight * plane for weight, plane in zip(LUMA, image.split(1, dim=1), strict=True))
        levels = (torch.where(gray, luma, image).clamp(0, 1) * 255).round()
        levels = torch.where(valid, levels, 0)
        peak = _peaks(levels, valid)
        return levels * peak / 255, peak


def _root(step: Noise) -> np.ndarray:
    """Return what the numbers of a pixel are multiplied by, float32 `[3, 3]`."""
    if isinstance(step, CorrelatedNoise):
        return step.root()
    factor = step.scale if isinstance(step, PoissonNoise) else step.sigma / 255
    root = np.array([[factor, 0, 0]] * 3) if step.gray else factor * np.eye(3)
    return root.astype(np.float32)


def _peaks(levels: Tensor, valid: Tensor) -> Tensor:
    """Return how many levels each picture has, rounded up to a power of two, `[n, 1, 1, 1]`."""
    seen = torch.zeros(len(levels), 256 + 1, dtype=torch.int64, device=levels.device)
    seen.scatter_(1, torch.where(valid, levels, 256).flatten(1).long(), 1)
    powers = 1 << torch.arange(8, device=levels.device)
    exponent = (seen[:, :256].sum(1, keepdim=True) > powers).sum(1)
    return (1 << exponent).to(levels.dtype)[:, None, None, None]
