"""The degradations of a step's samples, drawn by a process that loads and carried out on the device, all together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from selfsr.data.crop import Draw
from selfsr.degrade.batched import Program, merged, sharpened
from selfsr.degrade.batched.canvas import gathered, on
from selfsr.images.resize import round_to_bits


@dataclass(frozen=True)
class DrawnBatch:
    """What is to be done to the windows of a step.

    Attributes:
        program: the degradations.
        corners_lr_px: row and column of LR where each crop begins in its window, int64 `[n, 2]`.
        sharpens: whether the windows are sharpened first, as input of the degradation and as HR.
    """

    program: Program
    corners_lr_px: np.ndarray
    sharpens: bool

    @classmethod
    def of(cls, draws: Sequence[Draw], window_px: int) -> "DrawnBatch":
        """Merge what was drawn for windows of this side."""
        (sharpens,) = {draw.sharpens for draw in draws}
        sizes = [(window_px, window_px)] * len(draws)
        program = merged([draw.plan for draw in draws], sizes, [draw.seed for draw in draws])
        return cls(program, np.array([draw.corner_lr_px for draw in draws]), sharpens)

    def pair(self, windows: Tensor, *, scale: int, crop_px: int, lr_bits: int | None) -> tuple[Tensor, Tensor]:
        """Return the crops of HR and LR.

        Args:
            windows: float32 `[n, 3, window, window]` in [0, 1].
            scale: how many times larger HR is.
            crop_px: side of the HR crop.
            lr_bits: depth that LR is rounded to; None leaves it unrounded. HR that was sharpened stays unrounded.

        Returns:
            `[n, 3, crop, crop]` and `[n, 3, crop / scale, crop / scale]`, in [0, 1].
        """
        hr = windows.contiguous()
        if self.sharpens:
            hr = sharpened(hr)
        corners = on(self.corners_lr_px, windows)
        lr = _cut(self.program(hr), corners, crop_px // scale)
        return _cut(hr, corners * scale, crop_px), lr if lr_bits is None else round_to_bits(lr, lr_bits)


def _cut(image: Tensor, corners: Tensor, side: int) -> Tensor:
    """Return a square of each picture, from its corner on."""
    rows, columns = (corner[:, None] + torch.arange(side, device=image.device) for corner in corners.unbind(1))
    return gathered(image, rows, columns)
