"""Adversarial training: order and gradients of updates, against a step written by hand, and checks of options."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from factories import make_batch, make_generator, recipe_error
from selfsr.losses.gradient import gradient_map
from selfsr.methods import MethodSetup
from selfsr.methods.gan import Gan, GanSpec
from selfsr.methods.regression import RegressionSpec
from selfsr.nets.spsr import SpsrSpec
from selfsr.recipe import parse_recipe
from selfsr.step import Batch, Clock, Update
from selfsr.training.loop import losses_to_backward

DISCRIMINATOR: dict[str, Any] = {
    "network": {"kind": "patch", "features": 4, "layers": 1, "norm": "none"},
    "weight": 0.1,
}
PIXEL = {"pixel": {"kind": "l1", "weight": 0.01}}


def setup(net: nn.Module) -> MethodSetup:
    return MethodSetup(net, torch.device("cpu"), channels=3, crop_px=16, ema_forward=None)


def make_gan(*, terms: dict | None = None, generator: nn.Module | None = None, **options: Any) -> Gan:
    """Return a GAN; options are the method's, `discriminators` its discriminators as changes to DISCRIMINATOR."""
    discriminators = options.pop("discriminators", {"d": {}})
    spec = GanSpec.model_validate(
        {
            "kind": "gan",
            "terms": terms or PIXEL,
            "discriminators": {
                name: {**copy.deepcopy(DISCRIMINATOR), **changes} for name, changes in discriminators.items()
            },
            **options,
        }
    )
    net = make_generator() if generator is None else generator
    torch.manual_seed(1)
    return spec.build(setup(net))


def weights(net: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in net.parameters()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def backward(update: Update) -> None:
    torch.stack(list(losses_to_backward(update, {}, 1, 1).values())).sum().backward()


TWO_DISCRIMINATORS: dict[str, dict] = {"d": {}, "d_gradient": {"input": "gradient", "form": "standard"}}


def test_an_update_gives_gradients_only_to_its_own_network() -> None:
    gan = make_gan(discriminators=TWO_DISCRIMINATORS)
    order = []
    for update in gan.updates(make_batch(side_px=16), Clock(1, 1)):
        backward(update)
        order.append(update.net)
        for name, net in gan.nets.items():
            gradients = [parameter.grad for parameter in net.parameters()]
            if name == update.net:
                assert all(gradient is not None and gradient.norm() > 0 for gradient in gradients), name
            else:
                assert all(gradient is None for gradient in gradients), (update.net, name)
            assert all(parameter.requires_grad for parameter in net.parameters())
            net.zero_grad(set_to_none=True)
    assert order == ["g", "d", "d_gradient"]


def test_the_generator_waits_for_the_warmup_and_its_turn() -> None:
    gan = make_gan(warmup_steps=2, generator_every_steps=3)
    batch = make_batch(side_px=16)
    moved = {step: [update.net for update in gan.updates(batch, Clock(step, 1))] for step in range(1, 8)}
    assert [step for step, nets in moved.items() if "g" in nets] == [3, 6]
    assert all(nets[-1] == "d" for nets in moved.values())


def gradient_of_generator(**options: Any) -> Tensor:
    gan = make_gan(**options)
    backward(next(gan.updates(make_batch(side_px=16), Clock(1, 1))))
    return torch.cat([parameter.grad.flatten() for parameter in gan.nets["g"].parameters()])


@pytest.mark.parametrize("kind", ["l1", "l2", "charbonnier"])
@pytest.mark.parametrize("pace", [{"alpha": 4.0}, {"alpha": 4.0, "clock": "run"}, {"ssim": "pixel"}], ids=str)
def test_pacing_has_the_same_gradient_as_in_regression(kind: str, pace: dict) -> None:
    def pixel_gradient(pace: dict | None, clock: Clock, *, adversarial: bool) -> Tensor:
        terms = {"pixel": {"kind": kind, "pace": pace}}
        if adversarial:
            method = make_gan(terms=terms, discriminators=TWO_DISCRIMINATORS)
        else:
            spec = RegressionSpec.model_validate({"kind": "regression", "terms": terms})
            method = spec.build(
                MethodSetup(make_generator(), torch.device("cpu"), channels=3, crop_px=16, ema_forward=None)
            )
        update = next(method.updates(make_batch(side_px=16), clock))
        assert update.net == "g"
        gradients = torch.autograd.grad(update.losses["pixel"], list(method.nets["g"].parameters()))
        return torch.cat([gradient.flatten() for gradient in gradients])

    early, late = Clock(2, 10, 40), Clock(32, 10, 40)
    paced = {clock: pixel_gradient(pace, clock, adversarial=True) for clock in (early, late)}
    for clock, gradient in paced.items():
        torch.testing.assert_close(gradient, pixel_gradient(pace, clock, adversarial=False))
        plain = pixel_gradient(None, clock, adversarial=True)
        assert (gradient - plain).norm() > 0.05 * plain.norm()
    assert (paced[early] - paced[late]).norm() > 0.05 * paced[late].norm()
    # Epochs are of steps_per_epoch, and nothing to the clock that counts the run.
    other = pixel_gradient(pace, Clock(32, 20, 40), adversarial=True)
    assert torch.equal(other, paced[late]) == (pace.get("clock") == "run")


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": "vanilla"},
        {"objective": "vanilla", "form": "standard"},
        {"objective": "least_squares", "form": "standard"},
        {"objective": "hinge", "form": "standard"},
        {"objective": "wasserstein", "form": "standard", "gradient_penalty_weight": 10.0},
        {"input": "gradient"},
        {"region_aware": True},
    ],
)
def test_every_discriminator_changes_the_generators_gradient(changes: dict) -> None:
    big = {"network": {**DISCRIMINATOR["network"], "features": 16}, **changes}
    first = gradient_of_generator(discriminators={"d": big})
    stronger = gradient_of_generator(discriminators={"d": {**big, "weight": 10.0}})
    both = gradient_of_generator(discriminators={"d": big, "other": big})
    assert (stronger - first).norm() > 1e-3 * first.norm()
    assert (both - first).norm() > 1e-5 * first.norm()


