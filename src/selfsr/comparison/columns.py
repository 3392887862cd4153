"""Build the columns of a comparison for the terminal, the page and the JSON file, and mark the best values."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfsr import __version__
from selfsr.comparison.cost import PROBE_PX
from selfsr.comparison.run import ComparisonTask, Result
from selfsr.evaluation.benchmark import describe_protocol
from selfsr.evaluation.metrics import METRICS, Better, describe_better


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        title: its heading.
        better: which of two values is better.
        texts: a text for each result; "-" for a missing value.
        best: the indices of the best results: several if their texts are equal, none if fewer than two have values.
    """

    title: str
    better: Better
    texts: list[str]
    best: frozenset[int]


def build_columns(results: Sequence[Result], set_name: str) -> list[Column]:
    """Return the columns of one set: the means of the metrics, then speed, parameters and memory.

    Args:
        results: the results.
        set_name: name of the set.
    """
    means = [result.sets[set_name].mean if set_name in result.sets else {} for result in results]
    found = {metric for mean in means for metric in mean}
    columns = [
        make_column(
            METRICS[metric].title,
            METRICS[metric].better,
            [mean.get(metric, math.nan) for mean in means],
            METRICS[metric].format_score,
        )
        for metric in METRICS
        if metric in found
    ]
    costs = [result.cost for result in results]
    if any(costs):
        columns += [
            make_column(
                "MP/s", "higher", [cost.megapixels_per_s if cost else math.nan for cost in costs], _format_speed
            ),
            make_column("Parameters", "lower", [cost.parameters if cost else math.nan for cost in costs], format_count),
            make_column("Memory MB", "lower", [cost.memory_mb if cost else math.nan for cost in costs], _format_mb),
        ]
    return columns


def make_column(title: str, better: Better, values: Sequence[float], form: Callable[[float], str]) -> Column:
    """Return a column with its best values, which are those whose text equals that of the best number.

    Example:
        >>> make_column("PSNR", "higher", [30.001, 30.0, 29.0, math.nan], "{:.2f}".format).best == {0, 1}
        True
    """
    texts = ["-" if math.isnan(value) else form(value) for value in values]
    known = [value for value in values if not math.isnan(value)]
    if len(known) < 2:
        return Column(title, better, texts, frozenset())
    best = form(max(known) if better == "higher" else min(known))
    return Column(title, better, texts, frozenset(index for index, text in enumerate(texts) if text == best))


def describe_columns(results: Sequence[Result], sets: Sequence[str], task: ComparisonTask) -> str:
    """Return the sentences below the table: which direction is better, and how speed and memory were measured."""
    found = {metric for result in results for one in result.sets.values() for metric in one.mean}
    sentences = [describe_better([metric for metric in METRICS if metric in found])]
    if any(result.cost for result in results):
        images = "all sets" if len(sets) > 1 else "these images"
        sentences.append(
            f"MP/s: megapixels of output per second of upscaling {images} one by one on {task.device} "
            f"({task.precision}), without reading and scoring. Memory MB: weights and largest sum of tensors for an "
            f"input of {PROBE_PX} x {PROBE_PX} px."
        )
    return " ".join(filter(None, sentences))


def make_record(
    results: Sequence[Result], task: ComparisonTask, lr: str | None, failures: Sequence[str] | None
) -> dict[str, Any]:
    """Return the comparison for a JSON file.

    Args:
        results: the results.
        task: the options.
        lr: origin of the inputs; None if made by bicubic.
        failures: the sentences about images that failed; None if the comparison was interrupted.
    """
    standard = any("psnr_y" in one.mean for result in results for one in result.sets.values())
    protocol = describe_protocol(task.scale, None, lr, tuple(task.metrics))
    if not standard:  # without ground truth
        keep = ("scale", "border_px", "lr", *task.metrics)
        protocol = {key: protocol[key] for key in keep if key in protocol}
        protocol["better"] = {name: METRICS[name].better for name in task.metrics}
    names = list(next(iter(results)).sets) if results else []
    record: dict[str, Any] = {
        "selfsr": __version__,
        "protocol": protocol,
        "device": str(task.device),
        "precision": task.precision,
        "memory_input_px": PROBE_PX,
        "results": [_make_entry(result) for result in results],
        "best": {
            name: {
                column.title: [results[index].name for index in sorted(column.best)]
                for column in build_columns(results, name)
            }
            for name in names
        },
    }
    if failures is None:
        record["complete"] = False
    elif failures:
        record["failures"] = list(failures)
    return record


def _make_entry(result: Result) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": result.name, "source": result.source}
    if result.facts is not None:
        entry |= {"architecture": result.facts.architecture, "scale": result.facts.scale}
    if result.cost is not None:
        cost: Mapping[str, float] = {
            "parameters": result.cost.parameters,
            "megapixels_per_s": round(result.cost.megapixels_per_s, 4) if result.cost.seconds else 0.0,
            "seconds": round(result.cost.seconds, 4),
            "megapixels": round(result.cost.megapixels, 6),
            "memory_mb": round(result.cost.memory_mb, 2),
        }
        entry |= cost
    return entry | {"sets": {name: scores.as_json() for name, scores in result.sets.items()}}


def format_count(value: float) -> str:
    """Return a number of parameters, shortened to thousands or millions.

    Example:
        >>> format_count(621_000), format_count(16_697_987), format_count(36)
        ('621K', '16.70M', '36')
    """
    if value < 1000:
        return f"{value:.0f}"
    return f"{value / 1e3:.0f}K" if value < 999_500 else f"{value / 1e6:.2f}M"


def _format_speed(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _format_mb(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"
