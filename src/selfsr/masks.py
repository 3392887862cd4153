"""Which pixels enter the self-similarity graph: the edges of the ground truth, thinned by a stride."""

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsr.errors import InputError, check_images

# Laplacian response that makes an edge, in gray levels of 255, as published.
THRESHOLD = 20.0


def rgb_to_luma_uint8(image: Tensor) -> Tensor:
    """Return the 8-bit luma of an image as whole numbers in a float32 tensor.

    Computed as Pillow's mode "L" does, `(19595 R + 38470 G + 7471 B + 32768) >> 16` of the image rounded to
    8 bits; every step is exact in integers of 32 bits.

    Args:
        image: `[N, C, H, W]` in [0, 1]; RGB in the first three channels if C >= 3, else gray in the first.

    Returns:
        float32 `[N, 1, H, W]`, from 0 to 255.
    """
    levels = (image.detach().float() * 255).round().clamp(0, 255).nan_to_num().to(torch.int32)
    if image.shape[1] < 3:
        return levels[:, :1].float()
    red, green, blue = levels[:, 0:1], levels[:, 1:2], levels[:, 2:3]
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).float()


def edge_mask(hr: Tensor, *, threshold: float = THRESHOLD, stride: int = 1, two_sided: bool = False) -> Tensor:
    """Return the pixels of `hr` that lie at edges: where the Laplacian of its 8-bit luma exceeds a threshold.

    The response at a pixel is the sum of its four neighbors minus four times itself, with the border mirrored
    without repeating the edge. As published, only positive responses count: the pixel is darker than its
    neighbors. Runs on the device of `hr`, without a host sync.

    Source: "SSL: A Self-similarity Loss for Improving Generative Image Super-resolution", ACM MM 2024, sec. 3,
    and its published preparation of masks.

    Args:
        hr: `[N, C, H, W]` in [0, 1], RGB, or gray with C = 1 (with C = 4 the fourth channel is not looked at);
            values outside [0, 1] are clamped, NaN counts as black. H and W of at least 2.
        threshold: response above which a pixel is an edge, in gray levels of 255.
        stride: keep pixel (row, column) only if row and column are equal modulo `stride`, i.e. diagonal lines
            with 1/stride of the pixels; 1 keeps all. Published: 3.
        two_sided: also count responses below `-threshold`, the bright side of edges.

    Returns:
        bool `[N, 1, H, W]`.

    Raises:
        InputError: if `hr` is no float image of that shape, or `stride` is below 1.
    """
    check_images("edge_mask", hr=hr)
    if min(hr.shape[2:]) < 2:
        raise InputError(
            f"edge_mask: hr must be at least 2 px high and wide, got {list(hr.shape)}; pass a larger crop."
        )
    if stride < 1:
        raise InputError(f"edge_mask: stride must be 1 or more, got {stride}; 1 keeps every pixel.")
    gray = F.pad(rgb_to_luma_uint8(hr), (1, 1, 1, 1), mode="reflect")
    neighbors = gray[:, :, :-2, 1:-1] + gray[:, :, 2:, 1:-1] + gray[:, :, 1:-1, :-2] + gray[:, :, 1:-1, 2:]
    response = neighbors - 4 * gray[:, :, 1:-1, 1:-1]
    mask = (response.abs() if two_sided else response) > threshold
    return mask if stride == 1 else mask & stride_tile(*hr.shape[2:], stride=stride, device=hr.device)


def stride_tile(height: int, width: int, *, stride: int, device: torch.device | str = "cpu") -> Tensor:
    """Return bool `[height, width]`, true where row and column are equal modulo `stride`."""
    rows = torch.arange(height, device=device) % stride
    columns = torch.arange(width, device=device) % stride
    return rows[:, None] == columns[None]
