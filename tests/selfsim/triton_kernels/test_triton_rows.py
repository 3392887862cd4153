"""The Triton kernel from two graphs to the loss and its gradient."""

import pytest
import torch
from kernel_cases import random_images, relative_error
from torch import Tensor

from selfsr.selfsim.contract import Geometry
from selfsr.selfsim.triton import backend

pytestmark = pytest.mark.triton


def define_rows(q_sr: Tensor, q_hr: Tensor, geometry: Geometry, weights: tuple[float, float]) -> tuple[Tensor, Tensor]:
    q = q_sr.double().requires_grad_()
    x, y = torch.exp(-q / geometry.sigma), torch.exp(-q_hr.double() / geometry.sigma)
    if geometry.normalize:
        x, y = x / x.sum(0), y / y.sum(0)
    x_floored, y_floored = x.clamp(min=1e-10), y.clamp(min=1e-10)
    l1 = weights[0] * (x - y).abs().mean(0).sum()
    kl = weights[1] * (y_floored * (y_floored.log() - x_floored.log())).mean(0).sum()
    (gradient,) = torch.autograd.grad(l1 + kl, q)
    return torch.stack([l1, kl]).detach(), gradient


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("search_px", "sigma"), [(7, 0.004), (25, 0.05), (25, 0.002)])
@pytest.mark.usefixtures("poisoned_memory")
def test_loss_and_row_gradient_match_the_definition(
    search_px: int, sigma: float, normalize: bool, device: torch.device
) -> None:
    geometry = Geometry(search_px, 1, sigma, normalize)
    q_hr = random_images((search_px**2, 11), device) * 0.1
    q_hr[search_px**2 // 2] = 0
    q_sr = (q_hr * (1 + 0.2 * random_images((search_px**2, 11), device, seed=1))).float()
    # Ties, where the sign of the difference must be 0.
    q_hr, q_hr[:, 0] = q_hr.float(), q_sr[:, 0]
    for weights in [(1000.0, 500.0), (0.0, 1.0), (1.0, 0.0)][: 3 if search_px == 7 else 1]:
        truth, grad_truth = define_rows(q_sr, q_hr, geometry, weights)
        parts, grad = backend.loss_and_row_gradient(q_sr.clone(), q_hr.clone(), geometry, *weights, with_gradient=True)
        assert grad is not None
        assert parts.dtype == torch.float64
        assert (parts[0] - truth[0]).abs() <= 1e-6 * truth[0]
        assert (parts[1] - truth[1]).abs() <= 1e-5 * truth[1]
        assert relative_error(grad, grad_truth) < 4e-6
    loss_parts, no_gradient = backend.loss_and_row_gradient(
        q_sr.clone(), q_hr.clone(), geometry, *weights, with_gradient=False
    )
    assert no_gradient is None
    assert torch.equal(loss_parts, parts)


def test_equal_graphs_have_no_loss_and_no_gradient(device: torch.device) -> None:
    q = random_images((81, 20), device).float() * 0.1
    geometry = Geometry(9, 1, 0.05)
    parts, grad = backend.loss_and_row_gradient(q.clone(), q.clone(), geometry, 1000.0, 1000.0, with_gradient=True)
    assert parts.tolist() == [0, 0]
    assert grad is not None
    assert grad.abs().max() == 0
