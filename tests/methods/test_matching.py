"""Matched weights: against values by hand, over micro-batches and checkpoints, and checks of options."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from factories import recipe_error
from selfsr.recipe import parse_recipe
from selfsr.step import MaskedSum
from selfsr.terms.loss_weights import LossWeights, MatchLargest

CPU = torch.device("cpu")


def match(calibrate_steps: int = 2, factor: float = 1.0) -> MatchLargest:
    return MatchLargest(match="largest", calibrate_steps=calibrate_steps, factor=factor)


def output(n: int = 4) -> Tensor:
    return torch.zeros(n, 1, 2, 3, requires_grad=True)


def slope(sr: Tensor, size: float) -> Tensor:
    """Return a mean over the batch whose gradient has `size` everywhere, apart from the division by the elements."""
    return size * sr.mean()


def norm_of_mean(elements: int) -> float:
    """Return the norm of the gradient of a mean."""
    return 1 / math.sqrt(elements)


def value(weighted: Tensor | MaskedSum, loss: Tensor | MaskedSum) -> float:
    """Return the weight that a loss was multiplied by."""
    whole, part = (x.total if isinstance(x, MaskedSum) else x for x in (loss, weighted))
    return (part / whole).item()


def test_a_matched_weight_is_the_ratio_of_mean_norms() -> None:
    weights = LossWeights({"pixel": 2.0, "small": 1.0, "found": match(calibrate_steps=2, factor=0.5)}, CPU)
    used = []
    for size in (1.0, 5.0, 100.0, 100.0):
        sr = output() + 1
        losses = {"pixel": slope(sr, size), "small": slope(sr, 0.1), "found": slope(sr, 4.0)}
        weighted = weights(losses, sr)
        assert value(weighted["pixel"], losses["pixel"]) == pytest.approx(2.0)
        used.append(value(weighted["found"], losses["found"]))
        weights.finish_update()
    # 2 * size / 4, halved, over the updates before; frozen after two.
    assert used == pytest.approx([0.0, 0.25, (2 * 1 + 2 * 5) / (4 + 4) / 2, 1.5 / 2])
    assert weights.logged_scalars()["weight/found"].item() == pytest.approx(0.75)


def test_micro_batches_do_not_change_the_matched_weight() -> None:
    """Cut into two unequal masks, a batch gives the weight that it gives whole."""

    def found(pieces: list[slice]) -> float:
        weights = LossWeights({"pixel": 1.0, "masked": match()}, CPU)
        images, factors = torch.rand(4, 1, 2, 3, generator=torch.Generator().manual_seed(0)), torch.arange(1.0, 5.0)
        mask = torch.arange(4).view(4, 1, 1, 1) < torch.tensor([1, 4, 2]).view(1, 1, 1, 3)
        for piece in pieces:
            sr = images[piece].clone().requires_grad_()
            ramp = factors[piece].view(-1, 1, 1, 1)
            total = ((sr.square() * ramp) * mask[piece]).sum()
            count = mask[piece].expand_as(sr).sum()
            weights({"pixel": (sr * ramp).mean(), "masked": MaskedSum(total, count)}, sr)
        weights.finish_update()
        return weights.logged_scalars()["weight/masked"].item()

    whole = found([slice(0, 4)])
    assert whole > 0
    assert found([slice(0, 2), slice(2, 4)]) == pytest.approx(whole, rel=1e-6)
    assert found([slice(n, n + 1) for n in range(4)]) == pytest.approx(whole, rel=1e-6)


def test_measuring_does_not_change_the_gradient() -> None:
    weights = LossWeights({"pixel": 1.0, "found": match(calibrate_steps=9)}, CPU)
    for _ in range(2):
        sr = output()
        weighted = weights({"pixel": (sr - 1).square().mean(), "found": slope(sr, 3.0)}, sr)
        (weighted["pixel"] + weighted["found"]).backward()
        weights.finish_update()
    # -2/n from the square, and as much again in the other direction from the matched slope: they cancel.
    torch.testing.assert_close(sr.grad, torch.zeros_like(sr))


def test_a_loss_that_was_always_zero_has_no_weight_yet() -> None:
    weights = LossWeights({"pixel": 1.0, "masked": match(calibrate_steps=3)}, CPU)
    used = []
    for masked in (0.0, 0.0, 1.0, 1.0):
        sr = output() + 1
        losses = {"pixel": slope(sr, 1.0), "masked": MaskedSum(masked * sr.sum(), torch.tensor(int(masked) * 24))}
        used.append(weights(losses, sr)["masked"].total.item() / 24)
        weights.finish_update()
    assert used == pytest.approx([0.0, 0.0, 0.0, 3.0])  # three updates of pixel's size, one of masked's


def test_a_checkpoint_during_measurement_changes_nothing() -> None:
    def run_updates(weights: LossWeights, sizes: list[float]) -> list[float]:
        used = []
        for size in sizes:
            sr = output() + 1
            losses = {"pixel": slope(sr, size), "found": slope(sr, 1.0)}
            used.append(value(weights(losses, sr)["found"], losses["found"]))
            weights.finish_update()
        return used

    make = lambda: LossWeights({"pixel": 1.0, "found": match(calibrate_steps=3)}, CPU)  # noqa: E731
    straight = run_updates(make(), [1.0, 2.0, 4.0, 8.0, 16.0])
    first, second = make(), make()
    begun = run_updates(first, [1.0, 2.0])
    second.load(first.state())
    assert begun + run_updates(second, [4.0, 8.0, 16.0]) == straight
    assert straight[-1] == straight[-2] != straight[-3]


@pytest.mark.parametrize(
    ("weight", "sentence"),
    [
        (-1, "method.terms.pixel.weight: expected a number greater than 0, got -1."),
        ("much", "method.terms.pixel.weight: expected a number"),
        ({"match": "largest"}, "method.terms.pixel.weight.calibrate_steps: missing; add it, it has no default."),
        (
            {"match": "largest", "calibrate_step": 5},
            "method.terms.pixel.weight.calibrate_step: unknown key; did you mean calibrate_steps?",
        ),
        (
            {"match": "smallest", "calibrate_steps": 5},
            "method.terms.pixel.weight.match: expected largest, got 'smallest'.",
        ),
    ],
)
def test_a_wrong_weight_is_refused_with_its_key(tiny: dict, weight: Any, sentence: str) -> None:
    tiny["method"]["terms"]["pixel"]["weight"] = weight
    assert sentence in recipe_error(tiny)


def test_matching_without_a_fixed_weight_is_refused(tiny: dict) -> None:
    found = {"match": "largest", "calibrate_steps": 5}
    tiny["method"]["terms"] = {"pixel": {"kind": "l1", "weight": found}}
    assert (
        "the weight of pixel matches the largest other loss: expected a loss whose weight is a number, got none"
        in recipe_error(tiny)
    )
    tiny["method"]["terms"]["other"] = {"kind": "l2"}
    assert parse_recipe(tiny, "x").method.terms["pixel"].weight == MatchLargest(match="largest", calibrate_steps=5)


def test_calibration_longer_than_the_run_is_refused(tiny: dict) -> None:
    tiny["method"]["terms"]["similarity"]["weight"] = {"match": "largest", "calibrate_steps": 7}
    assert recipe_error(tiny) == (
        "my.yaml: recipe: method.terms.similarity.weight.calibrate_steps must be at most 6, the updates of the "
        "generator in steps 6, got 7: the weight would never be final; add --set "
        "method.terms.similarity.weight.calibrate_steps=3, or raise steps."
    )
    parse_recipe({**tiny, "steps": 7}, "x")
    discriminator = {"network": {"kind": "patch", "features": 4, "layers": 1}, "weight": 0.1}
    gan = {
        **tiny["method"],
        "kind": "gan",
        "discriminators": {"d": discriminator},
        "warmup_steps": 2,
        "generator_every_steps": 2,
    }
    tiny.update(method=gan, optimizers={"g": {"kind": "adam"}, "d": {"kind": "adam"}})
    for warmup_steps, every_steps in ((0, 1), (2, 2), (3, 2), (5, 3), (9, 4)):
        gan.update(warmup_steps=warmup_steps, generator_every_steps=every_steps)
        method = parse_recipe({**tiny, "steps": 40}, "x").method
        moves = [sum(map(method.updates_generator, range(1, steps + 1))) for steps in range(13)]
        assert [method.count_generator_updates(steps) for steps in range(13)] == moves
    gan.update(warmup_steps=2, generator_every_steps=2)  # moves it in steps 4 and 6
    tiny["method"]["terms"]["similarity"]["weight"]["calibrate_steps"] = 3
    assert "calibrate_steps must be at most 2, the updates of the generator in steps 6, got 3" in recipe_error(tiny)
    tiny["method"]["terms"]["similarity"]["weight"]["calibrate_steps"] = 2
    parse_recipe(tiny, "x")
