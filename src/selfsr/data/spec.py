"""Folders of pictures as a recipe names them: what is looked for, and the data that they become."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from selfsr.data.datasets import Dataset, FolderData, PairData
from selfsr.data.degraded import DegradedData
from selfsr.data.masks import find_masks
from selfsr.data.pairs import pair_up
from selfsr.data.store import Cache
from selfsr.degrade.presets import Degradation
from selfsr.errors import InputError
from selfsr.images.paths import list_pictures
from selfsr.spec import PathByScale, Spec, by_scale

_MASKS = "folder of the pictures' edge masks, .mat or .png of the same name; null makes them in the step"


class FolderSpec(Spec):
    """A folder of HR pictures; LR is made of them by bicubic, or by a degradation."""

    kind: Literal["folder"]
    hr: Path = Field(description="folder of HR pictures, searched with its subfolders")
    channels: Literal[1, 3] = Field(
        3, description="3 repeats gray pictures to RGB, 1 trains on luma: LR is made and rounded in RGB, as published"
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
    channels: Literal[1, 3] = Field(3, description="3 repeats gray pictures to RGB, 1 trains on luma, unrounded")
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
            first.with_lr(self._partners(first.paths, scale), scale, crop_px, self.cache) for scale, crop_px in others
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
