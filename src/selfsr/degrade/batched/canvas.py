"""Pictures of different sizes in one tensor: each in the upper left of its plane, and nothing of worth beside it.

What lies beside a picture may be anything, NaN included. A step therefore reads through indices that stay inside each
picture, and what it writes beside is again of no worth.
"""

import numpy as np
import torch
from torch import Tensor

from selfsr.machine.device import to_device

Size = tuple[int, int]


def on(array: np.ndarray, image: Tensor) -> Tensor:
    """Return the array as a tensor where `image` is, without waiting for the device."""
    return to_device(torch.from_numpy(array), image.device)


def gathered(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return `[n, c, R, C]`, of each picture of `[n, c, H, W]` the rows `[n, R]` and columns `[n, C]`."""
    n, channels, height, width = image.shape
    planes = torch.arange(n * channels, device=image.device)[:, None] * height
    lines = image.reshape(-1, width).index_select(0, (planes + rows.repeat_interleave(channels, 0)).flatten())
    lines = lines.view(n, channels, rows.shape[1], width)
    return lines.gather(3, columns[:, None, None, :].expand(-1, channels, rows.shape[1], -1))


def held(first: int, count: int, sides: Tensor) -> Tensor:
    """Return the indices first, first + 1, ... `[n, count]`, held at 0 and at each picture's last one."""
    places = torch.arange(first, first + count, device=sides.device)
    return torch.minimum(places.clamp_min(0)[None], sides[:, None] - 1)


def reflected(first: int, count: int, sides: Tensor) -> Tensor:
    """Return the indices first, first + 1, ... `[n, count]`, mirrored at each picture's ends, not repeating them."""
    places = torch.arange(first, first + count, device=sides.device)[None]
    last = sides[:, None] - 1
    folded = places.remainder((2 * last).clamp_min(1))
    return torch.minimum(folded, 2 * last - folded)


def inside(sizes: Tensor, image: Tensor) -> Tensor:
    """Return where the pictures are, bool `[n, 1, H, W]`."""
    rows, columns = (torch.arange(length, device=image.device) for length in image.shape[-2:])
    return (rows[:, None] < sizes[:, 0, None, None])[:, None] & (columns < sizes[:, 1, None, None])[:, None]


def largest(sizes: np.ndarray) -> Size:
    """Return the height and width that hold all the sizes `[n, 2]`."""
    height, width = sizes.max(axis=0).tolist()
    return height, width
