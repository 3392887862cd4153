"""Render the report: collect the data of each section for the templates in `page/`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfsr import __version__
from selfsr.evaluation.metrics import METRICS
from selfsr.report import colors, curves, pixel_weights, scores, seeds, similarity, timeline
from selfsr.report.assets import dump_script_json, read_asset, render_template
from selfsr.report.headline import list_other_scores, make_headline
from selfsr.report.image_cards import make_image_cards
from selfsr.report.images import load_images
from selfsr.report.live import LiveState
from selfsr.report.set_groups import describe_split_sets, group_sets
from selfsr.runfolder.read import RunFolder, flatten

_SCRIPTS = ("ticks.js", "charts.js", "tables.js", "images.js", "maps.js", "sections.js")


@dataclass(frozen=True)
class ImageParts:
    """The sections that depend on the sample images, with the notes about them."""

    sections: dict[str, Any]
    notes: list[str]


def collect_image_parts(runs: list[RunFolder], against: int | None, advance: Callable[..., None]) -> ImageParts:
    """Return the sections that depend on the sample images and the recipes only.

    Args:
        runs: the runs to show.
        against: index of the run "without the loss"; None for an automatic choice.
        advance: moves the progress bar; called once for each sample image.
    """
    notes: list[str] = []
    lead = next((i for i in reversed(range(len(runs))) if runs[i].has_similarity_term and i != against), 0)
    images = load_images(runs, lead, notes)
    image_graphs = []
    for image in images:
        advance(note=image.name)
        graphs = similarity.compute_graphs(image, similarity.choose_versions(image, runs, against))
        image_graphs += [graphs] if graphs else []
    sections = {
        "images": make_image_cards(images, lead, runs),
        "weight_maps": pixel_weights.collect_weight_maps(runs, notes),
        "timelines": timeline.build_timelines(runs, images, notes),
        "image_seeds": seeds.collect_seeds(runs, notes),
        "image_graphs": image_graphs,
    }
    return ImageParts(sections, notes)


def render_report(runs: list[RunFolder], parts: ImageParts, live: LiveState | None = None) -> str:
    """Return the page as HTML.

    Args:
        runs: the runs to show.
        parts: the sections of their sample images.
        live: what a followed page says and reads; None for a page that stays as it is.
    """
    groups = group_sets(runs)
    charts = [chart for chart in curves.build_charts(runs, groups) if not _is_zero_counter(chart)]
    charts, constants = curves.split_constants(charts)
    has_fine_tune = any(run.is_fine_tune for run in runs)
    context = {
        **parts.sections,
        "title": ", ".join(run.name for run in runs) if len(runs) <= 3 else f"{len(runs)} runs",
        "version": __version__,
        "live": live,
        "images_title": "Before and after" if has_fine_tune else "Against bicubic",
        "cards": [_make_run_card(index, run) for index, run in enumerate(runs)],
        "score_tables": scores.build_score_tables(runs, groups),
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
        "constants": [
            {"title": chart.title, "runs": [_format_constant(chart, v) for v in chart.last_values(len(runs))]}
            for chart in constants
        ],
        "artifact_max": timeline.ARTIFACT_MAX,
        "peak_levels": seeds.PEAK_LEVELS,
        "search_px": similarity.GEOMETRY.search_px,
        "window_px": similarity.GEOMETRY.window_px,
        "floor_log10": similarity.FLOOR_LOG10,
        "recipes": [
            {"index": i, "name": run.name, "text": run.recipe_text, "environment": run.environment}
            for i, run in enumerate(runs)
        ],
        "differences": _compare_recipes(runs),
        "notes": _collect_notes(runs, [*parts.notes, *describe_split_sets(groups)]),
        "gradient": colors.make_css_gradient(),
        "color_tables": colors.make_svg_tables(),
        "css": read_asset("page.css") + read_asset("viewer.css"),
        "start_js": read_asset("start.js"),
        "live_js": "" if live is None else read_asset("live.js"),
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


def _is_zero_counter(chart: curves.Chart) -> bool:
    """Return whether the chart is of a counter that stayed zero."""
    return chart.key == "skipped_files" and not any(y for line in chart.lines for y in line.y)


def _format_last(chart: curves.Chart, point: tuple[int, float] | None) -> str:
    if point is None:
        return "-"
    return f"{_format_constant(chart, point)} (step {point[0]:,})"


def _format_constant(chart: curves.Chart, point: tuple[int, float] | None) -> str:
    if point is None:
        return "-"
    return f"{100 * point[1]:.1f} %" if chart.percent else f"{point[1]:.5g} {chart.unit}".strip()


def _compare_recipes(runs: list[RunFolder]) -> list[tuple[str, list[str]]]:
    """Return the settings in which the recipes differ; "-" if a recipe does not have the setting."""
    flat = [dict(flatten(run.recipe)) for run in runs]
    paths = dict.fromkeys(path for settings in flat for path in settings)
    rows = [(path, [settings.get(path, "-") for settings in flat]) for path in paths if path != "name"]
    return [(path, values) for path, values in rows if len(set(values)) > 1]


def _collect_notes(runs: list[RunFolder], notes: list[str]) -> list[str]:
    run_notes = [f"{run.name}: {note}" if len(runs) > 1 else note for run in runs for note in run.notes]
    return [*run_notes, *dict.fromkeys(notes)]
