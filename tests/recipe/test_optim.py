"""Learning-rate schedules and the EMA against their formulas."""

import pytest
import torch
from torch import nn

from selfsr.recipe.schedules import (
    ConstantSpec,
    CosineRestartsSpec,
    CosineSpec,
    MultiStepSpec,
    Plateau,
    PlateauSpec,
    WsdSpec,
)
from selfsr.training.ema import Ema


def test_multistep_drops_after_each_step() -> None:
    schedule = MultiStepSpec(at_steps=(10, 20), gamma=0.5)
    assert [schedule.factor(step, 30) for step in (1, 10, 11, 20, 21, 30)] == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_multistep_agrees_with_torch() -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    oracle = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[3, 5], gamma=0.1)
    ours = MultiStepSpec(at_steps=(3, 5), gamma=0.1)
    for step in range(1, 9):
        assert ours.factor(step, 9) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        oracle.step()


def test_cosine_falls_to_its_floor_after_the_warmup() -> None:
    schedule = CosineSpec(floor=0.1, warmup_steps=4)
    factors = [schedule.factor(step, 25) for step in range(1, 26)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factors[14] == pytest.approx(0.55)
    assert factors[-1] == pytest.approx(0.1)
    assert factors[4:] == sorted(factors[4:], reverse=True)


def test_constant_warms_up() -> None:
    assert [ConstantSpec(warmup_steps=2).factor(step, 9) for step in (1, 2, 3)] == [0.5, 1.0, 1.0]


def test_cosine_restarts_agree_with_torch() -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    oracle = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=3, T_mult=2, eta_min=0.1)
    ours = CosineRestartsSpec(period_steps=3, period_factor=2, floor=0.1)
    for step in range(1, 20):
        assert ours.factor(step, 19) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        oracle.step()


def test_cosine_restarts_warm_up_once_and_lower_their_peak() -> None:
    schedule = CosineRestartsSpec(period_steps=4, peak_factor=0.5, warmup_steps=2)
    assert [schedule.factor(step, 14) for step in (1, 2, 3, 5, 7, 11)] == pytest.approx([0.5, 1, 1, 0.5, 0.5, 0.25])


@pytest.mark.parametrize(("shape", "half"), [("linear", 0.5), ("sqrt", 1 - 0.5**0.5)])
def test_wsd_is_stable_until_the_decay(shape: str, half: float) -> None:
    schedule = WsdSpec(warmup_steps=2, decay_share=0.2, shape=shape, floor=0.1)
    factors = [schedule.factor(step, 20) for step in range(1, 21)]
    assert factors[:16] == [0.5] + [1.0] * 15
    assert factors[17] == pytest.approx(0.1 + 0.9 * half)
    assert factors[-1] == pytest.approx(0.1)


def test_plateau_agrees_with_torch() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    oracle = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, "max", factor=0.5, patience=1, threshold=0.0, min_lr=0.2
    )
    plateau = Plateau(PlateauSpec(gamma=0.5, patience=2, floor=0.2))  # torch counts the evaluations before the drop
    for score in (1, 2, 2, 1, 3, 1, 2, 4, 0, 0, 0, 0, 0):
        oracle.step(score)
        plateau.observe(score)
        assert plateau.factor == optimizer.param_groups[0]["lr"]
        restored = Plateau(PlateauSpec(gamma=0.5, patience=2, floor=0.2))
        restored.load(plateau.state())
        plateau = restored
    assert plateau.factor == 0.2


def test_ema_follows_its_formula_and_copies_buffers() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    ema = Ema(net, 0.75)
    start = net[0].weight.detach().clone()
    with torch.no_grad():
        net[0].weight += 1.0
        net[1].running_mean += 3.0
    ema.update(net)
    torch.testing.assert_close(ema.net[0].weight, 0.75 * start + 0.25 * (start + 1))
    torch.testing.assert_close(ema.net[1].running_mean, net[1].running_mean)
    assert not ema.net.training
