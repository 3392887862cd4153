"""The registry of metrics. To add one, add an entry to `METRICS`; recipes, commands and reports follow from it."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from selfsr.errors import InputError, suggest
from selfsr.evaluation.inception import load_fid, load_kid
from selfsr.evaluation.kinds import ImageMetric, SetMetric
from selfsr.evaluation.niqe import load_niqe
from selfsr.evaluation.perceptual import load_dists, load_lpips, self_similarity_distance
from selfsr.evaluation.psnr_ssim import psnr, ssim
from selfsr.evaluation.seeds import psnr_y_of_mean, seed_spread
from selfsr.evaluation.with_pyiqa import load_pyiqa

Better = Literal["higher", "lower"]
PLUS_MINUS = "\u00b1"


@dataclass(frozen=True)
class Metric:
    """One metric: how it is computed and shown. Exactly one of `compute`, `load` and `compute_over_seeds` is set.

    Attributes:
        title: its name in tables and figures.
        unit: its unit, empty without one.
        decimals: digits after the point in tables.
        better: which of two values is better.
        least_images: images that a set must have; above 1 for a metric of a set.
        needs_hr: whether it compares with a ground truth.
        protocol: its description in a results file; PSNR and SSIM have theirs in `describe_protocol`.
        compute: computes it for every evaluation, from `(sr, hr, border_px)` with images `[1, 3, H, W]` of whole
            numbers from 0 to 255.
        load: prepares it on a device if a recipe or command asks for it; the result is a function of `(sr, hr)`,
            `[1, 3, H, W]` in [0, 1], rounded to 8 bits and without the border, or a `SetMetric`.
        compute_over_seeds: computes it where a network that samples is evaluated with several seeds, from
            `(samples, hr, border_px)`: one output for each seed `[S, 3, H, W]` in [0, 1], not rounded, and `hr` as for
            `compute`.
    """

    title: str
    unit: str
    decimals: int
    better: Better = "higher"
    least_images: int = 1
    needs_hr: bool = True
    protocol: str = ""
    compute: Callable[[Tensor, Tensor, int], Tensor] | None = None
    load: Callable[[torch.device], ImageMetric | SetMetric] | None = None
    compute_over_seeds: Callable[[Tensor, Tensor, int], Tensor] | None = None

    def __post_init__(self) -> None:
        given = [way for way in (self.compute, self.load, self.compute_over_seeds) if way is not None]
        assert len(given) == 1, self.title

    def format_score(self, value: float, spread: float = math.nan) -> str:
        """Return a score as text, with its spread over the seeds of a network that samples, if there is one.

        Args:
            value: the score; NaN is "-".
            spread: the standard deviation over the seeds; NaN for none.

        Example:
            >>> METRICS["psnr_y"].format_score(27.123, 0.0449)
            '27.12 \u00b1 0.04'
        """
        if math.isnan(value):
            return "-"
        text = f"{value:.{self.decimals}f}"
        return text if math.isnan(spread) else f"{text} {PLUS_MINUS} {spread:.{self.decimals}f}"


def _through_pyiqa(name: str, title: str, decimals: int, training: str, *, needs_hr: bool = False) -> Metric:
    """Return a metric of the package pyiqa; higher is better for all that are registered here."""
    compared = "" if needs_hr else ", without HR"
    return Metric(
        title,
        "",
        decimals,
        needs_hr=needs_hr,
        protocol=f"pyiqa's {name} ({training}), RGB{compared}",
        load=lambda device: load_pyiqa(name, device, needs_hr=needs_hr, lower_is_better=False),
    )


METRICS = {
    "psnr_y": Metric("PSNR-Y", "dB", 2, compute=partial(psnr, channel="y")),
    "ssim_y": Metric("SSIM-Y", "", 4, compute=partial(ssim, channel="y")),
    "psnr_rgb": Metric("PSNR-RGB", "dB", 2, compute=psnr),
    "ssim_rgb": Metric("SSIM-RGB", "", 4, compute=ssim),
    "self_similarity": Metric(
        "Self-similarity distance",
        "",
        4,
        "lower",
        protocol="1000 (mean |X - Y| + KL / S^2) at all edges of HR; search 25, window 9, sigma 0.004",
        load=lambda device: self_similarity_distance,  # noqa: ARG005 - metrics share one signature
    ),
    "lpips": Metric("LPIPS", "", 4, "lower", protocol="AlexNet, version 0.1, RGB", load=load_lpips),
    "dists": Metric("DISTS", "", 4, "lower", protocol="VGG16, RGB, at full size", load=load_dists),
    "niqe": Metric(
        "NIQE",
        "",
        3,
        "lower",
        needs_hr=False,
        protocol="published parameters, patches of 96 px, Y in studio range rounded, float64, without HR; "
        "null below two patches",
        load=load_niqe,
    ),
    "fid": Metric(
        "FID",
        "",
        2,
        "lower",
        least_images=2,
        protocol="of the set, against the HR images: 2048 features of Inception v3 of 2015, images resized to 299 px "
        "by bilinear without antialiasing; biased for few images",
        load=load_fid,
    ),
    "kid": Metric(
        "KID",
        "",
        5,
        "lower",
        least_images=2,
        protocol="of the set: features as for fid, cubic kernel, unbiased, one subset with all images",
        load=load_kid,
    ),
    "pyiqa:musiq": _through_pyiqa("musiq", "MUSIQ", 2, "trained on KonIQ-10k"),
    "pyiqa:maniqa": _through_pyiqa("maniqa", "MANIQA", 4, "trained on KonIQ-10k"),
    "pyiqa:clipiqa": _through_pyiqa("clipiqa", "CLIPIQA", 4, "CLIP with fixed prompts"),
    "pyiqa:topiq_nr": _through_pyiqa("topiq_nr", "TOPIQ-NR", 4, "trained on KonIQ-10k"),
    "pyiqa:topiq_fr": _through_pyiqa("topiq_fr", "TOPIQ-FR", 4, "trained on KADID-10k", needs_hr=True),
    "psnr_y_of_mean": Metric(
        "PSNR-Y of mean",
        "dB",
        2,
        protocol="psnr_y of the mean of the outputs over the seeds, which is then rounded to 8 bits",
        compute_over_seeds=psnr_y_of_mean,
    ),
    "seed_spread": Metric(
        "Seed spread",
        "levels",
        2,
        "lower",
        protocol="standard deviation (n - 1) of an RGB value over the seeds, rounded to 8 bits, mean over pixels and "
        "channels without the border, in gray levels of 255",
        compute_over_seeds=seed_spread,
    ),
}  # fmt: skip


def list_standard_metrics() -> tuple[str, ...]:
    """Return the names of the metrics that every evaluation computes."""
    return tuple(name for name, metric in METRICS.items() if metric.compute is not None)


def list_extra_metrics() -> tuple[str, ...]:
    """Return the names of the metrics that are computed if a recipe or command asks for them."""
    return tuple(name for name, metric in METRICS.items() if metric.load is not None)


def list_metrics_without_hr() -> tuple[str, ...]:
    """Return the names of the metrics that need no ground truth and are computed on request."""
    return tuple(name for name, metric in METRICS.items() if metric.load is not None and not metric.needs_hr)


def list_seed_metrics() -> tuple[str, ...]:
    """Return the names of the metrics that are computed where a network is evaluated with several seeds."""
    return tuple(name for name, metric in METRICS.items() if metric.compute_over_seeds is not None)


def describe_better(names: Iterable[str]) -> str:
    """Return which metrics are better higher and which lower, by their titles, as one or two sentences."""
    titles: dict[Better, list[str]] = {"higher": [], "lower": []}
    for name in names:
        titles[METRICS[name].better].append(METRICS[name].title)
    return " ".join(f"{better.title()} is better: {', '.join(listed)}." for better, listed in titles.items() if listed)


def load_metrics(
    names: Iterable[str], device: torch.device, images_by_set: Mapping[str, int]
) -> Mapping[str, ImageMetric | SetMetric]:
    """Load extra metrics by name, with their networks on `device`.

    Args:
        names: names of `list_extra_metrics`.
        device: the device of the networks.
        images_by_set: number of images of each set that they will evaluate; checked before anything is downloaded.

    Returns:
        By name, functions of `(sr, hr)`, images `[1, 3, H, W]` in [0, 1], or metrics of a set.

    Raises:
        InputError: a name is unknown, a set has too few images, a package is not installed, or weights are neither on
            disk nor downloadable.
    """
    names, known = tuple(names), list_extra_metrics()
    for name in names:
        if name not in known:
            raise InputError(f"metrics: expected some of {', '.join(known)}, got {name!r}{suggest(name, known)}")
    for set_name, images in images_by_set.items():
        check_set_size(names, set_name, images)
    return {name: _load(name, load, device) for name in names if (load := METRICS[name].load) is not None}


def _load(
    name: str, load: Callable[[torch.device], ImageMetric | SetMetric], device: torch.device
) -> ImageMetric | SetMetric:
    try:
        return load(device)
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith("metrics: ") else f"metrics: {name}: {text}") from error


def check_set_size(names: Iterable[str], set_name: str, images: int) -> None:
    """Check that a set has as many images as its metrics need.

    Args:
        names: names of metrics.
        set_name: name of the set.
        images: number of its images.

    Raises:
        InputError: it has too few.
    """
    for name in names:
        least = METRICS[name].least_images if name in METRICS else 1
        if images < least:
            raise InputError(
                f"metrics: expected at least {least} images in the set {set_name} for {name}, which compares sets and "
                f"not images, got {images}; add images, or leave the metric out."
            )


def score_image(sr: Tensor, hr: Tensor, border_px: int) -> dict[str, float]:
    """Return the standard metrics of one image by name.

    Args:
        sr: `[1, C, H, W]`, C 1 or 3, whole numbers from 0 to 255.
        hr: like `sr`.
        border_px: pixels at each side that are left out.

    Raises:
        InputError: the shapes differ, the values are not whole numbers in range, or the image is too small.

    Example:
        >>> from selfsr.evaluation.psnr_ssim import to_levels
        >>> hr = to_levels(torch.linspace(0, 1, 3 * 32 * 32).view(1, 3, 32, 32))
        >>> scores = score_image(hr.flip(-1), hr, border_px=4)
        >>> print({name: round(score, 2) for name, score in scores.items()})
        {'psnr_y': 47.8, 'ssim_y': 1.0, 'psnr_rgb': 46.42, 'ssim_rgb': 1.0}
    """
    assert sr.shape[0] == 1, "one image, one score"
    computed = ((name, metric.compute) for name, metric in METRICS.items())
    return {name: float(compute(sr, hr, border_px)) for name, compute in computed if compute is not None}
