"""JPEG without a codec: the same bits as libjpeg-turbo's, for a whole batch, each picture with a quality of its own.

What a codec does between quantization and dequantization, the coding of the coefficients, loses nothing. All the rest
is integer arithmetic on pixels (ITU-T T.81 | ISO/IEC 10918-1, and for what the standard leaves open libjpeg's own
choices): colors in 16 bits of fraction, chroma averaged 2 x 2, a discrete cosine transform whose constants have 13
bits, triangular interpolation of the chroma. The transforms are products with a matrix of whole numbers and a rounding
shift after each axis. They are computed in float64, in which every number here is exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from selfsr.degrade.batched.canvas import gathered, held, largest, on
from selfsr.degrade.jpeg import Jpeg

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

_MCU_PX = 16  # 8 x 8 blocks, of the chroma 2 x 2 pixels apart
_TRANSFORM_BITS = 13  # of fraction, in the constants of the transform
_PASS_BITS = 2  # of fraction, that are kept between its two axes
_COLOR_BITS = 16
# The narrowest chroma that is interpolated; libjpeg repeats the samples of narrower ones.
_INTERPOLATED_PX = 3


@dataclass(frozen=True)
class BatchedJpeg:
    """Compression and decompression of every picture, chroma at half the resolution (4:2:0).

    Attributes:
        sizes: of the pictures, int64 `[n, 2]`.
        tables: quantization of luma and chroma, float64 `[n, 2, 8, 8]`.
    """

    sizes: np.ndarray
    tables: np.ndarray

    @classmethod
    def merged(cls, steps: Sequence[Jpeg], sizes: np.ndarray) -> "BatchedJpeg":
        """Return the steps of pictures of these sizes as one."""
        return cls(sizes, np.stack([quantization(step.quality) for step in steps]))

    def after(self) -> np.ndarray:
        """Return the sizes that the pictures then have."""
        return self.sizes

    def __call__(self, image: Tensor, noise: Sequence[torch.Generator]) -> Tensor:  # noqa: ARG002 - as all steps
        """Return the pictures as they come out of the files; clipped and rounded to 8 bit before."""
        heights, widths = on(self.sizes, image).unbind(1)
        full = tuple(-(-side // _MCU_PX) * _MCU_PX for side in largest(self.sizes))
        levels = (image.clamp(0, 1) * 255).round()
        whole = gathered(levels, held(0, full[0], heights), held(0, full[1], widths)).to(torch.int32)
        luma, chroma = _separated(whole)
        # Below a picture the codec repeats averages, not pixels: they differ where the height is even.
        half = (heights + 1) // 2, (widths + 1) // 2
        below = held(0, full[0] // 2, half[0])
        chroma = _halved(chroma).gather(2, below[:, None, :, None].expand(-1, 2, -1, full[1] // 2))
        luma, chroma = _coded(luma, chroma, on(self.tables, image))
        rgb = _joined(luma, _doubled(chroma, *half))
        return rgb[..., : image.shape[-2], : image.shape[-1]].to(torch.float32) / 255


def quantization(quality: int) -> np.ndarray:
    """Return the tables of luma and chroma, float64 `[2, 8, 8]`, at libjpeg's quality, 1 to 100."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((np.array([_LUMA, _CHROMA]) * percent + 50) // 100, 1, 255).astype(np.float64)


