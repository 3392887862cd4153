"""Split a batch into chunks that fit a memory budget, and list the masked pixels of each chunk."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from selfsr.errors import InputError
from selfsr.selfsim.contract import Geometry, Pixels, working_bytes

_MIB = 2**20


class Chunk(NamedTuple):
    """A band of rows of neighboring images, with its number of masked pixels.

    A pixel's row of the graph depends on at most h rows above and below it. A backend therefore gets the band as if
    it were an image: the band with h rows above and below it, and pixels counted from the corner of the band.
    """

    first_image: int
    last_image: int
    first_row: int
    last_row: int
    pixels: int

    def join(self, other: "Chunk") -> "Chunk":
        """Return the smallest chunk that contains both; `other` follows this one."""
        return Chunk(
            self.first_image,
            other.last_image,
            min(self.first_row, other.first_row),
            max(self.last_row, other.last_row),
            self.pixels + other.pixels,
        )

    def working_bytes(self, width: int, geometry: Geometry, itemsize: int) -> int:
        """Return the working memory of this chunk in bytes."""
        images, rows = self.last_image - self.first_image, self.last_row - self.first_row
        return working_bytes(self.pixels, images, rows, width, geometry, itemsize)

    def select(self, padded: Tensor, half_search: int) -> Tensor:
        """Return the part of `padded` `[N, C, H + 2h, W + 2h]` that belongs to this chunk, a view."""
        rows = slice(self.first_row, self.last_row + 2 * half_search)
        return padded[self.first_image : self.last_image, :, rows]


def check_budget(caller: str, image: Tensor, geometry: Geometry, memory_mb: float, max_pixels: int | None) -> None:
    """Check that the smallest chunk of `image` `[N, C, H, W]` fits the budget.

    Raises:
        InputError: it does not; the message has the smallest budget that works.
    """
    count, _, height, width = image.shape
    if max_pixels is None:
        chunk, need = "one row of an image", working_bytes(width, 1, 1, width, geometry, image.element_size())
    else:
        chunk = f"{max_pixels} pixels in one piece"
        need = working_bytes(max_pixels, count, height, width, geometry, image.element_size())
    if not need <= memory_mb * _MIB:
        raise InputError(
            f"{caller}: memory_mb={memory_mb:g} is too small, {chunk} may take {need / _MIB:.3g} MiB; "
            f"pass memory_mb={need // _MIB + 1} or more."
        )


def split_into_chunks(
    mask: Tensor,
    geometry: Geometry,
    itemsize: int,
    memory_mb: float,
    max_pixels: int | None,
    row_counts: Tensor | None = None,
) -> Iterator[tuple[Chunk, Pixels]]:
    """Yield each chunk with its pixels, their coordinates counted from the chunk's corner.

    Args:
        mask: bool `[N, 1, H, W]`.
        geometry: sizes of the graph.
        itemsize: bytes of one value.
        memory_mb: the budget in MiB.
        max_pixels: None to read the number of masked pixels from the device once. A number makes one chunk of that
            many pixels: the masked ones, padded with unmasked ones.
        row_counts: masked pixels in each row of each image, `[N, H]` on the CPU; None counts them.
    """
    count, _, height, width = mask.shape
    if max_pixels is not None:
        batch = Chunk(0, count, 0, height, min(max_pixels, mask.numel()))
        yield batch, _list_pixels(mask, batch.pixels)
        return
    # Without counts, this is the only time the host waits for the device.
    counts = (mask.sum((1, 3)) if row_counts is None else row_counts).tolist()
    for chunk in plan_chunks(counts, width, geometry, itemsize, memory_mb * _MIB):
        band = mask[chunk.first_image : chunk.last_image, :, chunk.first_row : chunk.last_row]
        if band.device.type == "cpu":
            yield chunk, _coordinates(band.flatten().nonzero()[:, 0], band)
        else:
            yield chunk, _list_pixels(band, chunk.pixels)


def plan_chunks(
    counts: Sequence[Sequence[int]], width: int, geometry: Geometry, itemsize: int, budget: float
) -> list[Chunk]:
    """Plan chunks whose working memory stays within a budget.

    Args:
        counts: masked pixels in each row of each image, `[N][H]`.
        width: W of the images.
        geometry: sizes of the graph.
        itemsize: bytes of one value.
        budget: most bytes of one chunk; must suffice for one row of one image.

    Returns:
        Chunks of complete images, or bands of rows of an image that does not fit. Images without masked pixels and
        unmasked rows at the top and bottom are left out.
    """
    chunks: list[Chunk] = []
    for n, rows in enumerate(counts):
        masked = [y for y, pixels in enumerate(rows) if pixels]
        if not masked:
            continue
        image = Chunk(n, n + 1, masked[0], masked[-1] + 1, sum(rows))
        if image.working_bytes(width, geometry, itemsize) > budget:
            pieces = [Chunk(n, n + 1, y, y + 1, rows[y]) for y in masked]
        else:
            pieces = [image]
        # Bands do not join the chunk of another image: the result would not be a rectangle of rows and images.
        joinable = bool(chunks) and len(pieces) == 1 and not _is_band(chunks[-1], counts)
        for piece in pieces:
            joined = chunks[-1].join(piece) if joinable else None
            if joined is not None and joined.working_bytes(width, geometry, itemsize) <= budget:
                chunks[-1] = joined
            else:
                chunks.append(piece)
            joinable = True
    return chunks


def _is_band(chunk: Chunk, counts: Sequence[Sequence[int]]) -> bool:
    images = counts[chunk.first_image : chunk.last_image]
    return chunk.pixels < sum(map(sum, images))


def _list_pixels(mask: Tensor, count: int) -> Pixels:
    """List `count` pixels in order: the masked ones and, if there are fewer, unmasked ones as padding.

    The host does not learn how many are masked. Pixels are distinct, since backends identify them by position.
    """
    flat = mask.flatten()
    missing = count - flat.sum()
    chosen = flat | (flat.logical_not().cumsum(0) <= missing)
    # The i-th pixel is the first with a running count of i.
    ranks = torch.arange(1, count + 1, device=mask.device)
    return _coordinates(torch.searchsorted(chosen.cumsum(0), ranks), mask)


def _coordinates(flat: Tensor, mask: Tensor) -> Pixels:
    height, width = mask.shape[2:]
    return Pixels(flat // (height * width), flat // width % height, flat % width)


def is_masked(pixels: Pixels, mask: Tensor) -> Tensor:
    """Return bool `[M]`: which of `pixels`, counted in the full batch, are masked."""
    return mask[pixels.image, 0, pixels.row, pixels.column]
