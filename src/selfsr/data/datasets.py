"""Datasets of random crops: HR images from which LR is made, and pairs of images."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, Self

import numpy as np

from selfsr.data.crop import (
    SmallImages,
    TrainingCrop,
    check_scale,
    check_sizes,
    sample_crop,
)
from selfsr.data.masks import MaskStore, crop_mask
from selfsr.data.store import Cache, ImageStore
from selfsr.data.window import Window
from selfsr.errors import InputError
from selfsr.images.pairing import find_size_problem
from selfsr.images.resize import HALO_LR_PX


class Dataset(Protocol):
    """Images at one scale that a loader samples crops from. A run of several scales has one dataset for each.

    Attributes:
        scale: how many times larger HR is than LR.
        crop_px: side of the HR crop.
        channels: channels of the network: 3 for RGB, 1 for luma.
        halo_px: context of the crop in `TrainingCrop.hr` at each side, for making LR.
        lr_bits: bit depth of LR that the device makes; None leaves it unrounded.
        is_degraded: whether `sample` makes or samples a degradation, which costs as much as decoding an image.
    """

    scale: int
    crop_px: int
    channels: Literal[1, 3]
    halo_px: int
    is_degraded: bool

    @property
    def lr_bits(self) -> int | None:
        """Bit depth of LR that the device makes; None leaves it unrounded."""
        ...

    @property
    def paths(self) -> list[Path]:
        """The HR files, in the order of the index of `sample`."""
        ...

    @property
    def cached(self) -> bool:
        """Whether decoded images stay in memory."""
        ...

    @property
    def stores(self) -> dict[str, ImageStore]:
        """The images that `sample` cuts: hr, and lr if there are any."""
        ...

    def __len__(self) -> int: ...

    def files(self) -> dict[str, list[Path]]:
        """Return all files of the dataset, by the key of the recipe: hr, and lr and masks if there are any."""
        ...

    def sample(self, index: int, rng: np.random.Generator) -> TrainingCrop:
        """Return a random crop of image `index`, determined by the image and `rng` only.

        Raises:
            InputError, OSError: the file became unreadable.
        """
        ...


class BaseDataset:
    """Base of all datasets: HR images at one scale, with optional edge masks.

    Args:
        paths: the HR files.
        channels: 3, or 1 for luma.
        cache: see `ArrayStore`.
        small: "pad" mirrors images that are smaller than the crop at their lower and right edges; otherwise they are
            errors. `FolderSpec` and `PairsSpec` leave them out before, for "skip".

    Raises:
        InputError: a file is not an image, or the cache does not fit.
    """

    is_degraded = False
    halo_px = 0
    lr_bits: int | None = None

    def __init__(self, paths: Sequence[Path], channels: Literal[1, 3], cache: Cache, small: SmallImages) -> None:
        self.channels: Literal[1, 3] = channels
        self._pad = small == "pad"
        self._hr = ImageStore("data.hr", paths, cache)
        self._masks: MaskStore | None = None

    def _set_crop(self, scale: int, crop_px: int) -> None:
        assert crop_px % scale == 0, (crop_px, scale)
        self.scale: int = scale
        self.crop_px: int = crop_px
        check_sizes(self._hr, scale, crop_px, pad=self._pad)

    def _load_masks(self, paths: Sequence[Path] | None, cache: Cache) -> None:
        # Masks take an eighth of a byte for each pixel; the crops of those in memory are copied to the device.
        kept: Cache = "memory" if cache == "device" else cache
        self._masks = None if paths is None else MaskStore(paths, self._hr, kept)

    @property
    def paths(self) -> list[Path]:
        """The HR files."""
        return self._hr.paths

    @property
    def cached(self) -> bool:
        """Whether decoded images stay in memory."""
        return self._hr.cached and (self._masks is None or self._masks.cached)

    @property
    def stores(self) -> dict[str, ImageStore]:
        """The images that `sample` cuts."""
        return {"hr": self._hr}

    def __len__(self) -> int:
        return len(self._hr)

    def files(self) -> dict[str, list[Path]]:
        """Return all files, by the key of the recipe."""
        return {"hr": self._hr.paths} | ({"masks": self._masks.paths} if self._masks else {})


class HrOnlyDataset(BaseDataset):
    """Base of datasets that make LR from HR, and so work at any scale."""

    def at_scale(self, scale: int, crop_px: int) -> Self:
        """Return the same images at another scale; both datasets share the decoded images.

        Raises:
            InputError: an image is smaller than the crop, or too small to make LR from.
        """
        copied = copy.copy(self)
        copied._set_crop(scale, crop_px)
        return copied

    def _set_crop(self, scale: int, crop_px: int) -> None:
        check_scale(scale)
        super()._set_crop(scale, crop_px)


class HrFolderDataset(HrOnlyDataset):
    """Random crops of HR images; the device makes LR by bicubic.

    Args:
        paths: the HR files.
        scale: how many times larger HR is than LR, at least 2.
        crop_px: side of the HR crop, a multiple of `scale`.
        channels: 3, or 1 for luma.
        cache: see `ArrayStore`.
        lr_bits: bit depth that LR is rounded to; None leaves it unrounded.
        mask_paths: the edge masks in the order of `paths`; None if training makes them.
        small: see `BaseDataset`.

    Raises:
        InputError: a file is not an image or smaller than the crop, a mask does not fit, or the cache does not fit.
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
        small: SmallImages = "error",
    ) -> None:
        super().__init__(paths, channels, cache, small)
        self.lr_bits = lr_bits
        self._set_crop(scale, crop_px)
        self._load_masks(mask_paths, cache)

    def _set_crop(self, scale: int, crop_px: int) -> None:
        super()._set_crop(scale, crop_px)
        self.halo_px: int = HALO_LR_PX * scale

    def sample(self, index: int, rng: np.random.Generator) -> TrainingCrop:
        """Return a random crop of image `index` with its halo."""
        size = self._hr.sizes[index].tolist()
        top, left, symmetry = sample_crop(rng, size, self.scale, self.crop_px)
        height, width = (side - side % self.scale for side in size)
        side = self.crop_px + 2 * self.halo_px
        window = Window(top - self.halo_px, left - self.halo_px, side, symmetry, height, width)
        return TrainingCrop(
            self._hr.cut(index, window),
            mask=crop_mask(self._masks, index, (top, left, symmetry), self.crop_px, self.scale),
        )


