"""Folders of pictures as training data: which crop is taken, and how it is turned."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol, Self

import numpy as np
from pydantic import Discriminator, Field, Tag, field_validator

from selfsr._checks import InputError
from selfsr.data.pairs import mismatch, pair_up
from selfsr.data.pictures import list_pictures
from selfsr.data.resize import HALO_LR_PX, mirrored
from selfsr.data.store import Cache, PictureStore
from selfsr.spec import Spec


@dataclass(frozen=True)
class Crop:
    """One training sample as it leaves the files; views, not to be written to.

    Attributes:
        hr: `[crop + 2 halo, crop + 2 halo, 3]`, uint8 or uint16, grey repeated to RGB.
        lr: `[crop / scale, crop / scale, 3]`, or None where LR is made from `hr` on the device.
    """

    hr: np.ndarray
    lr: np.ndarray | None = None


class Dataset(Protocol):
    """What a loader draws from: pictures at one scale. A run of several scales has one for each.

    Attributes:
        scale: how many times larger HR is than LR.
        crop_px: side of the HR crop.
        channels: what the network is given of the RGB crops: 3 for all of it, 1 for luma.
        halo_px: surroundings of the crop that `Crop.hr` brings along on each side, for making LR.
        lr_bits: depth that LR made on the device is rounded to; None leaves it unrounded.
    """

    scale: int
    crop_px: int
    channels: Literal[1, 3]
    halo_px: int

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

    Raises:
        InputError: a file is no picture or smaller than the crop, or the cache does not fit.
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
    ) -> None:
        self.channels: Literal[1, 3] = channels
        self.lr_bits = lr_bits
        self._hr = PictureStore("data.hr", paths, cache)
        self._crop(scale, crop_px)

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
        if scale < 2:
            raise InputError(f"data: scale {scale} needs kind: pairs; from HR alone there is nothing to learn.")
        self.scale, self.crop_px, self.halo_px = scale, crop_px, HALO_LR_PX * scale
        check_sizes(self._hr, scale, crop_px)

    @property
    def paths(self) -> list[Path]:
        """The HR files."""
        return self._hr.paths

    @property
    def cached(self) -> bool:
        """Whether decoded pictures stay in memory."""
        return self._hr.cached

    def __len__(self) -> int:
        return len(self._hr)

    def sample(self, index: int, rng: np.random.Generator) -> Crop:
        """Return a random crop of picture `index` with its surroundings."""
        pixels = self._hr.read(index)
        top, left, turn = _draw(rng, pixels.shape, self.scale, self.crop_px)
        height, width = (side - side % self.scale for side in pixels.shape[:2])
        side = self.crop_px + 2 * self.halo_px
        rows, columns = top - self.halo_px, left - self.halo_px
        return Crop(turned(_window(pixels[:height, :width], rows, columns, side), turn))


class PairData:
    """Random aligned crops from a folder of HR and a folder of LR pictures.

    Args:
        hr_paths: the HR files.
        lr_paths: the LR files in the same order.
        scale: how many times larger HR is than LR.
        crop_px: side of the HR crop, a multiple of `scale`.
        channels: 3, or 1 for luma.
        cache: see `PictureStore`.

    Raises:
        InputError: a file is no picture or smaller than the crop, a pair does not fit, the cache does not fit.
    """

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
    ) -> None:
        self.channels: Literal[1, 3] = channels
        self._hr = PictureStore("data.hr", hr_paths, cache)
        self._pair(lr_paths, scale, crop_px, cache)

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
        return self._hr.cached and self._lr.cached

    def __len__(self) -> int:
        return len(self._hr)

    def sample(self, index: int, rng: np.random.Generator) -> Crop:
        """Return a random crop of pair `index`, both turned alike."""
        hr, lr = self._hr.read(index), self._lr.read(index)
        top, left, turn = _draw(rng, hr.shape, self.scale, self.crop_px)
        small = _window(lr, top // self.scale, left // self.scale, self.crop_px // self.scale)
        return Crop(turned(_window(hr, top, left, self.crop_px), turn), turned(small, turn))


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
    """A folder of HR pictures; LR is made of them by bicubic."""

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

    @field_validator("hr")
    @classmethod
    def _home(cls, path: Path) -> Path:
        return path.expanduser()

    def build(self, *, scale: int, crop_px: int) -> FolderData:
        """List the folder and check the headers.

        Raises:
            InputError: the folder is missing or empty, or a picture cannot be used.
        """
        return FolderData(
            list_pictures(self.hr),
            scale=scale,
            crop_px=crop_px,
            channels=self.channels,
            cache=self.cache,
            lr_bits=self.lr_bits,
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

    @field_validator("hr")
    @classmethod
    def _home(cls, path: Path) -> Path:
        return path.expanduser()

    @field_validator("lr")
    @classmethod
    def _homes(cls, lr: Path | dict[int, Path]) -> Path | dict[int, Path]:
        if isinstance(lr, Path):
            return lr.expanduser()
        return {scale: path.expanduser() for scale, path in lr.items()}

    def build(self, *, scale: int, crop_px: int) -> PairData:
        """List both folders, match the files and check the headers.

        Raises:
            InputError: a folder is missing or empty, a partner is missing, or a picture cannot be used.
        """
        hr_paths = list_pictures(self.hr)
        lr_paths = self._partners(hr_paths, scale)
        return PairData(hr_paths, lr_paths, scale=scale, crop_px=crop_px, channels=self.channels, cache=self.cache)

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


def check_sizes(hr: PictureStore, scale: int, crop_px: int) -> None:
    """Refuse pictures that are smaller than the crop, by the largest crop that all would allow."""
    small = [i for i, header in enumerate(hr.headers) if min(header.height, header.width) < crop_px]
    if not small:
        return
    first, header = hr.paths[small[0]], hr.headers[small[0]]
    fits = min(min(h.height, h.width) for h in hr.headers) // scale * scale
    lower = f" or set crop_px to at most {fits}" if fits else ""
    raise InputError(
        f"data.hr: expected pictures of at least {crop_px} x {crop_px} pixels, the size of the crop, but "
        f"{len(small)} of {len(hr)} are smaller, the first is {first} with {header.height} x {header.width} "
        f"(height x width); leave them out{lower}."
    )


def _draw(rng: np.random.Generator, shape: tuple[int, ...], scale: int, crop_px: int) -> tuple[int, int, int]:
    """Return (top, left, turn): a corner on the LR grid, and one of the eight symmetries of the square."""
    rows, columns = ((side // scale - crop_px // scale) + 1 for side in shape[:2])
    return int(rng.integers(rows)) * scale, int(rng.integers(columns)) * scale, int(rng.integers(8))


def _window(pixels: np.ndarray, top: int, left: int, side: int) -> np.ndarray:
    """Return `side` rows and columns from (top, left) on, mirrored where they leave the picture."""
    height, width = pixels.shape[:2]
    if top >= 0 and left >= 0 and top + side <= height and left + side <= width:
        return pixels[top : top + side, left : left + side]
    rows = mirrored(np.arange(top, top + side), height)
    columns = mirrored(np.arange(left, left + side), width)
    return pixels[rows][:, columns]


def turned(window: np.ndarray, turn: int) -> np.ndarray:
    """Apply symmetry `turn`: bit 0 flips columns, bit 1 flips rows, then bit 2 swaps them."""
    if turn & 1:
        window = window[:, ::-1]
    if turn & 2:
        window = window[::-1]
    return window.swapaxes(0, 1) if turn & 4 else window
