"""How a batch is cut so that working memory stays within a budget, and which pixels each part holds."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from selfsr.errors import InputError
from selfsr.selfsim.contract import Geometry, Pixels, working_bytes

_MIB = 2**20


class Chunk(NamedTuple):
    """A part of the work: a band of rows of neighboring images, and how many masked pixels it holds.

    A pixel's row of the graph depends on no more than h rows above and below it, so a backend is given the band
    as if it were an image: `padded` cut to the band and its h rows around, and pixels counted from its corner.
    """

    first_image: int
    last_image: int
    first_row: int
    last_row: int
    pixels: int

    def join(self, other: "Chunk") -> "Chunk":
        """Return the smallest chunk that holds both; `other` follows this one."""
        return Chunk(
            self.first_image,
            other.last_image,
            min(self.first_row, other.first_row),
            max(self.last_row, other.last_row),
            self.pixels + other.pixels,
        )

    def bytes(self, width: int, geometry: Geometry, itemsize: int) -> int:
        """Bytes that this chunk takes while it is worked on."""
        images, rows = self.last_image - self.first_image, self.last_row - self.first_row
        return working_bytes(self.pixels, images, rows, width, geometry, itemsize)

    def of(self, padded: Tensor, half_search: int) -> Tensor:
        """Return the part of `padded` `[N, C, H + 2h, W + 2h]` that belongs to this chunk, a view."""
        rows = slice(self.first_row, self.last_row + 2 * half_search)
        return padded[self.first_image : self.last_image, :, rows]


def check_budget(where: str, image: Tensor, geometry: Geometry, memory_mb: float, max_pixels: int | None) -> None:
    """Check that the smallest piece of work on `image` `[N, C, H, W]` fits the budget."""
    count, _, height, width = image.shape
    if max_pixels is None:
        what, need = "one row of an image", working_bytes(width, 1, 1, width, geometry, image.element_size())
    else:
        what = f"{max_pixels} pixels in one piece"
        need = working_bytes(max_pixels, count, height, width, geometry, image.element_size())
    if not need <= memory_mb * _MIB:
        raise InputError(
            f"{where}: memory_mb={memory_mb:g} is too small, {what} may take {need / _MIB:.3g} MiB; "
            f"pass memory_mb={need // _MIB + 1} or more."
        )


def cut(
    mask: Tensor, geometry: Geometry, itemsize: int, memory_mb: float, max_pixels: int | None
) -> Iterator[tuple[Chunk, Pixels]]:
    """Yield each chunk with its pixels, their coordinates counted from the chunk's corner.

    Args:
        mask: bool `[N, 1, H, W]`.
        geometry: sizes of the graph.
        itemsize: bytes of one value.
        memory_mb: the budget in MiB.
        max_pixels: None to ask the device once how many pixels are masked; else everything is one chunk of that
            many, the masked ones and unmasked ones to fill up.
    """
    count, _, height, width = mask.shape
    if max_pixels is not None:
        whole = Chunk(0, count, 0, height, min(max_pixels, mask.numel()))
        yield whole, _list_pixels(mask, whole.pixels)
        return
    # The only time the host waits for the device.
    counts = mask.sum((1, 3)).tolist()
    for chunk in plan(counts, width, geometry, itemsize, memory_mb * _MIB):
        part = mask[chunk.first_image : chunk.last_image, :, chunk.first_row : chunk.last_row]
        if part.device.type == "cpu":
            yield chunk, _coordinates(part.flatten().nonzero()[:, 0], part)
        else:
            yield chunk, _list_pixels(part, chunk.pixels)


def plan(counts: Sequence[Sequence[int]], width: int, geometry: Geometry, itemsize: int, budget: float) -> list[Chunk]:
    """Cut a batch into chunks whose working memory stays within a budget.

    Args:
        counts: masked pixels in each row of each image, `[N][H]`.
        width: W of the images.
        geometry: sizes of the graph.
        itemsize: bytes of one value.
        budget: bytes that one chunk may take; must suffice for one row of one image.

    Returns:
        Chunks of whole images or, of an image that does not fit, bands of rows; without the empty images and
        rows at their rims.
    """
    chunks: list[Chunk] = []
    for n, rows in enumerate(counts):
        masked = [y for y, pixels in enumerate(rows) if pixels]
        if not masked:
            continue
        whole = Chunk(n, n + 1, masked[0], masked[-1] + 1, sum(rows))
        if whole.bytes(width, geometry, itemsize) > budget:
            parts = [Chunk(n, n + 1, y, y + 1, rows[y]) for y in masked]
        else:
            parts = [whole]
        # Bands do not join the chunk of another image: neither would be a rectangle of rows and images then.
        joinable = bool(chunks) and len(parts) == 1 and not _is_band(chunks[-1], counts)
        for part in parts:
            joined = chunks[-1].join(part) if joinable else None
            if joined is not None and joined.bytes(width, geometry, itemsize) <= budget:
                chunks[-1] = joined
            else:
                chunks.append(part)
            joinable = True
    return chunks


def _is_band(chunk: Chunk, counts: Sequence[Sequence[int]]) -> bool:
    images = counts[chunk.first_image : chunk.last_image]
    return chunk.pixels < sum(map(sum, images))


def _list_pixels(mask: Tensor, count: int) -> Pixels:
    """List `count` pixels in order: the masked ones and, if there are fewer, unmasked ones to fill up.

    Without telling the host how many are masked, and distinct, since backends tell pixels by their place.
    """
    flat = mask.flatten()
    missing = count - flat.sum()
    chosen = flat | (flat.logical_not().cumsum(0) <= missing)
    # The i-th pixel is the first with i of them up to it.
    wanted = torch.arange(1, count + 1, device=mask.device)
    return _coordinates(torch.searchsorted(chosen.cumsum(0), wanted), mask)


def _coordinates(flat: Tensor, mask: Tensor) -> Pixels:
    height, width = mask.shape[2:]
    return Pixels(flat // (height * width), flat // width % height, flat % width)


def is_masked(pixels: Pixels, mask: Tensor) -> Tensor:
    """Return bool `[M]`: which of `pixels`, counted in the whole batch, are masked."""
    return mask[pixels.image, 0, pixels.row, pixels.column]
