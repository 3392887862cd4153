"""Evaluate an upscaler on sets of images by the protocol of the literature."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from selfsr.errors import InputError
from selfsr.evaluation.degraded import DegradedInputs
from selfsr.evaluation.kinds import ImageMetric, SetMetric, SetScore
from selfsr.evaluation.metrics import METRICS, check_set_size, list_seed_metrics, list_standard_metrics, score_image
from selfsr.evaluation.psnr_ssim import score_luma_output, to_levels
from selfsr.evaluation.reading import read_ahead
from selfsr.evaluation.seeds import (
    Sampler,
    average_scores,
    join_samples,
    psnr_y_of_mean_luma,
    sample_each,
    spread_scores,
)
from selfsr.evaluation.sets import name_images
from selfsr.images.color import rgb_to_luma
from selfsr.images.resize import imresize, round_to_bits
from selfsr.machine.arithmetic import TRUE_FLOAT32
from selfsr.masks import LUMA_STUDIO

UpscaleFn = Callable[[Tensor], Tensor]
OnImage = Callable[[str, Tensor, Tensor, Tensor], None]


@dataclass(frozen=True)
class SetScores:
    """The scores of one set.

    Attributes:
        name: name of the set.
        images: for each image by name, its scores by metric. A PSNR is infinite if output and ground truth are
            equal; a score is NaN where it is undefined, such as a self-similarity distance without an edge.
        of_set: the scores of the set itself by metric, such as FID.
        by_seed: the scores of each seed, if a network that samples is evaluated with several. `images` and `of_set`
            are then means over the seeds.
    """

    name: str
    images: dict[str, dict[str, float]]
    of_set: dict[str, float] = field(default_factory=dict)
    by_seed: dict[int, "SetScores"] = field(default_factory=dict)

    @property
    def mean(self) -> dict[str, float]:
        """The mean of each metric over the images that have it, and the scores of the set itself."""
        return average_scores(list(self.images.values())) | self.of_set

    @property
    def spread(self) -> dict[str, float]:
        """The standard deviation (n - 1) of each metric's mean over the seeds; empty without several seeds."""
        return spread_scores([scores.mean for scores in self.by_seed.values()])

    def as_json(self) -> dict[str, Any]:
        """Return mean and images for JSON, with null for infinity and NaN; of several seeds also spread and means."""
        record: dict[str, Any] = {"mean": _null_nonfinite(self.mean)}
        if self.by_seed:
            record["spread"] = _null_nonfinite(self.spread)
            record["seeds"] = {str(seed): _null_nonfinite(scores.mean) for seed, scores in self.by_seed.items()}
        return {**record, "images": {name: _null_nonfinite(row) for name, row in self.images.items()}}


