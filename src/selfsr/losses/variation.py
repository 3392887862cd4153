"""Total variation, which favors images that are flat between edges."""

from torch import Tensor

from selfsr.errors import InputError
from selfsr.losses._images import prepare_images
from selfsr.losses.pixel import Criterion, pixel_loss


def total_variation(image: Tensor, *, criterion: Criterion = "l1") -> Tensor:
    """Return the mean difference between vertical and between horizontal neighbors.

        L = mean l(x(i+1, j), x(i, j)) + mean l(x(i, j+1), x(i, j))

    With "l1" it is the anisotropic form of Rudin, Osher, Fatemi, "Nonlinear total variation based noise removal
    algorithms", Physica D 1992. Each mean is over its own pairs. Half-precision images are computed in float32.

    Args:
        image: float `[N, C, H, W]`, at least 2 px on each side.
        criterion: l, "l1", "l2" or "charbonnier".

    Returns:
        A scalar.

    Raises:
        InputError: `image` is not a float tensor `[N, C, H, W]` or too small, or the criterion is unknown.

    >>> import torch
    >>> ramp = torch.arange(4.0).expand(1, 1, 4, 4)
    >>> total_variation(ramp).item(), total_variation(2 * ramp, criterion="l2").item()
    (1.0, 4.0)
    """
    caller = "total_variation"
    (image,) = prepare_images(caller, image=image)
    if min(image.shape[2:]) < 2:
        raise InputError(f"{caller}: image must be at least 2 px high and wide, got {list(image.shape)}.")
    compare = pixel_loss(caller, criterion)
    return compare(image[:, :, 1:], image[:, :, :-1], reduction="mean") + compare(
        image[:, :, :, 1:], image[:, :, :, :-1], reduction="mean"
    )
