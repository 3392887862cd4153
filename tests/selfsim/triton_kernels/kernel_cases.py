"""Images, masks and definitions for the tests of the Triton kernels.

Sizes are as small as possible for every class of displacements, several strips, several panels and divided walks.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsr.selfsim.contract import Geometry, Pixels

# Shape, search, window: all classes of displacement, with several images and channels; wider windows; only cut
# windows; windows of one pixel, with and without displacements.
SIZES = [
    ((2, 2, 5, 6), 7, 3),
    ((1, 1, 5, 6), 9, 5),
    ((1, 4, 4, 3), 5, 5),
    ((3, 1, 4, 3), 5, 1),
    ((1, 1, 4, 3), 1, 1),
]


def random_images(shape: tuple[int, ...], device: torch.device, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(device)


def random_mask(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """A third of the pixels, with all four corners of the batch."""
    n, _, height, width = shape
    mask = torch.rand(n, 1, height, width, generator=torch.Generator().manual_seed(1)) < 1 / 3
    mask[0, :, :: height - 1, :: width - 1] = True
    return mask.to(device)


def list_pixels(mask: Tensor) -> Pixels:
    return Pixels(*mask[:, 0].nonzero(as_tuple=True))


def pad_reflect(image: Tensor, geometry: Geometry) -> Tensor:
    h = geometry.half_search
    return F.pad(image, (h, h, h, h), mode="reflect") if h else image


def define_distances(padded: Tensor, pixels: Pixels, geometry: Geometry) -> Tensor:
    """q by its definition, one displacement after another, differentiable."""
    s, k, h, f = geometry.search_px, geometry.window_px, geometry.half_search, geometry.half_window
    n, y, x = pixels
    areas = padded.unfold(2, s, 1).unfold(3, s, 1)[n, :, y, x]
    walled = F.pad(areas, (f, f, f, f))
    center = areas[:, :, h - f : h + f + 1, h - f : h + f + 1]
    rows = [(center - walled[:, :, i : i + k, j : j + k]).square().mean((1, 2, 3)) for i in range(s) for j in range(s)]
    return torch.stack(rows)


def relative_error(value: Tensor, truth: Tensor) -> float:
    return ((value - truth).abs().max() / truth.abs().max().clamp(min=1e-30)).item()
