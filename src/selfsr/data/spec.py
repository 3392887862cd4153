"""The `data` part of a recipe: folders of images, and the datasets built from them."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from selfsr.data.augment import AugmentSpec
from selfsr.data.crop import SmallImages, skip_small
from selfsr.data.datasets import Dataset, HrFolderDataset, PairedDataset
from selfsr.data.degraded import DegradedDataset
from selfsr.data.file_index import CacheFolder
from selfsr.data.masks import find_masks
from selfsr.data.store import Cache
from selfsr.degrade.presets import Degradation
from selfsr.errors import InputError
from selfsr.images.pairing import pair_lr
from selfsr.images.paths import list_images
from selfsr.spec import PathByScale, Spec, expand_home, select_path

_CACHE = (
    "cache of decoded images: memory, off, auto, which is memory if they fit in a quarter of the free memory, disk, a "
    "file that all processes of a machine share and the next run finds again, or device, the memory of the training "
    "device, which then cuts the crops; use disk for several processes and for images that do not fit in memory, and "
    "device for images of 8 bits if a fast GPU waits for data"
)
_CACHE_FOLDER = "folder for cache: disk, on a local disk; null is selfsr in the user's cache folder"
_HR = "folder of HR images, searched with its subfolders, or a .txt file that lists images, a path in each line"
_SMALL = (
    "images smaller than the crop: error stops before the run, skip leaves them out and prints how many, pad mirrors "
    "them at their lower and right edges"
)
AUGMENT = (
    "mixes of training samples; null mixes nothing. Crops are flipped and turned at random in any case, to one of the "
    "eight orientations"
)
_MASKS = "folder of edge masks, .mat or .png with the names of the images; null computes them in the training step"


CacheKind = Literal["auto", "off", "memory", "disk", "device"]


class _CachedSpec(Spec):
    """What all folders of training images have in common; the options themselves keep their order in each class."""

    if TYPE_CHECKING:
        cache: CacheKind
        cache_folder: Path | None

    @field_validator("hr", "masks", "cache_folder", check_fields=False)
    @classmethod
    def _expand_home(cls, path: Path | None) -> Path | None:
        return None if path is None else expand_home(path)

    @model_validator(mode="after")
    def _check_cache(self) -> Self:
        if self.cache_folder is not None and self.cache != "disk":
            raise ValueError(
                f"cache_folder needs cache: disk, got cache: {self.cache}; set cache to disk, or leave it out"
            )
        return self

    def _choose_cache(self) -> Cache:
        """Return the cache, with the default folder of one on disk."""
        if self.cache != "disk":
            return self.cache
        default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "selfsr"
        return CacheFolder(self.cache_folder or default)


class FolderSpec(_CachedSpec):
    """A folder of HR images; LR is made from them by bicubic or by a degradation."""

    kind: Literal["folder"]
    hr: Path = Field(description=_HR)
    channels: Literal[1, 3] = Field(
        3,
        description="channels of the network: 3 repeats gray images to RGB, 1 trains on luma; LR is made and rounded "
        "in RGB, as published",
    )
    cache: CacheKind = Field("auto", description=_CACHE)
    cache_folder: Path | None = Field(None, description=_CACHE_FOLDER)
    lr_bits: Literal[8, 16] | None = Field(
        8, description="bit depth that LR is rounded to, like a file; null leaves it unrounded"
    )
    degrade: Degradation | None = Field(
        None,
        description="the degradation that makes LR: the name of a preset, or its kind, preset and changes; null is "
        "bicubic",
    )
    degrade_on: Literal["loader", "device"] = Field(
        "loader",
        description="where LR is degraded: loader (sample by sample, in the loader processes) or device (all samples "
        "of a step together, on the training device; use it if the loader is too slow)",
    )
    small: SmallImages = Field("error", description=_SMALL)
    augment: AugmentSpec | None = Field(None, description=AUGMENT)
    masks: Path | None = Field(None, description=_MASKS)

    @model_validator(mode="after")
    def _check_degrade_on(self) -> Self:
        if self.degrade_on == "device" and self.degrade is None:
            raise ValueError("degrade_on: device needs degrade; leave it out, bicubic LR is always made on the device")
        if self.cache == "device" and self.degrade is not None and self.degrade_on != "device":
            raise ValueError(
                "cache: device needs degrade_on: device with degrade, since the loader has no pixels to degrade, got "
                f"{self.degrade_on}; set degrade_on: device, or cache to memory or disk"
            )
        return self

    @property
    def parts(self) -> dict[str, "FolderSpec | PairsSpec"]:
        """The folders, by their place in a recipe."""
        return {"data": self}

    @property
    def has_degraded_lr(self) -> bool:
        """Whether LR can differ from bicubic LR."""
        return self.degrade is not None

    def build(self, *, scale: int, crop_px: int) -> HrFolderDataset | DegradedDataset:
        """List the folder, check the headers and return the dataset.

        Raises:
            InputError: the folder is missing or empty, an image or a mask is unusable, or the degradation shrinks
                crops to nothing.
        """
        return self._build(scale, crop_px, crop_px)

    def build_each(self, crops_px: Mapping[int, int]) -> Sequence[Dataset]:
        """Return the datasets by a mapping from scale to the side of the HR crop; errors as for `build`."""
        (scale, crop_px), *more_scales = crops_px.items()
        first = self._build(scale, crop_px, max(crops_px.values()))
        return [first, *(first.at_scale(scale, crop_px) for scale, crop_px in more_scales)]

    def _build(self, scale: int, crop_px: int, largest_px: int) -> HrFolderDataset | DegradedDataset:
        """Return the dataset; `largest_px` is the largest crop of all scales, which decides what is skipped."""
        paths = _list_hr(self.hr, self.small, largest_px, self._choose_cache())
        mask_paths = None if self.masks is None else find_masks(self.masks, self.hr, paths)
        if self.degrade is not None:
            return DegradedDataset(
                paths,
                scale=scale,
                crop_px=crop_px,
                degradation=self.degrade,
                channels=self.channels,
                cache=self._choose_cache(),
                lr_bits=self.lr_bits,
                mask_paths=mask_paths,
                on_device=self.degrade_on == "device",
                small=self.small,
            )
        return HrFolderDataset(
            paths,
            scale=scale,
            crop_px=crop_px,
            channels=self.channels,
            cache=self._choose_cache(),
            lr_bits=self.lr_bits,
            mask_paths=mask_paths,
            small=self.small,
        )

    def lr_folder(self, scale: int) -> None:  # noqa: ARG002 - all data share one signature
        """Return None, since LR is made from HR."""
        return None


class PairsSpec(_CachedSpec):
    """A folder of HR and a folder of LR images, matched by path (`0001.png` with `0001.png` or `0001x4.png`)."""

    kind: Literal["pairs"]
    hr: Path = Field(description=_HR)
    lr: PathByScale = Field(
        description="folder of LR images, searched with its subfolders; for several scales one for each, {2: ..., "
        "4: ...}"
    )
    channels: Literal[1, 3] = Field(
        3, description="channels of the network: 3 repeats gray images to RGB, 1 trains on unrounded luma"
    )
    cache: CacheKind = Field("auto", description=_CACHE)
    cache_folder: Path | None = Field(None, description=_CACHE_FOLDER)
    small: SmallImages = Field("error", description=_SMALL)
    augment: AugmentSpec | None = Field(None, description=AUGMENT)
    masks: Path | None = Field(None, description=_MASKS)

    @field_validator("lr")
    @classmethod
    def _expand_homes(cls, lr: Path | dict[int, Path]) -> Path | dict[int, Path]:
        if isinstance(lr, Path):
            return expand_home(lr)
        return {scale: expand_home(path) for scale, path in lr.items()}

    @property
    def parts(self) -> dict[str, "FolderSpec | PairsSpec"]:
        """The folders, by their place in a recipe."""
        return {"data": self}

    @property
    def has_degraded_lr(self) -> bool:
        """Whether LR can differ from bicubic LR: it is read from files."""
        return True

    def build(self, *, scale: int, crop_px: int) -> PairedDataset:
        """List both folders, match the files, check the headers and return the dataset.

        Raises:
            InputError: a folder is missing or empty, an image has no partner, or an image or a mask is unusable.
        """
        return self._build(scale, crop_px, crop_px)

    def _build(self, scale: int, crop_px: int, largest_px: int) -> PairedDataset:
        hr_paths = _list_hr(self.hr, self.small, largest_px, self._choose_cache())
        return PairedDataset(
            hr_paths,
            self._pair(hr_paths, scale),
            scale=scale,
            crop_px=crop_px,
            channels=self.channels,
            cache=self._choose_cache(),
            mask_paths=None if self.masks is None else find_masks(self.masks, self.hr, hr_paths),
            small=self.small,
        )

    def build_each(self, crops_px: Mapping[int, int]) -> Sequence[Dataset]:
        """Return the datasets by a mapping from scale to the side of the HR crop; errors as for `build`."""
        (scale, crop_px), *more_scales = crops_px.items()
        first = self._build(scale, crop_px, max(crops_px.values()))
        return [first] + [
            first.with_lr(self._pair(first.paths, scale), scale, crop_px, self._choose_cache())
            for scale, crop_px in more_scales
        ]

    def lr_folder(self, scale: int) -> Path:
        """Return the folder of LR images of a scale.

        Raises:
            InputError: there is none for this scale.
        """
        folder = select_path(self.lr, scale)
        if folder is None:
            assert isinstance(self.lr, dict)
            raise InputError(f"data.lr: expected a folder for scale {scale}, got only {sorted(self.lr)}; add it.")
        return folder

    def _pair(self, hr_paths: Sequence[Path], scale: int) -> list[Path]:
        return pair_lr(self.hr, hr_paths, self.lr_folder(scale), scale)


def _list_hr(folder: Path, small: SmallImages, crop_px: int, cache: Cache) -> list[Path]:
    paths = list_images(folder)
    return skip_small(paths, crop_px, folder, cache) if small == "skip" else paths


OneSource = Annotated[FolderSpec | PairsSpec, Field(discriminator="kind")]
