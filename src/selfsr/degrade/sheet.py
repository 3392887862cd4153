"""A contact sheet: of each picture a crop, and what several draws of a degradation make of it."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from selfsr.degrade.base import PresetSpec
from selfsr.degrade.blur import Blur
from selfsr.degrade.files import draw, read_hr
from selfsr.degrade.jpeg import Jpeg, levels
from selfsr.degrade.kernels import Sinc
from selfsr.degrade.noise import CorrelatedNoise, GaussianNoise, PoissonNoise
from selfsr.degrade.plan import Plan, Step
from selfsr.degrade.resample import Resize, Subsample
from selfsr.errors import InputError
from selfsr.images.files import Picture, write_picture

_CROP_PX = 128  # of HR
_CELL_PX = 256
_CAPTION_PX = 44
_GAP_PX = 8
_CHARACTERS = 44  # of a caption's line


def contact_sheet(
    path: Path,
    pictures: Sequence[tuple[Path, str]],
    degradation: PresetSpec,
    *,
    scale: int,
    seed: int,
    draws: int,
) -> int:
    """Write a picture with a row for each picture: the center of HR, then the same place in each draw.

    LR is shown as the pixels it has, each a square, with the steps that made it below.

    Args:
        path: the picture to write.
        pictures: files with their names below their folder; those that cannot be used are passed over.
        degradation: what to draw from.
        scale: how many times smaller LR is.
        seed: as for the files: draw i shows what the i-th file has.
        draws: how many columns there are beside HR.

    Returns:
        How many rows there are.

    Raises:
        InputError: none of the pictures can be used.
    """
    rows = []
    for source, name in pictures:
        try:
            image = read_hr(source, degradation, scale)
        except InputError:
            continue
        made = [draw(image, degradation, name, number + 1, scale=scale, seed=seed) for number in range(draws)]
        side = min(_CROP_PX, *image.shape[:2]) // scale * scale
        top, left = ((length - side) // 2 // scale * scale for length in image.shape[:2])
        cells = [(image[top : top + side, left : left + side], f"{name}\n{side} x {side} px")]
        for lr, plan in made:
            small = slice(top // scale, (top + side) // scale), slice(left // scale, (left + side) // scale)
            cells.append((lr[small], _caption(plan, image.shape[0])))
        rows.append(cells)
    if not rows:
        raise InputError("degrade: none of the pictures can be used for the contact sheet; see the failures above.")
    write_picture(path, Picture(_laid_out(rows)))
    return len(rows)


def _laid_out(rows: list[list[tuple[np.ndarray, str]]]) -> np.ndarray:
    step_x, step_y = _CELL_PX + _GAP_PX, _CELL_PX + _CAPTION_PX + _GAP_PX
    page = Image.new("RGB", (len(rows[0]) * step_x + _GAP_PX, len(rows) * step_y + _GAP_PX), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(size=11)
    for y, cells in enumerate(rows):
        for x, (image, caption) in enumerate(cells):
            corner = (_GAP_PX + x * step_x, _GAP_PX + y * step_y)
            large = cv2.resize(levels(image), (_CELL_PX, _CELL_PX), interpolation=cv2.INTER_NEAREST)
            page.paste(Image.fromarray(large), corner)
            pen.multiline_text((corner[0], corner[1] + _CELL_PX + 2), caption, "black", font, spacing=1)
    return np.asarray(page)


def _caption(plan: Plan, height: int) -> str:
    """Return the steps in three short lines."""
    lines = [""]
    for step in plan:
        before = height
        words, height = _words(step, height)
        if isinstance(step, Resize) and height == before:
            continue
        if len(lines[-1]) + len(words) > _CHARACTERS and len(lines) < 3:
            lines.append("")
        lines[-1] += f"{', ' if lines[-1] else ''}{words}"
    return "\n".join(lines)


def _words(step: Step, height: int) -> tuple[str, int]:
    """Return a step in a few words, and the height after it."""
    match step:
        case Blur(kernel=Sinc(cutoff=cutoff)):
            return f"sinc {cutoff:.1f}", height
        case Blur(kernel=bell):
            assert not isinstance(bell, Sinc)
            axes = sorted({f"{sigma:.1f}" for sigma in bell.sigma_px})
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
