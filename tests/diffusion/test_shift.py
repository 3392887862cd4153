"""The tables of residual shifting against published values, and the steps of the process against its definition."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from selfsr.nets.diffusion.shift import ShiftSpec

# steps, min_noise, kappa, and tables of the published modules, evaluated in float64.
JOURNAL = ShiftSpec(steps=4, min_noise=0.2, kappa=2.0)
SMALL = ShiftSpec(steps=8, min_noise=0.1, kappa=1.0)
CONFERENCE = ShiftSpec(steps=15, min_noise=0.04, kappa=2.0)
SQRT_ETA = {
    JOURNAL: [0.1, 0.520096372208, 0.761381990619, 0.99],
    SMALL: [
        0.1, 0.359215593658, 0.482750162711, 0.591779381636, 0.694642016162, 0.794401467968, 0.892565837756, 0.99,
    ],
    CONFERENCE: [
        0.02, 0.117165082298, 0.176304555272, 0.233628916549, 0.291574127764, 0.351009284317, 0.412356144300,
        0.475857730919, 0.541671677627, 0.609909933449, 0.680658017144, 0.753985262495, 0.829950662411, 0.908606387786,
        0.99,
    ],
}  # fmt: skip
# Factor of x_t, factor of x0, variance of the posterior, by step.
POSTERIOR = {
    JOURNAL: [
        (0.0, 1.0, 0.0),
        (0.036968544404, 0.963031455596, 0.038521258224),
        (0.466619032615, 0.533380967385, 0.577118711042),
        (0.591472845260, 0.408527154740, 0.947296909921),
    ],
}
# k, m, j of the deterministic step.
DETERMINISTIC = {
    JOURNAL: [
        (1.0, 0.0, 0.0),
        (0.849737578919, 0.192272058302, -0.042009637221),
        (0.442396589184, 0.683095185618, -0.125491774802),
        (0.404992917277, 0.769072717797, -0.174065635074),
    ],
}
INPUT_SCALE = {
    True: [1.019803902719, 1.442914046483, 1.821760177015, 2.218197466413],
    False: [1.6, 4.120578233249, 5.568291943715, 6.94],
}
GOLDEN = 1e-12


def image(seed: int) -> torch.Tensor:
    return torch.randn(3, 2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("spec", SQRT_ETA, ids=["journal", "small", "conference"])
def test_sqrt_eta_is_published(spec: ShiftSpec) -> None:
    assert np.abs(spec.build().sqrt_eta - SQRT_ETA[spec]).max() < GOLDEN


def test_posterior_is_published() -> None:
    schedule = JOURNAL.build()
    for i, (of_x, of_x0, variance) in enumerate(POSTERIOR[JOURNAL]):
        found = schedule.posterior(i, i - 1)
        assert found[:2] == pytest.approx((of_x, of_x0), abs=GOLDEN)
        assert found[2] ** 2 == pytest.approx(variance, abs=GOLDEN)


def test_deterministic_step_is_published() -> None:
    schedule = JOURNAL.build()
    for i, factors in enumerate(DETERMINISTIC[JOURNAL]):
        assert schedule.deterministic(i, i - 1) == pytest.approx(factors, abs=GOLDEN)


@pytest.mark.parametrize("latent", [True, False])
def test_input_scale_is_published(latent: bool) -> None:
    assert np.abs(JOURNAL.build().input_scale(latent=latent) - INPUT_SCALE[latent]).max() < GOLDEN


def test_published_example_of_a_step() -> None:
    schedule, i = JOURNAL.build(), 2
    x0, y, noise = (torch.full((1, 1, 1, 1), value, dtype=torch.float64) for value in (0.3, -0.2, 0.5))
    x = schedule.add_noise(x0, y, noise, torch.tensor([i]))
    assert x.item() == pytest.approx(0.771530722799573, abs=GOLDEN)
    of_x, of_x0, std = schedule.posterior(i, i - 1)
    mean = of_x * x + of_x0 * x0
    assert mean.item() == pytest.approx(0.520025209720765, abs=GOLDEN)
    assert (mean - 1.25 * std).item() == pytest.approx(-0.429578910954640, abs=GOLDEN)
    of_x0, of_x, of_y = schedule.deterministic(i, i - 1)
    assert (of_x0 * x0 + of_x * x + of_y * y).item() == pytest.approx(0.684846254016157, abs=GOLDEN)
    assert float(schedule.noise_std[-1]) == pytest.approx(1.98, abs=GOLDEN)


def test_the_true_noise_gives_the_ground_truth_back_at_every_step() -> None:
    schedule = CONFERENCE.build()
    x0, y, noise = image(0), image(1), image(2)
    for i in range(schedule.steps):
        x = schedule.add_noise(x0, y, noise, torch.full((3,), i))
        eta, std = schedule.eta[i], schedule.noise_std[i]
        assert ((x - std * noise - eta * y) / (1 - eta) - x0).abs().max() < 1e-13


def test_each_sample_has_its_own_step() -> None:
    schedule = JOURNAL.build()
    x0, y, noise = image(0), image(1), image(2)
    index = torch.tensor([3, 0, 2])
    together = schedule.add_noise(x0, y, noise, index)
    for k in range(3):
        alone = schedule.add_noise(x0[k : k + 1], y[k : k + 1], noise[k : k + 1], index[k : k + 1])
        assert torch.equal(together[k : k + 1], alone)


@pytest.mark.parametrize("step", [(3, 2), (3, 1), (2, 0)], ids=str)
def test_a_deterministic_step_keeps_the_noise(step: tuple[int, int]) -> None:
    schedule = JOURNAL.build()
    i, previous = step
    x0, y, noise = image(0), image(1), image(2)
    of_x0, of_x, of_y = schedule.deterministic(i, previous)
    x = schedule.add_noise(x0, y, noise, torch.full((3,), i))
    expected = schedule.add_noise(x0, y, noise, torch.full((3,), previous))
    assert (of_x0 * x0 + of_x * x + of_y * y - expected).abs().max() < 1e-14


@pytest.mark.parametrize("step", [(3, 2), (3, 1), (2, 0), (1, 0)], ids=str)
def test_ancestral_steps_have_the_marginal_of_the_process(step: tuple[int, int]) -> None:
    schedule, draws = JOURNAL.build(), 100_000
    i, previous = step
    generator = torch.Generator().manual_seed(5)
    noise, fresh = (torch.randn(draws, 1, 1, 1, dtype=torch.float64, generator=generator) for _ in range(2))
    x0, y = torch.full_like(noise, 0.3), torch.full_like(noise, -0.2)
    of_x, of_x0, std = schedule.posterior(i, previous)
    x = of_x * schedule.add_noise(x0, y, noise, torch.full((draws,), i)) + of_x0 * x0 + std * fresh
    expected_std = float(schedule.noise_std[previous])
    expected_mean = 0.3 + float(schedule.eta[previous]) * -0.5
    # Four standard errors of the mean and of the variance of a normal sample.
    assert abs(x.mean().item() - expected_mean) < 4 * expected_std / draws**0.5
    assert abs(x.var().item() / expected_std**2 - 1) < 4 * (2 / draws) ** 0.5


@pytest.mark.parametrize(
    ("spec", "steps", "expected"),
    [(JOURNAL, None, [3, 2, 1, 0]), (JOURNAL, 2, [3, 0]), (JOURNAL, 1, [3]), (CONFERENCE, 4, [14, 9, 5, 0])],
)
def test_fewer_steps_are_spread_evenly(spec: ShiftSpec, steps: int | None, expected: list[int]) -> None:
    assert spec.build().choose_indices(steps) == expected


def test_a_schedule_that_cannot_rise_is_refused() -> None:
    with pytest.raises(ValidationError, match="min_noise must leave the noise room to rise to end"):
        ShiftSpec(min_noise=2.0, kappa=1.0)
