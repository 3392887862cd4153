"""The pixel losses: values by hand, gradients, reductions, mistakes."""

import math

import pytest
import torch

from selfsr.errors import InputError
from selfsr.losses import charbonnier, l1, l2

SR = torch.tensor([[0.0, 0.5, 1.0, 0.25]], dtype=torch.float64).reshape(1, 1, 2, 2)
HR = torch.tensor([[0.0, 0.25, 0.0, 0.75]], dtype=torch.float64).reshape(1, 1, 2, 2)


def test_values() -> None:
    assert l1(SR, HR).flatten().tolist() == [0, 0.25, 1, 0.5]
    assert l2(SR, HR).flatten().tolist() == [0, 0.0625, 1, 0.25]
    expected = [math.sqrt(d * d + 0.01) for d in (0, 0.25, 1, 0.5)]
    assert charbonnier(SR, HR, eps=0.1).flatten().tolist() == pytest.approx(expected, rel=1e-14)


def test_default_eps_of_charbonnier_is_that_of_lapsrn() -> None:
    assert charbonnier(HR, HR).flatten().tolist() == pytest.approx([1e-3] * 4, rel=1e-12)


@pytest.mark.parametrize("loss", [l1, l2, charbonnier])
def test_reductions(loss) -> None:
    each = loss(SR, HR)
    assert each.shape == SR.shape
    assert loss(SR, HR, reduction="sum").item() == pytest.approx(sum(each.flatten().tolist()))
    assert loss(SR, HR, reduction="mean").item() == pytest.approx(sum(each.flatten().tolist()) / 4)


@pytest.mark.parametrize("loss", [l2, charbonnier])
def test_gradients(loss) -> None:
    assert torch.autograd.gradcheck(loss, (SR.clone().requires_grad_(), HR.clone().requires_grad_()))


def test_gradient_of_l1_is_the_sign() -> None:
    x = SR.clone().requires_grad_()
    l1(x, HR, reduction="sum").backward()
    assert x.grad.flatten().tolist() == [0, 1, 1, -1]


@pytest.mark.parametrize("loss", [l1, l2, charbonnier])
def test_mistake_raises_one_sentence(loss) -> None:
    with pytest.raises(InputError, match=r"^\w+: sr and hr must have one shape, got \[1, 1, 2, 2\] and \[2, 2\]\.$"):
        loss(SR, HR[0, 0])
    with pytest.raises(
        InputError, match=r"reduction must be one of none, mean, sum, got 'men'; did you mean 'mean'\?$"
    ):
        loss(SR, HR, reduction="men")


def test_eps_must_be_positive() -> None:
    with pytest.raises(InputError, match=r"^charbonnier: eps must be greater than 0, got 0; "):
        charbonnier(SR, HR, eps=0)
