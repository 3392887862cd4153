"""A folder of pictures whose LR is made by a degradation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from selfsr.data.crop import Crop, Draw, draw_crop, turned, window_of
from selfsr.data.datasets import HrAlone
from selfsr.data.masks import mask_crop
from selfsr.data.store import Cache
from selfsr.degrade.base import PresetSpec
from selfsr.degrade.blur import sharpened
from selfsr.degrade.presets import degraded, one_thread
from selfsr.errors import InputError

# A degraded crop is cut from a larger degraded window, so that what a degradation does at a border stays outside, and
# at a random place of JPEG's grid of 8 pixels, so that no network learns that place. What is left of the border in the
# crop was measured: docs/degradations.md.
_MARGIN_LR_PX = 8
_GRID_LR_PX = 8


class DegradedData(HrAlone):
    """Random crops from a folder of pictures; LR is made by a degradation.

    By the process that loads, each sample has a size, a codec and an order of its own, the work runs beside the
    training step, and the result does not depend on the device. Or on the device: the process that loads then only
    draws what is done, with the same random numbers, and the device does it to all samples of a step together
    (`DrawnBatch`).

    Args:
        paths: the HR files.
        scale: how many times larger HR is than LR, at least 2.
        crop_px: side of the HR crop, a multiple of `scale`.
        degradation: what makes LR.
        channels: 3, or 1 for luma, which is taken after the degradation.
        cache: see `PictureStore`.
        lr_bits: depth that LR is rounded to; None leaves it unrounded, in float32.
        mask_paths: files of the pictures' edge masks, in the same order; None: the data bring none. They are taken as
            they are where the degradation sharpens HR, too.
        on_device: whether LR is made on the device; `sample` then returns whole windows and what to do to them.

    Attributes:
        window_px: side of what is degraded: the crop and its surroundings.

    Raises:
        InputError: a file is no picture or smaller than the crop, a mask or the cache does not fit, or the
            degradation can shrink the crop and its surroundings to nothing.
    """

    degrades = True

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        scale: int,
        crop_px: int,
        degradation: PresetSpec,
        channels: Literal[1, 3] = 3,
        cache: Cache = "auto",
        lr_bits: int | None = 8,
        mask_paths: Sequence[Path] | None = None,
        on_device: bool = False,
    ) -> None:
        super().__init__(paths, channels, cache)
        self._degradation, self._bits, self._on_device = degradation, lr_bits, on_device
        self.lr_bits = lr_bits if on_device else None  # of what the device makes
        self._crop(scale, crop_px)
        self._take_masks(mask_paths, cache)
        one_thread()

    def _crop(self, scale: int, crop_px: int) -> None:
        super()._crop(scale, crop_px)
        self.window_px = crop_px + (2 * _MARGIN_LR_PX + _GRID_LR_PX - 1) * scale
        smallest = self._degradation.smallest_px(self.window_px, scale)
        if smallest < 1:
            raise InputError(
                f"data.degrade: expected every step to leave at least one pixel, but a crop of {crop_px} x {crop_px} "
                f"(with surroundings {self.window_px} x {self.window_px}) at scale {scale} can shrink to "
                f"{smallest:.2g} of one; raise the smallest factor of its resizes or crop_px."
            )

    def sample(self, index: int, rng: np.random.Generator) -> Crop:
        """Return a random crop of picture `index` and its LR; crop, degradation and noise are drawn in this order."""
        pixels, scale = self._hr.read(index), self.scale
        top, left, turn = draw_crop(rng, pixels.shape, scale, self.crop_px)
        height, width = (side - side % scale for side in pixels.shape[:2])
        # Where the crop begins in its window, in LR pixels: first as the picture lies, then as it is turned.
        spare = (self.window_px - self.crop_px) // scale
        rows, columns = (_MARGIN_LR_PX + int(rng.integers(_GRID_LR_PX)) for _ in range(2))
        window = window_of(pixels[:height, :width], top - rows * scale, left - columns * scale, self.window_px)
        columns = spare - columns if turn & 1 else columns
        rows = spare - rows if turn & 2 else rows
        if turn & 4:
            rows, columns = columns, rows
        mask = mask_crop(self._masks, index, (top, left, turn), self.crop_px)
        if self._on_device:
            plan = self._degradation.draw(rng, self.window_px, self.window_px, scale)
            draw = Draw(plan, int(rng.integers(2**63)), (rows, columns), self._degradation.sharpens)
            return Crop(turned(window, turn), mask=mask, draw=draw)
        hr = np.ascontiguousarray(turned(window, turn)).astype(np.float32) / np.iinfo(pixels.dtype).max
        if self._degradation.sharpens:
            hr = sharpened(hr)
        lr = degraded(self._degradation, hr, scale, rng)
        side = self.crop_px // scale
        lr = lr[rows : rows + side, columns : columns + side]
        hr = hr[rows * scale :, columns * scale :][: self.crop_px, : self.crop_px]
        return Crop(
            _rounded(hr, 8 * pixels.dtype.itemsize),
            lr if self._bits is None else _rounded(lr, self._bits),
            mask,
        )


def _rounded(image: np.ndarray, bits: int) -> np.ndarray:
    """Return float `[0, 1]` as uint8 or uint16, rounded to the nearest level."""
    return np.rint(image * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
