"""Put the page together: what each part shows, as the templates in `page/` want it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from selfsr import __version__
from selfsr.evaluation.metrics import METRICS
from selfsr.report import attention, colors, curves, pictures, scores, similarity, timeline
from selfsr.report.assets import asset, render_template, script_json
from selfsr.report.pictures import Crop, Picture, Version
from selfsr.runfolder.read import Run, flatten

_SCRIPTS = ("charts.js", "tables.js", "crops.js", "maps.js")


def render(runs: list[Run], against: int | None, advance: Callable[..., None]) -> str:
    """Return the whole page as HTML.

    Args:
        runs: what to show.
        against: index of the run that stands for "without the loss", None to choose one.
        advance: called with a note before each sample picture, which is what takes time.
    """
    notes: list[str] = []
    lead = next((i for i in reversed(range(len(runs))) if runs[i].has_similarity_term and i != against), 0)
    found = pictures.load_pictures(runs, lead, notes)
    shown, studies = [], []
    for picture in found:
        advance(note=picture.name)
        shown.append(_picture_card(picture, lead))
        study = similarity.study(picture, similarity.compared(picture, runs, against))
        studies += [study] if study else []
    charts = [chart for chart in curves.charts(runs) if not _says_nothing(chart)]
    context = {
        "title": ", ".join(run.name for run in runs) if len(runs) <= 3 else f"{len(runs)} runs",
        "version": __version__,
        "cards": [_card(index, run) for index, run in enumerate(runs)],
        "pictures": [card for card in shown if card["crops"]],
        "score_tables": scores.tables(runs),
        "metrics": METRICS,
        "charts": charts,
        "chart_data": script_json(
            {
                "runs": [{"name": run.name, "clock": curves.thin(run.clock(), 200)} for run in runs],
                "charts": [chart.payload() for chart in charts],
            }
        ),
        "last_values": [
            {"title": chart.title, "runs": [_last(chart, value) for value in chart.last_values(len(runs))]}
            for chart in charts
        ],
        "screenings": attention.screenings(runs, notes),
        "timelines": timeline.timelines(runs, found, lead, notes),
        "studies": studies,
        "search_px": similarity.SEARCH_PX,
        "window_px": similarity.WINDOW_PX,
        "floor_log10": similarity.FLOOR_LOG10,
        "recipes": [
            {"index": i, "name": run.name, "text": run.recipe_text, "environment": run.environment}
            for i, run in enumerate(runs)
        ],
        "differences": _differences(runs),
        "notes": _all_notes(runs, notes),
        "gradient": colors.css_gradient(),
        "tables": colors.svg_tables(),
        "css": asset("page.css"),
        "start_js": asset("start.js"),
        "scripts": [asset(name) for name in _SCRIPTS],
    }
    return render_template("page.html.j2", context)


def _card(index: int, run: Run) -> dict[str, Any]:
    best = run.best()
    told = [_told(run, best, name) for name in best["sets"]] if best else []
    flat = [score for scores_of_set in told for score in scores_of_set]
    state, status = _status(run)
    return {
        "index": index,
        "name": run.name,
        "state": state,
        "status": status,
        "headline": {**flat[0], "step": best["step"]} if best and flat else None,
        "others": flat[1:],
        "facts": _facts(run),
    }


def _told(run: Run, evaluation: dict[str, Any], set_name: str) -> list[dict[str, Any]]:
    """Return the set's mean PSNR-Y and SSIM-Y with the gain over bicubic, in words."""
    mean = evaluation["sets"][set_name].get("mean", {})
    level = run.bicubic.get(set_name, {}).get("mean", {})
    told = []
    for metric in [name for name in METRICS if name not in ("psnr_rgb", "ssim_rgb")]:
        facts = METRICS[metric]
        value, baseline = scores.finite(mean.get(metric)), scores.finite(level.get(metric))
        if value is None:
            continue
        cell = scores.Cell(value, None if baseline is None else value - baseline, facts.decimals, facts.better)
        gain = f"{cell.gain_text} {facts.unit}".strip() if cell.gain_text else ""
        told.append(
            {
                "metric": facts.title,
                "set_name": set_name,
                "value": cell.text,
                "unit": facts.unit,
                "gain": gain,
                "direction": cell.direction,
            }
        )
    return told


def _status(run: Run) -> tuple[str, str]:
    if run.finished:
        return "done", "finished"
    if run.steps_planned is None:
        return "open", f"at step {run.step:,}"
    # A folder does not tell whether its run was stopped or is still going on.
    return "open", f"unfinished, at step {run.step:,} of {run.steps_planned:,}"