def _separated(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """Return luma `[n, 1, H, W]` and chroma `[n, 2, H, W]` of int32 RGB, 0 to 255: BT.601 in fixed point."""
    r, g, b = rgb.split(1, dim=1)
    half = 1 << (_COLOR_BITS - 1)
    center = (128 << _COLOR_BITS) + half - 1  # rounds halves down, so that 255 is never passed
    luma = (19595 * r + 38470 * g + 7471 * b + half) >> _COLOR_BITS
    blue = (-11059 * r - 21709 * g + 32768 * b + center) >> _COLOR_BITS
    red = (32768 * r - 27439 * g - 5329 * b + center) >> _COLOR_BITS
    return luma, torch.cat([blue, red], 1)


def _joined(luma: Tensor, chroma: Tensor) -> Tensor:
    """Return RGB of luma and chroma, int32, 0 to 255."""
    blue, red = (chroma - 128).split(1, dim=1)
    half = 1 << (_COLOR_BITS - 1)
    r = luma + ((91881 * red + half) >> _COLOR_BITS)
    g = luma + ((-22554 * blue - 46802 * red + half) >> _COLOR_BITS)
    b = luma + ((116130 * blue + half) >> _COLOR_BITS)
    return torch.cat([r, g, b], 1).clamp(0, 255)


def _halved(plane: Tensor) -> Tensor:
    """Return means of 2 x 2, halves rounded down and up in turn along a row."""
    total = plane[..., ::2, ::2] + plane[..., ::2, 1::2] + plane[..., 1::2, ::2] + plane[..., 1::2, 1::2]
    return (total + 1 + torch.arange(total.shape[-1], device=plane.device, dtype=torch.int32) % 2) >> 2


def _doubled(plane: Tensor, heights: Tensor, widths: Tensor) -> Tensor:
    """Return twice as many rows and columns, triangularly interpolated; a picture ends with its last sample."""
    rows, columns = plane.shape[-2:]
    across = held(0, columns, widths)
    near, above, below = (gathered(plane, held(shift, rows, heights), across) for shift in (0, -1, 1))
    lines = torch.stack([3 * near + above, 3 * near + below], 3).flatten(2, 3)  # in quarters
    down = torch.arange(2 * rows, device=plane.device).expand(len(plane), -1)
    left, right = (gathered(lines, down, held(shift, columns, widths)) for shift in (-1, 1))
    smooth = torch.stack([(3 * lines + left + 8) >> 4, (3 * lines + right + 7) >> 4], 4).flatten(3, 4)
    repeated = near.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return torch.where((widths >= _INTERPOLATED_PX)[:, None, None, None], smooth, repeated)


def _coded(luma: Tensor, chroma: Tensor, tables: Tensor) -> tuple[Tensor, Tensor]:
    """Return the planes after transform, quantization with `tables` `[n, 2, 8, 8]`, and the way back."""
    parts = [_blocks(luma), _blocks(chroma)]
    sizes = [p[0, 0].numel() for p in parts]
    x = torch.cat([p.flatten(2) for p in parts], 2).to(torch.float64).sub_(128)
    matrix = on(np.array(_MATRIX, np.float64), x)
    x = _descaled(matrix @ x, _TRANSFORM_BITS - _PASS_BITS)
    x = _descaled((matrix @ x.flatten(1)).view_as(x), _TRANSFORM_BITS + _PASS_BITS)
    for coefficients, table in zip(x.split(sizes, 2), tables.permute(1, 2, 3, 0), strict=True):
        _quantize(coefficients.unflatten(2, (len(luma), -1)), table[..., None])
    x = _descaled((matrix.T @ x.flatten(1)).view_as(x), _TRANSFORM_BITS - _PASS_BITS)
    x = _descaled(matrix.T @ x, _TRANSFORM_BITS + _PASS_BITS + 3)
    x = x.add_(128).clamp_(0, 255).to(torch.int32)
    first, second = (_planes(y.view_as(p)) for y, p in zip(x.split(sizes, 2), parts, strict=True))
    return first, second


def _quantize(x: Tensor, steps: Tensor) -> None:
    """Turn `x`, 8 times the coefficients, into their nearest multiples of `steps`, halves away from zero."""
    x.copy_(x.abs().add_(4 * steps).div_(8 * steps).floor_().mul_(steps).copysign_(x))


def _blocks(planes: Tensor) -> Tensor:
    """Return `[8 rows, 8 columns, n, c, H / 8, W / 8]`: the axes of the transform first, all blocks side by side."""
    return planes.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).permute(3, 5, 0, 1, 2, 4)


def _planes(blocks: Tensor) -> Tensor:
    return blocks.permute(2, 3, 4, 0, 5, 1).flatten(4, 5).flatten(2, 3)


def _descaled(x: Tensor, bits: int) -> Tensor:
    """Return the whole numbers `x`, held as floats, divided by 2^bits and rounded, halves up."""
    return x.add_(2 ** (bits - 1)).mul_(2**-bits).floor_()


def _matrix() -> tuple[tuple[int, ...], ...]:
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


_MATRIX = _matrix()
