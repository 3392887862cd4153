"""The numbers of a study against values computed by hand, from run folders made by hand."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from selfsr.study import open_study, summarize
from selfsr.study.compare import compare, compute_band, compute_mean_height, find_steps_to_reach, summarize_scores
from selfsr.study.folder import write_definition
from selfsr.study.plan import StudyPlan
from selfsr.study.tables import make_seed_table
from selfsr.study.wording import ScoreFormat, describe_convergence, describe_steps_to_reach, describe_verdict

# Areas from 0 to 20, divided by 20: plain 28 and 28.75, paced 29.25 and 28.625.
PLAIN = {1: [(0, 20.0), (10, 30.0), (20, 32.0)], 2: [(0, 20.0), (10, 31.0), (20, 33.0)]}
PACED = {1: [(0, 20.0), (10, 32.0), (20, 33.0)], 2: [(0, 20.0), (10, 31.0), (20, 32.5)]}


def test_paired_differences_by_hand() -> None:
    result = compare({"plain": PLAIN, "paced": PACED}, "plain")
    assert result is not None
    assert result.seeds == [1, 2]
    assert result.target == 32.5
    paced = result.arms["paced"]
    assert (paced.final.mean, paced.final.low, paced.final.high) == (32.75, 32.5, 33.0)
    assert paced.final.sd == pytest.approx(0.5 / math.sqrt(2))
    assert (paced.difference.mean, paced.difference.low, paced.difference.high) == (0.25, -0.5, 1.0)
    assert paced.difference.sd == pytest.approx(0.75 * math.sqrt(2))
    assert (paced.higher, paced.lower, paced.agree) == (1, 1, 1)
    assert [paced.seeds[s].mean_difference for s in (1, 2)] == pytest.approx([1.25, -0.125])
    assert paced.mean_difference.mean == pytest.approx(0.5625)
    assert [paced.seeds[s].steps_to_reach for s in (1, 2)] == [15.0, 20.0]
    assert paced.steps_to_reach is not None
    assert paced.steps_to_reach.mean == 17.5
    # The baseline's run of seed 1 ends at 32, which paced passes on its way from 20 to 32; that of seed 2 at 33.
    assert [paced.seeds[s].steps_to_reach_same_seed for s in (1, 2)] == [10.0, None]
    plain = result.arms["plain"]
    assert [plain.seeds[s].steps_to_reach for s in (1, 2)] == [None, 17.5]
    assert (plain.reached, plain.steps_to_reach) == (1, None)
    assert (plain.difference.mean, plain.difference.sd, plain.mean_difference.mean) == (0.0, 0.0, 0.0)


def test_a_start_above_the_baseline_is_no_number_of_steps() -> None:
    """The baseline's mean final score is 32.5."""
    above = [(0, 33.0), (10, 33.5), (20, 34.0)]
    numbers = ScoreFormat("psnr_y")
    for curves, cell, sentence in (
        (
            {1: above, 2: above},
            "at the start",
            "It has reached plain's final mean (32.500 dB) at the start, before tra",
        ),
        ({1: above, 2: PACED[2]}, "1 of 2 seeds at the start, 1 later", "start, before training on 1 of 2 seeds; over"),
        ({1: above, 2: PLAIN[1]}, "1 of 2 seeds at the start", "start, before training on 1 of 2 seeds; over"),
        (PACED, "18 (88 %)", "It first reaches plain's final mean (32.500 dB) after 18 of 20 steps on average"),
    ):
        result = compare({"plain": PLAIN, "fine": curves}, "plain")
        assert result is not None
        assert describe_steps_to_reach(result.arms["fine"], 20) == cell
        assert sentence in describe_convergence("fine", result, numbers, 20)
        of_seed_1 = make_seed_table(result, numbers).rows[1]
        assert of_seed_1[:2] == ["1", "fine"]
        assert (of_seed_1[5] == of_seed_1[6] == "at the start") == (curves is not PACED)


def test_only_seeds_that_every_arm_has_are_compared() -> None:
    third = {**PLAIN, 3: [(0, 0.0), (20, 99.0)]}
    result = compare({"plain": third, "paced": {2: PACED[2], 1: PACED[1]}, "late": {2: PLAIN[2]}}, "plain")
    assert result is not None
    assert result.seeds == [2]
    assert result.target == 33.0
    assert result.arms["paced"].difference.sd is None


def test_compare_drops_arms_without_runs_and_needs_the_baseline() -> None:
    result = compare({"plain": PLAIN, "paced": PACED, "later": {}}, "plain")
    assert result is not None
    assert list(result.arms) == ["plain", "paced"]
    assert compare({"plain": {}, "paced": PACED}, "plain") is None
    assert compare({"plain": {1: PLAIN[1]}, "paced": {2: PACED[2]}}, "plain") is None


