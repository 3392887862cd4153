"""The score of several weighted metrics: values by hand, and what is refused."""

import pytest

from selfsr.errors import InputError
from selfsr.evaluation.combined import average_over_scales, combine_changes

START = {"psnr_y": 20.0, "lpips": 0.5, "dists": 0.25, "kid": -0.01}


@pytest.mark.parametrize(
    ("means", "weights", "expected"),
    [
        ({"lpips": 0.4}, {"lpips": 1}, 0.2),  # lower is better: 0.1 of 0.5
        ({"lpips": 0.4}, {"lpips": 7}, 0.2),  # one weight by itself changes nothing
        ({"psnr_y": 19.0}, {"psnr_y": 1}, -0.05),  # higher is better
        ({"lpips": 0.4, "dists": 0.3}, {"lpips": 1, "dists": 1}, 0.0),  # +20 % and -20 %
        ({"lpips": 0.4, "dists": 0.3}, {"lpips": 3, "dists": 1}, 0.1),
        ({"lpips": 0.6, "psnr_y": 22.0}, {"lpips": 1, "psnr_y": 2}, 0.0),  # (-0.2 + 2 * 0.1) / 3
        ({"kid": -0.02}, {"kid": 1}, 1.0),  # the sign of the start value does not turn the direction
        (START, {"lpips": 1, "dists": 2, "psnr_y": 3}, 0.0),
        ({"lpips": None, "dists": 0.3}, {"lpips": 1, "dists": 1}, None),
        ({"dists": 0.3}, {"lpips": 1, "dists": 1}, None),
        ({"lpips": float("inf")}, {"lpips": 1}, None),
    ],
)
def test_combined_changes_by_hand(means: dict, weights: dict, expected: float | None) -> None:
    score = combine_changes(means, START, weights)
    assert score == (None if expected is None else pytest.approx(expected, abs=1e-12))


@pytest.mark.parametrize(("start", "got"), [({}, "none"), ({"lpips": None}, "none"), ({"lpips": 0.0}, "0.0")])
def test_a_change_needs_a_start_value(start: dict, got: str) -> None:
    with pytest.raises(InputError, match=f"lpips must have a finite value other than 0 .* got {got}; remove it"):
        combine_changes({"lpips": 0.3}, start, {"lpips": 1})


def test_scores_are_averaged_over_the_scales_of_the_first_set() -> None:
    sets = {
        "a_x2": {"mean": {"psnr_y": 30.0, "lpips": 0.2}},
        "a_x4": {"mean": {"psnr_y": 26.0, "lpips": None}},
        "b_x2": {"mean": {"psnr_y": 10.0, "lpips": 0.9}},
    }
    assert average_over_scales(sets, 2) == {"psnr_y": 28.0, "lpips": None}
