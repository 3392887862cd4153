"""Draw a contact sheet: one crop of each image, and the same crop in several degraded versions."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from selfsr.degrade.base import PresetSpec
from selfsr.degrade.blur import Blur
from selfsr.degrade.files import read_hr, sample_lr
from selfsr.degrade.jpeg import Jpeg, to_uint8
from selfsr.degrade.kernels import SincKernel
from selfsr.degrade.noise import CorrelatedNoise, GaussianNoise, PoissonNoise
from selfsr.degrade.plan import DegradationPlan, Step
from selfsr.degrade.resample import Resize, Subsample
from selfsr.errors import InputError
from selfsr.images.files import DecodedImage, write_image

_CROP_PX = 128  # of HR
_CELL_PX = 256
_CAPTION_PX = 44
_GAP_PX = 8
_CAPTION_CHARACTERS = 44  # in a line


def write_contact_sheet(
    path: Path,
    images: Sequence[tuple[Path, str]],
    degradation: PresetSpec,
    *,
    scale: int,
    seed: int,
    draws: int,
) -> int:
    """Write an image with one row for each input image: the center of HR, then the same region in each draw.

    LR is enlarged without interpolation; the caption lists the steps that made it.

    Args:
        path: the image file to write.
        images: files, each with its path relative to its folder; files that cannot be used are left out.
        degradation: the distribution of the plans.
        scale: how many times smaller LR is.
        seed: as for `degrade_files`: draw i shows the i-th version of an image.
        draws: number of columns in addition to HR.

    Returns:
        The number of rows.

    Raises:
        InputError: none of the images can be used.
    """
    rows = []
    for source, name in images:
        try:
            image = read_hr(source, degradation, scale)
        except (InputError, OSError):
            continue
        degraded = [sample_lr(image, degradation, name, number + 1, scale=scale, seed=seed) for number in range(draws)]
        side = min(_CROP_PX, *image.shape[:2]) // scale * scale
        top, left = ((length - side) // 2 // scale * scale for length in image.shape[:2])
        cells = [(image[top : top + side, left : left + side], f"{name}\n{side} x {side} px")]
        for lr, plan in degraded:
            region = slice(top // scale, (top + side) // scale), slice(left // scale, (left + side) // scale)
            cells.append((lr[region], _describe_plan(plan, image.shape[0])))
        rows.append(cells)
    if not rows:
        raise InputError(
            "degrade: expected an image that can be used for the contact sheet, got none; see the failures above."
        )
    write_image(path, DecodedImage(draw_page(rows)))
    return len(rows)


def draw_page(rows: list[list[tuple[np.ndarray, str]]]) -> np.ndarray:
    """Return a page of square images with captions, `[height, width, 3]` in uint8.

    Args:
        rows: the cells of each row, the first of which is the longest: an image, float `[H, W, 3]` in [0, 1], which is
            enlarged without interpolation, and its caption in up to three lines.
    """
    step_x, step_y = _CELL_PX + _GAP_PX, _CELL_PX + _CAPTION_PX + _GAP_PX
    page = Image.new("RGB", (len(rows[0]) * step_x + _GAP_PX, len(rows) * step_y + _GAP_PX), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(size=11)
    for y, cells in enumerate(rows):
        for x, (image, caption) in enumerate(cells):
            corner = (_GAP_PX + x * step_x, _GAP_PX + y * step_y)
            large = cv2.resize(to_uint8(image), (_CELL_PX, _CELL_PX), interpolation=cv2.INTER_NEAREST)
            page.paste(Image.fromarray(large), corner)
            pen.multiline_text((corner[0], corner[1] + _CELL_PX + 2), caption, "black", font, spacing=1)
    return np.asarray(page)


def _describe_plan(plan: DegradationPlan, height: int) -> str:
    """Describe the steps of a plan in three short lines."""
    lines = [""]
    for step in plan:
        height_before = height
        text, height = _describe_step(step, height)
        if isinstance(step, Resize) and height == height_before:
            continue
        if len(lines[-1]) + len(text) > _CAPTION_CHARACTERS and len(lines) < 3:
            lines.append("")
        lines[-1] += f"{', ' if lines[-1] else ''}{text}"
    return "\n".join(lines)


def _describe_step(step: Step, height: int) -> tuple[str, int]:
    """Return a short description of a step, and the height after it."""
    match step:
        case Blur(kernel=SincKernel(cutoff=cutoff)):
            return f"sinc {cutoff:.1f}", height
        case Blur(kernel=kernel):
            assert not isinstance(kernel, SincKernel)
            axes = sorted({f"{sigma:.1f}" for sigma in kernel.sigma_px})
            return f"blur {'/'.join(axes)}", height
        case Resize():
            return f"x{step.height / height:.2f}", step.height
        case Subsample():
            return f"1 in {step.step_px}", -(-height // step.step_px)
        case GaussianNoise():
            return f"{'gray' if step.gray else 'color'} {step.sigma:.0f}", height
        case CorrelatedNoise():
            return "correlated", height
        case PoissonNoise():
            return f"Poisson {step.scale:.1f}{' gray' if step.gray else ''}", height
        case Jpeg():
            return f"JPEG {step.quality}", height
    return step.name, height