def test_the_best_score_is_of_a_trained_network() -> None:
    curve = [(0, 40.0), (10, 31.0), (20, 30.0)]
    result = compare({"plain": {1: curve}, "paced": {1: [(0, 40.0), (10, 29.0), (20, 33.0)]}}, "plain")
    assert result is not None
    plain, paced = (result.arms[arm].seeds[1] for arm in ("plain", "paced"))
    assert (plain.best, plain.best_step, plain.final, plain.final_step) == (31.0, 10, 30.0, 20)
    assert paced.best_difference == 2.0


def test_find_steps_to_reach_interpolates() -> None:
    curve = [(0, 10.0), (10, 30.0), (20, 20.0), (30, 40.0)]
    assert find_steps_to_reach(curve, 25.0) == 7.5
    assert find_steps_to_reach(curve, 30.0) == 10.0
    assert find_steps_to_reach(curve, 35.0) == 27.5
    assert find_steps_to_reach(curve, 5.0) == 0.0
    assert find_steps_to_reach(curve, 40.1) is None


def test_mean_difference_uses_only_the_common_steps() -> None:
    assert compute_mean_height([(0, 0.0), (10, 10.0), (40, 10.0)], 5, 20) == pytest.approx((5 * 7.5 + 10 * 10) / 15)
    assert compute_mean_height([(0, 1.0), (10, 3.0)], 5, 5) == 2.0
    long, short = [(0, 0.0), (10, 10.0), (40, 100.0)], [(0, 0.0), (5, 10.0), (10, 12.0)]
    result = compare({"long": {1: long}, "short": {1: short}}, "long")
    assert result is not None
    assert result.arms["short"].mean_difference.mean == pytest.approx((25 + 55) / 10 - 5)


def test_bands_are_over_the_steps_that_all_curves_have() -> None:
    assert compute_band([[(0, 1.0), (5, 9.0), (10, 4.0)], [(0, 3.0), (10, 2.0)]]) == [
        (0, 2.0, 1.0, 3.0),
        (10, 3.0, 2.0, 4.0),
    ]


def finals(differences: list[float]) -> dict:
    plain = {seed: [(0, 20.0), (20, 30.0)] for seed in range(len(differences))}
    return {"plain": plain, "paced": {s: [(0, 20.0), (20, 30.0 + d)] for s, d in enumerate(differences)}}


@pytest.mark.parametrize(
    ("differences", "told"),
    [
        (
            [0.25],
            "On the one seed compared, paced ends 0.250 dB above plain. "
            "One seed cannot separate a difference from chance; another seed may show the opposite.",
        ),
        (
            [-0.25, -0.5],
            "paced ends below plain on both seeds, by 0.250 to 0.500 dB, on average 0.375 dB. "
            "Two pairs show a direction but not its certainty; more seeds would.",
        ),
        (
            [0.25, 0.5, 0.75],
            "paced ends above plain on all 3 seeds, by 0.250 to 0.750 dB, on average 0.500 dB. "
            "Three pairs show a direction but not its certainty; more seeds would.",
        ),
        (
            [0.5, 0.0, -0.125],
            "The seeds disagree: paced ends above plain on 1 of 3, below on 1, equal on 1 (-0.125 to +0.500, "
            "on average +0.125). These 3 seeds show no difference in one direction.",
        ),
        (
            [0.25, 0.5, 0.75, 0.5, 0.5],
            "paced ends above plain on all 5 seeds, by 0.250 to 0.750 dB, on average 0.500 dB. "
            "The standard deviation between seeds is 0.177 dB.",
        ),
        ([0.0, 0.0], "paced and plain end equal on both seeds."),
    ],
)
def test_describe_verdict_is_as_cautious_as_the_seeds(differences: list[float], told: str) -> None:
    result = compare(finals(differences), "plain")
    assert result is not None
    assert describe_verdict("paced", result, ScoreFormat("psnr_y")) == told
    for word in ("significan", "p-value", "p <"):
        assert word not in told


@pytest.mark.parametrize(
    ("differences", "told"),
    [
        (
            [10.0, 10.0],
            "It first reaches plain's final mean (30.000 dB) after 10 of 20 steps on average; "
            "over the training it lies 5.000 dB above on average.",
        ),
        (
            [10.0, -10.0],
            "It reaches plain's final mean (30.000 dB) on 1 of 2 seeds; over the training it equals plain on average.",
        ),
        (
            [-2.0],
            "It never reaches plain's final mean (30.000 dB); over the training it lies 1.000 dB below on average.",
        ),
    ],
)
def test_describe_convergence(differences: list[float], told: str) -> None:
    result = compare(finals(differences), "plain")
    assert result is not None
    assert describe_convergence("paced", result, ScoreFormat("psnr_y"), 20) == told


