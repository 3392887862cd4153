"""The study as one HTML page, of the same parts as a run's report: curves with bands, tables, links to the runs."""

from pathlib import Path
from typing import Any

from selfsr import __version__
from selfsr.recipe import dump_recipe
from selfsr.report.assets import asset, render_template, script_json
from selfsr.report.curves import Baseline, Chart, Line
from selfsr.study.compare import Curve, band, difference
from selfsr.study.display import duration
from selfsr.study.results import Results, SetupResult
from selfsr.study.tables import HOW_TO_READ, arms_table, main_table, others_table, seed_table, sentences
from selfsr.study.wording import Numbers

_PARTS = Path(__file__).parent / "page"


def render(results: Results) -> str:
    """Return the whole page as HTML."""
    plan, numbers = results.plan, Numbers(results.plan.score)
    arms, several = list(plan.changes), len(results.setups) > 1
    charts = [chart for setup in results.setups.values() for chart in _charts(setup, arms, plan.baseline, plan.score)]
    context = {
        "version": __version__,
        "plan": plan,
        "score": numbers.name,
        "finished": sum(run.finished for run in results.runs),
        "cards": [card for setup in results.setups.values() for card in _cards(setup, arms, numbers, several)],
        "notes": results.notes,
        "setups": [_section(setup, numbers, arms) for setup in results.setups.values()],
        "how_to_read": HOW_TO_READ,
        "arms": arms,
        "arms_table": arms_table(results),
        "runs": [_run_row(run, arms) for run in results.runs],
        "recipes": [
            {"name": setup.name, "text": dump_recipe(setup.arms[plan.baseline])} for setup in plan.setups.values()
        ],
        "charts": charts,
        "chart_data": script_json(
            {
                "runs": [{"name": arm, "clock": []} for arm in arms],
                "charts": [chart.payload() for chart in charts],
                "noun": "Arms",
                "apart": True,
            }
        ),
        "css": asset("page.css") + (_PARTS / "study.css").read_text(encoding="utf-8"),
        "start_js": asset("start.js"),
        "scripts": [asset("charts.js"), asset("tables.js")],
    }
    return render_template("results.html.j2", context, _PARTS)


def _cards(setup: SetupResult, arms: list[str], numbers: Numbers, several: bool) -> list[dict[str, Any]]:
    """Return a card for each arm but the baseline: the paired difference, and in words what it is worth."""
    comparison = setup.comparison
    if comparison is None:
        return []
    told = iter(sentences(setup, numbers))
    cards = []
    for name, arm in comparison.arms.items():
        if name == comparison.baseline:
            continue
        seeds = len(comparison.seeds)
        one_way = arm.agree == seeds > 1
        rounded = round(arm.difference.mean, numbers.decimals)
        cards.append(
            {
                "index": arms.index(name),
                "title": f"{name}, {setup.name}" if several else name,
                "seeds": f"{seeds} seed{'s' if seeds > 1 else ''}",
                "agree": "one direction" if one_way else "one pair" if seeds == 1 else "seeds disagree",
                "state": "" if one_way else "open",
                "difference": numbers.change(arm.difference.mean),
                "unit": numbers.unit,
                "direction": "level" if not one_way or rounded == 0 else "up" if rounded > 0 else "down",
                "under": f"{numbers.name} on {setup.judged_on} against {comparison.baseline}, final, paired by seed",
                "verdict": next(told),
            }
        )
    return cards


def _section(setup: SetupResult, numbers: Numbers, arms: list[str]) -> dict[str, Any]:
    comparison = setup.comparison
    return {
        "name": setup.name,
        "judged_on": setup.judged_on,
        "steps": setup.steps,
        "bicubic": None if setup.bicubic is None else f"{numbers.value(setup.bicubic)} {numbers.unit}".strip(),
        "seeds": comparison.seeds if comparison else [],
        "main": main_table(comparison, numbers, setup.steps) if comparison else None,
        "every_seed": seed_table(comparison, numbers) if comparison else None,
        "others": others_table(setup),
        "marks": [arms.index(name) for name in comparison.arms] if comparison else [],
    }


def _run_row(run: Any, arms: list[str]) -> dict[str, Any]:
    return {
        "name": run.name,
        "index": arms.index(run.arm),
        "state": "finished" if run.finished else f"step {run.step:,} of {run.steps:,}",
        "finished": run.finished,
        "time": "" if run.seconds is None else duration(run.seconds),
        "report": run.report,
    }


def _charts(setup: SetupResult, arms: list[str], baseline: str, score: str) -> list[Chart]:
    """Return the scores, and the differences to the baseline, over the seeds that are compared."""
    comparison, numbers = setup.comparison, Numbers(score)
    if comparison is None:
        return []
    curves = {arm: {s: setup.curves[arm][s] for s in comparison.seeds} for arm in comparison.arms}
    scores = Chart(f"score/{setup.name}", setup.name, f"{numbers.name}, {setup.judged_on}", numbers.unit, markers=True)
    scores.lines = [_line(arms.index(arm), list(by_seed.values())) for arm, by_seed in curves.items()]
    if setup.bicubic is not None:
        scores.baselines.append(Baseline("bicubic", setup.bicubic))
    apart = Chart(
        f"difference/{setup.name}",
        setup.name,
        f"Difference to {baseline}, same seed",
        numbers.unit,
        markers=True,
        signed=True,
    )
    apart.baselines.append(Baseline(baseline, 0.0))
    for arm, by_seed in curves.items():
        pairs = [difference(curve, curves[baseline][seed]) for seed, curve in by_seed.items()]
        if arm != baseline and all(pairs):
            apart.lines.append(_line(arms.index(arm), pairs))
    return [scores, apart] if apart.lines else [scores]


def _line(index: int, curves: list[Curve] | list[list[tuple[int, float]]]) -> Line:
    points = band(curves)
    shown = len(curves) > 1
    return Line(
        index,
        [step for step, *_ in points],
        [mean for _, mean, *_ in points],
        len(points),
        [low for *_, low, _ in points] if shown else None,
        [high for *_, high in points] if shown else None,
    )
