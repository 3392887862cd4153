"""Evaluate an upscaler on sets of images by the protocol of the literature."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfsr.errors import InputError
from selfsr.evaluation.metrics import METRICS, MetricFn, score_image
from selfsr.evaluation.psnr_ssim import score_luma_output, to_levels
from selfsr.images.color import rgb_to_luma
from selfsr.images.files import image_to_tensor, read_image
from selfsr.images.pairing import find_size_problem
from selfsr.images.paths import list_images
from selfsr.images.resize import bicubic_lr, imresize, mod_crop, round_to_bits
from selfsr.masks import LUMA_STUDIO
from selfsr.spec import expand_home

UpscaleFn = Callable[[Tensor], Tensor]
OnImage = Callable[[str, Tensor, Tensor, Tensor], None]


@dataclass(frozen=True)
class SetScores:
    """The scores of one set.

    Attributes:
        name: name of the set.
        images: for each image by name, its scores by metric. A PSNR is infinite if output and ground truth are
            equal; a self-similarity distance is NaN if the image is too small or has no edge.
    """

    name: str
    images: dict[str, dict[str, float]]

    @property
    def mean(self) -> dict[str, float]:
        """The mean of each metric over the images that have it; every image counts the same."""
        rows = list(self.images.values())
        keys = rows[0] if rows else ()
        return {key: _mean([row[key] for row in rows if not math.isnan(row[key])]) for key in keys}

    def as_json(self) -> dict[str, Any]:
        """Return mean and images for JSON, with null for infinity and NaN."""
        return {
            "mean": _null_nonfinite(self.mean),
            "images": {name: _null_nonfinite(row) for name, row in self.images.items()},
        }


def evaluate_set(
    upscale: UpscaleFn,
    name: str,
    hr_paths: Sequence[Path],
    *,
    scale: int,
    lr_paths: Sequence[Path] | None = None,
    device: torch.device,
    border_px: int | None = None,
    extra: Mapping[str, MetricFn] | None = None,
    luma_only: bool = False,
    on_image: OnImage | None = None,
    advance: Callable[..., None] | None = None,
    scored: dict[str, dict[str, float]] | None = None,
    on_failure: Callable[[str], None] | None = None,
) -> SetScores:
    """Upscale the low-resolution version of each image and score the result against the image.

    Images are evaluated as 8-bit RGB: 16 bits are rounded, alpha is ignored, and gray counts as R = G = B, so that its
    luma is in studio range like that of the others. (Set14 has one gray image. Some MATLAB code takes its gray values
    as luma, which lowers the mean of the set by 0.09 dB.)

    With `luma_only`, the upscaler receives the luma of the input, which is made and rounded in RGB. The scores on luma
    then compare its output, rounded to 8 bits of 16 to 235, with the unrounded luma of the image, as networks with one
    channel were published. The scores on RGB are those of this output with the colors of bicubic.

    Args:
        upscale: maps float `[1, 3, h, w]` in [0, 1] on `device` to `[1, 3, scale h, scale w]`, with `luma_only`
            `[1, 1, h, w]` to `[1, 1, scale h, scale w]`; in eval mode. It is called without gradients.
        name: name of the set.
        hr_paths: the ground truths; they are cropped at the right and bottom to a multiple of `scale`.
        scale: the upscaling factor.
        lr_paths: the inputs in the order of `hr_paths`; None makes them by antialiased bicubic, rounded to 8 bits.
        device: the device of `upscale`.
        border_px: pixels at each side that the scores leave out; None takes the scale.
        extra: further metrics by name, from `load_metrics`.
        luma_only: whether the network has one channel.
        on_image: called as `on_image(image name, lr, sr, hr)` with float `[1, 3, ., .]` in [0, 1] on the CPU; `sr` is
            rounded to 8 bits.
        advance: called as `advance(note=image name)` after each image.
        scored: receives the scores of each image as soon as they are known, for a caller that keeps them when a later
            image fails.
        on_failure: called with a sentence for each image that cannot be read or scored, which is then left out; None
            raises the first one.

    Raises:
        InputError: there are no images, sizes do not fit, an image is too small, or an output has NaN or infinite
            values; the sentence names the file.
        OSError: an image cannot be read.
    """
    if not hr_paths:
        raise InputError(f"evaluate: expected images in the set {name}, got none; pass a folder with images.")
    if lr_paths is not None and len(lr_paths) != len(hr_paths):
        raise InputError(
            f"evaluate: expected {len(hr_paths)} LR images for the set {name}, got {len(lr_paths)}; "
            "pass one LR image for each HR image."
        )
    images: dict[str, dict[str, float]] = {} if scored is None else scored
    for index, (key, path) in enumerate(zip(name_images(hr_paths), hr_paths, strict=True)):
        try:
            lr, hr = _read_pair(path, None if lr_paths is None else lr_paths[index], scale)
            with torch.inference_mode():
                sr, y = _upscale_rgb(upscale, lr.to(device), scale, luma_only)
            images[key] = _score_output(
                path, lr, sr, y, hr, scale if border_px is None else border_px, scale, extra or {}
            )
        except (InputError, OSError) as error:
            if on_failure is None:
                raise
            on_failure(_name_file(path, error))
        else:
            if on_image is not None:
                on_image(key, lr, round_to_bits(sr).cpu(), hr)
        if advance is not None:
            advance(note=key)
    return SetScores(name, images)


def _name_file(path: Path, error: Exception) -> str:
    """Return the sentence of an error with the name of the image."""
    return str(error) if str(path) in str(error) else f"{path}: {error}"


def _upscale_rgb(upscale: UpscaleFn, lr: Tensor, scale: int, luma_only: bool) -> tuple[Tensor, Tensor | None]:
    """Return the output in RGB, and for a network with one channel also its luma in full range."""
    if not luma_only:
        return upscale(lr).float(), None
    y, colors = upscale(rgb_to_luma(lr)).float(), imresize(lr - rgb_to_luma(lr), scale)
    return (y, None) if y.shape[-2:] != colors.shape[-2:] else (y + colors, y)


def _score_output(
    path: Path,
    lr: Tensor,
    sr: Tensor,
    y: Tensor | None,
    hr: Tensor,
    border_px: int,
    scale: int,
    extra: Mapping[str, MetricFn],
) -> dict[str, float]:
    """Return all scores of an output; `y` is the output of a network with one channel, or None."""
    try:
        _check_output(lr, sr, hr, scale)
        hr_levels = to_levels(hr).to(sr.device)
        scores = score_image(to_levels(sr), hr_levels, border_px)
        if y is not None:
            scores |= score_luma_output(255 * y, hr_levels, border_px)
        return scores | _score_extra(extra, round_to_bits(sr), hr.to(sr.device), border_px)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


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


def _score_extra(extra: Mapping[str, MetricFn], sr: Tensor, hr: Tensor, border_px: int) -> dict[str, float]:
    height, width = hr.shape[-2:]
    sr, hr = (i[..., border_px : height - border_px, border_px : width - border_px].contiguous() for i in (sr, hr))
    return {name: score(sr, hr) for name, score in extra.items()}


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def describe_protocol(scale: int, border_px: int | None = None, lr: str | None = None) -> dict[str, Any]:
    """Return the protocol behind the scores, so that others can compare theirs.

    Args:
        scale: the upscaling factor.
        border_px: as for `evaluate_set`.
        lr: the folder of the inputs; None if they were made by bicubic.
    """
    red, green, blue = LUMA_STUDIO
    return {
        "scale": scale,
        "border_px": scale if border_px is None else border_px,
        "hr": f"cropped at the right and bottom to a multiple of {scale}, 8 bits, gray as R = G = B",
        "lr": lr or f"bicubic 1/{scale} with antialiasing (as MATLAB's imresize), rounded to 8 bits",
        "sr": "clamped and rounded to 8 bits",
        "luma": f"BT.601 studio range, 16 + ({red} R + {green} G + {blue} B) / 255, not rounded; "
        "the output of a network with one channel rounded to 8 bits",
        "psnr": "peak 255, float64; null where the images are identical",
        "ssim": "11x11 Gaussian window of sigma 1.5 inside the image, K1 0.01, K2 0.03; RGB: mean over channels",
        **{name: metric.protocol for name, metric in METRICS.items() if metric.protocol},
        "mean": "over images",
    }


def name_images(paths: Sequence[Path]) -> list[str]:
    """Name each image by its file name without type; if two are equal, all by their paths below a common folder."""
    stems = [path.stem for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    common = os.path.commonpath([path.absolute().parent for path in paths])
    return [path.absolute().relative_to(common).as_posix() for path in paths]


@dataclass(frozen=True)
class ImageSet:
    """The HR images of one set.

    Attributes:
        folder: the folder that contains them.
        paths: the images.
        root: the folder that was named by the user; it may contain several sets.
    """

    folder: Path
    paths: list[Path]
    root: Path


def find_sets(data: Sequence[str]) -> dict[str, ImageSet]:
    """Read the option `--data`: each entry is `DIR` or `NAME=DIR`; a DIR with only subfolders is several sets.

    Returns:
        The sets by name.

    Raises:
        InputError: a folder is missing or empty, or two sets have one name, or a name leads out of a folder.
    """
    sets: dict[str, ImageSet] = {}
    for entry in data:
        name, equals, rest = entry.partition("=")
        if not equals or Path(entry).is_dir():
            name, rest = "", entry
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(f"evaluate: expected a plain name in --data NAME=DIR, got {name}; use another name.")
        folder = expand_home(Path(rest))
        for subfolder, paths in _split_sets(folder).items():
            key = "/".join(filter(None, (name, subfolder))) or Path(os.path.realpath(folder)).name
            if key in sets:
                raise InputError(
                    f"evaluate: expected sets of different names, got two called {key}; "
                    f"name one of them with --data NAME={folder}."
                )
            sets[key] = ImageSet(folder / subfolder, paths, folder)
    return sets


def _split_sets(folder: Path) -> dict[str, list[Path]]:
    """Return the images by the subfolder that is their set; "" is the folder itself."""
    paths = list_images(folder)
    if any(path.parent == folder for path in paths):
        return {"": paths}
    by_subfolder: dict[str, list[Path]] = {}
    for path in paths:
        by_subfolder.setdefault(path.relative_to(folder).parts[0], []).append(path)
    return by_subfolder


def _read_pair(hr_path: Path, lr_path: Path | None, scale: int) -> tuple[Tensor, Tensor]:
    """Return LR and HR of one image, float `[1, 3, ., .]` in [0, 1] on the CPU, HR rounded to 8 bits."""
    hr = round_to_bits(image_to_tensor(read_image(hr_path)))
    size = (hr.shape[-2], hr.shape[-1])
    try:
        hr = mod_crop(hr, scale)
    except InputError as error:
        raise InputError(f"{hr_path}: {error}") from error
    if lr_path is None:
        return bicubic_lr(hr, scale), hr
    lr = image_to_tensor(read_image(lr_path))
    problem = find_size_problem(size, (lr.shape[-2], lr.shape[-1]), scale)
    if problem:
        raise InputError(f"{lr_path}: {problem}; check the scale, and that it belongs to {hr_path}.")
    return lr, hr


def _null_nonfinite(row: dict[str, float]) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in row.items()}
