"""The edge mask of the self-similarity loss, and the RGB weights of luma."""

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsr.errors import InputError, check_images

# Published threshold of the Laplacian at edges, in gray levels of 255.
THRESHOLD = 20.0
# Published recipes keep every third diagonal of the mask, a third of the pixels.
STRIDE = 3

# Luma weights of R, G and B by ITU-R BT.601, full range.
LUMA_BT601 = (0.299, 0.587, 0.114)
# The same as MATLAB's rgb2gray rounds them; published losses and degradations use these.
LUMA_MATLAB = (0.2989, 0.587, 0.114)
# The same for studio range: 219 times as much, to be added to black at 16 of 255.
LUMA_STUDIO = (65.481, 128.553, 24.966)
# The same in fixed point with `LUMA_FIXED_BITS` fractional bits, as libjpeg and Pillow's mode "L" use them.
LUMA_FIXED = (19595, 38470, 7471)
LUMA_FIXED_BITS = 16


def rgb_to_luma_uint8(image: Tensor) -> Tensor:
    """Return the 8-bit luma of an image as whole numbers in a float32 tensor.

    Computed as Pillow's mode "L" does, `(19595 R + 38470 G + 7471 B + 32768) >> 16` of the image rounded to
    8 bits. Every step is exact in 32-bit integers.

    Args:
        image: `[N, C, H, W]` in [0, 1]; RGB in the first three channels if C >= 3, else gray in the first.

    Returns:
        float32 `[N, 1, H, W]`, 0 to 255.

    >>> rgb_to_luma_uint8(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)).item()
    76.0
    """
    levels = (image.detach().float() * 255).round().clamp(0, 255).nan_to_num().to(torch.int32)
    if image.shape[1] < 3:
        return levels[:, :1].float()
    red, green, blue = levels[:, 0:1], levels[:, 1:2], levels[:, 2:3]
    half = 1 << (LUMA_FIXED_BITS - 1)
    weighted = LUMA_FIXED[0] * red + LUMA_FIXED[1] * green + LUMA_FIXED[2] * blue
    return ((weighted + half) >> LUMA_FIXED_BITS).float()


def edge_mask(hr: Tensor, *, threshold: float = THRESHOLD, stride: int = 1, two_sided: bool = False) -> Tensor:
    """Return the pixels of the ground truth where the Laplacian of the 8-bit luma exceeds a threshold.

    The response at a pixel is the sum of its four neighbors minus four times itself. Pixels beyond the border are
    reflected without repeating the edge. As published, only positive responses count: the pixel is darker than its
    neighbors. Runs on the device of `hr`, without a host sync.

    Source: "SSL: A Self-similarity Loss for Improving Generative Image Super-resolution", ACM MM 2024, sec. 3,
    and its published preparation of masks.

    Args:
        hr: `[N, C, H, W]` in [0, 1], RGB, or gray with C = 1. A fourth channel is ignored, values outside [0, 1] are
            clamped, and NaN counts as black. H and W are at least 2.
        threshold: response above which a pixel is an edge, in gray levels of 255.
        stride: keep pixel (row, column) only if row and column are equal modulo `stride`, i.e. diagonal lines
            with 1/stride of the pixels; 1 keeps all. Published: 3.
        two_sided: also count responses below `-threshold`, the bright side of edges.

    Returns:
        bool `[N, 1, H, W]`.

    Raises:
        InputError: `hr` is not a float image of that shape, or `stride` is below 1.

    >>> hr = torch.zeros(1, 3, 4, 6)
    >>> hr[..., 3:] = 1
    >>> edge_mask(hr)[0, 0, 0].tolist()  # the dark side of the edge
    [False, False, True, False, False, False]
    """
    check_images("edge_mask", hr=hr)
    if min(hr.shape[2:]) < 2:
        raise InputError(
            f"edge_mask: hr must be at least 2 px high and wide, got {list(hr.shape)}; pass a larger crop."
        )
    if stride < 1:
        raise InputError(f"edge_mask: stride must be 1 or more, got {stride}; 1 keeps every pixel.")
    luma = F.pad(rgb_to_luma_uint8(hr), (1, 1, 1, 1), mode="reflect")
    neighbors = luma[:, :, :-2, 1:-1] + luma[:, :, 2:, 1:-1] + luma[:, :, 1:-1, :-2] + luma[:, :, 1:-1, 2:]
    response = neighbors - 4 * luma[:, :, 1:-1, 1:-1]
    mask = (response.abs() if two_sided else response) > threshold
    return mask if stride == 1 else mask & stride_mask(*hr.shape[2:], stride=stride, device=hr.device)


def stride_mask(height: int, width: int, *, stride: int, device: torch.device | str = "cpu") -> Tensor:
    """Return bool `[height, width]`, true where row and column are equal modulo `stride`.

    >>> stride_mask(2, 4, stride=2).int().tolist()
    [[1, 0, 1, 0], [0, 1, 0, 1]]
    """
    rows = torch.arange(height, device=device) % stride
    columns = torch.arange(width, device=device) % stride
    return rows[:, None] == columns[None]
