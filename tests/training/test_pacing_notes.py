"""When self-paced weights reach their size, by the definition, and the warning about a gradient of 0."""

import math
from typing import Any

import pytest

from selfsr.recipe import parse_recipe
from selfsr.step import Clock
from selfsr.terms.pace import Pace
from selfsr.training.loop import fit
from selfsr.training.pacing_notes import GradientWatch, describe_paces


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("clock", ["epoch", "run"])
@pytest.mark.parametrize(("alpha", "beta", "order"), [(1.0, 0.0, "hard_first"), (7.5, 0.3, "easy_first")])
def test_the_first_step_is_the_first_of_all_that_reaches_the_share(
    share: float, clock: Any, alpha: float, beta: float, order: Any
) -> None:
    pace = Pace(alpha=alpha, beta=beta, clock=clock, order=order)
    distance = 2.0 if order == "hard_first" else 1.0  # of SSIM 1 and 0, eq. 12
    steps_per_epoch, steps = 70, 500

    def weight(step: int) -> float:
        age = step / steps if clock == "run" else step / steps_per_epoch
        return math.exp(-((distance / (alpha * age + beta)) ** 2))

    expected = next(step for step in range(1, 100_000) if weight(step) >= share)
    assert pace.first_step(share, steps_per_epoch, steps) == expected
    assert pace.share_of_peak(Clock(expected, steps_per_epoch, steps)) == pytest.approx(weight(expected))


def test_a_curriculum_that_never_starts_has_no_step() -> None:
    assert Pace(alpha=0, beta=0.5).first_step(0.5, 100, 1000) is None
    assert Pace(alpha=0, beta=3).first_step(0.5, 100, 1000) == 1


def paced(tiny: dict[str, Any], steps: int, **pace: Any) -> dict[str, Any]:
    method = {**tiny["method"], "terms": {"pixel": {"kind": "l1", "pace": pace}}}
    return {**tiny, "method": method, "steps": steps, "steps_per_epoch": 1000}


def test_a_run_that_is_too_short_gets_settings_that_help(tiny: dict[str, Any]) -> None:
    (line,) = describe_paces(parse_recipe(paced(tiny, 400), "t"))
    key = "method.terms.pixel.pace"
    assert line == (
        f"Warning: {key}: the weights of pixels with SSIM 1 reach 10 % of their peak at step 1,319 and 50 % at step "
        "2,403, and the run ends at step 400 with less than 0.001 %, so it learns little or nothing; add --set "
        f"{key}.clock=run --set {key}.alpha=12, or --set steps_per_epoch=33."
    )
    for mended in (paced(tiny, 400, clock="run", alpha=12), {**paced(tiny, 400), "steps_per_epoch": 33}):
        (line,) = describe_paces(parse_recipe(mended, "t"))
        assert line.startswith(f"{key}: ")
        assert line.endswith("the run ends at step 400 with 97.3 %.")
    assert describe_paces(parse_recipe(paced(tiny, 400, normalize=True), "t")) == []


def test_a_gradient_of_zero_is_told_once_with_its_term(tiny: dict[str, Any]) -> None:
    watch = GradientWatch(parse_recipe(paced(tiny, 400), "t"))
    clock = Clock(100, 1000, 400)
    means = {"loss/g/pixel": 0.001, "grad_norm/g": 0.0, "loss/d/real": 0.7, "grad_norm/d": 0.5}
    (line,) = watch.check(means, clock)
    assert (
        "optimizers.g, got exactly 0 from the term pixel up to step 100: the pixel weights of the term pixel are less"
        in line
    )
    assert line.endswith("--set steps_per_epoch=33.")
    assert watch.check(means, clock) == []
    assert watch.check({**means, "grad_norm/g": 1e-30}, clock) == []
    assert len(watch.check(means, clock)) == 1


def test_a_run_prints_both(tiny: dict[str, Any], tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fit(parse_recipe(paced(tiny, 4), "t"), tmp_path / "run", device="cpu")
    printed = capsys.readouterr().err
    assert "reach 10 % of their peak at step 1,319" in printed
    assert "got exactly 0 from the term pixel up to step 1:" in printed
    assert "Step 4  test  PSNR-Y" in printed
    assert "best so far" in printed
