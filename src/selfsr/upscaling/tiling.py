"""Upscale images that do not fit into memory, by overlapping tiles that are blended.

Along each axis, neighboring tiles share at least `overlap_px`. In the middle of the shared pixels, one tile fades into
the other over a quarter of them. The pixels beyond the fade are context: they are computed, so that the network sees
beyond the part that is kept, and discarded. Fades never overlap along an axis. So the weights of a pixel are w and
1 - w with 0 < w < 1, or only 1: they are positive and add up to 1, also at the border of the image.

If the receptive field of a network reaches no further than the context (3/8 of the overlap), tiled equals untiled.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

ReadBlock = Callable[[slice, slice], Tensor]
WriteBlock = Callable[[slice, slice, Tensor], None]

OVERLAP_PX = 64


@dataclass(frozen=True)
class TileProgress:
    """The state of `upscale_blocks` between two tiles, from which it continues with the same result.

    Attributes:
        tiles: number of finished tiles, in the order of rows.
        all_tiles: number of all tiles.
        above: for each column of tiles, the fade to the tile below, or None.
        left: the fade to the tile at the right, or None at the end of a row.
    """

    tiles: int
    all_tiles: int
    above: tuple[Tensor | None, ...]
    left: Tensor | None

    def to(self, device: torch.device) -> "TileProgress":
        """Return the state with its fades on `device`."""
        above = tuple(None if fade is None else fade.to(device) for fade in self.above)
        return replace(self, above=above, left=None if self.left is None else self.left.to(device))


@dataclass(frozen=True)
class TileSpan:
    """One tile along one axis, in input pixels.

    Attributes:
        start: the first pixel.
        stop: one past the last pixel.
        fade_in: the pixels of the fade from the preceding tile, as first and one past the last; both are the first
            pixel that is kept if there is no fade.
        fade_out: the same for the following tile; equals its `fade_in`.
    """

    start: int
    stop: int
    fade_in: tuple[int, int]
    fade_out: tuple[int, int]


def split_axis(length: int, tile_px: int, overlap_px: int, multiple_px: int = 1) -> list[TileSpan]:
    """Cover an axis with as few tiles as possible, evenly spaced and no larger than needed.

    Args:
        length: pixels along the axis.
        tile_px: the largest tile, a multiple of `multiple_px`.
        overlap_px: pixels that neighbors share at least; less than `tile_px`. They share less if `multiple_px`
            leaves no room for it.
        multiple_px: every tile starts at a multiple of this, on the grid of the network.

    Example:
        >>> [(span.start, span.stop) for span in split_axis(100, tile_px=64, overlap_px=16)]
        [(0, 58), (42, 100)]
    """
    assert 0 <= overlap_px < tile_px, (overlap_px, tile_px)
    assert tile_px % multiple_px == 0, (tile_px, multiple_px)
    if length <= tile_px:
        return [TileSpan(0, length, (0, 0), (length, length))]

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
    return [TileSpan(start, min(start + tile_px, length), edges[k], edges[k + 1]) for k, start in enumerate(starts)]


def upscale_blocks(
    upscale: Callable[[Tensor], Tensor],
    read: ReadBlock,
    write: WriteBlock,
    *,
    height: int,
    width: int,
    scale: int,
    tile_px: int,
    overlap_px: int = OVERLAP_PX,
    multiple_px: int = 1,
    start: TileProgress | None = None,
    on_position: Callable[[int, int], None] | None = None,
    on_tile: Callable[[int, int], None] | None = None,
    on_progress: Callable[[TileProgress], None] | None = None,
) -> None:
    """Upscale tile by tile, with a few tiles and one row of fades in memory.

    Args:
        upscale: maps `[N, C, h, w]` to `[N, C', scale h, scale w]`.
        read: returns the input at rows and columns.
        write: stores the finished output at rows and columns; every pixel comes once.
        height: height of the input.
        width: width of the input.
        scale: scale of the upscaler.
        tile_px: the largest tile, in input pixels.
        overlap_px: see `split_axis`.
        multiple_px: see `split_axis`.
        start: where an interrupted call with the same arguments stopped; its blocks are not written again.
        on_position: called with the first row and column of each tile in the input, before it is upscaled.
        on_tile: called with the number of finished tiles and of all tiles.
        on_progress: called with the state after each tile.
    """
    rows = split_axis(height, tile_px, overlap_px, multiple_px)
    columns = split_axis(width, tile_px, overlap_px, multiple_px)
    done = start.tiles if start else 0
    above: list[Tensor | None] = list(start.above) if start else [None] * len(columns)
    left: Tensor | None = start.left if start else None
    all_tiles = len(rows) * len(columns)
    if done and on_tile is not None:
        on_tile(done, all_tiles)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            if i * len(columns) + j < done:
                continue
            if on_position is not None:
                on_position(row.start, column.start)
            tile = upscale(read(slice(row.start, row.stop), slice(column.start, column.stop)))
            block, left = _blend(_crop_context(tile, row, column, scale), left, column, scale, axis=-1)
            block, above[j] = _blend(block, above[j], row, scale, axis=-2)
            out_rows = slice(row.fade_in[0] * scale, row.fade_out[0] * scale)
            write(out_rows, slice(column.fade_in[0] * scale, column.fade_out[0] * scale), block)
            left = left if j < len(columns) - 1 else None
            if on_progress is not None:
                on_progress(TileProgress(i * len(columns) + j + 1, all_tiles, tuple(above), left))
            if on_tile is not None:
                on_tile(i * len(columns) + j + 1, all_tiles)


def upscale_tiled(
    upscale: Callable[[Tensor], Tensor],
    lr: Tensor,
    *,
    scale: int,
    tile_px: int,
    overlap_px: int = OVERLAP_PX,
    multiple_px: int = 1,
    on_position: Callable[[int, int], None] | None = None,
    on_tile: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Upscale a tensor tile by tile.

    Args:
        upscale: maps `[N, C, h, w]` to `[N, C', scale h, scale w]`.
        lr: `[N, C, H, W]`.
        scale: scale of the upscaler.
        tile_px: the largest tile, in input pixels.
        overlap_px: see `split_axis`.
        multiple_px: see `split_axis`.
        on_position: called with the first row and column of each tile in the input, before it is upscaled.
        on_tile: called with the number of finished tiles and of all tiles.

    Returns:
        `[N, C', scale H, scale W]`, float32, or float64 if `upscale` returns it, on the device of its output.
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
        on_position=on_position,
        on_tile=on_tile,
    )
    return out[0]


def self_ensemble(upscale: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return an upscaler that averages over the eight flips and rotations of its input (EDSR, section 3.4).

    Args:
        upscale: maps `[N, C, h, w]` to `[N, C', s h, s w]`, any size.
    """

    def upscale_eight(lr: Tensor) -> Tensor:
        total: Tensor | None = None
        for transpose, axes in itertools.product((False, True), ((), (-1,), (-2,), (-2, -1))):
            transformed = (lr.mT if transpose else lr).flip(axes)
            out = upscale(transformed).float().flip(axes)
            out = out.mT if transpose else out
            total = out if total is None else total + out
        assert total is not None
        return total / 8

    return upscale_eight


