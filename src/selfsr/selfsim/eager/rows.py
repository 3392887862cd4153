"""From two graphs to the loss and its gradient in the portable backend (eq. 2 to 5, 12 and 13)."""

import math

import torch
from torch import Tensor

from selfsr.selfsim.contract import FLOOR, ROW_BLOCK, Geometry, sum_dtype

# Columns of a graph that are compared at once on a CPU, so that temporary values stay in the cache.
_CPU_BLOCK = 128


def loss_and_row_gradient(
    q_sr: Tensor, q_hr: Tensor, geometry: Geometry, l1_weight: float, kl_weight: float, with_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """See `selfsr.selfsim.contract.Backend`."""
    on_cpu = q_sr.device.type == "cpu"
    block = _CPU_BLOCK if on_cpu else ROW_BLOCK
    wide = sum_dtype(q_sr)
    loss_parts = torch.zeros(2, dtype=wide, device=q_sr.device)
    for first in range(0, q_sr.shape[1], block):
        columns = slice(first, first + block)
        l1, kl, gradient = _compare_rows(
            q_sr[:, columns], q_hr[:, columns], geometry, l1_weight, kl_weight, with_gradient
        )
        loss_parts += torch.stack((l1.to(wide).sum(), kl.to(wide).sum()))
        if gradient is not None:
            q_sr[:, columns] = gradient
    # One by one: the host would wait for the copy of a tensor of weights to the device.
    loss_parts[0] *= l1_weight / geometry.entries
    loss_parts[1] *= kl_weight / geometry.entries
    return loss_parts, q_sr if with_gradient else None


def _compare_rows(
    q_sr: Tensor, q_hr: Tensor, geometry: Geometry, l1_weight: float, kl_weight: float, with_gradient: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return both sums over a row `[m]` and the gradient `[S*S, m]` (eq. 2 to 5, 12 and 13)."""
    ln_x, ln_y = q_sr * (-1 / geometry.sigma), q_hr * (-1 / geometry.sigma)
    x, y = ln_x.exp(), ln_y.exp()
    difference = x - y
    ln_floor: float | Tensor = math.log(FLOOR)
    if geometry.normalize:
        sum_x, sum_y = x.sum(0), y.sum(0)
        # ln sum_x - ln sum_y, exact also where the two are close: a rounding error here would shift an entire
        # row of logarithms, whose weighted mean, the divergence, is much smaller than they are. Below, both
        # logarithms lack the term -ln sum_y, which their difference does not need.
        ln_x -= (difference.sum(0) / sum_y).log1p_()
        ln_floor = ln_floor + sum_y.log()
        x /= sum_x
        y /= sum_y
        torch.sub(x, y, out=difference)
    l1 = difference.abs().sum(0)
    floored = y.clamp(min=FLOOR)
    kl = ln_y.clamp_(min=ln_floor).sub_(ln_x.clamp_(min=ln_floor)).mul_(floored).sum(0)
    if not with_gradient:
        return l1, kl, None
    gradient = difference.sign_().mul_(x)
    pull = floored.mul_(x >= FLOOR)
    if geometry.normalize:
        gradient.sub_(x * gradient.sum(0)).mul_(l1_weight)
        # The sum of `pull` is 1 minus the change by the floors. In this form equal graphs cancel exactly.
        changed = y.sub_(pull).sum(0)
        gradient.add_(x.mul_(1 - changed).sub_(pull), alpha=kl_weight)
    else:
        gradient.mul_(l1_weight).sub_(pull, alpha=kl_weight)
    return l1, kl, gradient.mul_(-1 / (geometry.sigma * geometry.entries))
