"""Noise: Gaussian (in color, gray or correlated between the channels) and Poisson."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import cv2
import numpy as np

from selfsr.degrade.jpeg import to_uint8
from selfsr.masks import LUMA_MATLAB

# The first bits of a random number select a bucket of the quantile table; with 10 bits the table fits a core's cache.
_BUCKET_BITS = 10


@dataclass(frozen=True)
class GaussianNoise:
    """Independent normal noise, then clipping.

    Attributes:
        sigma: standard deviation, on the scale of 0 to 255.
        gray: whether the three channels of a pixel have the same noise.
    """

    name: ClassVar[str] = "gaussian_noise"
    sigma: float
    gray: bool

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the noisy image."""
        height, width, channels = image.shape
        noise = rng.standard_normal((height, width, 1 if self.gray else channels), dtype=np.float32)
        return np.clip(image + noise * np.float32(self.sigma / 255), 0, 1)


@dataclass(frozen=True)
class CorrelatedNoise:
    """Normal noise whose channels are correlated, then clipping.

    Attributes:
        covariance: of the three channels, on the scale of 0 to 255; symmetric and positive semidefinite.
    """

    name: ClassVar[str] = "correlated_noise"
    covariance: tuple[tuple[float, float, float], ...]

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the noisy image."""
        noise = rng.standard_normal(image.shape, dtype=np.float32)
        return np.clip(image + cv2.transform(noise, self.mixing_matrix()), 0, 1)

    def mixing_matrix(self) -> np.ndarray:
        """Return the matrix that turns independent normal numbers into the noise: float32 `[3, 3]`, scale of 0 to 1."""
        values, vectors = np.linalg.eigh(np.array(self.covariance))
        return ((vectors * np.sqrt(np.maximum(values, 0))) / 255).astype(np.float32)


@dataclass(frozen=True)
class PoissonNoise:
    """Shot noise, then clipping: `image + scale * (Poisson(v x) / v - x)`, x the image rounded to 8 bits.

    `v` is the number of distinct levels in x, rounded up to a power of two, as in the published code. The variance is
    `scale^2 x / v`: it grows with the signal.

    Attributes:
        scale: factor of the noise.
        gray: whether all three channels have the noise of the luma.
    """

    name: ClassVar[str] = "poisson_noise"
    scale: float
    gray: bool

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the noisy image."""
        x = to_uint8(cv2.transform(image, np.array([LUMA_MATLAB], np.float32))[..., None] if self.gray else image)
        distinct = int(np.count_nonzero(np.bincount(x.ravel(), minlength=256)))
        peak = 2 ** math.ceil(math.log2(distinct))
        noise = sample_poisson(x, peak, rng) / np.float32(peak) - x / np.float32(255)
        return np.clip(image + np.float32(self.scale) * noise, 0, 1)


def sample_poisson(x: np.ndarray, peak: int, rng: np.random.Generator) -> np.ndarray:
    """Sample Poisson counts with the means `peak * x / 255`.

    By inversion: there are only 256 means. A table of their quantiles turns a random number into a count with one
    look-up and, where the distribution function has a step inside the bucket, a short search. This is exact to the 32
    bits of the random number, and several times faster than a sampler for arbitrary means.

    Args:
        x: uint8 levels of any shape.
        peak: mean count of white.
        rng: random number generator.

    Returns:
        Counts, float32, in the shape of `x`.
    """
    start, thresholds = _compute_quantiles(peak)
    mean = x.ravel()
    u = np.minimum(rng.integers(0, 2**32, mean.size, dtype=np.uint32), 2**32 - 2)  # below the last threshold
    cell = mean.astype(np.int32) << _BUCKET_BITS
    cell |= (u >> np.uint32(32 - _BUCKET_BITS)).astype(np.int32)
    entry = start[cell]
    count = entry >> 1
    (open_,) = np.nonzero(entry & 1)  # a threshold lies inside the bucket: compare
    row = mean[open_].astype(np.int64) * thresholds.shape[1]
    flat = thresholds.ravel()
    while open_.size:
        above = u[open_] >= flat[row + count[open_]]
        open_, row = open_[above], row[above]
        count[open_] += 1
    return count.reshape(x.shape).astype(np.float32)


@lru_cache(maxsize=9)
def _compute_quantiles(peak: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the quantile tables of the 256 Poisson distributions with means `peak * level / 255`.

    Returns:
        start: for each level and bucket of u, `[256 * buckets]`: twice the smallest possible count, plus 1 if other
            counts are possible.
        thresholds: uint32 `[256, counts]`; the count is k if u is below threshold k and not below threshold k - 1.
    """
    most = int(peak + 12 * math.sqrt(peak) + 24)  # the probability of larger counts is below 2^-32
    mean = np.maximum(peak * np.arange(256) / 255, 1e-30)[:, None]
    k = np.arange(most)
    log_factorial = np.cumsum(np.log(np.maximum(k, 1)))
    cdf = np.cumsum(np.exp(k * np.log(mean) - mean - log_factorial), axis=1)
    thresholds = np.minimum(np.rint(cdf * 2**32), 2**32 - 1).astype(np.uint32)
    thresholds[:, -1] = 2**32 - 1
    buckets = 2**_BUCKET_BITS
    first = np.arange(buckets, dtype=np.uint64) << np.uint64(32 - _BUCKET_BITS)
    last = first + np.uint64(2 ** (32 - _BUCKET_BITS) - 1)
    start = np.empty((256, buckets), np.int16)
    for level in range(256):
        low = np.searchsorted(thresholds[level], first.astype(np.uint32), side="right")
        high = np.searchsorted(thresholds[level], last.astype(np.uint32), side="right")
        start[level] = 2 * np.minimum(low, most - 1) + (high > low)
    return start.ravel(), thresholds
