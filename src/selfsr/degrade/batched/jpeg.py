"""JPEG of a batch without a codec: bit-exact to libjpeg-turbo, each image with its own quality.

Between quantization and dequantization, a codec only codes the coefficients, which is lossless. The rest is integer
arithmetic on pixels (ITU-T T.81 | ISO/IEC 10918-1, and libjpeg's choices where the standard leaves them open): colors
with 16 fractional bits, 2 x 2 averages of the chroma, a discrete cosine transform with 13-bit constants, and triangular
interpolation of the chroma. The transforms are products with an integer matrix, and a rounding shift after each axis.
They are computed in float64, in which all numbers here are exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from selfsr.degrade.batched.padding import clamp_index, compute_bounding_size, gather_pixels, to_device_of
from selfsr.degrade.jpeg import Jpeg
from selfsr.masks import LUMA_FIXED, LUMA_FIXED_BITS

# Quantization tables of quality 50: T.81, tables K.1 (luma) and K.2 (chroma).
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *(((99,) * 8,) * 4),
)

_MCU_PX = 16  # a block of 8 x 8 chroma samples covers 16 x 16 pixels
_TRANSFORM_BITS = 13  # fractional bits of the transform's constants
_PASS_BITS = 2  # fractional bits that are kept between its two axes
_COLOR_BITS = LUMA_FIXED_BITS
# The narrowest chroma that is interpolated; libjpeg repeats the samples of narrower ones.
_INTERPOLATED_PX = 3


@dataclass(frozen=True)
class BatchedJpeg:
    """JPEG compression and decompression of each image, with chroma at half the resolution (4:2:0).

    Attributes:
        sizes: height and width of the images, int64 `[n, 2]`.
        tables: quantization tables of luma and chroma, float64 `[n, 2, 8, 8]`.
    """

    sizes: np.ndarray
    tables: np.ndarray

    @classmethod
    def merge(cls, steps: Sequence[Jpeg], sizes: np.ndarray) -> "BatchedJpeg":
        """Merge the steps of several images.

        Args:
            steps: one for each image.
            sizes: of the images before the step, int64 `[n, 2]`.
        """
        return cls(sizes, np.stack([quantization_tables(step.quality) for step in steps]))

    def output_sizes(self) -> np.ndarray:
        """Return the sizes of the images after this step."""
        return self.sizes

    def __call__(self, image: Tensor, noise: Sequence[torch.Generator]) -> Tensor:  # noqa: ARG002 - as all steps
        """Return the images after JPEG; clipped and rounded to 8 bits before."""
        heights, widths = to_device_of(self.sizes, image).unbind(1)
        full = tuple(-(-side // _MCU_PX) * _MCU_PX for side in compute_bounding_size(self.sizes))
        levels = (image.clamp(0, 1) * 255).round()
        padded = gather_pixels(levels, clamp_index(0, full[0], heights), clamp_index(0, full[1], widths)).to(
            torch.int32
        )
        luma, chroma = _rgb_to_ycc(padded)
        # Below an image the codec repeats averages, not pixels: they differ if the height is even.
        half = (heights + 1) // 2, (widths + 1) // 2
        below = clamp_index(0, full[0] // 2, half[0])
        chroma = _downsample_chroma(chroma).gather(2, below[:, None, :, None].expand(-1, 2, -1, full[1] // 2))
        luma, chroma = _code(luma, chroma, to_device_of(self.tables, image))
        rgb = _ycc_to_rgb(luma, _upsample_chroma(chroma, *half))
        return rgb[..., : image.shape[-2], : image.shape[-1]].to(torch.float32) / 255


def quantization_tables(quality: int) -> np.ndarray:
    """Return the quantization tables of luma and chroma, float64 `[2, 8, 8]`, for libjpeg's quality, 1 to 100."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((np.array([_LUMA, _CHROMA]) * percent + 50) // 100, 1, 255).astype(np.float64)