def test_a_region_aware_discriminator_ignores_flat_regions() -> None:
    batch = make_batch(side_px=16)
    gan = make_gan(discriminators={"d": {"region_aware": True}, "d_all": {}})

    def logits(hr: Tensor) -> dict[str, Tensor]:
        updates = {update.net: update for update in gan.updates(Batch(hr, batch.lr), Clock(1, 1))}
        return {name: updates[name].scalars[f"logits/{name}/real"] for name in ("d", "d_all")}

    flat = torch.full_like(batch.hr, 0.4)
    assert torch.equal(logits(flat)["d"], logits(flat + 0.3)["d"])
    assert not torch.equal(logits(flat)["d_all"], logits(flat + 0.3)["d_all"])
    assert not torch.equal(logits(batch.hr)["d"], logits(batch.hr.flip(3) * 0.9)["d"])


def test_r1_is_scaled_by_its_interval() -> None:
    batch = make_batch(side_px=16)

    def penalty(step: int, **changes: Any) -> float | None:
        *_, update = make_gan(discriminators={"d": changes}).updates(batch, Clock(step, 1))
        return update.losses["r1"].item() if "r1" in update.losses else None

    assert penalty(1) is None
    each = penalty(1, r1_weight=2.0)
    assert each is not None
    assert penalty(3, r1_weight=2.0, r1_every_steps=4) is None
    assert penalty(4, r1_weight=2.0, r1_every_steps=4) == pytest.approx(4 * each)
    assert penalty(1, r1_weight=4.0) == pytest.approx(2 * each)


def test_two_steps_equal_esrgan_written_by_hand() -> None:
    """Two steps in the published order: the generator, then the discriminator in two halves on the same output."""
    discriminators = {"d": {"network": {**DISCRIMINATOR["network"], "norm": "batch"}, "weight": 5e-3}}
    gan = make_gan(discriminators=discriminators)
    g, d = copy.deepcopy(gan.nets["g"]), copy.deepcopy(gan.nets["d"])

    def adam(net: nn.Module) -> torch.optim.Adam:
        # With the usual eps, a gradient that is only rounding would move its weight by a full step.
        return torch.optim.Adam(net.parameters(), 1e-3, (0.9, 0.99), eps=1e-6)

    ours = {name: adam(net) for name, net in gan.nets.items()}
    optim_g, optim_d = adam(g), adam(d)
    bce = functional.binary_cross_entropy_with_logits
    before = weights(g)
    for step in (1, 2):
        batch = make_batch(side_px=16, seed=step)
        for update in gan.updates(batch, Clock(step, 1)):
            backward(update)
            ours[update.net].step()
            ours[update.net].zero_grad()

        d.requires_grad_(False)
        sr = g(batch.lr)
        real, fake = d(batch.hr).detach(), d(sr)
        ahead, behind = real - fake.mean(), fake - real.mean()
        adversarial = 0.5 * (bce(ahead, torch.zeros_like(ahead)) + bce(behind, torch.ones_like(behind)))
        (1e-2 * (sr - batch.hr).abs().mean() + 5e-3 * adversarial).backward()
        optim_g.step()
        optim_g.zero_grad()
        d.requires_grad_(True)
        fake = d(sr.detach()).detach()
        real = d(batch.hr)
        (0.5 * bce(real - fake.mean(), torch.ones_like(real))).backward()
        fake = d(sr.detach())
        (0.5 * bce(fake - real.mean().detach(), torch.zeros_like(fake))).backward()
        optim_d.step()
        optim_d.zero_grad()
    assert not same(before, weights(g))
    for by_hand, net in ((g, gan.nets["g"]), (d, gan.nets["d"])):
        for expected, weight in zip(weights(by_hand), weights(net), strict=True):
            torch.testing.assert_close(weight, expected, rtol=0, atol=1e-6)


