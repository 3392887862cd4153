"""Evaluation of networks that sample: one output for each seed, and how much these outputs differ."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from selfsr.evaluation.psnr_ssim import psnr, score_luma_output, to_levels


@dataclass(frozen=True)
class Sampler:
    """The seeds with which a network that samples is evaluated.

    Attributes:
        seeds: the seeds, each once.
        choose_seed: sets the seed of the outputs that follow.
    """

    seeds: tuple[int, ...]
    choose_seed: Callable[[int], None]


def sample_each(upscale: Callable[[Tensor], Any], lr: Tensor, sampler: Sampler | None) -> list[Any]:
    """Return the output for each seed; without a sampler one output."""
    if sampler is None:
        return [upscale(lr)]
    outputs = []
    for seed in sampler.seeds:
        sampler.choose_seed(seed)
        outputs.append(upscale(lr))
    return outputs


def psnr_y_of_mean(samples: Tensor, hr: Tensor, border_px: int) -> Tensor:
    """Return the PSNR-Y of the mean over the seeds, which is rounded to 8 bits after the mean.

    Args:
        samples: one output for each seed, float `[S, 3, H, W]` in [0, 1], not rounded.
        hr: `[1, 3, H, W]`, whole numbers from 0 to 255.
        border_px: pixels at each side that are left out.

    Example:
        >>> samples = torch.tensor([100.0, 104.0]).view(2, 1, 1, 1).expand(2, 3, 16, 16) / 255
        >>> psnr_y_of_mean(samples, torch.full((1, 3, 16, 16), 102), border_px=2).item()
        inf
    """
    return psnr(to_levels(samples.double().mean(0, keepdim=True)), hr, border_px, channel="y")


def seed_spread(samples: Tensor, hr: Tensor, border_px: int) -> Tensor:  # noqa: ARG001 - metrics share one signature
    """Return the standard deviation (n - 1) of a value over the seeds, as its mean over pixels and channels.

    It measures how much of the detail is invented: outputs of one input agree where the input determines them.

    Args:
        samples: one output for each seed, float `[S, C, H, W]` in [0, 1], S at least 2.
        hr: unused.
        border_px: pixels at each side that are left out.

    Returns:
        float64, in gray levels of 255; the outputs are rounded to 8 bits first.

    Example:
        >>> samples = torch.tensor([100.0, 104.0, 102.0]).view(3, 1, 1, 1).expand(3, 3, 16, 16) / 255
        >>> seed_spread(samples, samples, border_px=2).item()
        2.0
    """
    height, width = samples.shape[-2:]
    inner = samples[..., border_px : height - border_px, border_px : width - border_px]
    return to_levels(inner).double().std(0, correction=1).mean()


def psnr_y_of_mean_luma(samples: Tensor, hr: Tensor, border_px: int) -> float:
    """Return `psnr_y_of_mean` of a network with one channel, by the protocol of `score_luma_output`.

    Args:
        samples: one output for each seed, `[S, 1, H, W]` in [0, 1].
        hr: `[1, 3, H, W]`, whole numbers from 0 to 255.
        border_px: pixels at each side that are left out.
    """
    return score_luma_output(255 * samples.clamp(0, 1).mean(0, keepdim=True), hr, border_px)["psnr_y"]


def average_scores(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each score over those that are not NaN; NaN if all are."""
    keys = rows[0] if rows else ()
    return {key: _mean([row[key] for row in rows if not math.isnan(row[key])]) for key in keys}


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def spread_scores(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the sample standard deviation (n - 1) of each score; NaN for fewer than two or infinite values.

    Example:
        >>> spread_scores([{"psnr_y": 24.0}, {"psnr_y": 25.0}, {"psnr_y": 26.0}])
        {'psnr_y': 1.0}
    """
    keys = rows[0] if rows else ()
    return {key: _sample_deviation([row[key] for row in rows]) for key in keys}


def _sample_deviation(values: list[float]) -> float:
    is_defined = len(values) > 1 and all(math.isfinite(value) for value in values)
    return statistics.stdev(values) if is_defined else math.nan


def join_samples(outputs: Sequence[Tensor]) -> Tensor:
    """Return outputs `[1, C, H, W]` as samples `[S, C, H, W]`, clamped to [0, 1]."""
    return torch.cat([output.clamp(0, 1) for output in outputs])
