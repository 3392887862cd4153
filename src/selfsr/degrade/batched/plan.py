"""Merge the plans of a batch into rounds: each applies one kind of step to the samples whose next step it is.

Samples differ in the order of their steps (BSRGAN shuffles them, stages are left out), so in each round some samples
wait. The order of the rounds is a common supersequence of the plans; the shortest one is hard to find. Each round takes
the kind whose samples have the most steps left in total (the "weighted majority merge" of Branke, Middendorf and
Schneider, "Improved heuristics and a genetic algorithm for finding short supersequences", OR Spektrum 20, 1998).

In a round, each image costs as much as the largest one. So much smaller images get a round of their own, if that saves
more than the additional operations cost.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from selfsr.degrade.batched.blur import BatchedBlur
from selfsr.degrade.batched.jpeg import BatchedJpeg
from selfsr.degrade.batched.noise import BatchedNoise
from selfsr.degrade.batched.padding import Size, compute_bounding_size, to_device_of
from selfsr.degrade.batched.resample import BatchedResample
from selfsr.degrade.blur import Blur
from selfsr.degrade.jpeg import Jpeg
from selfsr.degrade.noise import CorrelatedNoise, GaussianNoise, PoissonNoise
from selfsr.degrade.plan import DegradationPlan
from selfsr.degrade.resample import Resize, Subsample
from selfsr.errors import InputError


class BatchedStep(Protocol):
    """A step of several images, each with its own parameters, which stay in host memory until the step is applied."""

    def output_sizes(self) -> np.ndarray:
        """Return the sizes of the images after this step, int64 `[n, 2]`."""
        ...

    def __call__(self, image: Tensor, noise: Sequence[torch.Generator]) -> Tensor:
        """Return the images after the step.

        Args:
            image: float32 `[n, 3, H, W]`, as large as the largest image; each is in the upper left, and its padding is
                undefined.
            noise: random number generator of each image's noise; unused by steps without noise.
        """
        ...


_BATCHED_STEPS = {
    Blur: BatchedBlur,
    Resize: BatchedResample,
    Subsample: BatchedResample,
    GaussianNoise: BatchedNoise,
    CorrelatedNoise: BatchedNoise,
    PoissonNoise: BatchedNoise,
    Jpeg: BatchedJpeg,
}


# A round is divided in two if that saves at least this share of its pixels, and this many pixels: otherwise, the
# operations of an additional round cost more.
_SAVED_SHARE = 0.25
_SAVED_PX = 2**18


@dataclass(frozen=True)
class Round:
    """One kind of step, applied to some of the samples.

    Attributes:
        samples: their indices, int64 `[n]`, ascending.
        step: their merged steps.
        input_size: height and width that contain their images before the step.
        output_size: height and width that contain the images of all samples after it.
    """

    samples: np.ndarray
    step: BatchedStep
    input_size: Size
    output_size: Size


@dataclass(frozen=True)
class BatchedPlan:
    """The merged plans of a batch; all sizes are known in advance, so that the host never waits for the device.

    Attributes:
        rounds: the steps, in order.
        seeds: seed of each sample's noise.
        sizes: height and width of each sample's result, int64 `[N, 2]`.
    """

    rounds: tuple[Round, ...]
    seeds: tuple[int, ...]
    sizes: np.ndarray

    def __call__(self, image: Tensor) -> Tensor:
        """Apply the plans: `degrade.plan.apply_plan` for a batch, on the device of `image`.

        A sample's result depends on its image, plan and seed only, not on the rest of the batch.

        Args:
            image: float32 `[N, 3, H, W]` in [0, 1], each image in the upper left of its plane.

        Returns:
            `[N, 3, h, w]` in [0, 1], each image in the upper left of its plane.

        Raises:
            InputError: the device is mps, which has no float64.
        """
        assert image.dtype == torch.float32, image.dtype
        if image.device.type == "mps":
            raise InputError(
                "data.degrade_on: expected loader on mps, which has no float64 for the arithmetic of JPEG, got device; "
                "change the key."
            )
        noise = [torch.Generator(image.device).manual_seed(seed) for seed in self.seeds]
        image = image.clone()
        for round_ in self.rounds:
            image = _apply_round(round_, image, noise)
        height, width = compute_bounding_size(self.sizes)
        return image[..., :height, :width].clamp(0, 1)


def merge_plans(plans: Sequence[DegradationPlan], sizes: Sequence[Size], seeds: Sequence[int]) -> BatchedPlan:
    """Merge the plans of several images.

    Args:
        plans: one for each image.
        sizes: height and width of each image.
        seeds: seed of each image's noise.
    """
    current = np.array(sizes, np.int64)
    done = [0] * len(plans)
    rounds = []
    while True:
        waiting: dict[type, list[int]] = defaultdict(list)
        for sample, (plan, count) in enumerate(zip(plans, done, strict=True)):
            if count < len(plan):
                waiting[_BATCHED_STEPS[type(plan[count])]].append(sample)
        if not waiting:
            return BatchedPlan(tuple(rounds), tuple(seeds), current)
        kind = max(waiting, key=lambda kind: sum(len(plans[i]) - done[i] for i in waiting[kind]))
        for samples in _group_by_size(np.array(waiting[kind]), current):
            before = current[samples]
            step = kind.merge([plans[i][done[i]] for i in samples], before)
            current[samples] = step.output_sizes()
            rounds.append(Round(samples, step, compute_bounding_size(before), compute_bounding_size(current)))
        for i in waiting[kind]:
            done[i] += 1


def _group_by_size(samples: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    """Return the samples in one group, or in several groups of similar size."""
    order = samples[np.argsort(sizes[samples].max(axis=1), kind="stable")]
    # Area that contains the first 1, 2, ... images of the order, and the last n, n - 1, ...
    small, large = (np.maximum.accumulate(sizes[part]).prod(axis=1) for part in (order, order[::-1]))
    counts = np.arange(1, len(order))
    saved = len(order) * small[-1] - counts * small[:-1] - (len(order) - counts) * large[-2::-1]
    if not len(counts) or saved.max() < max(_SAVED_PX, _SAVED_SHARE * len(order) * small[-1]):
        return [samples]
    cut = int(saved.argmax()) + 1
    return [*_group_by_size(np.sort(order[:cut]), sizes), *_group_by_size(np.sort(order[cut:]), sizes)]


def _apply_round(round_: Round, image: Tensor, noise: Sequence[torch.Generator]) -> Tensor:
    """Return the batch after a round; `image` is overwritten."""
    height, width = round_.input_size
    inputs = image[..., :height, :width]
    if len(round_.samples) == len(image):
        return round_.step(inputs, noise)
    samples = to_device_of(round_.samples, image)
    outputs = round_.step(inputs.index_select(0, samples), [noise[i] for i in round_.samples.tolist()])
    height, width = (max(pair) for pair in zip(round_.output_size, image.shape[-2:], strict=True))
    if (height, width) != image.shape[-2:]:
        larger = image.new_empty(*image.shape[:2], height, width)
        larger[..., : image.shape[2], : image.shape[3]] = image
        image = larger
    image[..., : outputs.shape[2], : outputs.shape[3]].index_copy_(0, samples, outputs)
    return image