def test_a_generator_with_a_branch_trains_as_in_spsr() -> None:
    generator = SpsrSpec(features=4, blocks=4, growth=2).build(2)
    branch = {"gradient": {"kind": "gradient"}, "branch": {"kind": "gradient_branch"}}
    gan = make_gan(terms={**PIXEL, **branch}, generator=generator, discriminators=TWO_DISCRIMINATORS)
    batch = make_batch(side_px=16)
    first, *others = gan.updates(batch, Clock(1, 1))
    assert list(first.losses) == ["pixel", "gradient", "branch", "adversarial_d", "adversarial_d_gradient"]
    assert [update.net for update in others] == ["d", "d_gradient"]
    sr, predicted = generator(batch.lr)
    expected = 0.5 * (predicted - gradient_map(batch.hr)).abs().mean()
    torch.testing.assert_close(first.losses["branch"], expected)
    torch.testing.assert_close(first.losses["pixel"], 0.01 * (sr - batch.hr).abs().mean())


def document(tiny: dict, changes: dict, **options: Any) -> dict:
    method = {
        **tiny["method"],
        "kind": "gan",
        "discriminators": {"d": {**copy.deepcopy(DISCRIMINATOR), **changes}},
        **options,
    }
    return {**tiny, "method": method, "optimizers": {"g": {"kind": "adam"}, "d": {"kind": "adam"}}}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"network": {"kind": "vgg", "stages": 6}}, "crop_px does not fit method.discriminators.d (vgg): "),
        ({"network": {"kind": "patch", "layers": 6}}, "got 32 px; change the crop or the discriminator"),
        ({"objective": "wasserstein"}, "method.discriminators.d: form must be standard for the wasserstein objective"),
        ({"objective": "wasserstein", "form": "standard"}, "needs gradient_penalty_weight or r1_weight, got neither"),
        ({"r1_every_steps": 16}, "r1_every_steps does nothing without r1_weight; give both or neither"),
        ({"objectiv": "hinge"}, "method.discriminators.d.objectiv: unknown key; did you mean objective?"),
        (
            {"network": {"kind": "pach"}},
            "method.discriminators.d.network.kind: expected one of vgg, unet_sn, patch, got 'pach'",
        ),
    ],
)
def test_unfitting_discriminator_options_are_refused(tiny: dict, changes: dict, sentence: str) -> None:
    assert sentence in recipe_error(document(tiny, changes))


def test_a_crop_too_small_for_region_awareness_is_refused(tiny: dict) -> None:
    network = {"kind": "patch", "features": 4, "layers": 1, "norm": "none"}
    gan = document(tiny, {"network": network, "region_aware": True})
    gan["method"]["terms"] = {"pixel": {"kind": "l1"}}
    message = (
        "crop_px does not fit method.discriminators.d (patch): region_aware needs at least 6 px, got 4 px; change the"
    )
    assert message in recipe_error({**gan, "crop_px": 4})


def test_an_unfitting_method_is_refused(tiny: dict) -> None:
    gan = document(tiny, {})
    assert parse_recipe(gan, "x").method.kind == "gan"
    message = recipe_error(document(tiny, {}, warmup_steps=6))
    assert "must leave the generator an update in steps 6, got 6 and 1" in message
    assert "got float16" in recipe_error({**document(tiny, {"r1_weight": 1.0}), "precision": "float16"})
    only_g = {**gan, "optimizers": {"g": {"kind": "adam"}}}
    assert "optimizers must name exactly the networks that the method trains, ['d', 'g'], got ['g']" in recipe_error(
        only_g
    )
    clash = copy.deepcopy(gan)
    clash["method"]["terms"]["adversarial_d"] = {"kind": "l1"}
    assert "terms must not contain adversarial_d, the name of a loss that the method adds" in recipe_error(clash)
    clash["method"]["discriminators"] = {"g": DISCRIMINATOR}
    assert "discriminators must not be named g, which is the generator; call it d" in recipe_error(clash)


def test_terms_without_ema_or_branch_are_refused(tiny: dict) -> None:
    artifact = document(tiny, {})
    artifact["method"]["terms"] = {**artifact["method"]["terms"], "ldl": {"kind": "artifact"}}
    parse_recipe(artifact, "x")
    message = recipe_error({**artifact, "ema_decay": None})
    assert "ema_decay must be a number for method.terms.ldl, which uses the EMA generator, got null" in message
    branch = document(tiny, {})
    branch["method"]["terms"] = {**branch["method"]["terms"], "branch": {"kind": "gradient_branch"}}
    message = recipe_error(branch)
    assert "network must have a second output for method.terms.branch, which is a loss of it, got edsr" in message
