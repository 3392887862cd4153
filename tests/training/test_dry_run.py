"""The dry run: six steps, and one evaluation of two images of each set."""

from typing import Any

import pytest

from selfsr.recipe import parse_recipe
from selfsr.training import evaluation
from selfsr.training.dryrun import dry_run


def test_it_evaluates_once_and_says_what_was_measured(
    tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluated: list[int] = []
    evaluate_set = evaluation.evaluate_set

    def count(upscale: Any, name: str, hr: list, **options: Any) -> Any:
        evaluated.append(len(hr))
        return evaluate_set(upscale, name, hr, **options)

    monkeypatch.setattr(evaluation, "evaluate_set", count)
    tiny["evaluate"]["sets"] = {"test": tiny["data"]["hr"]}  # five images
    dry_run(parse_recipe({**tiny, "steps": 600}, "t"), device="cpu")
    assert evaluated == [2]
    printed = capsys.readouterr().err
    assert "600 steps take about" in printed
    assert "and 202 evaluations about" in printed  # two at the start, one every 3 steps
    assert (
        "Measured: 4 steps after 2 for warm-up; one evaluation of 2 of 5 images; one checkpoint, which was deleted."
        in printed
    )


def test_a_warmup_that_is_too_long_names_the_setting(tiny: dict[str, Any]) -> None:
    tiny["schedule"]["warmup_steps"] = 50
    with pytest.raises(ValueError, match=r"add --set schedule\.warmup_steps=4, or raise steps"):
        parse_recipe({**tiny, "steps": 40}, "t")
