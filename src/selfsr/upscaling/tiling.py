"""Upscale pictures that do not fit into memory: overlapping tiles, blended so that no seam shows.

Along each axis, neighboring tiles share at least `overlap_px`. In the middle of what they share one fades into
the other over a quarter of it; what lies beyond the fade is context: it is computed, so that the network sees
beyond the part that is kept, and thrown away. Fades never overlap along an axis, so the weights at a pixel are
w and 1 - w with 0 < w < 1, or 1 alone: positive, and adding up to 1 by construction, at the picture's rim as well.

Where a network's receptive field reaches no further than the context (3/8 of the overlap), tiled equals untiled.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Upscale = Callable[[Tensor], Tensor]
Read = Callable[[slice, slice], Tensor]
Write = Callable[[slice, slice, Tensor], None]

OVERLAP_PX = 64


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in input pixels.

    Attributes:
        start: where the tile starts.
        stop: where it ends.
        fade_in: first and one past the last pixel in which it takes over from its predecessor; both are the
            first pixel that is kept where there is nothing to fade.
        fade_out: the same for its successor, which is that one's `fade_in`.
    """

    start: int
    stop: int
    fade_in: tuple[int, int]
    fade_out: tuple[int, int]


def spans(length: int, tile_px: int, overlap_px: int, multiple_px: int = 1) -> list[Span]:
    """Cover an axis with as few tiles as possible, spread evenly, each no larger than that number needs.

    Args:
        length: pixels along the axis.
        tile_px: the largest tile, a multiple of `multiple_px`.
        overlap_px: what neighbors share at least; less than `tile_px`. Where `multiple_px` leaves no room for
            it, they share less.
        multiple_px: every tile starts at a multiple of this, and so do not lose step with the network's grid.
    """
    assert 0 <= overlap_px < tile_px, (overlap_px, tile_px)
    assert tile_px % multiple_px == 0, (tile_px, multiple_px)
    if length <= tile_px:
        return [Span(0, length, (0, 0), (length, length))]

    def tiles_needed(px: int) -> int:
        stride = max(multiple_px, (px - overlap_px) // multiple_px * multiple_px)
        return 1 + -(-(length - px) // stride)

    count = tiles_needed(tile_px)
    while tile_px - multiple_px > overlap_px and tiles_needed(tile_px - multiple_px) == count:
        tile_px -= multiple_px
    starts = [-(-(k * (length - tile_px)) // ((count - 1) * multiple_px)) * multiple_px for k in range(count)]
    strides = [b - a for a, b in itertools.pairwise(starts)]
    fade = min((tile_px - max(strides)) // 4, min(strides))
    fades = [((a + b + tile_px - fade) // 2, (a + b + tile_px + fade) // 2) for a, b in itertools.pairwise(starts)]
    edges = [(0, 0), *fades, (length, length)]
    return [Span(start, min(start + tile_px, length), edges[k], edges[k + 1]) for k, start in enumerate(starts)]


def upscale_blocks(
    upscale: Upscale,
    read: Read,
    write: Write,
    *,
    height: int,
    width: int,
    scale: int,
    tile_px: int,
    overlap_px: int = OVERLAP_PX,
    multiple_px: int = 1,
    on_tile: Callable[[int, int], None] | None = None,
) -> None:
    """Upscale tile by tile; no more than a few tiles and a fade's rows are ever held as floats.

    Args:
        upscale: maps `[N, C, h, w]` to `[N, C', scale h, scale w]`.
        read: gives the input at rows and columns.
        write: takes the finished output at rows and columns; every pixel comes once.
        height: of the input.
        width: of the input.
        scale: of the upscaler.
        tile_px: the largest tile, in input pixels.
        overlap_px: see `spans`.
        multiple_px: see `spans`.
        on_tile: called with the number of finished tiles and of all.
    """
    rows = spans(height, tile_px, overlap_px, multiple_px)
    columns = spans(width, tile_px, overlap_px, multiple_px)
    above: list[Tensor | None] = [None] * len(columns)
    for i, row in enumerate(rows):
        left: Tensor | None = None
        for j, column in enumerate(columns):
            tile = upscale(read(slice(row.start, row.stop), slice(column.start, column.stop)))
            block, left = _handed_on(_kept(tile, row, column, scale), left, column, scale, axis=-1)
            block, above[j] = _handed_on(block, above[j], row, scale, axis=-2)
            out_rows = slice(row.fade_in[0] * scale, row.fade_out[0] * scale)
            write(out_rows, slice(column.fade_in[0] * scale, column.fade_out[0] * scale), block)
            if on_tile is not None:
                on_tile(i * len(columns) + j + 1, len(rows) * len(columns))


def tiled(
    upscale: Upscale,
    lr: Tensor,
    *,
    scale: int,
    tile_px: int,
    overlap_px: int = OVERLAP_PX,
    multiple_px: int = 1,
    on_tile: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Upscale a tensor tile by tile.

    Args:
        upscale: maps `[N, C, h, w]` to `[N, C', scale h, scale w]`.
        lr: `[N, C, H, W]`.
        scale: of the upscaler.
        tile_px: the largest tile, in input pixels.
        overlap_px: see `spans`.
        multiple_px: see `spans`.
        on_tile: called with the number of finished tiles and of all.

    Returns:
        `[N, C', scale H, scale W]`, float32 (float64 if `upscale` gives it), on the device of its output.
    """
    height, width = lr.shape[-2:]
    out: list[Tensor] = []

    def write(rows: slice, columns: slice, block: Tensor) -> None:
        if not out:
            out.append(block.new_empty(*block.shape[:2], height * scale, width * scale))
        out[0][..., rows, columns] = block

    upscale_blocks(
        upscale,
        lambda rows, columns: lr[..., rows, columns],
        write,
        height=height,
        width=width,
        scale=scale,
        tile_px=tile_px,
        overlap_px=overlap_px,
        multiple_px=multiple_px,
        on_tile=on_tile,
    )
    return out[0]


def self_ensemble(upscale: Upscale) -> Upscale:
    """Make an upscaler that averages over the eight flips and rotations of its input (EDSR, section 3.4).

    Args:
        upscale: maps `[N, C, h, w]` to `[N, C', s h, s w]`, any size.
    """

    def upscale_eight(lr: Tensor) -> Tensor:
        total: Tensor | None = None
        for transpose, axes in itertools.product((False, True), ((), (-1,), (-2,), (-2, -1))):
            turned = (lr.mT if transpose else lr).flip(axes)
            out = upscale(turned).float().flip(axes)
            out = out.mT if transpose else out
            total = out if total is None else total + out
        assert total is not None
        return total / 8

    return upscale_eight


def _kept(tile: Tensor, row: Span, column: Span, scale: int) -> Tensor:
    """Cut the context off a tile; return a copy, float32 or float64."""
    for axis, span in ((-2, row), (-1, column)):
        assert tile.shape[axis] == (span.stop - span.start) * scale, (tile.shape, span, scale)
        tile = tile.narrow(axis, (span.fade_in[0] - span.start) * scale, (span.fade_out[1] - span.fade_in[0]) * scale)
    return tile.to(torch.float64 if tile.dtype == torch.float64 else torch.float32, copy=True)


def _handed_on(block: Tensor, carried: Tensor | None, span: Span, scale: int, axis: int) -> tuple[Tensor, Tensor]:
    """Finish the fade that the predecessor began, begin the one that the successor will finish.

    Returns:
        The part of `block` along `axis` that is finished, and the part that the successor has to add to.
    """
    if carried is not None:
        head = block.narrow(axis, 0, carried.shape[axis])
        head.mul_(_rise(head, axis)).add_(carried)
    fading = (span.fade_out[1] - span.fade_out[0]) * scale
    finished = block.shape[axis] - fading
    tail = block.narrow(axis, finished, fading)
    return block.narrow(axis, 0, finished), tail * (1 - _rise(tail, axis))


def _rise(like: Tensor, axis: int) -> Tensor:
    """Return weights that rise from 0 to 1 along `axis` of `like`, at pixel centers, so neither 0 nor 1."""
    count = like.shape[axis]
    rise = (torch.arange(count, device=like.device, dtype=like.dtype) + 0.5) / max(count, 1)
    return rise if axis == -1 else rise[:, None]
