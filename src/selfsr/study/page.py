"""Render study.html, with the styles and scripts of run reports."""

from pathlib import Path
from typing import Any

from selfsr import __version__
from selfsr.console import format_duration
from selfsr.recipe import dump_recipe
from selfsr.report.assets import dump_script_json, read_asset, render_template
from selfsr.report.curves import Chart, ChartBaseline, ChartLine
from selfsr.study.compare import Curve, compute_band, subtract_curves
from selfsr.study.plan import StudyPlan
from selfsr.study.results import SetupResult, StudyResults
from selfsr.study.tables import (
    HOW_EQUAL,
    HOW_TO_READ,
    describe_results,
    make_arms_table,
    make_equal_score_table,
    make_main_table,
    make_other_scores_table,
    make_path_table,
    make_seed_table,
)
from selfsr.study.trade_off_chart import draw_trade_off
from selfsr.study.wording import ScoreFormat

_PAGE_FOLDER = Path(__file__).parent / "page"
# Fewer seeds show a direction, so their difference stays gray.
SEEDS_FOR_COLOR = 3


def render_study(results: StudyResults) -> str:
    """Return the page as HTML."""
    plan, numbers = results.plan, ScoreFormat(results.plan.metric)
    arms, several = list(plan.changes), len(results.setups) > 1
    charts = [
        chart for setup in results.setups.values() for chart in _make_charts(setup, arms, plan.baseline, plan.metric)
    ]
    context = {
        "version": __version__,
        "plan": plan,
        "score": numbers.name,
        "finished": sum(run.finished for run in results.runs),
        "cards": [card for setup in results.setups.values() for card in _make_cards(setup, arms, numbers, several)],
        "notes": results.notes,
        "setups": [_make_section(setup, numbers, arms) for setup in results.setups.values()],
        "how_to_read": HOW_TO_READ,
        "how_equal": HOW_EQUAL,
        "trade_offs": [_make_trade_offs(setup, plan, arms) for setup in results.setups.values() if setup.trade_offs],
        "arms": arms,
        "arms_table": make_arms_table(results),
        "runs": [_make_run_row(run, arms) for run in results.runs],
        "recipes": [
            {"name": setup.name, "text": dump_recipe(setup.arms[plan.baseline])} for setup in plan.setups.values()
        ],
        "charts": charts,
        "chart_data": dump_script_json(
            {
                "runs": [{"name": arm, "elapsed": []} for arm in arms],
                "charts": [chart.to_dict() for chart in charts],
                "noun": "Arms",
                "separate_axes": True,
            }
        ),
        "css": read_asset("page.css") + (_PAGE_FOLDER / "study.css").read_text(encoding="utf-8"),
        "start_js": read_asset("start.js"),
        "scripts": [read_asset(name) for name in ("ticks.js", "charts.js", "tables.js", "sections.js")],
    }
    return render_template("results.html.j2", context, _PAGE_FOLDER)


def _make_cards(setup: SetupResult, arms: list[str], numbers: ScoreFormat, several: bool) -> list[dict[str, Any]]:
    """Return a card for each arm but the baseline: the paired difference, in numbers and in words."""
    comparison = setup.comparison
    if comparison is None:
        return []
    paragraphs = iter(describe_results(setup, numbers))
    cards = []
    for name, arm in comparison.arms.items():
        if name == comparison.baseline:
            continue
        seeds = len(comparison.seeds)
        consistent = arm.agree == seeds > 1
        rounded = round(arm.difference.mean, numbers.decimals)
        is_certain = consistent and seeds >= SEEDS_FOR_COLOR
        cards.append(
            {
                "index": arms.index(name),
                "title": f"{name}, {setup.name}" if several else name,
                "seeds": f"{seeds} seed{'s' if seeds > 1 else ''}",
                "agree": "same sign" if consistent else "one pair" if seeds == 1 else "seeds disagree",
                "state": "" if consistent else "open",
                "difference": numbers.format_change(arm.difference.mean),
                "unit": numbers.unit,
                "direction": "level" if not is_certain or rounded == 0 else "up" if rounded > 0 else "down",
                "under": f"final {numbers.name} on {setup.evaluation_set}, minus {comparison.baseline}, same seed",
                "verdict": next(paragraphs),
            }
        )
    return cards


def _make_section(setup: SetupResult, numbers: ScoreFormat, arms: list[str]) -> dict[str, Any]:
    comparison = setup.comparison
    return {
        "name": setup.name,
        "evaluation_set": setup.evaluation_set,
        "better": numbers.better,
        "steps": setup.steps,
        "bicubic": None if setup.bicubic is None else f"{numbers.format_score(setup.bicubic)} {numbers.unit}".strip(),
        "seeds": comparison.seeds if comparison else [],
        "main": make_main_table(comparison, numbers, setup.steps) if comparison else None,
        "every_seed": make_seed_table(comparison, numbers) if comparison else None,
        "others": make_other_scores_table(setup),
        "marks": [arms.index(name) for name in comparison.arms] if comparison else [],
    }


def _make_trade_offs(setup: SetupResult, plan: StudyPlan, arms: list[str]) -> dict[str, Any]:
    return {
        "name": setup.name,
        "evaluation_set": setup.evaluation_set,
        "charts": [draw_trade_off(trade, plan.metric, arms, plan.equal_score) for trade in setup.trade_offs],
        "equal": make_equal_score_table(setup, plan),
        "paths": make_path_table(setup, plan.metric),
    }


def _make_run_row(run: Any, arms: list[str]) -> dict[str, Any]:
    return {
        "name": run.name,
        "index": arms.index(run.arm),
        "state": "finished" if run.finished else f"step {run.step:,} of {run.steps:,}",
        "finished": run.finished,
        "time": "" if run.seconds is None else format_duration(run.seconds),
        "report": run.report,
    }


def _make_charts(setup: SetupResult, arms: list[str], baseline: str, score: str) -> list[Chart]:
    """Return a chart of the scores and one of the differences to the baseline, over the compared seeds."""
    comparison, numbers = setup.comparison, ScoreFormat(score)
    if comparison is None:
        return []
    curves = {arm: {s: setup.curves[arm][s] for s in comparison.seeds} for arm in comparison.arms}
    scores = Chart(
        f"score/{setup.name}", setup.name, f"{numbers.name}, {setup.evaluation_set}", numbers.unit, markers=True
    )
    scores.lines = [_make_line(arms.index(arm), list(by_seed.values())) for arm, by_seed in curves.items()]
    if setup.bicubic is not None:
        scores.baselines.append(ChartBaseline("bicubic", setup.bicubic))
    differences = Chart(
        f"difference/{setup.name}",
        setup.name,
        f"Difference to {baseline}, same seed",
        numbers.unit,
        markers=True,
        signed=True,
    )
    differences.baselines.append(ChartBaseline(baseline, 0.0))
    for arm, by_seed in curves.items():
        pairs = [subtract_curves(curve, curves[baseline][seed]) for seed, curve in by_seed.items()]
        if arm != baseline and all(pairs):
            differences.lines.append(_make_line(arms.index(arm), pairs))
    return [scores, differences] if differences.lines else [scores]


def _make_line(index: int, curves: list[Curve] | list[list[tuple[int, float]]]) -> ChartLine:
    points = compute_band(curves)
    has_band = len(curves) > 1
    return ChartLine(
        index,
        [step for step, *_ in points],
        [mean for _, mean, *_ in points],
        len(points),
        [low for *_, low, _ in points] if has_band else None,
        [high for *_, high in points] if has_band else None,
    )
