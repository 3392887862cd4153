"""Helpers of the image losses: argument checks, computing precision, local variance."""

import torch
from torch import Tensor

from selfsr.errors import InputError, check_images


def prepare_images(caller: str, **images: Tensor) -> tuple[Tensor, ...]:
    """Check that the images match, and convert half precision to float32.

    Args:
        caller: name of the public function, the start of an error's message.
        images: tensors by the name of their argument.

    Raises:
        InputError: they are not float images `[N, C, H, W]` of one shape on one device.
    """
    check_images(caller, **images)
    return tuple(image.float() if image.element_size() < 4 else image for image in images.values())


def local_variance(caller: str, image: Tensor, window_px: int) -> Tensor:
    """Return the unbiased variance in the square window around each pixel, of the shape of `image`.

    The border is reflected without repeating the edge. The variance is computed from differences to each window's own
    mean: the difference of two moments would cancel in float32 where a window is nearly flat.

    Raises:
        InputError: the window is even or below 3, or larger than the reflected image.
    """
    half = window_px // 2
    if window_px < 3 or window_px % 2 == 0:
        raise InputError(f"{caller}: window_px must be odd and at least 3, got {window_px}.")
    if min(image.shape[2:]) <= half:
        raise InputError(
            f"{caller}: images must be larger than {half} px on each side for a window of {window_px} px, "
            f"got {list(image.shape)}; pass a larger crop."
        )
    padded = _reflect_border(_reflect_border(image, half, dim=2), half, dim=3)
    return padded.unfold(2, window_px, 1).unfold(3, window_px, 1).var(dim=(-2, -1))


def _reflect_border(image: Tensor, width_px: int, dim: int) -> Tensor:
    # The backward pass of pad(mode="reflect") adds atomically on a GPU; this one gives the same bits each time.
    size = image.shape[dim]
    before, after = image.narrow(dim, 1, width_px), image.narrow(dim, size - 1 - width_px, width_px)
    return torch.cat((before.flip(dim), image, after.flip(dim)), dim=dim)
