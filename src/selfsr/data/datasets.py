"""What a loader draws crops from: HR pictures of which LR is made, and pairs of pictures."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, Self

import numpy as np

from selfsr.data.crop import Crop, check_scale, check_sizes, draw_crop, turned, window_of
from selfsr.data.masks import MaskStore, mask_crop
from selfsr.data.pairs import mismatch
from selfsr.data.store import Cache, PictureStore
from selfsr.errors import InputError
from selfsr.images.resize import HALO_LR_PX


class Dataset(Protocol):
    """What a loader draws from: pictures at one scale. A run of several scales has one for each.

    Attributes:
        scale: how many times larger HR is than LR.
        crop_px: side of the HR crop.
        channels: what the network is given of the RGB crops: 3 for all of it, 1 for luma.
        halo_px: surroundings of the crop that `Crop.hr` brings along on each side, for making LR.
        lr_bits: depth that LR made on the device is rounded to; None leaves it unrounded.
        degrades: whether `sample` degrades the crop, or draws how, which costs as much as decoding a picture.
    """

    scale: int
    crop_px: int
    channels: Literal[1, 3]
    halo_px: int
    degrades: bool

    @property
    def lr_bits(self) -> int | None:
        """Depth that LR made on the device is rounded to; None leaves it unrounded."""
        ...

    @property
    def paths(self) -> list[Path]:
        """The HR files, by the index of `sample`."""
        ...

    @property
    def cached(self) -> bool:
        """Whether decoded pictures stay in memory."""
        ...

    def __len__(self) -> int: ...

    def sample(self, index: int, rng: np.random.Generator) -> Crop:
        """Return a random crop of picture `index`, a function of the picture and of `rng` alone.

        Raises:
            InputError, OSError: the file went bad.
        """
        ...


class HrPictures:
    """What all data share: HR pictures, perhaps with edge masks, at one scale; a `Dataset` but for its `sample`.

    Args:
        paths: the HR files.
        channels: 3, or 1 for luma.
        cache: see `PictureStore`.

    Raises:
        InputError: a file is no picture, or the cache does not fit.
    """

    degrades = False
    halo_px = 0
    lr_bits: int | None = None

    def __init__(self, paths: Sequence[Path], channels: Literal[1, 3], cache: Cache) -> None:
        self.channels: Literal[1, 3] = channels
        self._hr = PictureStore("data.hr", paths, cache)
        self._masks: MaskStore | None = None

    def _crop(self, scale: int, crop_px: int) -> None:
        assert crop_px % scale == 0, (crop_px, scale)
        self.scale, self.crop_px = scale, crop_px
        check_sizes(self._hr, scale, crop_px)

    def _take_masks(self, paths: Sequence[Path] | None, cache: Cache) -> None:
        self._masks = None if paths is None else MaskStore(paths, self._hr, cache)

    @property
    def paths(self) -> list[Path]:
        """The HR files."""
        return self._hr.paths

    @property
    def cached(self) -> bool:
        """Whether decoded pictures stay in memory."""
        return self._hr.cached and (self._masks is None or self._masks.cached)

    def __len__(self) -> int:
        return len(self._hr)


class HrAlone(HrPictures):
    """Data whose LR is made of HR, so that any scale can be had of them."""

    def at(self, scale: int, crop_px: int) -> Self:
        """Return the same pictures, decoded once for both, at another scale.

        Raises:
            InputError: a picture is smaller than the crop, or no LR can be made of it.
        """
        other = copy.copy(self)
        other._crop(scale, crop_px)
        return other

    def _crop(self, scale: int, crop_px: int) -> None:
        check_scale(scale)
        super()._crop(scale, crop_px)


class FolderData(HrAlone):
    """Random crops from a folder of HR pictures; LR is made of them on the device.

    Args:
        paths: the HR files.
        scale: how many times larger HR is than LR, at least 2.
        crop_px: side of the HR crop, a multiple of `scale`.
        channels: 3, or 1 for luma.
        cache: see `PictureStore`.
        lr_bits: depth that LR is rounded to; None leaves it unrounded.
        mask_paths: files of the pictures' edge masks, in the same order; None: the data bring none.

    Raises:
        InputError: a file is no picture or smaller than the crop, a mask does not fit, or the cache does not fit.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        scale: int,
        crop_px: int,
        channels: Literal[1, 3] = 3,
        cache: Cache = "auto",
        lr_bits: int | None = 8,
        mask_paths: Sequence[Path] | None = None,
    ) -> None:
        super().__init__(paths, channels, cache)
        self.lr_bits = lr_bits
        self._crop(scale, crop_px)
        self._take_masks(mask_paths, cache)

    def _crop(self, scale: int, crop_px: int) -> None:
        super()._crop(scale, crop_px)
        self.halo_px = HALO_LR_PX * scale

    def sample(self, index: int, rng: np.random.Generator) -> Crop:
        """Return a random crop of picture `index` with its surroundings."""
        pixels = self._hr.read(index)
        top, left, turn = draw_crop(rng, pixels.shape, self.scale, self.crop_px)
        height, width = (side - side % self.scale for side in pixels.shape[:2])
        side = self.crop_px + 2 * self.halo_px
        rows, columns = top - self.halo_px, left - self.halo_px
        return Crop(
            turned(window_of(pixels[:height, :width], rows, columns, side), turn),
            mask=mask_crop(self._masks, index, (top, left, turn), self.crop_px),
        )