@TRUE_FLOAT32.use()
def evaluate_set(
    upscale: UpscaleFn,
    name: str,
    hr_paths: Sequence[Path],
    *,
    scale: int,
    lr_paths: Sequence[Path] | None = None,
    degraded: DegradedInputs | None = None,
    device: torch.device,
    border_px: int | None = None,
    extra: Mapping[str, ImageMetric | SetMetric] | None = None,
    luma_only: bool = False,
    sampler: Sampler | None = None,
    on_image: OnImage | None = None,
    advance: Callable[..., None] | None = None,
    scores: SetScores | None = None,
    on_failure: Callable[[str], None] | None = None,
    only: range | None = None,
) -> SetScores:
    """Upscale the low-resolution version of each image and score the result against the image.

    Networks and metrics compute in true float32 on every device, unless `upscale` chooses half precision itself.

    Images are evaluated as 8-bit RGB: 16 bits are rounded, alpha is ignored, and gray counts as R = G = B, so that its
    luma is in studio range as for color images. (Set14 has one gray image. Some MATLAB code takes its gray values as
    luma, which lowers the mean of the set by 0.09 dB.)

    With `luma_only`, the upscaler receives the luma of the input, which is made and rounded in RGB. The scores on luma
    then compare its output, rounded to 8 bits of 16 to 235, with the unrounded luma of the image, as networks with one
    channel were published. The scores on RGB are of this output with the colors of bicubic.

    Args:
        upscale: maps float `[1, 3, h, w]` in [0, 1] on `device` to `[1, 3, scale h, scale w]`, with `luma_only`
            `[1, 1, h, w]` to `[1, 1, scale h, scale w]`; in eval mode. It is called without gradients.
        name: name of the set.
        hr_paths: the ground truths; they are cropped at the right and bottom to a multiple of `scale`.
        scale: the upscaling factor.
        lr_paths: the inputs in the order of `hr_paths`; None makes them by antialiased bicubic, rounded to 8 bits.
        degraded: makes the inputs by a degradation instead; not with `lr_paths`.
        device: the device of `upscale`.
        border_px: pixels at each side that the scores leave out; None takes the scale.
        extra: further metrics by name, from `load_metrics`.
        luma_only: whether the network has one channel.
        sampler: the seeds of a network that samples. The scores of an image are then means over its outputs for these
            seeds. With two seeds or more, `list_seed_metrics` are computed as well.
        on_image: called as `on_image(image name, lr, sr, hr)` with float `[1, 3, ., .]` in [0, 1] on the CPU; `sr` is
            rounded to 8 bits, and is the output for the first seed.
        advance: called as `advance(note=image name)` after each image.
        scores: receives the scores of each image as soon as they are known, and at the end those of the set, for a
            caller that keeps them when a later image fails.
        on_failure: called with a sentence for each image that cannot be read or scored, which is then left out; None
            raises the first one.
        only: indices of the images to evaluate; None is all. Other processes have the other images.

    Raises:
        InputError: there are no images or too few for a metric of sets, sizes do not fit, an image is too small, or an
            output has NaN or infinite values; the sentence names the file.
        OSError: an image cannot be read.
    """
    if not hr_paths:
        raise InputError(f"evaluate: expected images in the set {name}, got none; pass a folder with images.")
    if lr_paths is not None and len(lr_paths) != len(hr_paths):
        raise InputError(
            f"evaluate: expected {len(hr_paths)} LR images for the set {name}, got {len(lr_paths)}; "
            "pass one LR image for each HR image."
        )
    assert lr_paths is None or degraded is None, "inputs are read or made"
    check_set_size(extra or (), name, len(hr_paths))
    scores = SetScores(name, {}) if scores is None else scores
    seeds = () if sampler is None or len(sampler.seeds) < 2 else sampler.seeds
    scores.by_seed.update({seed: SetScores(name, {}) for seed in seeds})
    metrics = [_split_metrics(extra or {}) for _ in seeds or (None,)]
    keys = name_images(hr_paths)
    chosen = range(len(hr_paths)) if only is None else only
    if not chosen:
        return scores
    for index, reading in zip(chosen, read_ahead(hr_paths, lr_paths, chosen, scale, degraded), strict=True):
        key, path = keys[index], hr_paths[index]
        try:
            lr, hr = reading.result()
            with torch.inference_mode():
                outputs = sample_each(lambda x: _upscale_rgb(upscale, x, scale, luma_only), lr.to(device), sampler)
            border = scale if border_px is None else border_px
            row, seed_rows = _score_outputs(path, lr, outputs, hr, border, scale, metrics)
        except (InputError, OSError) as error:
            if on_failure is None:
                raise
            on_failure(_name_file(path, error))
        else:
            scores.images[key] = row
            for of_seed, seed_row in zip(scores.by_seed.values(), seed_rows, strict=False):
                of_seed.images[key] = seed_row
            if on_image is not None:
                on_image(key, lr, round_to_bits(outputs[0].sr).cpu(), hr)
        if advance is not None:
            advance(note=key)
    of_sets = [{metric: score.compute() for metric, score in each.of_sets.items()} for each in metrics]
    for of_seed, of_set in zip(scores.by_seed.values(), of_sets, strict=False):
        of_seed.of_set.update(of_set)
    scores.of_set.update(average_scores(of_sets))
    return scores


@dataclass(frozen=True)
class _ExtraMetrics:
    """Further metrics of one set, by name.

    Attributes:
        of_images: score an image.
        of_sets: collect the images of the set.
    """

    of_images: Mapping[str, ImageMetric]
    of_sets: Mapping[str, SetScore]


def _split_metrics(extra: Mapping[str, ImageMetric | SetMetric]) -> _ExtraMetrics:
    of_sets = {name: metric.start() for name, metric in extra.items() if isinstance(metric, SetMetric)}
    return _ExtraMetrics({name: metric for name, metric in extra.items() if not isinstance(metric, SetMetric)}, of_sets)


def _name_file(path: Path, error: Exception) -> str:
    """Return the sentence of an error with the name of the image."""
    return str(error) if str(path) in str(error) else f"{path}: {error}"


class _Output(NamedTuple):
    """An output in RGB, and for a network with one channel also its luma in full range."""

    sr: Tensor
    y: Tensor | None


def _upscale_rgb(upscale: UpscaleFn, lr: Tensor, scale: int, luma_only: bool) -> _Output:
    if not luma_only:
        return _Output(upscale(lr).float(), None)
    y, colors = upscale(rgb_to_luma(lr)).float(), imresize(lr - rgb_to_luma(lr), scale)
    return _Output(y, None) if y.shape[-2:] != colors.shape[-2:] else _Output(y + colors, y)


