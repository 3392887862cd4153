"""The plans of a batch, merged into rounds: in each, the samples that wait for one kind of step take it together.

Samples differ in the order of their steps (BSRGAN shuffles them, stages are left out), so in a round those wait whose
next step is of another kind. Which kind goes decides how many rounds there are: the shortest common supersequence of
the plans, which is hard to find exactly. Taken is the kind whose samples have the most steps left, all together (the
"weighted majority merge" of Branke, Middendorf and Schneider, "Improved heuristics and a genetic algorithm for finding
short supersequences", OR Spektrum 20, 1998): who has far to go is not kept waiting.

A step costs what the largest picture of its round would for each of them. So those that are much smaller take it in a
round of their own, where that saves more than the additional operations cost.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from selfsr.degrade.batched.blur import BatchedBlur
from selfsr.degrade.batched.canvas import Size, largest, on
from selfsr.degrade.batched.jpeg import BatchedJpeg
from selfsr.degrade.batched.noise import BatchedNoise
from selfsr.degrade.batched.resample import BatchedResample
from selfsr.degrade.blur import Blur
from selfsr.degrade.jpeg import Jpeg
from selfsr.degrade.noise import CorrelatedNoise, GaussianNoise, PoissonNoise
from selfsr.degrade.plan import Plan
from selfsr.degrade.resample import Resize, Subsample
from selfsr.errors import InputError


class BatchedStep(Protocol):
    """A step of several pictures, each with its own parameters, which wait in host memory until it is taken."""

    def after(self) -> np.ndarray:
        """Return the sizes that the pictures then have, `[n, 2]`."""
        ...

    def __call__(self, image: Tensor, noise: Sequence[torch.Generator]) -> Tensor:
        """Return the pictures after the step.

        Args:
            image: float32 `[n, 3, H, W]`, as large as the largest picture; each lies in the upper left, and what is
                beside it is of no worth.
            noise: where each picture's noise comes from; steps without noise leave it alone.
        """
        ...


_KINDS = {
    Blur: BatchedBlur,
    Resize: BatchedResample,
    Subsample: BatchedResample,
    GaussianNoise: BatchedNoise,
    CorrelatedNoise: BatchedNoise,
    PoissonNoise: BatchedNoise,
    Jpeg: BatchedJpeg,
}


# A round is cut in two if that spares at least this part of its pixels, and this many: for fewer, the operations of one
# more round cost more.
_SPARED_SHARE = 0.25
_SPARED_PX = 2**18


@dataclass(frozen=True)
class Round:
    """One kind of step, taken by some of the samples.

    Attributes:
        samples: which ones, int64 `[n]`, ascending.
        step: their steps, merged.
        before: height and width that hold their pictures before the step.
        room: height and width that hold the pictures of all samples after it.
    """

    samples: np.ndarray
    step: BatchedStep
    before: Size
    room: Size


@dataclass(frozen=True)
class Program:
    """What is done to a batch; all sizes are known beforehand, so that the device is never waited for.

    Attributes:
        rounds: the steps, in order.
        seeds: of each sample's noise.
        sizes: height and width of each sample's result, int64 `[N, 2]`.
    """

    rounds: tuple[Round, ...]
    seeds: tuple[int, ...]
    sizes: np.ndarray

    def __call__(self, image: Tensor) -> Tensor:
        """Carry the plans out: `degrade.plan.carry_out` for a batch, on the device of `image`.

        A sample's result is a function of its picture, plan and seed, whatever else is in the batch.

        Args:
            image: float32 `[N, 3, H, W]` in [0, 1], each picture in the upper left.

        Returns:
            `[N, 3, h, w]` in [0, 1], each picture in the upper left of its plane.
        """
        assert image.dtype == torch.float32, image.dtype
        if image.device.type == "mps":
            raise InputError(
                "data.degrade_on: expected loader on mps, which has no float64 for the arithmetic of JPEG, got device; "
                "change the key."
            )
        noise = [torch.Generator(image.device).manual_seed(seed) for seed in self.seeds]
        canvas = image.clone()
        for turn in self.rounds:
            canvas = _taken(turn, canvas, noise)
        height, width = largest(self.sizes)
        return canvas[..., :height, :width].clamp(0, 1)


def merged(plans: Sequence[Plan], sizes: Sequence[Size], seeds: Sequence[int]) -> Program:
    """Merge the plans of pictures of these sizes, height and width, into a program for all of them."""
    now = np.array(sizes, np.int64)
    done = [0] * len(plans)
    rounds = []
    while True:
        waiting: dict[type, list[int]] = defaultdict(list)
        for sample, (plan, count) in enumerate(zip(plans, done, strict=True)):
            if count < len(plan):
                waiting[_KINDS[type(plan[count])]].append(sample)
        if not waiting:
            return Program(tuple(rounds), tuple(seeds), now)
        kind = max(waiting, key=lambda kind: sum(len(plans[i]) - done[i] for i in waiting[kind]))
        for samples in _by_size(np.array(waiting[kind]), now):
            before = now[samples]
            step = kind.merged([plans[i][done[i]] for i in samples], before)
            now[samples] = step.after()
            rounds.append(Round(samples, step, largest(before), largest(now)))
        for i in waiting[kind]:
            done[i] += 1


def _by_size(samples: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    """Return the samples in one group, or in several of like size."""
    order = samples[np.argsort(sizes[samples].max(axis=1), kind="stable")]
    # Area that holds the first 1, 2, ... of the order, and the last n, n - 1, ...
    small, large = (np.maximum.accumulate(sizes[part]).prod(axis=1) for part in (order, order[::-1]))
    counts = np.arange(1, len(order))
    spared = len(order) * small[-1] - counts * small[:-1] - (len(order) - counts) * large[-2::-1]
    if not len(counts) or spared.max() < max(_SPARED_PX, _SPARED_SHARE * len(order) * small[-1]):
        return [samples]
    cut = int(spared.argmax()) + 1
    return [*_by_size(np.sort(order[:cut]), sizes), *_by_size(np.sort(order[cut:]), sizes)]


def _taken(turn: Round, canvas: Tensor, noise: Sequence[torch.Generator]) -> Tensor:
    """Return the canvas after a round."""
    height, width = turn.before
    part = canvas[..., :height, :width]
    if len(turn.samples) == len(canvas):
        return turn.step(part, noise)
    samples = on(turn.samples, canvas)
    part = turn.step(part.index_select(0, samples), [noise[i] for i in turn.samples.tolist()])
    height, width = (max(pair) for pair in zip(turn.room, canvas.shape[-2:], strict=True))
    if (height, width) != canvas.shape[-2:]:
        larger = canvas.new_empty(*canvas.shape[:2], height, width)
        larger[..., : canvas.shape[2], : canvas.shape[3]] = canvas
        canvas = larger
    canvas[..., : part.shape[2], : part.shape[3]].index_copy_(0, samples, part)
    return canvas
