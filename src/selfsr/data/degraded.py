"""Datasets whose LR is made by a degradation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from selfsr.data.crop import (
    SampledDegradation,
    SmallImages,
    TrainingCrop,
    sample_crop,
)
from selfsr.data.datasets import HrOnlyDataset
from selfsr.data.masks import crop_mask
from selfsr.data.store import Cache
from selfsr.data.window import Window
from selfsr.degrade.base import PresetSpec
from selfsr.degrade.blur import sharpen
from selfsr.degrade.presets import degrade_image, disable_opencv_threads
from selfsr.errors import InputError

# A degraded crop is cut from a larger degraded window, so that border effects stay outside (docs/degradations.md has
# measurements), and at a random position of the 8-pixel grid of JPEG, so that no network learns the position.
_MARGIN_LR_PX = 8
_GRID_LR_PX = 8


class DegradedDataset(HrOnlyDataset):
    """Random crops of HR images; LR is made by a degradation.

    The loader degrades each sample, in parallel to the training step; the result does not depend on the device. Or the
    device degrades: then the loader only samples the degradation, with the same random numbers, and the device applies
    those of a step together (`BatchDegradation`).

    Args:
        paths: the HR files.
        scale: how many times larger HR is than LR, at least 2.
        crop_px: side of the HR crop, a multiple of `scale`.
        degradation: the degradation that makes LR.
        channels: 3, or 1 for luma, which is taken after the degradation.
        cache: see `ArrayStore`.
        lr_bits: bit depth that LR is rounded to; None leaves it unrounded, in float32.
        mask_paths: the edge masks in the order of `paths`; None if training makes them. They stay as they are even
            if the degradation sharpens HR.
        on_device: whether the device degrades; `sample` then returns full windows and their degradations.
        small: see `BaseDataset`.

    Attributes:
        window_px: side of the degraded window, which is the crop and its context.

    Raises:
        InputError: a file is not an image or smaller than the crop, a mask or the cache does not fit, or the
            degradation can shrink the window to nothing.
    """

    is_degraded = True

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
        small: SmallImages = "error",
    ) -> None:
        super().__init__(paths, channels, cache, small)
        self._degradation, self._loader_bits, self._on_device = degradation, lr_bits, on_device
        self.lr_bits: int | None = lr_bits if on_device else None
        self._set_crop(scale, crop_px)
        self._load_masks(mask_paths, cache)
        disable_opencv_threads()

    def _set_crop(self, scale: int, crop_px: int) -> None:
        super()._set_crop(scale, crop_px)
        self.window_px: int = crop_px + (2 * _MARGIN_LR_PX + _GRID_LR_PX - 1) * scale
        smallest = self._degradation.smallest_px(self.window_px, scale)
        if smallest < 1:
            raise InputError(
                f"data.degrade: expected every step to leave at least one pixel, got {smallest:.2g} pixels for a crop "
                f"of {crop_px} x {crop_px} (window {self.window_px} x {self.window_px}) at scale {scale}; "
                "raise the smallest factor of its resizes, or crop_px."
            )

    def sample(self, index: int, rng: np.random.Generator) -> TrainingCrop:
        """Return a random crop of image `index` and its LR; crop, degradation and noise are sampled in this order."""
        size, scale = self._hr.sizes[index].tolist(), self.scale
        top, left, symmetry = sample_crop(rng, size, scale, self.crop_px)
        height, width = (side - side % scale for side in size)
        # The corner of the crop in its window, in LR pixels: before the symmetry, then after it.
        margin = (self.window_px - self.crop_px) // scale
        rows, columns = (_MARGIN_LR_PX + int(rng.integers(_GRID_LR_PX)) for _ in range(2))
        window = Window(top - rows * scale, left - columns * scale, self.window_px, symmetry, height, width)
        pixels = self._hr.cut(index, window)
        columns = margin - columns if symmetry & 1 else columns
        rows = margin - rows if symmetry & 2 else rows
        if symmetry & 4:
            rows, columns = columns, rows
        mask = crop_mask(self._masks, index, (top, left, symmetry), self.crop_px, scale)
        if self._on_device:
            plan = self._degradation.sample(rng, self.window_px, self.window_px, scale)
            degradation = SampledDegradation(
                plan, int(rng.integers(2**63)), (rows, columns), self._degradation.sharpens
            )
            return TrainingCrop(pixels, mask=mask, degradation=degradation)
        hr = np.ascontiguousarray(pixels).astype(np.float32) / np.iinfo(pixels.dtype).max
        if self._degradation.sharpens:
            hr = sharpen(hr)
        lr = degrade_image(self._degradation, hr, scale, rng)
        side = self.crop_px // scale
        lr = lr[rows : rows + side, columns : columns + side]
        hr = hr[rows * scale :, columns * scale :][: self.crop_px, : self.crop_px]
        return TrainingCrop(
            _round_to_integers(hr, 8 * pixels.dtype.itemsize),
            lr if self._loader_bits is None else _round_to_integers(lr, self._loader_bits),
            mask,
        )


def _round_to_integers(image: np.ndarray, bits: int) -> np.ndarray:
    """Return float `[0, 1]` as uint8 or uint16, rounded to the nearest level."""
    return np.rint(image * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
