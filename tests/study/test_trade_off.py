"""Other metrics of a study against its own: values at equal score by hand, the drawing, the page and the tables."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from chromium import Chromium
from selfsr.study import open_study, summarize
from selfsr.study.compare import compare
from selfsr.study.folder import get_run_folder, write_definition
from selfsr.study.trade_off import EvaluationPoint, interpolate_at_score, list_trade_offs
from selfsr.study.trade_off_chart import HEIGHT, WIDTH, Axis, draw_trade_off

# LPIPS falls with PSNR-Y, faster with the loss.
PLAIN = {1: [(0, 32.0), (10, 31.0), (20, 30.0)], 2: [(0, 32.0), (10, 30.0), (20, 31.0)]}
LOSS = {1: [(0, 32.0), (10, 30.0), (20, 29.0)], 2: [(0, 32.0), (10, 31.0), (20, 29.0)]}
LPIPS = {
    "plain": {1: [(0, 0.20), (10, 0.18), (20, 0.10)], 2: [(0, 0.20), (10, 0.12), (20, 0.11)]},
    "loss": {1: [(0, 0.20), (10, 0.10), (20, 0.09)], 2: [(0, 0.20), (10, 0.12), (20, 0.08)]},
}


def test_a_metric_is_read_where_the_run_first_has_the_score() -> None:
    falling, values = [(0, 32.0), (10, 30.0), (20, 31.5)], [(0, 0.2), (10, 0.1), (20, 0.3)]
    assert interpolate_at_score(falling, values, 31.5) == pytest.approx(0.175)  # on the way down, not at the end
    assert interpolate_at_score(falling, values, 32.0) == 0.2
    assert interpolate_at_score(falling, values, 30.0) == 0.1
    assert interpolate_at_score(falling, values, 32.1) is None
    assert interpolate_at_score(falling, values, 29.9) is None
    rising = [(step, -score) for step, score in falling]
    assert interpolate_at_score(rising, values, -31.5) == pytest.approx(0.175)
    assert interpolate_at_score(falling, values[::2], 31.75) == pytest.approx(0.25)  # an evaluation without the metric


def test_differences_at_equal_score_are_paired() -> None:
    scores = {"plain": PLAIN, "loss": LOSS}
    [trade] = list_trade_offs(scores, {"lpips": LPIPS, "dists": {}}, compare(scores, "plain"), 30.5)
    assert trade.paths["plain"] == [
        EvaluationPoint(0, 32.0, pytest.approx(0.2)),
        EvaluationPoint(10, 30.5, pytest.approx(0.15)),
        EvaluationPoint(20, 30.5, pytest.approx(0.105)),
    ]
    assert trade.equal_score is not None
    plain, loss = trade.equal_score["plain"], trade.equal_score["loss"]
    assert plain.seeds == {1: pytest.approx(0.14), 2: pytest.approx(0.14)}
    assert loss.seeds == {1: pytest.approx(0.125), 2: pytest.approx(0.11)}
    assert loss.difference is not None
    assert (loss.difference.low, loss.difference.high) == (pytest.approx(-0.03), pytest.approx(-0.015))
    assert (loss.lower, plain.lower) == (2, 0)


def test_a_score_that_a_run_never_has_gives_no_mean() -> None:
    scores = {"plain": PLAIN, "loss": LOSS}
    [trade] = list_trade_offs(scores, {"lpips": LPIPS}, compare(scores, "plain"), 29.5)
    assert trade.equal_score is not None
    assert trade.equal_score["plain"].seeds == {1: None, 2: None}
    assert trade.equal_score["plain"].value is None
    assert trade.equal_score["loss"].value is not None
    assert trade.equal_score["loss"].difference is None


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (28.8, 30.3, ["29.0", "29.5", "30.0"]),
        (0.1238, 0.1401, ["0.125", "0.130", "0.135", "0.140"]),
        (0.0, 1200.0, ["0", "200", "400", "600", "800", "1000", "1200"]),
        (-0.3, 0.3, ["-0.3", "-0.2", "-0.1", "0.0", "0.1", "0.2", "0.3"]),
    ],
)
def test_ticks_are_round(low: float, high: float, texts: list[str]) -> None:
    ticks = Axis(low, high, 0.0, 100.0).list_ticks()
    assert [text for _, text in ticks] == texts
    for place, text in ticks:
        assert place == pytest.approx(100 * (float(text) - low) / (high - low), abs=0.01)


def test_drawing_stays_inside_and_goes_right_and_up() -> None:
    scores = {"plain": PLAIN, "loss": LOSS}
    [trade] = list_trade_offs(scores, {"lpips": LPIPS}, compare(scores, "plain"), 30.5)
    chart = draw_trade_off(trade, "psnr_y", ["other", "plain", "loss"], 30.5)
    assert [(path.arm, path.index) for path in chart.paths] == [("plain", 1), ("loss", 2)]
    points = [point for path in chart.paths for point in path.points]
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y, _ in points)
    (x0, y0, text), (x1, y1, _), *_ = chart.paths[0].points
    assert x1 < x0  # PSNR-Y falls
    assert y1 > y0  # LPIPS, too: downwards
    assert text == "plain, step 0: PSNR-Y 32.000 dB, LPIPS 0.20000"
    assert chart.score_x == pytest.approx(x1)
    assert draw_trade_off(trade, "psnr_y", ["plain", "loss"], 40.0).score_x is None


def test_a_single_point_has_a_plane() -> None:
    scores = {arm: {1: [(20, 30.0)]} for arm in ("plain", "loss")}
    values = {"lpips": {arm: {1: [(20, 0.0)]} for arm in ("plain", "loss")}}
    [trade] = list_trade_offs(scores, values, compare(scores, "plain"), None)
    assert trade.equal_score is None
    chart = draw_trade_off(trade, "psnr_y", ["plain", "loss"], None)
    assert chart.x.low < 30 < chart.x.high
    assert chart.y.low < 0 < chart.y.high
    assert chart.x.list_ticks()


@pytest.fixture
def page(workspace: Path, write_runs: Callable) -> Path:
    text = (workspace / "claim.yaml").read_text()
    (workspace / "claim.yaml").write_text(f"{text}equal_score: 30.5\n")
    plan, folder = open_study(Path("claim.yaml"))
    write_definition(plan, folder)
    write_runs(plan, folder, {"plain": PLAIN, "paced": LOSS})
    for run in plan.runs():
        path = get_run_folder(folder, run) / "eval.jsonl"
        values = dict(LPIPS["plain" if run.arm == "plain" else "loss"][run.seed])
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            line["sets"]["first"]["mean"]["lpips"] = values[line["step"]]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    summarize(plan, folder)
    return workspace / folder / "study.html"


def test_results_have_the_metric_at_equal_score(page: Path) -> None:
    tables = page.with_name("results.md").read_text(encoding="utf-8")
    assert "| Metric | Arm | At PSNR-Y 30.500 dB | Difference to plain | Seeds lower |" in tables
    row = "| LPIPS, lower is better | paced | 0.11750 \u00b1 0.01061 | -0.02250 \u00b1 0.01061 | 2 of 2 |"
    assert row in tables
    assert "| paced | 10 | 30.500 | 0.11000 |" in tables
    results = json.loads(page.with_name("results.json").read_text())
    assert results["equal_score"] == 30.5
    [trade] = results["recipes"]["tiny"]["trade_offs"]
    assert trade["equal_score"]["paced"]["seeds"] == {"1": pytest.approx(0.125), "2": pytest.approx(0.11)}
    text = page.read_text(encoding="utf-8")
    assert len(re.findall(r'class="path"', text)) == 2
    assert "paced, step 10: PSNR-Y 30.500 dB, LPIPS 0.11000" in text


def test_another_equal_score_is_another_study(page: Path, workspace: Path) -> None:
    from selfsr.errors import InputError

    path = workspace / "claim.yaml"
    path.write_text(path.read_text().replace("equal_score: 30.5", "equal_score: 30.0"))
    plan, folder = open_study(Path("claim.yaml"))
    with pytest.raises(InputError, match=r"equal_score \(30\.5 there, 30\.0 here\)"):
        write_definition(plan, folder)


@pytest.mark.browser
def test_planes_fit_every_width(browser: Chromium, page: Path) -> None:
    for width in (390, 1280, 1920):
        browser.open(page, width, touch=width < 500)
        assert browser.run("document.documentElement.dataset.errors") is None
        assert browser.find_wide_elements() == []
        assert browser.find_overlaps() == []
        heights = "[...document.querySelectorAll('.plane .mark')].map(mark => mark.getBoundingClientRect().height)"
        assert max(browser.run(heights)) < 24
