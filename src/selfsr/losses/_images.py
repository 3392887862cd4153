"""What the losses of images share: the check of their arguments, their precision, the windows of a map."""

import torch
from torch import Tensor

from selfsr.errors import InputError, check_images


def prepared(where: str, **images: Tensor) -> tuple[Tensor, ...]:
    """Return the images, checked to be alike, those of half precision in float32.

    Raises:
        InputError: they are no float images `[N, C, H, W]` of one shape on one device.
    """
    check_images(where, **images)
    return tuple(image.float() if image.element_size() < 4 else image for image in images.values())


def windowed_variance(where: str, image: Tensor, window_px: int) -> Tensor:
    """Return the unbiased variance in the window around each pixel, like `image`.

    The border is mirrored, its edge not repeated. Taken from the differences to each window's own mean: the
    difference of two moments would cancel in float32 where a window is nearly flat.

    Raises:
        InputError: the window is even or below 3, or reaches past the mirrored border.
    """
    half = window_px // 2
    if window_px < 3 or window_px % 2 == 0:
        raise InputError(f"{where}: window_px must be odd and at least 3, got {window_px}.")
    if min(image.shape[2:]) <= half:
        raise InputError(
            f"{where}: images must be larger than {half} px on each side for a window of {window_px} px, "
            f"got {list(image.shape)}; pass a larger crop."
        )
    padded = _mirrored(_mirrored(image, half, dim=2), half, dim=3)
    return padded.unfold(2, window_px, 1).unfold(3, window_px, 1).var(dim=(-2, -1))


def _mirrored(image: Tensor, n: int, dim: int) -> Tensor:
    # As pad(mode="reflect"), whose gradient adds up in any order on a GPU; this one's is the same each time.
    size = image.shape[dim]
    before, after = image.narrow(dim, 1, n), image.narrow(dim, size - 1 - n, n)
    return torch.cat((before.flip(dim), image, after.flip(dim)), dim=dim)
