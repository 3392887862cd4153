"""The noise processes of pretrained models against golden values, exact inverses and diffusers."""

import numpy as np
import pytest
import torch

from selfsr.nets.diffusion.noise_schedule import NoiseSchedule, make_schedule
from selfsr.nets.diffusion.sampled import choose_indices

STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
# Index, abar, sqrt(abar), sqrt(1 - abar), sqrt(1 / abar - 1) of Stable Diffusion.
GOLDEN = [
    (0, 0.999150000000000, 0.999574909649, 0.029154759474, 0.0291671582),
    (1, 0.998296027838451, 0.999147650670, 0.041279197685, 0.0413144120),
    (200, 0.753692045160852, 0.868154390164, 0.496294222049, 0.5716658554),
    (500, 0.276332683822975, 0.525673552524, 0.850686379447, 1.6182788260),
    (999, 0.004660098513077, 0.068264914217, 0.997667229835, 14.6146412293),
]
PREDICTIONS = ["epsilon", "v_prediction", "sample", "flow"]


def make(prediction: str) -> NoiseSchedule:
    if prediction == "flow":
        return make_schedule({"_class_name": "FlowMatchEulerDiscreteScheduler"})
    return make_schedule({**STABLE_DIFFUSION, "prediction_type": prediction})


@pytest.mark.parametrize(("index", "abar", "alpha", "sigma", "gain"), GOLDEN)
def test_tables_of_stable_diffusion(index: int, abar: float, alpha: float, sigma: float, gain: float) -> None:
    schedule = make("epsilon")
    assert schedule.alpha[index] ** 2 == pytest.approx(abar, abs=1e-14)
    assert schedule.alpha[index] == pytest.approx(alpha, abs=1e-12)
    assert schedule.sigma[index] == pytest.approx(sigma, abs=1e-12)
    assert schedule.gain[index] == pytest.approx(gain, abs=1e-10)


def test_gain_exceeds_the_published_bounds_at_the_published_times() -> None:
    gain = make("epsilon").gain
    assert [int((gain > bound).argmax()) for bound in (0.5, 1, 2, 5)] == [170, 354, 563, 796]


def test_golden_values_at_400() -> None:
    index = torch.tensor([400])
    x0, noise, noisy = (torch.full((1, 1, 1, 1), v, dtype=torch.float64) for v in (0.3, -0.8, -0.411445596121820))
    assert make("epsilon").add_noise(x0, noise, index).item() == pytest.approx(noisy.item(), abs=1e-12)
    assert make("v_prediction").target(x0, noise, index).item() == pytest.approx(-0.748807399423884, abs=1e-12)
    wrong = torch.full_like(x0, -0.7)
    assert make("epsilon").predict_x0(wrong, noisy, index).item() == pytest.approx(0.183560882304760, abs=1e-12)
    wrong = torch.full_like(x0, -0.5)
    assert make("v_prediction").predict_x0(wrong, noisy, index).item() == pytest.approx(0.111247652689878, abs=1e-12)


@pytest.mark.parametrize(("time", "expected"), [(200, 0.860913639212427), (999, 16.089774278341906)])
def test_golden_values_of_one_step(time: int, expected: float) -> None:
    noisy, prediction = (torch.full((1, 1, 1, 1), value, dtype=torch.float64) for value in (0.4, -0.7))
    output = make("epsilon").predict_x0(prediction, noisy, torch.tensor([time]))
    assert output.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_perfect_prediction_returns_x0_and_noise(prediction: str) -> None:
    schedule = make(prediction)
    index = torch.arange(0, schedule.steps, 37)
    x0, noise = torch.randn(2, len(index), 3, 2, 2, dtype=torch.float64)
    noisy = schedule.add_noise(x0, noise, index)
    target = schedule.target(x0, noise, index)
    torch.testing.assert_close(schedule.predict_x0(target, noisy, index), x0, rtol=0, atol=1e-11)
    torch.testing.assert_close(schedule.predict_noise(target, noisy, index), noise, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    "config",
    [
        STABLE_DIFFUSION,
        {"beta_schedule": "linear"},
        {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 50},
        {**STABLE_DIFFUSION, "rescale_betas_zero_snr": True},
        {"trained_betas": [0.1, 0.2, 0.3], "num_train_timesteps": 3},
    ],
    ids=["scaled", "linear", "cosine", "zero snr", "stated"],
)
def test_tables_equal_those_of_diffusers(config: dict) -> None:
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(**config).alphas_cumprod.double().numpy()
    if config.get("rescale_betas_zero_snr"):
        theirs[-1] = 0  # diffusers keeps 2^-24 there
    np.testing.assert_allclose(make_schedule(config).alpha ** 2, theirs, rtol=1e-4, atol=1e-6)


