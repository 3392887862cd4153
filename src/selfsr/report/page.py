"""Render the report: collect the data of each section for the templates in `page/`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from selfsr import __version__
from selfsr.evaluation.metrics import METRICS
from selfsr.report import colors, curves, pixel_weights, scores, seeds, similarity, timeline
from selfsr.report.assets import dump_script_json, read_asset, render_template
from selfsr.report.crops import ReportCrop, choose_crops, compute_psnr_y
from selfsr.report.encoding import encode_webp, shrink
from selfsr.report.headline import list_other_scores, make_headline
from selfsr.report.images import ImageVersion, ReportImage, load_images
from selfsr.report.set_groups import describe_split_sets, group_sets
from selfsr.runfolder.read import RunFolder, flatten

OVERVIEW_PX = 560
_SCRIPTS = ("charts.js", "tables.js", "crops.js", "maps.js")


def render_report(runs: list[RunFolder], against: int | None, advance: Callable[..., None]) -> str:
    """Return the page as HTML.

    Args:
        runs: the runs to show.
        against: index of the run "without the loss"; None for an automatic choice.
        advance: moves the progress bar; called once for each sample image.
    """
    notes: list[str] = []
    lead = next((i for i in reversed(range(len(runs))) if runs[i].has_similarity_term and i != against), 0)
    images = load_images(runs, lead, notes)
    image_cards, image_graphs = [], []
    for image in images:
        advance(note=image.name)
        image_cards.append(_make_image_card(image, lead, runs))
        graphs = similarity.compute_graphs(image, similarity.choose_versions(image, runs, against))
        image_graphs += [graphs] if graphs else []
    groups = group_sets(runs)
    notes += describe_split_sets(groups)
    charts = [chart for chart in curves.build_charts(runs, groups) if not _is_zero_counter(chart)]
    context = {
        "title": ", ".join(run.name for run in runs) if len(runs) <= 3 else f"{len(runs)} runs",
        "version": __version__,
        "cards": [_make_run_card(index, run) for index, run in enumerate(runs)],
        "images": [card for card in image_cards if card["crops"]],
        "score_tables": scores.build_score_tables(runs, groups),
        "has_fine_tune": any(run.is_fine_tune for run in runs),
        "metrics": METRICS,
        "charts": charts,
        "chart_data": dump_script_json(
            {
                "runs": [{"name": run.name, "elapsed": curves.thin_points(run.elapsed_times(), 200)} for run in runs],
                "charts": [chart.to_dict() for chart in charts],
            }
        ),
        "last_values": [
            {"title": chart.title, "runs": [_format_last(chart, value) for value in chart.last_values(len(runs))]}
            for chart in charts
        ],
        "weight_maps": pixel_weights.collect_weight_maps(runs, notes),
        "artifact_max": timeline.ARTIFACT_MAX,
        "timelines": timeline.build_timelines(runs, images, lead, notes),
        "image_seeds": seeds.collect_seeds(runs, notes),
        "peak_levels": seeds.PEAK_LEVELS,
        "image_graphs": image_graphs,
        "search_px": similarity.GEOMETRY.search_px,
        "window_px": similarity.GEOMETRY.window_px,
        "floor_log10": similarity.FLOOR_LOG10,
        "recipes": [
            {"index": i, "name": run.name, "text": run.recipe_text, "environment": run.environment}
            for i, run in enumerate(runs)
        ],
        "differences": _compare_recipes(runs),
        "notes": _collect_notes(runs, notes),
        "gradient": colors.make_css_gradient(),
        "color_tables": colors.make_svg_tables(),
        "css": read_asset("page.css"),
        "start_js": read_asset("start.js"),
        "scripts": [read_asset(name) for name in _SCRIPTS],
    }
    return render_template("page.html.j2", context)


def _make_run_card(index: int, run: RunFolder) -> dict[str, Any]:
    state, status = _describe_status(run)
    return {
        "index": index,
        "name": run.name,
        "state": state,
        "status": status,
        "headline": make_headline(run),
        "others": list_other_scores(run),
        "facts": _list_facts(run),
    }


def _describe_status(run: RunFolder) -> tuple[str, str]:
    if run.finished:
        return "done", "finished"
    if run.steps_planned is None:
        return "open", f"at step {run.step:,}"
    # A folder does not show whether its run was stopped or is still in progress.
    return "open", f"unfinished, at step {run.step:,} of {run.steps_planned:,}"


def _list_facts(run: RunFolder) -> list[tuple[str, str]]:
    recipe = run.recipe
    facts = [("Network", _describe_network(recipe.get("network"))), ("Losses", _describe_losses(recipe))]
    facts.append(("Scale", ", ".join(f"x{scale}" for scale in _list_numbers(recipe.get("scale")))))
    facts.append(("Steps", f"{run.step:,}"))
    if run.seconds is not None:
        facts.append(("Training time", _format_duration(run.seconds)))
    facts.append(("Batch", ", ".join(map(str, _list_numbers(recipe.get("batch"))))))
    facts.append(("Crop", ", ".join(f"{side} px" for side in _list_numbers(recipe.get("crop_px")))))
    if start := recipe.get("start_from"):
        facts.append(("Started from", _describe_origin(Path(str(start)))))
    return [(label, text) for label, text in facts if text]


def _list_numbers(value: Any) -> list[int]:
    """Return a setting as a list; a recipe may have one number, or one for each scale."""
    return [number for number in (value if isinstance(value, list) else [value]) if isinstance(number, int)]


def _describe_network(spec: Any) -> str:
    if not isinstance(spec, dict) or "kind" not in spec:
        return ""
    sizes = [
        f"{key.replace('_', ' ')} {value:g}"
        for key, value in spec.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    return ", ".join([str(spec["kind"]), *_describe_sampling(spec), *sizes[:2]])


def _describe_sampling(spec: dict[str, Any]) -> list[str]:
    """Return steps and space of a network that samples."""
    shift, space, sample = spec.get("shift"), spec.get("space"), spec.get("sample")
    if spec["kind"] == "latent_diffusion" and isinstance(sample, dict) and isinstance(sample.get("steps"), int):
        return [f"{sample['steps']} step{'s' * (sample['steps'] > 1)}", str(spec.get("condition"))]
    if not isinstance(shift, dict) or not isinstance(shift.get("steps"), int):
        return []
    steps = 1 if spec.get("one_step") else shift["steps"]
    return [f"{steps} step{'s' * (steps > 1)}", "latents" if isinstance(space, dict) else "pixels"]


def _describe_losses(recipe: dict[str, Any]) -> str:
    method = recipe.get("method")
    terms = method.get("terms") if isinstance(method, dict) else None
    kind = method.get("kind") if isinstance(method, dict) else None
    losses = [str(kind).replace("_", " ")] if kind in ("denoising", "shift_distillation") else []
    for term in terms.values() if isinstance(terms, dict) else ():
        if isinstance(term, dict) and "kind" in term:
            paced = "self-paced " if term.get("pace") else ""
            losses.append(paced + str(term["kind"]).replace("_", "-"))
    discriminators = method.get("discriminators") if isinstance(method, dict) else None
    for name, discriminator in discriminators.items() if isinstance(discriminators, dict) else ():
        network = discriminator.get("network") if isinstance(discriminator, dict) else None
        losses.append(f"discriminator {name}" + (f" ({network['kind']})" if isinstance(network, dict) else ""))
    return " + ".join(losses)


def _describe_origin(weights: Path) -> str:
    """Return the name of a weights file; of a run's weights, which all have the same names, the path in its folder."""
    is_of_run = weights.parent.name == "weights" and weights.stem in ("best", "last")
    return "/".join(weights.parts[-3:]) if is_of_run else weights.name


