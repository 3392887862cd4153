"""Compare an exported file with the network it was made from, on images of several sizes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from selfsr.errors import InputError
from selfsr.nets.weights.model import Model

# The largest difference of a float32 file, in gray levels of 255. Half a level changes a rounded pixel by 1 at most.
# SPAN differs by 0.04 between two libraries, other networks by 0.001.
FLOAT32_LIMIT_LEVELS: float = 0.5
# The least PSNR of a file in half precision. At 45 dB the mean difference is 1.4 gray levels, invisible next to the
# 35 dB that networks themselves reach.
HALF_LIMIT_DB: float = 45.0
# Heights and widths in pixels, even and odd; those of the network's multiple are the next larger ones.
_SIZES_PX = ((24, 32), (33, 47), (61, 40))
# Further sizes for a file whose sizes vary: below, at and above the windows of 64 and 128 px that networks pad to.
_VARIED_SIZES_PX = ((64, 21), (67, 130))


@dataclass(frozen=True)
class Difference:
    """The difference between the outputs of a file and of the float32 network, over all sizes.

    Attributes:
        levels: the largest absolute difference, in gray levels of 255, of outputs clipped to [0, 1].
        psnr_db: PSNR of all pixels; infinite if they are equal.
        sizes_px: height and width of the inputs.
    """

    levels: float
    psnr_db: float
    sizes_px: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        psnr = "identical" if math.isinf(self.psnr_db) else f"{self.psnr_db:.1f} dB PSNR"
        return f"{self.levels:.3g} gray levels at most, {psnr}"


def choose_sizes(model: Model, *, varied: bool = False) -> tuple[tuple[int, int], ...]:
    """Return heights and widths in pixels that the network itself accepts, without the padding of `Model.upscale`.

    Args:
        model: the network.
        varied: add sizes for a file that may be wrong at other sizes than the one with which it was written.
    """
    sizes = []
    for size in _SIZES_PX + (_VARIED_SIZES_PX if varied else ()):
        sides = [-(-max(px, model.minimum_px) // model.multiple_of_px) * model.multiple_of_px for px in size]
        sizes.append((max(sides), max(sides)) if model.square else (sides[0], sides[1]))
    if len(set(sizes)) == 1:  # of a large multiple; another size shows whether sizes may vary
        height, width, step = *sizes[0], model.multiple_of_px
        sizes.append((height + step, width + step) if model.square else (height, width + step))
    return tuple(dict.fromkeys(sizes))


def make_check_image(channels: int, height: int, width: int) -> Tensor:
    """Return an image `[1, channels, height, width]` in [0, 1] of waves and edges, always the same.

    Noise is unsuitable: networks enlarge it far beyond [0, 1], and the rounding with it.
    """
    y = torch.arange(height, dtype=torch.float32)[:, None]
    x = torch.arange(width, dtype=torch.float32)[None]
    planes = []
    for channel in range(channels):
        waves = torch.sin(0.31 * y + 0.17 * x * (channel + 1)) + torch.sin(0.05 * x * y / (channel + 2))
        planes.append(0.5 + 0.15 * waves + 0.2 * ((2 * y + x) % 23 < 7) - 0.1)
    return torch.stack(planes)[None].clamp(0, 1)


@torch.no_grad()
def measure_difference(
    run: Callable[[Tensor], Tensor],
    reference: Callable[[Tensor], Tensor],
    channels: int,
    sizes: Sequence[tuple[int, int]],
) -> Difference:
    """Compare two networks on images of several sizes.

    Args:
        run: the network of a file; maps `[1, channels, h, w]` in [0, 1] to `[1, channels, scale h, scale w]`.
        reference: the network in float32.
        channels: channels of the input.
        sizes: height and width of each input, in pixels.

    Raises:
        InputError: an output has another size, NaN or infinity.
    """
    largest, squares, count = 0.0, 0.0, 0
    for height, width in sizes:
        image = make_check_image(channels, height, width)
        expected, output = reference(image.clone()).double(), run(image.clone()).double()
        if output.shape != expected.shape or not bool(output.isfinite().all()):
            state = "NaN or infinity" if output.shape == expected.shape else f"{list(output.shape)}"
            raise InputError(
                f"export: expected finite outputs {list(expected.shape)} for an input of {height} x {width} px, got "
                f"{state}; choose another precision or format."
            )
        difference = (output.clamp(0, 1) - expected.clamp(0, 1)).abs()
        largest = max(largest, 255 * float(difference.max()))
        squares, count = squares + float(difference.square().sum()), count + difference.numel()
    psnr = math.inf if squares == 0 else -10 * math.log10(squares / count)
    return Difference(largest, psnr, tuple(sizes))


def check_difference(name: str, difference: Difference, *, half: bool) -> None:
    """Refuse a file whose outputs differ too much from those of the network.

    Args:
        name: its file name, for the message.
        difference: from `measure_difference`.
        half: whether the file has 16-bit numbers, with the limit `HALF_LIMIT_DB`; else `FLOAT32_LIMIT_LEVELS`.

    Raises:
        InputError: the difference is over the limit.
    """
    if half and difference.psnr_db < HALF_LIMIT_DB:
        raise InputError(
            f"export: expected {name} within {HALF_LIMIT_DB:g} dB PSNR of the float32 network, got "
            f"{difference.psnr_db:.1f} dB; this network needs float32, so leave its half precision out."
        )
    if not half and difference.levels > FLOAT32_LIMIT_LEVELS:
        raise InputError(
            f"export: expected {name} within {FLOAT32_LIMIT_LEVELS:g} gray levels of the network, got "
            f"{difference.levels:.3g}; choose another format."
        )
