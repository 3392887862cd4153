"""The registry of metrics. To add one, add an entry to `METRICS`; recipes, commands and reports follow from it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from selfsr.errors import InputError
from selfsr.evaluation.perceptual import load_dists, load_lpips, self_similarity_distance
from selfsr.evaluation.psnr_ssim import psnr, ssim

MetricFn = Callable[[Tensor, Tensor], float]


@dataclass(frozen=True)
class Metric:
    """One metric: how it is computed and shown. Exactly one of `compute` and `load` is set.

    Attributes:
        title: its name in tables and figures.
        unit: its unit, empty without one.
        decimals: digits after the point in tables.
        better: which of two values is better.
        needs_network: whether it compares features of a trained network, which is downloaded on first use.
        protocol: the sentence that a results file has about it; PSNR and SSIM have theirs in `describe_protocol`.
        compute: computes it for every evaluation, from `(sr, hr, border_px)` with images `[1, 3, H, W]` of whole
            numbers from 0 to 255.
        load: prepares it on a device if a recipe or command asks for it; the result maps `(sr, hr)`, `[1, 3, H, W]` in
            [0, 1], rounded to 8 bits and without the border, to a number.
    """

    title: str
    unit: str
    decimals: int
    better: Literal["higher", "lower"] = "higher"
    needs_network: bool = False
    protocol: str = ""
    compute: Callable[[Tensor, Tensor, int], Tensor] | None = None
    load: Callable[[torch.device], MetricFn] | None = None

    def __post_init__(self) -> None:
        assert (self.compute is None) != (self.load is None), self.title


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
    "lpips": Metric(
        "LPIPS", "", 4, "lower", needs_network=True, protocol="AlexNet, version 0.1, RGB", load=load_lpips
    ),
    "dists": Metric(
        "DISTS", "", 4, "lower", needs_network=True, protocol="VGG16, RGB, at full size", load=load_dists
    ),
}  # fmt: skip


def list_standard_metrics() -> tuple[str, ...]:
    """Return the names of the metrics that every evaluation computes."""
    return tuple(name for name, metric in METRICS.items() if metric.compute is not None)


def list_extra_metrics() -> tuple[str, ...]:
    """Return the names of the metrics that are computed if a recipe or command asks for them."""
    return tuple(name for name, metric in METRICS.items() if metric.load is not None)


def load_metrics(names: Iterable[str], device: torch.device) -> Mapping[str, MetricFn]:
    """Load extra metrics by name, with their networks on `device`.

    Args:
        names: names of `list_extra_metrics`.
        device: the device of the networks.

    Returns:
        Functions of `(sr, hr)`, images `[1, 3, H, W]` in [0, 1].

    Raises:
        InputError: a name is unknown, torchmetrics is not installed, or weights are neither on disk nor downloadable.
    """
    names, known = tuple(names), list_extra_metrics()
    for name in names:
        if name not in known:
            raise InputError(f"metrics: expected some of {', '.join(known)}, got {name!r}; use one of these names.")
    return {name: load(device) for name in names if (load := METRICS[name].load) is not None}


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