class PairedDataset(BaseDataset):
    """Random aligned crops of pairs of HR and LR images.

    Args:
        hr_paths: the HR files.
        lr_paths: the LR files in the order of `hr_paths`.
        scale: how many times larger HR is than LR.
        crop_px: side of the HR crop, a multiple of `scale`.
        channels: 3, or 1 for luma.
        cache: see `ArrayStore`.
        mask_paths: the edge masks in the order of `hr_paths`; None if training makes them.
        small: see `BaseDataset`.

    Raises:
        InputError: a file is not an image or smaller than the crop, or a pair, a mask or the cache does not fit.
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
        small: SmallImages = "error",
    ) -> None:
        super().__init__(hr_paths, channels, cache, small)
        self._set_lr(lr_paths, scale, crop_px, cache)
        self._load_masks(mask_paths, cache)

    def with_lr(self, lr_paths: Sequence[Path], scale: int, crop_px: int, cache: Cache) -> Self:
        """Return the same HR images with LR images of another scale; both datasets share the decoded HR.

        Raises:
            InputError: as for the class.
        """
        copied = copy.copy(self)
        copied._set_lr(lr_paths, scale, crop_px, cache)
        return copied

    def _set_lr(self, lr_paths: Sequence[Path], scale: int, crop_px: int, cache: Cache) -> None:
        assert len(self._hr) == len(lr_paths), (len(self._hr), len(lr_paths))
        self._lr = ImageStore("data.lr", lr_paths, cache)
        sizes = zip(self._hr.sizes.tolist(), self._lr.sizes.tolist(), self._hr.paths, lr_paths, strict=True)
        for hr_size, lr_size, hr_path, lr_path in sizes:
            problem = find_size_problem(tuple(hr_size), tuple(lr_size), scale)
            if problem:
                raise InputError(f"{lr_path}: {problem}; make it again from {hr_path} or leave the pair out.")
        self._set_crop(scale, crop_px)

    @property
    def cached(self) -> bool:
        """Whether decoded images stay in memory."""
        return super().cached and self._lr.cached

    @property
    def stores(self) -> dict[str, ImageStore]:
        """The images that `sample` cuts."""
        return {**super().stores, "lr": self._lr}

    def files(self) -> dict[str, list[Path]]:
        """Return all files, by the key of the recipe."""
        return {**super().files(), "lr": self._lr.paths}

    def sample(self, index: int, rng: np.random.Generator) -> TrainingCrop:
        """Return a random crop of pair `index`, both with the same symmetry."""
        scale, (height, width) = self.scale, self._lr.sizes[index].tolist()
        top, left, symmetry = sample_crop(rng, self._hr.sizes[index].tolist(), scale, self.crop_px)
        # Beyond the last LR pixel both are mirrored.
        hr_window = Window(top, left, self.crop_px, symmetry, height * scale, width * scale)
        lr_window = Window(top // scale, left // scale, self.crop_px // scale, symmetry, height, width)
        return TrainingCrop(
            self._hr.cut(index, hr_window),
            self._lr.cut(index, lr_window),
            crop_mask(self._masks, index, (top, left, symmetry), self.crop_px, self.scale),
        )
