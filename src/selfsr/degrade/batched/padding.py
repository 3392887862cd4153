"""Images of different sizes in one tensor, each in the upper left of its plane.

The padding of an image is undefined and may be NaN. So steps read through indices that stay inside each image, and the
padding of their results is also undefined.
"""

import numpy as np
import torch
from torch import Tensor

from selfsr.machine.device import to_device

Size = tuple[int, int]


def to_device_of(array: np.ndarray, image: Tensor) -> Tensor:
    """Copy an array to the device of `image`, without waiting for the device."""
    return to_device(torch.from_numpy(array), image.device)


def gather_pixels(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the given rows `[n, R]` and columns `[n, C]` of each image of `[n, c, H, W]`, as `[n, c, R, C]`."""
    n, channels, height, width = image.shape
    planes = torch.arange(n * channels, device=image.device)[:, None] * height
    lines = image.reshape(-1, width).index_select(0, (planes + rows.repeat_interleave(channels, 0)).flatten())
    lines = lines.view(n, channels, rows.shape[1], width)
    return lines.gather(3, columns[:, None, None, :].expand(-1, channels, rows.shape[1], -1))


def clamp_index(first: int, count: int, sides: Tensor) -> Tensor:
    """Return the indices first, first + 1, ... `[n, count]`, clamped to each image: 0 to `sides` - 1."""
    index = torch.arange(first, first + count, device=sides.device)
    return torch.minimum(index.clamp_min(0)[None], sides[:, None] - 1)


def reflect_index(first: int, count: int, sides: Tensor) -> Tensor:
    """Return the indices first, first + 1, ... `[n, count]`, reflected at each image's ends without repeating them."""
    index = torch.arange(first, first + count, device=sides.device)[None]
    last = sides[:, None] - 1
    folded = index.remainder((2 * last).clamp_min(1))
    return torch.minimum(folded, 2 * last - folded)


def mask_valid_pixels(sizes: Tensor, image: Tensor) -> Tensor:
    """Return the mask of the pixels that are not padding, bool `[n, 1, H, W]`."""
    rows, columns = (torch.arange(length, device=image.device) for length in image.shape[-2:])
    return (rows[:, None] < sizes[:, 0, None, None])[:, None] & (columns < sizes[:, 1, None, None])[:, None]


def compute_bounding_size(sizes: np.ndarray) -> Size:
    """Return the smallest height and width that contain all the sizes `[n, 2]`."""
    height, width = sizes.max(axis=0).tolist()
    return height, width
