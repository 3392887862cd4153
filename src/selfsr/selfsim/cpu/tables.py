"""Tables that the kernels of the compiled CPU backend read: displacements, and bands of rows."""

import functools
import itertools

import numpy as np

# Columns of the displacement table.
DY, DX, TOP, ROWS, LEFT, COLUMNS, EY, EX, PLUS, MINUS, PLUS_TRUNCATED, MINUS_TRUNCATED = range(12)
# Values of the last two columns other than an index into `edges` of `truncated.sum_truncated`.
COMPLETE, CORNER = -1, -2
# Columns of the band table.
IMAGE, FIRST, LAST, FIRST_MASKED, LAST_MASKED = range(5)


@functools.lru_cache(maxsize=16)
def tabulate_displacements(search_px: int, window_px: int) -> np.ndarray:
    """Return the displacement table, int64 `[., 12]`: one of each pair +d, -d and the numbers of both.

    The offsets whose window value stays in the search area form the rectangle [a0, a1] per axis with
    a0 = max(-f, -h - d), a1 = min(f, h - d). For -d it is the mirror image; shifted by d, the sum for -d at p is
    the sum for +d at p - e, e = d + a0 + a1 (eq. 6 and 9).
    """
    h, f = search_px // 2, window_px // 2
    reach = h - f

    def span(d: int) -> tuple[int, int, int]:
        low, high = max(-f, -h - d), min(f, h - d)
        return low, high - low + 1, d + low + high

    def beyond(d: int) -> int:
        return max(d - reach, 0) + min(d + reach, 0)

    def truncated_kind(dy: int, dx: int) -> int:
        cy, cx = beyond(dy), beyond(dx)
        if cy and cx:
            return CORNER
        if cy:
            return f + cy
        return window_px + f + cx if cx else COMPLETE

    rows = []
    for dy in range(h + 1):
        for dx in range(-h if dy else 1, h + 1):
            top, height, ey = span(dy)
            left, width, ex = span(dx)
            plus, minus = (dy + h) * search_px + dx + h, (h - dy) * search_px + h - dx
            kinds = truncated_kind(dy, dx), truncated_kind(-dy, -dx)
            rows.append((dy, dx, top, height, left, width, ey, ex, plus, minus, *kinds))
    return np.array(rows, np.int64).reshape(-1, 12)


def split_masked_rows(row_start: np.ndarray, height: int, band_rows: int) -> np.ndarray:
    """Split the masked rows of each image into equal bands of at least `band_rows`, if there are as many.

    Args:
        row_start: first pixel of each row of the images, `[N * height + 1]`.
        height: rows of an image.
        band_rows: least rows of a band.

    Returns:
        The band table, counted in rows of the image.
    """
    bands = []
    for image, (first, last) in enumerate(_find_masked_rows(row_start, height)):
        bands_per_image = max(1, (last - first) // band_rows) if last > first else 0
        edges = [first + (last - first) * band // bands_per_image for band in range(bands_per_image)] + [last]
        bands += [(image, top, bottom, first, last) for top, bottom in itertools.pairwise(edges)]
    return np.array(bands, np.int64).reshape(-1, 5)


def split_padded_rows(row_start: np.ndarray, height: int, padded_height: int, band_rows: int) -> np.ndarray:
    """Split all rows of each padded image into equal bands, counted in padded rows."""
    bands_per_image = max(1, padded_height // band_rows)
    edges = [padded_height * band // bands_per_image for band in range(bands_per_image)] + [padded_height]
    return np.array(
        [
            (image, top, bottom, first, last)
            for image, (first, last) in enumerate(_find_masked_rows(row_start, height))
            for top, bottom in itertools.pairwise(edges)
        ],
        np.int64,
    )


def _find_masked_rows(row_start: np.ndarray, height: int) -> list[tuple[int, int]]:
    """Return the first masked row of each image and one past its last; equal if there is none."""
    masked = np.diff(row_start).reshape(-1, height) > 0
    return [(int(rows.argmax()), height - int(rows[::-1].argmax())) if rows.any() else (0, 0) for rows in masked]
