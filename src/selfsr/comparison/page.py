"""Render the page of a comparison: one HTML file with all images in it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from selfsr import __version__
from selfsr.comparison.candidates import BICUBIC
from selfsr.comparison.columns import build_columns, describe_columns
from selfsr.comparison.outputs import HR, LR, KeptOutputs
from selfsr.comparison.places import PLACE_PX, choose_region, find_places
from selfsr.comparison.run import ComparisonTask, Result
from selfsr.evaluation.metrics import METRICS
from selfsr.report import colors
from selfsr.report.assets import dump_script_json, read_asset, render_template
from selfsr.report.encoding import encode_webp

_PAGE_FOLDER = Path(__file__).parent / "page"
# The largest side of an image on the page; of larger ones, a part is shown.
LONGEST_PX = 768
# No further image is added above this size of the page.
PAGE_BYTES = 48 * 2**20
_PLACES = 4


@dataclass
class _Shown:
    """An image of the page: its part `[H, W, 3]` by version, HR, and the entry for the script."""

    outputs: dict[str, np.ndarray]
    hr: np.ndarray | None
    entry: dict[str, Any]


@dataclass
class _Budget:
    """The images that fit on the page, and sentences about what is left out."""

    shown: list[_Shown] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bytes_used: int = 0


def render_page(
    results: Sequence[Result], sets: Sequence[str], task: ComparisonTask, kept: KeptOutputs, lr: str | None
) -> str:
    """Return the page as HTML.

    Args:
        results: the results, in the order of the page.
        sets: names of the sets.
        task: the options.
        kept: the images.
        lr: origin of the inputs; None if made by bicubic.
    """
    budget = _collect_images(results, task, kept)
    models = [result.name for result in results if result.name != BICUBIC]
    with_bicubic = len(models) < len(results)
    outputs = [{name: one.outputs[name] for name in models if name in one.outputs} for one in budget.shown]
    places = find_places(outputs, [one.hr for one in budget.shown], _PLACES)
    has_hr = any(one.hr is not None for one in budget.shown)
    has_lr = any(LR in one.entry["images"] for one in budget.shown)
    # The models are first, and have the first keys.
    versions = [*models, *([BICUBIC] if with_bicubic else []), *([LR] if has_lr else []), *([HR] if has_hr else [])]
    data = {
        "scale": task.scale,
        "versions": versions,
        "models": models,
        "images": [one.entry for one in budget.shown],
        "places": [
            {
                "image": place.image,
                "left": place.left,
                "top": place.top,
                "side": place.side,
                "worst": place.worst,
                "psnr": {name: _format_psnr(value) for name, value in place.psnr.items()},
            }
            for place in places
        ],
    }
    context = {
        "title": " / ".join(models),
        "version": __version__,
        "scale": task.scale,
        "models": models,
        "images": len(budget.shown),
        "has_hr": has_hr,
        "lr": _describe_lr(sets, lr, has_hr, has_lr, task.scale),
        "place_px": PLACE_PX,
        "tables": [_make_table(results, name) for name in sets],
        "caption": describe_columns(results, sets, task),
        "notes": budget.notes,
        "data": dump_script_json(data),
        "gradient": colors.make_css_gradient(),
        "css": read_asset("page.css") + (_PAGE_FOLDER / "compare.css").read_text(encoding="utf-8"),
        "start_js": read_asset("start.js"),
        "scripts": [
            *((_PAGE_FOLDER / name).read_text(encoding="utf-8") for name in ("viewer.js", "blind.js", "places.js")),
            read_asset("sections.js"),
        ],
    }
    return render_template("compare.html.j2", context, _PAGE_FOLDER)


def _collect_images(results: Sequence[Result], task: ComparisonTask, kept: KeptOutputs) -> _Budget:
    budget = _Budget()
    parts: list[str] = []
    several = len({name for name, _ in kept.shown}) > 1
    for index, key in enumerate(kept.shown):
        if budget.bytes_used > PAGE_BYTES:
            budget.notes.append(
                f"{len(kept.shown) - index} further images are left out, since the page has reached "
                f"{PAGE_BYTES / 2**20:.0f} MB."
            )
            break
        shown = _cut_image(results, task, kept, key, several, parts)
        if shown is None:
            budget.notes.append(f"{key[1]} is left out, since no output of it could be made.")
            continue
        budget.bytes_used += sum(map(len, shown.entry["images"].values()))
        budget.shown.append(shown)
    if kept.total > len(kept.shown):
        budget.notes.append(
            f"The page has {len(kept.shown)} of {kept.total} images, evenly spaced; --max-images shows more. "
            "The scores are of all."
        )
    if parts:
        budget.notes.append(
            f"Of images with a side of more than {LONGEST_PX} px, the page has the part where outputs differ most: "
            f"{'; '.join(parts)}."
        )
    return budget


def _cut_image(
    results: Sequence[Result],
    task: ComparisonTask,
    kept: KeptOutputs,
    key: tuple[str, str],
    several: bool,
    parts: list[str],
) -> _Shown | None:
    loaded = {result.name: kept.load(key, result.name) for result in results}
    found = {name: pixels for name, pixels in loaded.items() if pixels is not None}
    if not found:
        return None
    top, left, height, width = choose_region(list(found.values()), LONGEST_PX, task.scale)
    full = next(iter(found.values())).shape
    if (height, width) != full[:2]:
        parts.append(f"{key[1]} {width} x {height} of {full[1]} x {full[0]}")
    region = (slice(top, top + height), slice(left, left + width))
    small = tuple(slice(part.start // task.scale, part.stop // task.scale) for part in region)
    outputs = {name: pixels[region] for name, pixels in found.items()}
    hr, lr = kept.load(key, HR), kept.load(key, LR)
    images = {name: encode_webp(pixels) for name, pixels in outputs.items()}
    if lr is not None:
        images[LR] = encode_webp(lr[small])
    if hr is not None:
        hr = hr[region]
        images[HR] = encode_webp(hr)
    entry = {
        "name": "/".join(key) if several else key[1],
        "width": width,
        "height": height,
        "images": images,
        "scores": {result.name: _list_scores(result, key) for result in results if result.name in found},
    }
    return _Shown(outputs, hr, entry)


def _list_scores(result: Result, key: tuple[str, str]) -> str:
    """Return the scores of one image in one line, without the RGB scores."""
    scores = result.sets[key[0]].images.get(key[1], {})
    shown = ((METRICS[name], value) for name, value in scores.items() if name not in ("psnr_rgb", "ssim_rgb"))
    return ", ".join(f"{metric.title} {metric.format_score(value)}" for metric, value in shown)


def _make_table(results: Sequence[Result], set_name: str) -> dict[str, Any]:
    columns = build_columns(results, set_name)
    rows = [
        {
            "name": result.name,
            "cells": [{"text": column.texts[index], "best": index in column.best} for column in columns],
        }
        for index, result in enumerate(results)
    ]
    count = max(len(result.sets[set_name].images) for result in results if set_name in result.sets)
    heads = [{"title": column.title, "better": column.better} for column in columns]
    return {"name": set_name, "images": count, "heads": heads, "rows": rows}


def _describe_lr(sets: Sequence[str], lr: str | None, has_hr: bool, has_lr: bool, scale: int) -> str:
    where = ", ".join(sets)
    if not has_lr:
        return f"Finished images of {where}."
    origin = f"LR: {lr}" if lr is not None else f"LR: bicubic 1/{scale}" if has_hr else "LR as given"
    return f"{where}. {origin}."


def _format_psnr(value: float) -> str:
    return "equal to HR" if math.isinf(value) else f"{value:.2f} dB"