def test_a_single_value_has_no_deviation() -> None:
    assert summarize_scores([2.0]).sd is None
    assert ScoreFormat("psnr_y").format_spread(summarize_scores([2.0])) == "2.000"
    assert ScoreFormat("ssim_y").format_spread(summarize_scores([0.5, 0.7]), change=True) == "+0.60000 \u00b1 0.14142"


@pytest.fixture
def summary(workspace: Path, write_runs: Callable) -> tuple[StudyPlan, Path]:
    """Return a study of which both seeds of plain and of paced are finished, and seed 3 of plain alone."""
    plan, folder = open_study(Path("claim.yaml"), ["seeds=[1,2,3]"])
    write_definition(plan, folder)
    write_runs(plan, folder, {"plain": {**PLAIN, 3: PLAIN[1]}, "paced": PACED})
    summarize(plan, folder)
    return plan, folder


def test_results_json_has_the_numbers_of_the_run_folders(summary: tuple[StudyPlan, Path]) -> None:
    results = json.loads((summary[1] / "results.json").read_text())
    tiny = results["recipes"]["tiny"]
    assert (tiny["evaluation_set"], tiny["bicubic"], tiny["steps"]) == ("first", 28.0, 20)
    assert tiny["comparison"]["seeds"] == [1, 2]
    paced = tiny["comparison"]["arms"]["paced"]
    assert paced["difference"]["mean"] == 0.25
    assert [paced["seeds"][s]["steps_to_reach"] for s in "12"] == [15.0, 20.0]
    assert tiny["comparison"]["arms"]["plain"]["seeds"]["1"]["steps_to_reach"] is None
    others = {(entry["set"], entry["metric"]): entry for entry in tiny["others"]}
    assert len(others) == 7  # two sets by four scores, less the one that decides
    assert others["second", "psnr_y"]["arms"]["paced"]["final"]["mean"] == 37.75
    assert others["first", "ssim_y"]["arms"]["paced"]["difference"]["mean"] == pytest.approx(0.0025)
    assert [run["finished"] for run in results["runs"]] == [True, True, True, True, True, False]
    assert results["runs"][0]["seconds"] == 5.0
    assert results["notes"] == [
        "Unfinished runs are not in the results: tiny-paced-seed3 (step 0 of 20).",
        "tiny: only seeds that all arms have finished are compared; left out: plain seed 3.",
    ]


def test_results_md_has_the_tables(summary: tuple[StudyPlan, Path]) -> None:
    text = (summary[1] / "results.md").read_text(encoding="utf-8")
    assert "| paced | method.terms.pixel.pace: {alpha: 4.0} | hard first |" in text
    assert (
        "| paced | 32.750 \u00b1 0.354 | 32.500 to 33.000 | 32.750 \u00b1 0.354 | +0.250 \u00b1 1.061 | "
        "-0.500 to +1.000 | 1 of 2 | 18 (88 %) | +0.562 \u00b1 0.972 |"
    ) in text
    assert "| 1 | plain | 32.000 | 32.000 (20) |  | never |  |  |" in text
    assert "| 2 | paced | 32.500 | 32.500 (20) | -0.500 | 20 | never | -0.125 |" in text
    assert "2 seeds compared: 1, 2." in text
    assert "These 2 seeds show no difference in one direction." in text
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) == 4
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_summarize_with_another_baseline_set_and_metric(
    workspace: Path, plan_of: Callable[..., StudyPlan], write_runs: Callable
) -> None:
    plan = plan_of(baseline="paced", evaluation_set="second", metric="ssim_y")
    write_definition(plan, Path("here"))
    write_runs(plan, Path("here"), {"plain": PLAIN, "paced": PACED})
    setup = summarize(plan, Path("here")).setups["tiny"]
    assert setup.comparison is not None
    assert setup.comparison.target == pytest.approx(0.3775)
    assert setup.comparison.arms["plain"].difference.mean == pytest.approx(-0.0025)
    assert setup.bicubic is None  # told for the other set alone


def test_a_run_whose_last_evaluation_is_missing_is_not_finished(workspace: Path, write_runs: Callable) -> None:
    plan, folder = open_study(Path("claim.yaml"))
    write_definition(plan, folder)
    write_runs(plan, folder, {"plain": PLAIN, "paced": {1: PACED[1], 2: PACED[2][:2]}})
    setup = summarize(plan, folder).setups["tiny"]
    assert setup.comparison is not None
    assert setup.comparison.seeds == [1]


def test_results_of_a_study_without_any_run(workspace: Path) -> None:
    plan, folder = open_study(Path("claim.yaml"))
    write_definition(plan, folder)
    results = summarize(plan, folder)
    assert results.setups["tiny"].comparison is None
    assert "No comparison yet" in (folder / "results.md").read_text()
    assert "No comparison yet" in (folder / "study.html").read_text()