def _score_outputs(
    path: Path,
    lr: Tensor,
    outputs: Sequence[_Output],
    hr: Tensor,
    border_px: int,
    scale: int,
    metrics: Sequence[_ExtraMetrics],
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Return the scores of an image, and those of each of its outputs, which have metrics of sets of their own."""
    try:
        for output in outputs:
            _check_output(lr, output.sr, hr, scale)
        hr = hr.to(outputs[0].sr.device)
        rows = [_score_output(*pair, hr, border_px) for pair in zip(outputs, metrics, strict=True)]
        if len(rows) == 1:
            return rows[0], rows
        return average_scores(rows) | _score_over_seeds(outputs, to_levels(hr), border_px), rows
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _score_output(output: _Output, extra: _ExtraMetrics, hr: Tensor, border_px: int) -> dict[str, float]:
    sr, y = output
    scores = score_image(to_levels(sr), to_levels(hr), border_px)
    if y is not None:
        scores |= score_luma_output(255 * y, to_levels(hr), border_px)
    return scores | _score_extra(extra, round_to_bits(sr), hr, border_px)


def _score_over_seeds(outputs: Sequence[_Output], hr_levels: Tensor, border_px: int) -> dict[str, float]:
    """Return the metrics that compare or combine the outputs for several seeds."""
    samples = join_samples([output.sr for output in outputs])
    computed = ((name, METRICS[name].compute_over_seeds) for name in list_seed_metrics())
    scores = {name: float(compute(samples, hr_levels, border_px)) for name, compute in computed if compute is not None}
    luma = [output.y for output in outputs if output.y is not None]
    if luma:
        scores["psnr_y_of_mean"] = psnr_y_of_mean_luma(join_samples(luma), hr_levels, border_px)
    return scores


def _check_output(lr: Tensor, sr: Tensor, hr: Tensor, scale: int) -> None:
    if list(sr.shape) != list(hr.shape):
        raise InputError(
            f"expected an output of shape {list(hr.shape)} for an input of {list(lr.shape)}, got {list(sr.shape)}; "
            f"use a model for x{scale}."
        )
    if not bool(sr.isfinite().all()):
        raise InputError("expected a finite output, got NaN or infinity; use another model.")


def make_bicubic_upscaler(scale: int) -> UpscaleFn:
    """Return a function that upscales by bicubic interpolation, the usual lower bound."""
    return lambda lr: imresize(lr, scale=scale)


def _score_extra(extra: _ExtraMetrics, sr: Tensor, hr: Tensor, border_px: int) -> dict[str, float]:
    height, width = hr.shape[-2:]
    sr, hr = (i[..., border_px : height - border_px, border_px : width - border_px].contiguous() for i in (sr, hr))
    scores = {name: score(sr, hr) for name, score in extra.of_images.items()}
    for score in extra.of_sets.values():
        score.add(sr, hr)
    return scores


_PROTOCOL_OF_SEEDS = {
    "seeds": "the scores of an image are means over the seeds",
    "spread": "standard deviation (n - 1) of the mean of a set over the seeds",
}


def describe_protocol(
    scale: int,
    border_px: int | None = None,
    lr: str | None = None,
    metrics: Sequence[str] = (),
    sampling: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the protocol behind the scores, so that others can compare theirs.

    Args:
        scale: the upscaling factor.
        border_px: as for `evaluate_set`.
        lr: the folder of the inputs, or `DegradedInputs.describe`; None if they were made by bicubic.
        metrics: names of the further metrics.
        sampling: how a diffusion network makes its output, with its `seeds` if it draws noise; None for other networks.
    """
    several_seeds = sampling is not None and len(sampling.get("seeds", ())) > 1
    names = (*list_standard_metrics(), *metrics, *(list_seed_metrics() if several_seeds else ()))
    red, green, blue = LUMA_STUDIO
    return {
        "scale": scale,
        "border_px": scale if border_px is None else border_px,
        "hr": f"cropped at the right and bottom to a multiple of {scale}, 8 bits, gray as R = G = B",
        "lr": lr or describe_bicubic_lr(scale),
        "sr": "clamped and rounded to 8 bits",
        "luma": f"BT.601 studio range, 16 + ({red} R + {green} G + {blue} B) / 255, not rounded; "
        "the output of a network with one channel rounded to 8 bits",
        "psnr": "peak 255, float64; null where the images are identical",
        "ssim": "11x11 Gaussian window of sigma 1.5 inside the image, K1 0.01, K2 0.03; RGB: mean over channels",
        **{name: METRICS[name].protocol for name in names if METRICS[name].protocol},
        "better": {name: METRICS[name].better for name in names},
        "mean": "over images that have the score; FID and KID are of the set",
        **({} if sampling is None else {"sampling": dict(sampling)}),
        **(_PROTOCOL_OF_SEEDS if several_seeds else {}),
    }


def describe_bicubic_lr(scale: int) -> str:
    """Return how bicubic inputs are made, for a protocol."""
    return f"bicubic 1/{scale} with antialiasing (as MATLAB's imresize), rounded to 8 bits"


def _null_nonfinite(row: dict[str, float]) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in row.items()}
