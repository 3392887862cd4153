"""Tests of the GPU baseline with atomics; `test_atomic_baseline.py` runs this file in Triton's interpreter."""

import pytest
import torch

from atomic_baseline import atomic_loss
from interpreter import is_interpreted
from selfsr.selfsim import reference

if not is_interpreted():
    pytest.skip("run by test_atomic_baseline.py", allow_module_level=True)


@pytest.mark.parametrize("normalize", [True, False])
def test_atomic_loss_equals_the_definition(normalize):
    generator = torch.Generator().manual_seed(0)
    sr, hr = torch.rand(2, 2, 2, 5, 4, generator=generator, dtype=torch.float64)
    mask = torch.rand(2, 1, 5, 4, generator=generator) < 0.2
    mask[0, 0, 0, 0] = mask[1, 0, 4, 3] = True
    options = {"search_px": 5, "window_px": 3, "sigma": 0.05, "normalize": normalize, "l1_weight": 2, "kl_weight": 3}
    leaf = sr.clone().requires_grad_()
    truth = sum(reference.loss_parts(leaf, hr, mask, **options))
    (expected,) = torch.autograd.grad(truth, leaf)
    leaf = sr.float().requires_grad_()
    value = atomic_loss(leaf, hr.float(), mask, **options)
    (gradient,) = torch.autograd.grad(value, leaf)
    assert value.item() == pytest.approx(truth.item(), rel=1e-5)
    assert (gradient - expected).abs().max() <= 1e-5 * expected.abs().max()