def _crop_context(tile: Tensor, row: TileSpan, column: TileSpan, scale: int) -> Tensor:
    """Return a tile without its context, as a copy in float32 or float64."""
    for axis, span in ((-2, row), (-1, column)):
        assert tile.shape[axis] == (span.stop - span.start) * scale, (tile.shape, span, scale)
        tile = tile.narrow(axis, (span.fade_in[0] - span.start) * scale, (span.fade_out[1] - span.fade_in[0]) * scale)
    return tile.to(torch.float64 if tile.dtype == torch.float64 else torch.float32, copy=True)


def _blend(block: Tensor, carried: Tensor | None, span: TileSpan, scale: int, axis: int) -> tuple[Tensor, Tensor]:
    """Finish the fade from the preceding tile, and begin the fade to the following tile.

    Returns:
        The finished part of `block` along `axis`, and the part for the following tile to add.
    """
    if carried is not None:
        head = block.narrow(axis, 0, carried.shape[axis])
        head.mul_(_fade_weights(head, axis)).add_(carried)
    fading = (span.fade_out[1] - span.fade_out[0]) * scale
    finished = block.shape[axis] - fading
    tail = block.narrow(axis, finished, fading)
    return block.narrow(axis, 0, finished), tail * (1 - _fade_weights(tail, axis))


def _fade_weights(like: Tensor, axis: int) -> Tensor:
    """Return weights that rise from 0 to 1 along `axis` of `like`, at pixel centers: neither 0 nor 1."""
    count = like.shape[axis]
    rise = (torch.arange(count, device=like.device, dtype=like.dtype) + 0.5) / max(count, 1)
    return rise if axis == -1 else rise[:, None]
