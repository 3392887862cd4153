"""Fused optimizers: the same updates up to rounding, and checkpoints that fit both forms."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from selfsr.training.fused import fuse_optimizer, keep_form

CPU = torch.device("cpu")


def make(kind: type, **options: Any) -> tuple[list[nn.Parameter], Optimizer]:
    generator = torch.Generator().manual_seed(0)
    weights = [nn.Parameter(torch.randn(size, generator=generator)) for size in ((4, 3), (5,), (2, 2))]
    groups = [{"params": weights[:2], "lr": 1e-2, "name": "first"}, {"params": weights[2:], "lr": 1e-3}]
    return weights, kind(groups, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1, **options)


def take_steps(weights: list[nn.Parameter], optimizer: Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator)
        optimizer.step()


@pytest.mark.parametrize("kind", [Adam, AdamW])
def test_fused_form_takes_the_same_steps(kind: type) -> None:
    (plain_weights, plain), (weights, optimizer) = make(kind), make(kind)
    fused = fuse_optimizer(optimizer, CPU, devices=["cpu"])
    assert type(fused) is kind
    assert [group["fused"] for group in fused.param_groups] == [True, True]
    assert [group["lr"] for group in fused.param_groups] == [1e-2, 1e-3]
    assert fused.param_groups[0]["name"] == "first"
    take_steps(plain_weights, plain, 0, 5)
    take_steps(weights, fused, 0, 5)
    for expected, got in zip(plain_weights, weights, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("to_fused", [True, False])
def test_checkpoint_of_one_form_continues_in_the_other(to_fused: bool) -> None:
    (weights, first), (_, second) = make(Adam), make(Adam)
    if to_fused:
        second = fuse_optimizer(second, CPU, devices=["cpu"])
    else:
        first = fuse_optimizer(first, CPU, devices=["cpu"])
    (straight_weights, straight) = make(Adam)
    take_steps(straight_weights, straight, 0, 6)
    take_steps(weights, first, 0, 3)
    resumed = [parameter for group in second.param_groups for parameter in group["params"]]
    with torch.no_grad():
        for target, source in zip(resumed, weights, strict=True):
            target.copy_(source)
    second.load_state_dict(keep_form(second, copy.deepcopy(first.state_dict())))
    assert bool(second.param_groups[0]["fused"]) is to_fused
    take_steps(resumed, second, 3, 6)
    for expected, got in zip(straight_weights, resumed, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_other_devices_and_optimizers_keep_their_form() -> None:
    _, optimizer = make(Adam)
    assert fuse_optimizer(optimizer, CPU) is optimizer
    other = SGD([nn.Parameter(torch.zeros(2))], lr=0.1)
    assert fuse_optimizer(other, CPU, devices=["cpu"]) is other
    assert keep_form(other, other.state_dict())["param_groups"] == other.state_dict()["param_groups"]
