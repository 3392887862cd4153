"""Degrade all samples of a step together on the device, as the loader sampled it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from selfsr.data.crop import SampledDegradation
from selfsr.degrade.batched import BatchedPlan, merge_plans, sharpen
from selfsr.degrade.batched.padding import gather_pixels, to_device_of
from selfsr.images.resize import round_to_bits


@dataclass(frozen=True)
class BatchDegradation:
    """The degradations of the windows of a step.

    Attributes:
        plan: the degradations of all windows.
        corners_lr_px: row and column of each crop in its window, in pixels of LR, int64 `[n, 2]`.
        sharpens: whether the windows are sharpened first, as input of the degradation and as HR.
    """

    plan: BatchedPlan
    corners_lr_px: np.ndarray
    sharpens: bool

    @classmethod
    def from_samples(cls, samples: Sequence[SampledDegradation], window_px: int) -> "BatchDegradation":
        """Merge the degradations of single windows with side `window_px`."""
        (sharpens,) = {sample.sharpens for sample in samples}
        sizes = [(window_px, window_px)] * len(samples)
        plan = merge_plans([sample.plan for sample in samples], sizes, [sample.seed for sample in samples])
        return cls(plan, np.array([sample.corner_lr_px for sample in samples]), sharpens)

    def make_pair(self, windows: Tensor, *, scale: int, crop_px: int, lr_bits: int | None) -> tuple[Tensor, Tensor]:
        """Return the crops of HR and their degraded LR.

        Args:
            windows: float32 `[n, 3, window, window]` in [0, 1].
            scale: how many times larger HR is than LR.
            crop_px: side of the HR crop.
            lr_bits: bit depth that LR is rounded to; None leaves it unrounded. Sharpened HR stays unrounded.

        Returns:
            `[n, 3, crop, crop]` and `[n, 3, crop / scale, crop / scale]`, in [0, 1].
        """
        hr = windows.contiguous()
        if self.sharpens:
            hr = sharpen(hr)
        corners = to_device_of(self.corners_lr_px, windows)
        lr = _crop(self.plan(hr), corners, crop_px // scale)
        return _crop(hr, corners * scale, crop_px), lr if lr_bits is None else round_to_bits(lr, lr_bits)


def _crop(image: Tensor, corners: Tensor, side: int) -> Tensor:
    """Return a square of each image, from its corner on."""
    rows, columns = (corner[:, None] + torch.arange(side, device=image.device) for corner in corners.unbind(1))
    return gather_pixels(image, rows, columns)
