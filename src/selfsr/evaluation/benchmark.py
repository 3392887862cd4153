"""Judge an upscaler on sets of pictures by the protocol of the literature; the numbers and how they were made."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfsr.errors import InputError
from selfsr.evaluation.psnr_ssim import luma_scores, scores, to_levels
from selfsr.images.color import gray
from selfsr.images.files import read_picture, to_tensor
from selfsr.images.paths import list_pictures
from selfsr.images.resize import bicubic_lr, imresize, mod_crop, round_to_bits

Upscale = Callable[[Tensor], Tensor]
OnImage = Callable[[str, Tensor, Tensor, Tensor], None]
Extra = Mapping[str, Callable[[Tensor, Tensor], float]]


@dataclass(frozen=True)
class SetScores:
    """The scores of one set.

    Attributes:
        name: what the set is called.
        images: for each image by name: `psnr_y`, `ssim_y`, `psnr_rgb`, `ssim_rgb` and what else was asked for; a
            PSNR is infinite where the output is the ground truth to the last bit, a self-similarity distance NaN
            where the image is too small for it or has no edge.
    """

    name: str
    images: dict[str, dict[str, float]]

    @property
    def mean(self) -> dict[str, float]:
        """Each score's mean over the images that have it, every image counting the same."""
        rows = list(self.images.values())
        return {key: _mean([row[key] for row in rows if not math.isnan(row[key])]) for key in rows[0]}

    def as_json(self) -> dict[str, Any]:
        """Return mean and images as JSON can hold them: it has neither infinity nor NaN, which become null."""
        return {
            "mean": _finite(self.mean),
            "images": {name: _finite(row) for name, row in self.images.items()},
        }


def evaluate_set(
    upscale: Upscale,
    name: str,
    hr_paths: Sequence[Path],
    *,
    scale: int,
    lr_paths: Sequence[Path] | None = None,
    device: torch.device,
    border_px: int | None = None,
    extra: Extra | None = None,
    luma_alone: bool = False,
    on_image: OnImage | None = None,
    advance: Callable[..., None] | None = None,
) -> SetScores:
    """Upscale the low-resolution version of each picture and score the result against the picture.

    Pictures are judged as 8-bit RGB: deeper ones are rounded, alpha is left out, and a gray one counts as
    R = G = B, so that its luma lies in studio range like that of the others. (Set14 has one gray picture. Taking
    its gray values as luma, as some MATLAB code does, would lower the set's mean by 0.09 dB.)

    With `luma_alone`, `upscale` is given the luma of the input, which is made and rounded in RGB. The scores on luma
    then compare its output, rounded to 8 bit of 16 to 235, with the unrounded luma of the picture, as the networks of
    one channel were published; the scores on RGB are of that output with the colors of bicubic.

    Args:
        upscale: maps float `[1, 3, h, w]` in [0, 1] on `device` to `[1, 3, scale h, scale w]`; should be in eval
            mode; is called without gradients; with `luma_alone` `[1, 1, h, w]` to `[1, 1, scale h, scale w]`.
        name: what the set is called.
        hr_paths: the ground truth; cut at the right and bottom to a multiple of `scale`.
        scale: factor of the task.
        lr_paths: the inputs, one for each of `hr_paths` in the same order; without them they are made by
            antialiased bicubic, rounded to 8 bit.
        device: where `upscale` computes.
        border_px: border left out of the scores; the scale, if not given.
        extra: further scores by name (see `perceptual_metrics`), of `[1, 3, H, W]` in [0, 1], 8 bit, cropped.
        luma_alone: the network works on luma alone.
        on_image: called as `on_image(image name, lr, sr, hr)` with float `[1, 3, ., .]` in [0, 1] on the CPU, `sr`
            rounded to 8 bit.
        advance: called as `advance(note=image name)` after each picture.

    Raises:
        InputError: no pictures, sizes that do not fit, a picture too small to be scored, or an output with
            NaN or infinite values; the sentence names the file.
    """
    if not hr_paths:
        raise InputError(f"evaluate: the set {name} has no pictures.")
    if lr_paths is not None and len(lr_paths) != len(hr_paths):
        raise InputError(f"evaluate: {name} has {len(hr_paths)} HR pictures but {len(lr_paths)} LR pictures.")
    images: dict[str, dict[str, float]] = {}
    for index, (key, path) in enumerate(zip(image_names(hr_paths), hr_paths, strict=True)):
        lr, hr = _pair(path, None if lr_paths is None else lr_paths[index], scale)
        with torch.inference_mode():
            sr, y = _upscaled(upscale, lr.to(device), scale, luma_alone)
        if list(sr.shape) != list(hr.shape):
            raise InputError(
                f"{path}: expected an output of shape {list(hr.shape)} for an input of {list(lr.shape)}, "
                f"got {list(sr.shape)}; is this a model for x{scale}?"
            )
        if not bool(sr.isfinite().all()):
            raise InputError(f"{path}: the model's output has NaN or infinite values; the model is broken.")
        border = scale if border_px is None else border_px
        try:
            truth = to_levels(hr).to(sr.device)
            images[key] = scores(to_levels(sr), truth, border)
            if y is not None:
                images[key] |= luma_scores(255 * y, truth, border)
            images[key] |= _extra_scores(extra or {}, round_to_bits(sr), hr.to(sr.device), border)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        if on_image is not None:
            on_image(key, lr, round_to_bits(sr).cpu(), hr)
        if advance is not None:
            advance(note=key)
    return SetScores(name, images)


