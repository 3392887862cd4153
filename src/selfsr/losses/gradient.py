"""SPSR: losses of the gradient map, which shows structure without color and brightness.

Source: Ma et al., "Structure-Preserving Super Resolution with Gradient Guidance", CVPR 2020, section 3.
"""

import torch
from torch import Tensor
from torch.nn import functional

from selfsr.losses._images import prepare_images
from selfsr.losses.pixel import Criterion, pixel_loss

# Published constant under the root, which keeps the slope at 0 finite.
EPS = 1e-6


def gradient_map(image: Tensor, *, eps: float = EPS) -> Tensor:
    """Return the magnitude of each channel's gradient, from differences over two pixels.

        M(x)(i, j) = sqrt( (x(i+1, j) - x(i-1, j))^2 + (x(i, j+1) - x(i, j-1))^2 + eps ),    x = 0 beyond the border

    Half-precision images are computed in float32.

    Args:
        image: float `[N, C, H, W]` in [0, 1].
        eps: constant under the root; M is at least `sqrt(eps)`.

    Returns:
        Like `image`, from `sqrt(eps)` to `sqrt(2 + eps)`.

    Raises:
        InputError: `image` is not a float tensor `[N, C, H, W]`.

    >>> ramp = torch.arange(5.0).expand(1, 1, 3, 5) / 10
    >>> gradient_map(ramp)[0, 0, 1].tolist()  # the right border falls to 0
    [0.10000..., 0.20000..., 0.20000..., 0.20000..., 0.30000...]
    """
    (image,) = prepare_images("gradient_map", image=image)
    padded = functional.pad(image, (1, 1, 1, 1))
    vertical = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    horizontal = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    return torch.sqrt(vertical.square() + horizontal.square() + eps)


def gradient_loss(sr: Tensor, hr: Tensor, *, criterion: Criterion = "l2") -> Tensor:
    """Return the mean difference of the gradient maps, `mean l(M(sr), M(hr))`.

    Args:
        sr: super-resolved images, float `[N, C, H, W]` in [0, 1].
        hr: ground truth, like `sr`.
        criterion: l, "l2" (published), "l1" or "charbonnier".

    Returns:
        A scalar.

    Raises:
        InputError: the images differ in shape or device, or the criterion is unknown.

    >>> hr = torch.rand(2, 3, 8, 8)
    >>> gradient_loss(hr, hr).item()
    0.0
    """
    sr, hr = prepare_images("gradient_loss", sr=sr, hr=hr)
    return pixel_loss("gradient_loss", criterion)(gradient_map(sr), gradient_map(hr), reduction="mean")


def gradient_branch_loss(branch: Tensor, hr: Tensor, *, criterion: Criterion = "l1") -> Tensor:
    """Return the difference of a predicted gradient map from the true one, `mean l(branch, M(hr))`.

    Args:
        branch: output of the generator's gradient branch, float `[N, C, H, W]`.
        hr: ground truth, like `branch`, in [0, 1].
        criterion: l, "l1" (published), "l2" or "charbonnier".

    Returns:
        A scalar.

    Raises:
        InputError: the images differ in shape or device, or the criterion is unknown.

    >>> hr = torch.rand(2, 3, 8, 8)
    >>> gradient_branch_loss(gradient_map(hr), hr).item()
    0.0
    """
    branch, hr = prepare_images("gradient_branch_loss", branch=branch, hr=hr)
    return pixel_loss("gradient_branch_loss", criterion)(branch, gradient_map(hr), reduction="mean")