def _rgb_to_ycc(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """Convert int32 RGB, 0 to 255, to luma `[n, 1, H, W]` and chroma `[n, 2, H, W]`: BT.601 in fixed point."""
    r, g, b = rgb.split(1, dim=1)
    half = 1 << (_COLOR_BITS - 1)
    center = (128 << _COLOR_BITS) + half - 1  # rounds halves down, so that 255 is never exceeded
    luma = (LUMA_FIXED[0] * r + LUMA_FIXED[1] * g + LUMA_FIXED[2] * b + half) >> _COLOR_BITS
    blue = (-11059 * r - 21709 * g + 32768 * b + center) >> _COLOR_BITS
    red = (32768 * r - 27439 * g - 5329 * b + center) >> _COLOR_BITS
    return luma, torch.cat([blue, red], 1)


def _ycc_to_rgb(luma: Tensor, chroma: Tensor) -> Tensor:
    """Convert luma and chroma to RGB, int32, 0 to 255."""
    blue, red = (chroma - 128).split(1, dim=1)
    half = 1 << (_COLOR_BITS - 1)
    r = luma + ((91881 * red + half) >> _COLOR_BITS)
    g = luma + ((-22554 * blue - 46802 * red + half) >> _COLOR_BITS)
    b = luma + ((116130 * blue + half) >> _COLOR_BITS)
    return torch.cat([r, g, b], 1).clamp(0, 255)


def _downsample_chroma(plane: Tensor) -> Tensor:
    """Average 2 x 2 samples; halves are rounded down and up alternately along a row."""
    total = plane[..., ::2, ::2] + plane[..., ::2, 1::2] + plane[..., 1::2, ::2] + plane[..., 1::2, 1::2]
    return (total + 1 + torch.arange(total.shape[-1], device=plane.device, dtype=torch.int32) % 2) >> 2


def _upsample_chroma(plane: Tensor, heights: Tensor, widths: Tensor) -> Tensor:
    """Double rows and columns by triangular interpolation; the last sample of an image repeats."""
    rows, columns = plane.shape[-2:]
    across = clamp_index(0, columns, widths)
    near, above, below = (gather_pixels(plane, clamp_index(shift, rows, heights), across) for shift in (0, -1, 1))
    lines = torch.stack([3 * near + above, 3 * near + below], 3).flatten(2, 3)  # in quarters
    down = torch.arange(2 * rows, device=plane.device).expand(len(plane), -1)
    left, right = (gather_pixels(lines, down, clamp_index(shift, columns, widths)) for shift in (-1, 1))
    smooth = torch.stack([(3 * lines + left + 8) >> 4, (3 * lines + right + 7) >> 4], 4).flatten(3, 4)
    repeated = near.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return torch.where((widths >= _INTERPOLATED_PX)[:, None, None, None], smooth, repeated)


def _code(luma: Tensor, chroma: Tensor, tables: Tensor) -> tuple[Tensor, Tensor]:
    """Transform the planes, quantize them with `tables` `[n, 2, 8, 8]`, and transform them back."""
    planes = [_to_blocks(luma), _to_blocks(chroma)]
    sizes = [plane[0, 0].numel() for plane in planes]
    x = torch.cat([plane.flatten(2) for plane in planes], 2).to(torch.float64).sub_(128)
    matrix = to_device_of(np.array(_DCT_MATRIX, np.float64), x)
    x = _descale(matrix @ x, _TRANSFORM_BITS - _PASS_BITS)
    x = _descale((matrix @ x.flatten(1)).view_as(x), _TRANSFORM_BITS + _PASS_BITS)
    for coefficients, table in zip(x.split(sizes, 2), tables.permute(1, 2, 3, 0), strict=True):
        _quantize(coefficients.unflatten(2, (len(luma), -1)), table[..., None])
    x = _descale((matrix.T @ x.flatten(1)).view_as(x), _TRANSFORM_BITS - _PASS_BITS)
    x = _descale(matrix.T @ x, _TRANSFORM_BITS + _PASS_BITS + 3)
    x = x.add_(128).clamp_(0, 255).to(torch.int32)
    first, second = (_from_blocks(y.view_as(plane)) for y, plane in zip(x.split(sizes, 2), planes, strict=True))
    return first, second


def _quantize(x: Tensor, steps: Tensor) -> None:
    """Round coefficients (`x` is 8 times as large) to multiples of `steps`, halves away from zero; in place."""
    x.copy_(x.abs().add_(4 * steps).div_(8 * steps).floor_().mul_(steps).copysign_(x))


def _to_blocks(planes: Tensor) -> Tensor:
    """Return `[8 rows, 8 columns, n, c, H / 8, W / 8]`: the axes of the transform first, then all blocks."""
    return planes.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).permute(3, 5, 0, 1, 2, 4)


def _from_blocks(blocks: Tensor) -> Tensor:
    return blocks.permute(2, 3, 4, 0, 5, 1).flatten(4, 5).flatten(2, 3)


def _descale(x: Tensor, bits: int) -> Tensor:
    """Divide integers that are stored as floats by 2^bits and round them, halves up; in place."""
    return x.add_(2 ** (bits - 1)).mul_(2**-bits).floor_()


def _compute_dct_matrix() -> tuple[tuple[int, ...], ...]:
    """Return the 8 x 8 transform times 2^13, with the rounding of libjpeg's constants.

    C. Loeffler et al., "Practical fast 1-D DCT algorithms with 11 multiplications", ICASSP 1989: sums of inputs times
    constants, each rounded to 13 bits. Written out as a matrix, an entry is a sum of the rounded constants.
    """
    c0_298, c0_390, c0_541, c0_765, c0_899, c1_175 = 2446, 3196, 4433, 6270, 7373, 9633
    c1_501, c1_847, c1_961, c2_053, c2_562, c3_072 = 12299, 15137, 16069, 16819, 20995, 25172
    one = 1 << _TRANSFORM_BITS
    first, second = c0_541 + c0_765, c0_541
    third, fourth = c0_541, c0_541 - c1_847
    even = {0: (one, one, one, one), 2: (first, second, -second, -first)}
    even |= {4: (one, -one, -one, one), 6: (third, fourth, -fourth, -third)}
    odd = {
        1: (c1_501 - c0_899 - c0_390 + c1_175, c1_175, c1_175 - c0_390, c1_175 - c0_899),
        3: (c1_175, c3_072 - c2_562 - c1_961 + c1_175, c1_175 - c2_562, c1_175 - c1_961),
        5: (c1_175 - c0_390, c1_175 - c2_562, c2_053 - c2_562 - c0_390 + c1_175, c1_175),
        7: (c1_175 - c0_899, c1_175 - c1_961, c1_175, c0_298 - c0_899 - c1_961 + c1_175),
    }
    rows = {k: (*half, *reversed(half)) for k, half in even.items()}
    rows |= {k: (*half, *(-x for x in reversed(half))) for k, half in odd.items()}
    return tuple(rows[k] for k in range(8))


_DCT_MATRIX = _compute_dct_matrix()