def _format_duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def _make_image_card(image: ReportImage, lead: int, runs: list[RunFolder]) -> dict[str, Any]:
    height, width = image.hr.shape[:2]
    overview = shrink(image.hr, OVERVIEW_PX)
    return {
        "name": image.name,
        "hr_size": f"{width} x {height}",
        "overview": encode_webp(overview, quality=84),
        "width": overview.shape[1],
        "height": overview.shape[0],
        "crops": [_make_crop_card(crop, image, lead, runs) for crop in choose_crops(image, lead)],
    }


def _make_crop_card(crop: ReportCrop, image: ReportImage, lead: int, runs: list[RunFolder]) -> dict[str, Any]:
    height, width = image.hr.shape[:2]
    hr = crop.cut(image.hr)
    versions = [("bicubic", image.bicubic)] if image.bicubic else []
    starts = [v for v in image.versions if v.step == 0 and v.run is not None and runs[v.run].is_fine_tune]
    versions += [("start", version) for version in sorted(starts, key=lambda version: version.run != lead)]
    versions += [("lead" if version.run == lead else "run", version) for version in image.last]
    versions.append(("hr", ImageVersion("HR", image.hr)))
    versions += [
        ("earlier", version)
        for version in image.versions
        if version.earlier and not any(version is start for start in starts)
    ]
    return {
        "reason": crop.reason,
        "side": crop.side,
        "left": round(100 * crop.left / width, 3),
        "top": round(100 * crop.top / height, 3),
        "width": round(100 * crop.side / width, 3),
        "height": round(100 * crop.side / height, 3),
        "versions": [_make_version_card(role, version, crop, hr) for role, version in versions],
    }


def _make_version_card(role: str, version: ImageVersion, crop: ReportCrop, hr: np.ndarray) -> dict[str, Any]:
    pixels = crop.cut(version.pixels)
    score = "" if role == "hr" else f"{compute_psnr_y(pixels, hr):.2f} dB"
    return {
        "label": version.label,
        "run": version.run,
        "role": role,
        "psnr": score,
        "image": encode_webp(pixels),
    }


def _is_zero_counter(chart: curves.Chart) -> bool:
    """Return whether the chart is of a counter that stayed zero."""
    return chart.key == "skipped_files" and not any(y for line in chart.lines for y in line.y)


def _format_last(chart: curves.Chart, point: tuple[int, float] | None) -> str:
    if point is None:
        return "-"
    step, value = point
    text = f"{100 * value:.1f} %" if chart.percent else f"{value:.5g} {chart.unit}".strip()
    return f"{text} (step {step:,})"


def _compare_recipes(runs: list[RunFolder]) -> list[tuple[str, list[str]]]:
    """Return the settings in which the recipes differ; "-" if a recipe does not have the setting."""
    flat = [dict(flatten(run.recipe)) for run in runs]
    paths = dict.fromkeys(path for settings in flat for path in settings)
    rows = [(path, [settings.get(path, "-") for settings in flat]) for path in paths if path != "name"]
    return [(path, values) for path, values in rows if len(set(values)) > 1]


def _collect_notes(runs: list[RunFolder], notes: list[str]) -> list[str]:
    run_notes = [f"{run.name}: {note}" if len(runs) > 1 else note for run in runs for note in run.notes]
    return [*run_notes, *dict.fromkeys(notes)]
