"""The crops of each step, read and sampled in the loader processes."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from selfsr.data.augment import AugmentSpec, Mix, sample_mix
from selfsr.data.crop import TrainingCrop
from selfsr.data.datasets import Dataset
from selfsr.data.device_degrade import BatchDegradation
from selfsr.data.sources import SampleOrder
from selfsr.errors import InputError


@dataclass(frozen=True)
class RawPart:
    """The crops of one source in a step, in the small types of the files.

    Attributes:
        source: number of the source.
        places: places of the crops in the batch of this process; partners of mixes follow the samples.
        hr: `[n, crop + 2 halo, crop + 2 halo, 3]`, uint8, or the bits of uint16 in int16, which all devices support;
            with `cache: device` int64 `[n, 2, side]`, the places of its pixels.
        lr: `[n, crop / scale, crop / scale, 3]` of the same types, or float32 in [0, 1], or places, or None.
        mask: edges, uint8 `[n, crop, crop, 1]` of 0 and 1, or None.
        degradation: the degradation of `hr`, which then has windows around the crops, or None.
    """

    source: int
    places: tuple[int, ...]
    hr: Tensor
    lr: Tensor | None
    mask: Tensor | None
    degradation: BatchDegradation | None


@dataclass(frozen=True)
class RawBatch:
    """The crops of one step of this process.

    Attributes:
        step: number of the step, from 0.
        scale_index: number of the scale.
        parts: the crops by source.
        mixes: the mixes of samples.
        paths: the HR file of each crop, by its place.
        unreadable: files that could not be read, with the reason; other images replace them.
    """

    step: int
    scale_index: int
    parts: tuple[RawPart, ...]
    mixes: tuple[Mix, ...]
    paths: tuple[Path, ...]
    unreadable: dict[Path, str]


class StepDataset(TorchDataset):
    """The samples of this process by step: item s has those of step s."""

    def __init__(
        self,
        sources: Sequence[Sequence[Dataset]],
        shares: Sequence[float],
        batch: int,
        seed: int,
        slots: range,
        augment: AugmentSpec | None,
    ) -> None:
        self._sources = sources
        self._batch = batch
        self._seed = seed
        self.slots = slots
        self._augment = augment
        self._order = SampleOrder([len(dataset) for dataset in sources[0]], shares, seed)
        self._unreadable: dict[tuple[int, int, int], str] = {}

    def __getitem__(self, step: int) -> RawBatch | str:
        """Return the crops of a step, or an error message, since exceptions lose their type between processes."""
        scale_index = 0
        if len(self._sources) > 1:
            scale_index = int(np.random.default_rng((self._seed, 2, step)).integers(len(self._sources)))
        unreadable: dict[Path, str] = {}
        samples: list[_Sample] = []
        mixes = self._sample_mixes(step, self._sources[scale_index][0]) if self._augment else []
        try:
            for slot in self.slots:
                source, first = self._order.locate(step * self._batch + slot)
                rng = np.random.default_rng((self._seed, 0, step, slot))
                samples.append(self._sample(scale_index, source, first, rng, unreadable))
            for mix in mixes:
                if mix.partner is not None:
                    rng = np.random.default_rng((self._seed, 4, step, self.slots[mix.place]))
                    source, first = self._order.draw(rng)
                    samples.append(self._sample(scale_index, source, first, rng, unreadable))
        except InputError as error:
            return str(error)
        paths = tuple(sample.path for sample in samples)
        return RawBatch(step, scale_index, tuple(_collect_parts(samples)), tuple(mixes), paths, unreadable)

    def _sample_mixes(self, step: int, dataset: Dataset) -> list[Mix]:
        """Return the mixes of a step; their partners have the places after all samples, in the order of the mixes."""
        assert self._augment is not None
        mixes, next_place, lr_px = [], len(self.slots), dataset.crop_px // dataset.scale
        for place, slot in enumerate(self.slots):
            mix = sample_mix(self._augment, place, lr_px, np.random.default_rng((self._seed, 3, step, slot)))
            if mix is None:
                continue
            if mix.kind != "cutblur":
                mix, next_place = replace(mix, partner=next_place), next_place + 1
            mixes.append(mix)
        return mixes

    def _sample(
        self, scale_index: int, source: int, first: int, rng: np.random.Generator, unreadable: dict[Path, str]
    ) -> "_Sample":
        """Return a crop of image `first` of a source, or of the next one that can be read."""
        dataset = self._sources[scale_index][source]
        count = len(dataset)
        state = rng.bit_generator.state
        for index in itertools.chain(range(first, count), range(first)):
            key = scale_index, source, index
            if key not in self._unreadable:
                try:
                    rng.bit_generator.state = state
                    return _Sample(source, dataset.paths[index], dataset.sample(index, rng))
                except (InputError, OSError) as error:
                    self._unreadable[key] = str(error)
            unreadable[dataset.paths[index]] = self._unreadable[key]
        raise InputError(
            f"data.hr: expected readable images, got none of {count}; "
            f"the first: {self._unreadable[scale_index, source, first]}"
        )


@dataclass(frozen=True)
class _Sample:
    """A crop, its source and its HR file."""

    source: int
    path: Path
    crop: TrainingCrop


def _collect_parts(samples: Sequence[_Sample]) -> Iterator[RawPart]:
    """Yield the crops of each source, together with their places."""
    for source in sorted({sample.source for sample in samples}):
        places = tuple(place for place, sample in enumerate(samples) if sample.source == source)
        crops = [samples[place].crop for place in places]
        lrs = [crop.lr for crop in crops if crop.lr is not None]
        masks = [crop.mask for crop in crops if crop.mask is not None]
        degradations = [crop.degradation for crop in crops if crop.degradation is not None]
        yield RawPart(
            source=source,
            places=places,
            hr=_stack([crop.hr for crop in crops]),
            lr=_stack(lrs) if lrs else None,
            mask=_stack(masks) if masks else None,
            degradation=BatchDegradation.from_samples(degradations, crops[0].hr.shape[1]) if degradations else None,
        )


def _stack(windows: list[np.ndarray]) -> Tensor:
    """Copy views `[H, W, C]` into one tensor `[n, H, W, C]`; a mixture of 8 and 16 bits becomes 16 bits.

    Places `[2, side]` become `[n, 2, side]`.
    """
    deepest = max((window.dtype for window in windows), key=lambda dtype: dtype.itemsize)
    out = np.empty((len(windows), *windows[0].shape), deepest)
    # A pixel as one opaque item: transposed views are copied 2.5 times faster than value by value.
    pixel = np.dtype((np.void, out.shape[-1] * deepest.itemsize))
    for target, window in zip(out, windows, strict=True):
        if window.dtype != deepest:
            window = window.astype(deepest) * 257
        target.view(pixel)[...] = window.view(pixel)
    return torch.from_numpy(out.view(np.int16) if deepest == np.uint16 else out)