class PairData(HrPictures):
    """Random aligned crops from a folder of HR and a folder of LR pictures.

    Args:
        hr_paths: the HR files.
        lr_paths: the LR files in the same order.
        scale: how many times larger HR is than LR.
        crop_px: side of the HR crop, a multiple of `scale`.
        channels: 3, or 1 for luma.
        cache: see `PictureStore`.
        mask_paths: files of the edge masks of HR, in the same order; None: the data bring none.

    Raises:
        InputError: a file is no picture or smaller than the crop, a pair or a mask does not fit, the cache does not
            fit.
    """

    def __init__(
        self,
        hr_paths: Sequence[Path],
        lr_paths: Sequence[Path],
        *,
        scale: int,
        crop_px: int,
        channels: Literal[1, 3] = 3,
        cache: Cache = "auto",
        mask_paths: Sequence[Path] | None = None,
    ) -> None:
        super().__init__(hr_paths, channels, cache)
        self._pair(lr_paths, scale, crop_px, cache)
        self._take_masks(mask_paths, cache)

    def with_lr(self, lr_paths: Sequence[Path], scale: int, crop_px: int, cache: Cache) -> Self:
        """Return the same HR pictures, decoded once for both, with LR pictures of another scale.

        Raises:
            InputError: as for the class.
        """
        other = copy.copy(self)
        other._pair(lr_paths, scale, crop_px, cache)
        return other

    def _pair(self, lr_paths: Sequence[Path], scale: int, crop_px: int, cache: Cache) -> None:
        assert len(self._hr) == len(lr_paths), (len(self._hr), len(lr_paths))
        self._lr = PictureStore("data.lr", lr_paths, cache)
        for hr, lr, hr_path, lr_path in zip(self._hr.headers, self._lr.headers, self._hr.paths, lr_paths, strict=True):
            problem = mismatch((hr.height, hr.width), (lr.height, lr.width), scale)
            if problem:
                raise InputError(f"{lr_path}: {problem}; make it again from {hr_path} or leave the pair out.")
        self._crop(scale, crop_px)

    @property
    def cached(self) -> bool:
        """Whether decoded pictures stay in memory."""
        return super().cached and self._lr.cached

    def sample(self, index: int, rng: np.random.Generator) -> Crop:
        """Return a random crop of pair `index`, both turned alike."""
        hr, lr = self._hr.read(index), self._lr.read(index)
        top, left, turn = draw_crop(rng, hr.shape, self.scale, self.crop_px)
        small = window_of(lr, top // self.scale, left // self.scale, self.crop_px // self.scale)
        return Crop(
            turned(window_of(hr, top, left, self.crop_px), turn),
            turned(small, turn),
            mask_crop(self._masks, index, (top, left, turn), self.crop_px),
        )
