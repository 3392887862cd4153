"""Folders of pictures as training data."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Protocol, Self

import numpy as np
from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from selfsr._checks import InputError
from selfsr.data.crops import Crop, check_scale, check_sizes, draw_crop, turned, window_of
from selfsr.data.degrade import Degradation
from selfsr.data.degraded import DegradedData
from selfsr.data.mask_files import MaskStore, find_masks, mask_crop
from selfsr.data.pairs import mismatch, pair_up
from selfsr.data.pictures import list_pictures
from selfsr.data.resize import HALO_LR_PX
from selfsr.data.store import Cache, PictureStore
from selfsr.spec import Spec

_MASKS = "folder of the pictures' edge masks, .mat or .png of the same name; null makes them in the step"


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


class FolderData:
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

    degrades = False

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
        self.channels: Literal[1, 3] = channels
        self.lr_bits = lr_bits
        self._hr = PictureStore("data.hr", paths, cache)
        self._crop(scale, crop_px)
        self._masks = None if mask_paths is None else MaskStore(mask_paths, self._hr, cache)

    def at(self, scale: int, crop_px: int) -> Self:
        """Return the same pictures, decoded once for both, at another scale.

        Raises:
            InputError: a picture is smaller than the crop.
        """
        other = copy.copy(self)
        other._crop(scale, crop_px)
        return other

    def _crop(self, scale: int, crop_px: int) -> None:
        assert crop_px % scale == 0, (crop_px, scale)
        check_scale(scale)
        self.scale, self.crop_px, self.halo_px = scale, crop_px, HALO_LR_PX * scale
        check_sizes(self._hr, scale, crop_px)

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


class PairData:
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

    degrades = False
    halo_px = 0
    lr_bits = None

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
        self.channels: Literal[1, 3] = channels
        self._hr = PictureStore("data.hr", hr_paths, cache)
        self._pair(lr_paths, scale, crop_px, cache)
        self._masks = None if mask_paths is None else MaskStore(mask_paths, self._hr, cache)

    def at(self, lr_paths: Sequence[Path], scale: int, crop_px: int, cache: Cache) -> Self:
        """Return the same HR pictures, decoded once for both, with LR pictures of another scale.

        Raises:
            InputError: as for the class.
        """
        other = copy.copy(self)
        other._pair(lr_paths, scale, crop_px, cache)
        return other

    def _pair(self, lr_paths: Sequence[Path], scale: int, crop_px: int, cache: Cache) -> None:
        assert len(self._hr) == len(lr_paths), (len(self._hr), len(lr_paths))
        assert crop_px % scale == 0, (crop_px, scale)
        self.scale, self.crop_px = scale, crop_px
        self._lr = PictureStore("data.lr", lr_paths, cache)
        for hr, lr, hr_path, lr_path in zip(self._hr.headers, self._lr.headers, self._hr.paths, lr_paths, strict=True):
            problem = mismatch((hr.height, hr.width), (lr.height, lr.width), scale)
            if problem:
                raise InputError(f"{lr_path}: {problem}; make it again from {hr_path} or leave the pair out.")
        check_sizes(self._hr, scale, crop_px)

    @property
    def paths(self) -> list[Path]:
        """The HR files."""
        return self._hr.paths

    @property
    def cached(self) -> bool:
        """Whether decoded pictures stay in memory."""
        return self._hr.cached and self._lr.cached and (self._masks is None or self._masks.cached)

    def __len__(self) -> int:
        return len(self._hr)

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


def _kind_of_path(value: object) -> str:
    return "several" if isinstance(value, dict) else "one"


# One folder, or one for each scale.
PathByScale = Annotated[
    Annotated[Path, Tag("one")] | Annotated[dict[int, Path], Tag("several")], Discriminator(_kind_of_path)
]


def by_scale(paths: Path | dict[int, Path] | None, scale: int) -> Path | None:
    """Return the folder of a scale: the only one there is, or that of the scale; None where there is none."""
    return paths.get(scale) if isinstance(paths, dict) else paths


class FolderSpec(Spec):
    """A folder of HR pictures; LR is made of them by bicubic, or by a degradation."""

    kind: Literal["folder"]
    hr: Path = Field(description="folder of HR pictures, searched with its subfolders")
    channels: Literal[1, 3] = Field(
        3, description="3 repeats grey pictures to RGB, 1 trains on luma: LR is made and rounded in RGB, as published"
    )
    cache: Cache = Field(
        "auto",
        description="memory keeps decoded pictures, off does not, auto does if they fit in a quarter of free memory",
    )
    lr_bits: Literal[8, 16] | None = Field(
        8, description="depth that LR is rounded to, as a file would be; null leaves it unrounded"
    )
    degrade: Degradation | None = Field(
        None, description="what makes LR: a preset's name, or its kind, preset and changes; null is bicubic"
    )
    degrade_on: Literal["loader", "device"] = Field(
        "loader",
        description="where that is done: by the processes that load, sample by sample, or on the device that trains, "
        "for all samples of a step together",
    )
    masks: Path | None = Field(None, description=_MASKS)

    @field_validator("hr", "masks")
    @classmethod
    def _home(cls, path: Path | None) -> Path | None:
        return None if path is None else path.expanduser()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.degrade_on == "device" and self.degrade is None:
            raise ValueError("degrade_on: device needs degrade; bicubic LR is made on the device without it")
        return self

    def build(self, *, scale: int, crop_px: int) -> FolderData | DegradedData:
        """List the folder and check the headers.

        Raises:
            InputError: the folder is missing or empty, a picture or a mask cannot be used, or the degradation shrinks
                crops to nothing.
        """
        paths = list_pictures(self.hr)
        mask_paths = None if self.masks is None else find_masks(self.masks, self.hr, paths)
        if self.degrade is not None:
            return DegradedData(
                paths,
                scale=scale,
                crop_px=crop_px,
                degradation=self.degrade,
                channels=self.channels,
                cache=self.cache,
                lr_bits=self.lr_bits,
                mask_paths=mask_paths,
                on_device=self.degrade_on == "device",
            )
        return FolderData(
            paths,
            scale=scale,
            crop_px=crop_px,
            channels=self.channels,
            cache=self.cache,
            lr_bits=self.lr_bits,
            mask_paths=mask_paths,
        )

    def build_each(self, crops_px: Mapping[int, int]) -> Sequence[Dataset]:
        """Return the data at each scale, the key, with the HR crop that is the value; errors as for `build`."""
        (scale, crop_px), *others = crops_px.items()
        first = self.build(scale=scale, crop_px=crop_px)
        return [first, *(first.at(scale, crop_px) for scale, crop_px in others)]

    def lr_folder(self, scale: int) -> None:  # noqa: ARG002 - kinds of data share one signature
        """Return None: LR is made."""
        return None


class PairsSpec(Spec):
    """A folder of HR and a folder of LR pictures, matched by name (`0001.png` with `0001.png` or `0001x4.png`)."""

    kind: Literal["pairs"]
    hr: Path = Field(description="folder of HR pictures, searched with its subfolders")
    lr: PathByScale = Field(
        description="folder of LR pictures, searched with its subfolders; for several scales one for each, {2: ..., "
        "4: ...}"
    )
    channels: Literal[1, 3] = Field(3, description="3 repeats grey pictures to RGB, 1 trains on luma, unrounded")
    cache: Cache = Field(
        "auto",
        description="memory keeps decoded pictures, off does not, auto does if they fit in a quarter of free memory",
    )
    masks: Path | None = Field(None, description=_MASKS)

    @field_validator("hr", "masks")
    @classmethod
    def _home(cls, path: Path | None) -> Path | None:
        return None if path is None else path.expanduser()

    @field_validator("lr")
    @classmethod
    def _homes(cls, lr: Path | dict[int, Path]) -> Path | dict[int, Path]:
        if isinstance(lr, Path):
            return lr.expanduser()
        return {scale: path.expanduser() for scale, path in lr.items()}

    def build(self, *, scale: int, crop_px: int) -> PairData:
        """List both folders, match the files and check the headers.

        Raises:
            InputError: a folder is missing or empty, a partner is missing, or a picture or a mask cannot be used.
        """
        hr_paths = list_pictures(self.hr)
        lr_paths = self._partners(hr_paths, scale)
        return PairData(
            hr_paths,
            lr_paths,
            scale=scale,
            crop_px=crop_px,
            channels=self.channels,
            cache=self.cache,
            mask_paths=None if self.masks is None else find_masks(self.masks, self.hr, hr_paths),
        )

    def build_each(self, crops_px: Mapping[int, int]) -> Sequence[Dataset]:
        """Return the data at each scale, the key, with the HR crop that is the value; errors as for `build`."""
        (scale, crop_px), *others = crops_px.items()
        first = self.build(scale=scale, crop_px=crop_px)
        return [first] + [
            first.at(self._partners(first.paths, scale), scale, crop_px, self.cache) for scale, crop_px in others
        ]

    def lr_folder(self, scale: int) -> Path:
        """Return the folder of LR pictures of a scale.

        Raises:
            InputError: there is none for this scale.
        """
        folder = by_scale(self.lr, scale)
        if folder is None:
            assert isinstance(self.lr, dict)
            raise InputError(f"data.lr: expected a folder for x{scale}, got some for {sorted(self.lr)}; add it.")
        return folder

    def _partners(self, hr_paths: Sequence[Path], scale: int) -> list[Path]:
        folder = self.lr_folder(scale)
        return pair_up(self.hr, hr_paths, folder, list_pictures(folder), scale)


Data = Annotated[FolderSpec | PairsSpec, Field(discriminator="kind")]
