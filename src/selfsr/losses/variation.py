"""Total variation, which prefers images that are flat between edges."""

from torch import Tensor

from selfsr.errors import InputError
from selfsr.losses._images import prepared
from selfsr.losses.pixel import Criterion, distance


def total_variation(image: Tensor, *, criterion: Criterion = "l1") -> Tensor:
    """Return the mean difference of neighbors, below and beside.

        L = mean l(x(i+1, j), x(i, j)) + mean l(x(i, j+1), x(i, j))

    With "l1" the anisotropic form of Rudin, Osher, Fatemi, "Nonlinear total variation based noise removal algorithms",
    Physica D 1992; each mean is over its own pairs. Half-precision images are computed in float32.

    Args:
        image: float `[N, C, H, W]`, at least 2 px on each side.
        criterion: "l1", "l2" or "charbonnier".

    Returns:
        A scalar.

    Raises:
        InputError: `image` is no such image, or the criterion is unknown.

    >>> import torch
    >>> ramp = torch.arange(4.0).expand(1, 1, 4, 4)
    >>> total_variation(ramp).item(), total_variation(2 * ramp, criterion="l2").item()
    (1.0, 4.0)
    """
    where = "total_variation"
    (image,) = prepared(where, image=image)
    if min(image.shape[2:]) < 2:
        raise InputError(f"{where}: image must be at least 2 px high and wide, got {list(image.shape)}.")
    compare = distance(where, criterion)
    return compare(image[:, :, 1:], image[:, :, :-1], reduction="mean") + compare(
        image[:, :, :, 1:], image[:, :, :, :-1], reduction="mean"
    )
