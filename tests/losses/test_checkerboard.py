"""The checkerboard loss: by hand, by a definition in numpy, gradients, mistakes, and as a term."""

from typing import Any

import numpy as np
import pytest
import torch

from selfsr.errors import InputError
from selfsr.losses import checkerboard_loss
from selfsr.recipe import parse_recipe
from selfsr.step import Batch, Clock, Outputs
from selfsr.terms.checkerboard import CheckerboardTerm

SMALL = "high and wide, got [2, 3, 19, 26]; pass larger crops or a smaller window_px."


def images(height: int = 19, width: int = 26) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sr, hr = torch.rand(2, 2, 3, height, width, generator=generator, dtype=torch.float64)
    return sr, hr


def define(sr: np.ndarray, hr: np.ndarray, period: int, rows: int, columns: int) -> float:
    """Return the loss from loops over images, channels, windows and positions."""
    error, parts = sr - hr, []
    for channel in error.reshape(-1, *error.shape[2:]):
        for top in range(0, channel.shape[0] - rows + 1, rows):
            for left in range(0, channel.shape[1] - columns + 1, columns):
                window = channel[top : top + rows, left : left + columns]
                means = [window[y::period, x::period].mean() for y in range(period) for x in range(period)]
                parts += [abs(mean - np.mean(means)) for mean in means]
    return float(np.mean(parts))


def test_by_hand() -> None:
    hr = torch.zeros(1, 1, 4, 4)
    sr = hr.clone()
    sr[0, 0, 0, 0] = 0.4  # the mean of its position is 0.1, that of all is 0.025
    assert checkerboard_loss(sr, hr, period_px=2).item() == pytest.approx((0.075 + 3 * 0.025) / 4)
    # In windows of 2 px, only the first has an error: the means are 0.4, 0, 0, 0.
    assert checkerboard_loss(sr, hr, period_px=2, window_px=2).item() == pytest.approx((0.3 + 3 * 0.1) / 4 / 4)


@pytest.mark.parametrize(("period", "window"), [(2, None), (2, 8), (3, 6), (4, 12), (4, None)])
def test_equals_the_definition(period: int, window: int | None) -> None:
    sr, hr = images()
    rows, columns = (side // period * period if window is None else window for side in (19, 26))
    expected = define(sr.numpy(), hr.numpy(), period, rows, columns)
    assert checkerboard_loss(sr, hr, period_px=period, window_px=window).item() == pytest.approx(expected, rel=1e-12)


def test_equal_errors_at_all_positions_cost_nothing_and_patterns_their_amplitude() -> None:
    hr = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    assert checkerboard_loss(hr + 0.25, hr, period_px=4).item() == pytest.approx(0, abs=1e-15)
    signs = 1.0 - 2 * ((torch.arange(32)[:, None] + torch.arange(32)) % 2)
    assert checkerboard_loss(hr + 0.01 * signs, hr, period_px=2).item() == pytest.approx(0.01)
    wave = 0.01 * signs.double()
    wave[16:] *= -1  # the sum over the image is zero, but not over a window
    assert checkerboard_loss(hr + wave, hr, period_px=2).item() == pytest.approx(0, abs=1e-15)
    assert checkerboard_loss(hr + wave, hr, period_px=2, window_px=16).item() == pytest.approx(0.01)


def test_noise_costs_what_the_docstring_states() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(4, 3, 256, 256, generator=generator)
    loss = checkerboard_loss(noise, torch.zeros_like(noise), period_px=4, window_px=32)
    assert loss.item() == pytest.approx(0.8 * 0.1 * 4 / 32, rel=0.05)


def test_gradient_equals_the_numerical_one_and_is_zero_outside_of_windows() -> None:
    sr, hr = images(8, 9)
    sr = sr.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: checkerboard_loss(x, hr, period_px=2, window_px=4), (sr,))
    checkerboard_loss(sr, hr, period_px=2).backward()
    assert sr.grad is not None
    assert sr.grad[..., 8].count_nonzero() == 0  # the column that fills no period
    assert sr.grad[..., :8].count_nonzero() > 0


def test_half_precision_is_computed_in_float32() -> None:
    sr, hr = (image.half() for image in images())
    loss = checkerboard_loss(sr, hr, period_px=2)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(checkerboard_loss(sr.float(), hr.float(), period_px=2).item())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"period_px": 1}, "period_px must be 2 or more, got 1; pass the scale of the network."),
        ({"period_px": 2.0}, "period_px must be an integer, got 2.0."),
        ({"period_px": 4, "window_px": "8"}, "window_px must be an integer, got '8'."),
        ({"period_px": 4, "window_px": 6}, "window_px must be a positive multiple of period_px 4, got 6; pass 8."),
        ({"period_px": 4, "window_px": 0}, "window_px must be a positive multiple of period_px 4, got 0; pass 4."),
        ({"period_px": 4, "window_px": 20}, f"images must be at least 20 px {SMALL}"),
        ({"period_px": 20}, f"images must be at least 20 px {SMALL}"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as refused:
        checkerboard_loss(*images(), **options)
    assert str(refused.value) == f"checkerboard_loss: {message}"


@pytest.mark.parametrize(("periods", "window_px"), [(4, 16), (None, None), (100, None)])
def test_the_term_has_the_scale_as_period(periods: int | None, window_px: int | None) -> None:
    sr, hr = images(32, 32)
    batch = Batch(hr, hr[:, :, ::4, ::4])
    loss = CheckerboardTerm(window_periods=periods)(Outputs(sr), batch, Clock(1, 1, 1))
    assert loss.item() == checkerboard_loss(sr, hr, period_px=4, window_px=window_px).item()


def test_recipes_of_scale_1_are_refused(tiny: dict[str, Any]) -> None:
    tiny["method"]["terms"]["grid"] = {"kind": "checkerboard"}
    parse_recipe(tiny, "t")
    tiny["scale"], tiny["network"] = 1, {"kind": "spandrel", "architecture": "SCUNet"}
    with pytest.raises(InputError, match=r"scale must be at least 2 for .*grid \(checkerboard\), got 1"):
        parse_recipe(tiny, "t")
