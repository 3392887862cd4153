"""Masked pixels as a list, on the device, without telling the host how many there are."""

import torch
from torch import Tensor

from selfsr.selfsim.contract import Pixels


def pixels_without_sync(mask: Tensor, max_pixels: int) -> tuple[Pixels, Tensor]:
    """List the first `max_pixels` masked pixels in a list of that fixed length.

    Nothing here depends on the number of masked pixels but values on the device, so it can be recorded in a CUDA
    graph. (`nonzero` gives a result of a length that the host must wait for; a sort would do much more work.)

    Args:
        mask: bool `[N, 1, H, W]`.
        max_pixels: length of the list.

    Returns:
        The pixels, by image, row and column, with image, row and column -1 in slots that stay unused; and how
        many pixels the mask has, a 0-d int64 tensor on its device, which may exceed `max_pixels`.
    """
    height, width = mask.shape[2:]
    # How many masked pixels there are up to each pixel, itself included.
    upto = mask.flatten().cumsum(0)
    total = mask.sum()
    wanted = torch.arange(1, max_pixels + 1, device=mask.device)
    # The i-th masked pixel is the first with i of them up to it.
    flat = torch.searchsorted(upto, wanted)
    used = wanted <= total
    image = flat // (height * width)
    row = flat // width % height
    column = flat % width
    return Pixels(*(torch.where(used, c, -1) for c in (image, row, column))), total