def test_flow_has_the_sigmas_and_times_of_diffusers() -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    theirs, ours = FlowMatchEulerDiscreteScheduler(), make("flow")
    np.testing.assert_allclose(ours.sigma[::-1], theirs.sigmas.numpy(), rtol=1e-5)
    np.testing.assert_allclose(ours.times[::-1], theirs.timesteps.numpy(), rtol=1e-5)


@pytest.mark.parametrize("config", [{"beta_schedule": "sigmoid"}, {"prediction_type": "score"}])
def test_unknown_process_is_refused(config: dict) -> None:
    with pytest.raises(ValueError, match=r"sigmoid|score"):
        make_schedule(config)


def test_golden_values_of_the_posterior_at_400() -> None:
    of_x, of_x0, std = make("epsilon").posterior(400, 399)
    assert of_x0 == pytest.approx(0.004267942455102, abs=1e-12)
    assert of_x == pytest.approx(0.995336088862056, abs=1e-12)
    assert std**2 == pytest.approx(0.003752461813368, abs=1e-12)
    assert of_x * -0.411445596121820 + of_x0 * 0.3 == pytest.approx(-0.408246267686879, abs=1e-12)


@pytest.mark.parametrize("prediction", ["epsilon", "flow"])
@pytest.mark.parametrize(("index", "previous"), [(999, 666), (400, 399), (30, 0)])
def test_steps_keep_the_distribution_for_any_distance(prediction: str, index: int, previous: int) -> None:
    """From x_i with its mean alpha_i x0 and variance sigma_i^2, both steps lead to those of x_s."""
    schedule = make(prediction)
    alpha, sigma = schedule.alpha, schedule.sigma
    of_x, of_x0, std = schedule.posterior(index, previous)
    assert of_x * alpha[index] + of_x0 == pytest.approx(alpha[previous], abs=1e-12)
    assert of_x**2 * sigma[index] ** 2 + std**2 == pytest.approx(sigma[previous] ** 2, abs=1e-12)
    of_x, of_x0 = schedule.deterministic(index, previous)
    assert of_x * alpha[index] + of_x0 == pytest.approx(alpha[previous], abs=1e-12)
    assert of_x * sigma[index] == pytest.approx(sigma[previous], abs=1e-12)


def test_the_last_step_returns_x0() -> None:
    assert make("epsilon").posterior(7, -1) == (0.0, 1.0, 0.0)
    assert make("flow").deterministic(7, -1) == (0.0, 1.0)


def test_respacing_has_both_ends() -> None:
    assert choose_indices(1000, 4)[::-1] == [0, 333, 666, 999]
    many = choose_indices(1000, 200)[::-1]
    assert (many[:6], many[-4:], len(many)) == ([0, 5, 10, 15, 20, 25], [984, 989, 994, 999], 200)
    assert choose_indices(1000, 1) == [999]
    assert choose_indices(1000, 1000) == list(range(999, -1, -1))


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_min_snr_weights(prediction: str) -> None:
    schedule = make(prediction)
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = (schedule.alpha / schedule.sigma) ** 2
        bounded = np.minimum(snr, 5)
        published = {"epsilon": bounded / snr, "v_prediction": bounded / (snr + 1), "sample": bounded}
    expected = published.get(prediction, bounded * schedule.sigma**2)
    np.testing.assert_allclose(schedule.min_snr_weights(5.0)[:-1], expected[:-1], rtol=1e-9)
