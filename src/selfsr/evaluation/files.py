"""Check the headers of all files before an evaluation, and save its output images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from selfsr.errors import InputError
from selfsr.evaluation.sets import ImageSet, name_images
from selfsr.images.files import DecodedImage, ImageHeader, read_header, tensor_to_pixels, write_image
from selfsr.images.pairing import find_size_problem
from selfsr.images.paths import is_inside
from selfsr.images.resize import imresize
from selfsr.losses.structural import WINDOW_PX

_GAP_PX = 8


def check_headers(
    hr_paths: Sequence[Path], lr_paths: Sequence[Path] | None, *, scale: int, border_px: int | None = None
) -> int:
    """Check that all files are images of sizes that can be scored, without decoding their pixels.

    Args:
        hr_paths: the ground truths.
        lr_paths: the inputs in the order of `hr_paths`, or None.
        scale: the upscaling factor.
        border_px: pixels at each side that the scores leave out; None is the scale.

    Returns:
        The number of frames and pages after the first ones, which are not scored.

    Raises:
        InputError: a file cannot be used; the sentence names the first one and the number of others.
    """
    problems: list[str] = []
    further_frames = 0
    for index, hr_path in enumerate(hr_paths):
        hr = _read_header(hr_path, problems)
        if hr is not None:
            further_frames += hr.frames - 1
            least_px = WINDOW_PX + 2 * (scale if border_px is None else border_px)
            if min(side - side % scale for side in (hr.height, hr.width)) < least_px:
                given = "" if border_px is None else f" for --border {border_px}"
                advice = "leave it out" if border_px is None else "choose a smaller --border, or leave the image out"
                problems.append(
                    f"{hr_path}: expected at least {least_px} x {least_px} pixels (height x width){given}, a multiple "
                    f"of the scale {scale}, got {hr.height} x {hr.width}; {advice}."
                )
        if lr_paths is None:
            continue
        lr = _read_header(lr_paths[index], problems)
        if hr is not None and lr is not None:
            problem = find_size_problem((hr.height, hr.width), (lr.height, lr.width), scale)
            if problem:
                problems.append(f"{lr_paths[index]}: {problem}; check the scale, and that it belongs to {hr_path}.")
    if problems:
        more = f" ({len(problems) - 1} more like this)." if len(problems) > 1 else "."
        raise InputError(problems[0].removesuffix(".") + more)
    return further_frames


def _read_header(path: Path, problems: list[str]) -> ImageHeader | None:
    try:
        return read_header(path)
    except InputError as error:
        problems.append(str(error))
    except OSError as error:
        problems.append(f"{path}: expected a readable file, got {error.strerror or error}; check its permissions.")
    return None


@dataclass(frozen=True)
class SavedImages:
    """Writes the output of each image, and a comparison: bicubic, output and ground truth side by side.

    Attributes:
        targets: the file of the output and that of the comparison, by set and image.
        scale: the upscaling factor.
    """

    targets: Mapping[tuple[str, str], tuple[Path, Path]]
    scale: int

    def write(self, set_name: str, image: str, lr: Tensor, sr: Tensor, hr: Tensor) -> None:
        """Write the files of one image, float `[1, 3, H, W]` in [0, 1]."""
        gap = torch.ones(1, 3, hr.shape[2], _GAP_PX)
        comparison = torch.cat([imresize(lr, scale=self.scale), gap, sr, gap, hr], dim=3)
        for path, pixels in zip(self.targets[set_name, image], (sr, comparison), strict=True):
            write_image(path, DecodedImage(tensor_to_pixels(pixels[0])))


def plan_saved_images(folder: Path, sets: Mapping[str, ImageSet], inputs: Sequence[Path], scale: int) -> SavedImages:
    """Choose a file for each output and comparison, so that none replaces another one or an input.

    Args:
        folder: receives the files, in a subfolder for each set.
        sets: the sets by name.
        inputs: the folders that were passed by the user; they may not contain `folder`.
        scale: the upscaling factor.

    Raises:
        InputError: `folder` is in a folder of inputs, where a later call would evaluate its images, or two images have
            one file.
    """
    for place in inputs:
        if any(is_inside(target / "any", place) for target in (folder, *(folder / name for name in sets))):
            raise InputError(
                f"evaluate: expected a folder for --save-images outside of {place}, got {folder}; choose another one."
            )
    names = [(set_name, image) for set_name, images in sets.items() for image in name_images(images.paths)]
    outputs: dict[Path, tuple[str, str]] = {}
    for name in names:
        other = outputs.setdefault(folder / name[0] / f"{name[1]}.png", name)
        if other != name:
            raise InputError(
                f"evaluate: expected different names for --save-images, got {'/'.join(other)} and {'/'.join(name)}; "
                "name the sets with --data NAME=DIR."
            )
    taken, targets = set(outputs), {}
    for path, name in outputs.items():
        comparison, number = path.with_name(f"{path.stem}_compare.png"), 1
        while comparison in taken:  # an image is called like the comparison of another one
            number += 1
            comparison = path.with_name(f"{path.stem}_compare{number}.png")
        taken.add(comparison)
        targets[name] = (path, comparison)
    return SavedImages(targets, scale)
