"""Several sources of training images with shares, and the order in which samples take their images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from selfsr.data.datasets import Dataset
from selfsr.data.store import ImageStore

# Samples after which the shares of the sources are exact; so a share is a multiple of 1 / 1000.
BLOCK = 1000


class MixedDataset:
    """Several datasets of one scale, each with a share of the samples.

    Args:
        sources: the datasets by their names; their crops and channels are the same.
        shares: the share of each, above 0, in any unit.
    """

    def __init__(self, sources: dict[str, Dataset], shares: Sequence[float]) -> None:
        assert min(shares) > 0, shares
        self.sources: dict[str, Dataset] = sources
        self.shares: tuple[float, ...] = tuple(shares)
        first = next(iter(sources.values()))
        self.scale: int = first.scale
        self.crop_px: int = first.crop_px

    @property
    def stores(self) -> dict[str, ImageStore]:
        """The images of all sources, by the keys of the recipe below `data.sources`."""
        return {
            f"sources.{name}.{key}": store
            for name, dataset in self.sources.items()
            for key, store in dataset.stores.items()
        }

    def files(self) -> dict[str, list[Path]]:
        """Return all files, by the keys of the recipe below `data.sources`."""
        return {
            f"sources.{name}.{key}": paths
            for name, dataset in self.sources.items()
            for key, paths in dataset.files().items()
        }


def count_quotas(shares: Sequence[float]) -> np.ndarray:
    """Return the number of samples of each source in a block, which sum to `BLOCK`; at least 1 each.

    >>> count_quotas([2, 1]).tolist()
    [667, 333]
    """
    exact = np.asarray(shares, float) / sum(shares) * BLOCK
    quotas = np.maximum(1, np.floor(exact).astype(int))
    while quotas.sum() < BLOCK:
        quotas[np.argmax(exact - quotas)] += 1
    while quotas.sum() > BLOCK:  # by sources that were raised to 1
        quotas[np.argmax(quotas)] -= 1
    return quotas


class SampleOrder:
    """The image of each sample of a run, determined by the seed and the number of the sample.

    Samples come in blocks, in which each source has its share, in a random order. The images of a source come in
    epochs, each with its own permutation.

    Args:
        counts: number of images of each source.
        shares: share of each source.
        seed: the seed of the run.
    """

    def __init__(self, counts: Sequence[int], shares: Sequence[float], seed: int) -> None:
        self._counts, self._seed = list(counts), seed
        self._quotas = count_quotas(shares)
        self._orders: dict[tuple[int, int], np.ndarray] = {}
        self._blocks: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def locate(self, number: int) -> tuple[int, int]:
        """Return the source and the image of a sample, which is counted from 0 over all steps."""
        source, position = 0, number
        if len(self._counts) > 1:
            block, offset = divmod(number, BLOCK)
            sources, ranks = self._block(block)
            source = int(sources[offset])
            position = int(block * self._quotas[source] + ranks[offset])
        epoch, index = divmod(position, self._counts[source])
        return source, int(self._shuffle(source, epoch)[index])

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """Return a random source by its share, and one of its images."""
        source = int(np.searchsorted(np.cumsum(self._quotas), rng.integers(BLOCK), side="right"))
        return source, int(rng.integers(self._counts[source]))

    def _block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the sources of a block, and for each sample the number of earlier ones of its source."""
        if block not in self._blocks:
            if len(self._blocks) > 1:
                self._blocks.clear()
            repeated = np.repeat(np.arange(len(self._quotas)), self._quotas)
            sources = np.random.default_rng((self._seed, 5, block)).permutation(repeated)
            ranks = np.zeros(BLOCK, int)
            for source, quota in enumerate(self._quotas):
                ranks[sources == source] = np.arange(quota)
            self._blocks[block] = sources, ranks
        return self._blocks[block]

    def _shuffle(self, source: int, epoch: int) -> np.ndarray:
        key = source, epoch
        if key not in self._orders:
            # A step has two epochs of a source at most, unless the source is smaller than the batch.
            for old in [other for other in self._orders if other[0] == source][:-1]:
                del self._orders[old]
            entropy = (self._seed, 1, epoch, source) if source else (self._seed, 1, epoch)
            self._orders[key] = np.random.default_rng(entropy).permutation(self._counts[source])
        return self._orders[key]