def _upscaled(upscale: Upscale, lr: Tensor, scale: int, luma_alone: bool) -> tuple[Tensor, Tensor | None]:
    """Return the output in RGB, and for a network of luma alone its luma, full range."""
    if not luma_alone:
        return upscale(lr).float(), None
    y, colors = upscale(gray(lr)).float(), imresize(lr - gray(lr), scale)
    return (y, None) if y.shape[-2:] != colors.shape[-2:] else (y + colors, y)


def bicubic_upscaler(scale: int) -> Upscale:
    """Return bicubic interpolation by `scale`, the usual lower bound."""
    return lambda lr: imresize(lr, scale=scale)


def _extra_scores(extra: Extra, sr: Tensor, hr: Tensor, border_px: int) -> dict[str, float]:
    height, width = hr.shape[-2:]
    sr, hr = (i[..., border_px : height - border_px, border_px : width - border_px].contiguous() for i in (sr, hr))
    return {name: score(sr, hr) for name, score in extra.items()}


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def protocol(scale: int, border_px: int | None = None, lr: str | None = None) -> dict[str, Any]:
    """Return what has to be said beside the numbers, so that others can compare theirs.

    Args:
        scale: factor of the task.
        border_px: as for `evaluate_set`.
        lr: the folder of the inputs, if they were not made here.
    """
    return {
        "scale": scale,
        "border_px": scale if border_px is None else border_px,
        "hr": f"cut at the right and bottom to a multiple of {scale}, 8 bit, gray as R = G = B",
        "lr": lr or f"bicubic 1/{scale} with antialiasing (as MATLAB's imresize), rounded to 8 bit",
        "sr": "clamped and rounded to 8 bit",
        "luma": "BT.601 studio range, 16 + (65.481 R + 128.553 G + 24.966 B) / 255, not rounded; "
        "the output of a network of luma alone rounded to 8 bit",
        "psnr": "peak 255, float64; null where the images are identical",
        "ssim": "11x11 Gaussian window of sigma 1.5 inside the image, K1 0.01, K2 0.03; RGB: mean over channels",
        "self_similarity": "1000 (mean |X - Y| + KL / S^2) at all edges of HR; search 25, window 9, sigma 0.004",
        "lpips": "AlexNet, version 0.1, RGB",
        "dists": "VGG16, RGB, at full size",
        "mean": "over images",
    }


def image_names(paths: Sequence[Path]) -> list[str]:
    """Name each picture by its file's stem; where two stems are equal, all by their paths below a common folder."""
    stems = [path.stem for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    common = os.path.commonpath([path.absolute().parent for path in paths])
    return [path.absolute().relative_to(common).as_posix() for path in paths]


def pair_lr(hr_paths: Sequence[Path], folder: Path, scale: int) -> list[Path]:
    """Find the input of each picture in `folder` by its name: `0801.png`, `0801x2.png` or `0801_x2.png`.

    Raises:
        InputError: the folder is missing or lacks the input of a picture.
    """
    found = {path.stem: path for path in list_pictures(folder)}
    pairs = []
    for hr in hr_paths:
        names = [hr.stem, f"{hr.stem}x{scale}", f"{hr.stem}_x{scale}"]
        fits = [found[name] for name in names if name in found]
        if not fits:
            raise InputError(
                f"{folder}: expected the x{scale} input of {hr.name} under the name {names[0]} or {names[1]}, "
                f"there is none among {len(found)} pictures; name the folder that belongs to these HR pictures."
            )
        pairs.append(fits[0])
    return pairs


def find_sets(data: Sequence[str]) -> dict[str, list[Path]]:
    """Read `--data`: each entry is `DIR` or `NAME=DIR`; a DIR with no pictures but sub-folders is several sets.

    Returns:
        The pictures of each set by the set's name.

    Raises:
        InputError: a folder is missing or empty, or two sets have one name.
    """
    sets: dict[str, list[Path]] = {}
    for entry in data:
        name, equals, rest = entry.partition("=")
        if not equals or Path(entry).is_dir():
            name, rest = "", entry
        folder = Path(rest)
        pictures = list_pictures(folder)
        parts = {"": pictures}
        if not any(path.parent == folder for path in pictures):
            parts = {}
            for path in pictures:
                parts.setdefault(path.relative_to(folder).parts[0], []).append(path)
        for part, paths in parts.items():
            key = "/".join(filter(None, (name, part))) or folder.resolve().name
            if key in sets:
                raise InputError(
                    f"evaluate: two sets are called {key}; give one another name with --data NAME={folder}."
                )
            sets[key] = paths
    return sets


def _pair(hr_path: Path, lr_path: Path | None, scale: int) -> tuple[Tensor, Tensor]:
    """Return lr and hr of one picture, float `[1, 3, ., .]` in [0, 1] on the CPU, rounded to 8 bit."""
    hr = round_to_bits(to_tensor(read_picture(hr_path)))
    try:
        hr = mod_crop(hr, scale)
    except InputError as error:
        raise InputError(f"{hr_path}: {error}") from error
    if lr_path is None:
        return bicubic_lr(hr, scale), hr
    lr = to_tensor(read_picture(lr_path))
    (height, width), (lr_height, lr_width) = hr.shape[-2:], lr.shape[-2:]
    if (height, width) != (lr_height * scale, lr_width * scale):
        raise InputError(
            f"{lr_path}: expected {width // scale}x{height // scale} px, 1/{scale} of {hr_path.name}, "
            f"got {lr_width}x{lr_height} px; check --scale and that both folders belong together."
        )
    return lr, hr


def _finite(row: dict[str, float]) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in row.items()}
