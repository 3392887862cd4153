"""SPSR: losses of the gradient map, which carries structure without color and brightness.

Source: Ma et al., "Structure-Preserving Super Resolution with Gradient Guidance", CVPR 2020, section 3.
"""

import torch
from torch import Tensor
from torch.nn import functional

from selfsr.losses._images import prepared
from selfsr.losses.pixel import Criterion, distance

# Under the root, so that it has a slope at 0; published.
EPS = 1e-6


def gradient_map(image: Tensor, *, eps: float = EPS) -> Tensor:
    """Return the magnitude of each channel's gradient, by differences over two pixels.

        M(x)(i, j) = sqrt( (x(i+1, j) - x(i-1, j))^2 + (x(i, j+1) - x(i, j-1))^2 + eps ),    0 beyond the border

    Half-precision images are computed in float32.

    Args:
        image: float `[N, C, H, W]` in [0, 1].
        eps: keeps the slope at 0 finite; M is at least its root, 0.001.

    Returns:
        Like `image`, from `sqrt(eps)` to `sqrt(2 + eps)`.

    Raises:
        InputError: `image` is no such image.

    >>> ramp = torch.arange(5.0).expand(1, 1, 3, 5) / 10
    >>> gradient_map(ramp)[0, 0, 1].tolist()  # the right border falls to 0
    [0.10000..., 0.20000..., 0.20000..., 0.20000..., 0.30000...]
    """
    (image,) = prepared("gradient_map", image=image)
    padded = functional.pad(image, (1, 1, 1, 1))
    vertical = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    horizontal = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    return torch.sqrt(vertical.square() + horizontal.square() + eps)


def gradient_loss(sr: Tensor, hr: Tensor, *, criterion: Criterion = "l2") -> Tensor:
    """Return the mean difference of the gradient maps, `mean l(M(sr), M(hr))`; published: l2.

    Args:
        sr: super-resolved images, float `[N, C, H, W]` in [0, 1].
        hr: ground truth, like `sr`.
        criterion: "l1", "l2" or "charbonnier".

    Returns:
        A scalar.

    Raises:
        InputError: the images are not alike, or the criterion is unknown.

    >>> hr = torch.rand(2, 3, 8, 8)
    >>> gradient_loss(hr, hr).item()
    0.0
    """
    sr, hr = prepared("gradient_loss", sr=sr, hr=hr)
    return distance("gradient_loss", criterion)(gradient_map(sr), gradient_map(hr), reduction="mean")


def gradient_branch_loss(branch: Tensor, hr: Tensor, *, criterion: Criterion = "l1") -> Tensor:
    """Return how far a generator's gradient branch is from the ground truth's map, `mean l(branch, M(hr))`.

    Args:
        branch: the gradient map that the generator predicts beside its image, float `[N, C, H, W]`.
        hr: ground truth, like `branch`, in [0, 1].
        criterion: "l1" (published), "l2" or "charbonnier".

    Returns:
        A scalar.

    Raises:
        InputError: the images are not alike, or the criterion is unknown.

    >>> hr = torch.rand(2, 3, 8, 8)
    >>> gradient_branch_loss(gradient_map(hr), hr).item()
    0.0
    """
    branch, hr = prepared("gradient_branch_loss", branch=branch, hr=hr)
    return distance("gradient_branch_loss", criterion)(branch, gradient_map(hr), reduction="mean")