def _facts(run: Run) -> list[tuple[str, str]]:
    recipe = run.recipe
    facts = [("Network", _network(recipe.get("network"))), ("Losses", _losses(recipe))]
    facts.append(("Scale", ", ".join(f"x{scale}" for scale in _numbers(recipe.get("scale")))))
    facts.append(("Steps", f"{run.step:,}"))
    if run.seconds is not None:
        facts.append(("Training time", _duration(run.seconds)))
    facts.append(("Batch", ", ".join(map(str, _numbers(recipe.get("batch"))))))
    facts.append(("Crop", ", ".join(f"{side} px" for side in _numbers(recipe.get("crop_px")))))
    if start := recipe.get("start_from"):
        facts.append(("Started from", _origin(Path(str(start)))))
    return [(label, text) for label, text in facts if text]


def _numbers(value: Any) -> list[int]:
    """Return what a recipe may give as one number or as one for each scale."""
    return [number for number in (value if isinstance(value, list) else [value]) if isinstance(number, int)]


def _network(spec: Any) -> str:
    if not isinstance(spec, dict) or "kind" not in spec:
        return ""
    sizes = [
        f"{key.replace('_', ' ')} {value:g}"
        for key, value in spec.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    return ", ".join([str(spec["kind"]), *sizes[:2]])


def _losses(recipe: dict[str, Any]) -> str:
    method = recipe.get("method")
    terms = method.get("terms") if isinstance(method, dict) else None
    told = []
    for term in terms.values() if isinstance(terms, dict) else ():
        if isinstance(term, dict) and "kind" in term:
            paced = "self-paced " if term.get("pace") else ""
            told.append(paced + str(term["kind"]).replace("_", "-"))
    discriminators = method.get("discriminators") if isinstance(method, dict) else None
    for name, discriminator in discriminators.items() if isinstance(discriminators, dict) else ():
        network = discriminator.get("network") if isinstance(discriminator, dict) else None
        told.append(f"discriminator {name}" + (f" ({network['kind']})" if isinstance(network, dict) else ""))
    return " + ".join(told)


def _origin(weights: Path) -> str:
    """Return the run that the weights are of, or the file's name."""
    if weights.parent.name == "weights":
        return f"{weights.parent.parent.name} ({weights.stem})"
    return weights.name


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def _picture_card(picture: Picture, lead: int) -> dict[str, Any]:
    height, width = picture.hr.shape[:2]
    overview = pictures.shrink(picture.hr, pictures.OVERVIEW_PX)
    return {
        "name": picture.name,
        "hr_size": f"{width} x {height}",
        "overview": pictures.data_uri(overview, quality=84),
        "width": overview.shape[1],
        "height": overview.shape[0],
        "crops": [_crop_card(crop, picture, lead) for crop in pictures.choose_crops(picture, lead)],
    }


def _crop_card(crop: Crop, picture: Picture, lead: int) -> dict[str, Any]:
    height, width = picture.hr.shape[:2]
    truth = crop.cut(picture.hr)
    shown = [("bicubic", picture.bicubic)] if picture.bicubic else []
    shown += [("lead" if version.run == lead else "run", version) for version in picture.last]
    shown.append(("hr", Version("HR", picture.hr)))
    shown += [("earlier", version) for version in picture.versions if version.earlier]
    return {
        "why": crop.why,
        "side": crop.side,
        "left": round(100 * crop.left / width, 3),
        "top": round(100 * crop.top / height, 3),
        "width": round(100 * crop.side / width, 3),
        "height": round(100 * crop.side / height, 3),
        "versions": [_version_card(role, version, crop, truth) for role, version in shown],
    }


def _version_card(role: str, version: Version, crop: Crop, truth: np.ndarray) -> dict[str, Any]:
    pixels = crop.cut(version.pixels)
    score = "" if role == "hr" else f"{pictures.psnr_y(pixels, truth):.2f} dB"
    return {
        "label": version.label,
        "run": version.run,
        "role": role,
        "psnr": score,
        "image": pictures.data_uri(pixels),
    }


def _says_nothing(chart: curves.Chart) -> bool:
    """Whether a count that this page does not know by name stayed zero all through."""
    return chart.key == "skipped_files" and not any(y for line in chart.lines for y in line.y)


def _last(chart: curves.Chart, point: tuple[int, float] | None) -> str:
    if point is None:
        return "-"
    step, value = point
    text = f"{100 * value:.1f} %" if chart.percent else f"{value:.5g} {chart.unit}".strip()
    return f"{text} (step {step:,})"


def _differences(runs: list[Run]) -> list[tuple[str, list[str]]]:
    """Return the settings in which the runs' recipes differ; "-" where a recipe has no such setting."""
    flat = [dict(flatten(run.recipe)) for run in runs]
    paths = dict.fromkeys(path for settings in flat for path in settings)
    rows = [(path, [settings.get(path, "-") for settings in flat]) for path in paths if path != "name"]
    return [(path, values) for path, values in rows if len(set(values)) > 1]


def _all_notes(runs: list[Run], notes: list[str]) -> list[str]:
    of_runs = [f"{run.name}: {note}" if len(runs) > 1 else note for run in runs for note in run.notes]
    return [*of_runs, *dict.fromkeys(notes)]
