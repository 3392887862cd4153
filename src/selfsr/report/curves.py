"""Build the charts of the report: one for each logged quantity, with one line for each run."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from selfsr.evaluation.metrics import METRICS
from selfsr.report.headline import ARROWS
from selfsr.report.set_groups import SetGroup, group_sets
from selfsr.runfolder.read import RunFolder

# About the number of pixel columns of a wide chart. More points would not be visible.
POINTS_PER_LINE = 1200

_GROUPS = {
    "eval": "Scores on the evaluation sets",
    "loss": "Losses by term",
    "denoising": "Denoising loss by thirds of the diffusion steps",
    "optimization": "Optimization",
    "machine": "Speed and memory",
}
_MAY_BE_CONSTANT = (_GROUPS["optimization"], _GROUPS["machine"])

# The title of an evaluation set on the page, by index of the run and name of the set.
_Titles = dict[tuple[int, str], str]
_THIRDS = {"low_noise": "low noise", "middle_noise": "middle noise", "high_noise": "high noise"}


@dataclass(frozen=True)
class ChartLine:
    """The line of one run in a chart.

    Attributes:
        run: index of the run.
        x: steps, in ascending order.
        y: values; None if the logged value is not finite.
        logged: number of logged points; `x` may have fewer.
        low: lower edge of a band around the line, one value for each point; None for no band.
        high: upper edge of the band.
    """

    run: int
    x: list[int]
    y: list[float | None]
    logged: int
    low: list[float] | None = None
    high: list[float] | None = None


@dataclass(frozen=True)
class ChartBaseline:
    """A horizontal line to compare with."""

    label: str
    y: float


@dataclass
class Chart:
    """One quantity over the steps of all runs.

    Attributes:
        key: path of the quantity in the log, joined by "/".
        group: heading of the chart's group.
        title: title of the chart.
        unit: unit of the values, may be empty.
        percent: whether values are shares, shown in percent.
        log_scale: whether the chart has a button for a logarithmic axis.
        noisy: whether smoothing applies.
        markers: whether every point has a marker, as for evaluations.
        signed: whether values are differences, shown with their sign. The axis then includes the lowest value.
    """

    key: str
    group: str
    title: str
    unit: str = ""
    percent: bool = False
    log_scale: bool = False
    noisy: bool = False
    markers: bool = False
    signed: bool = False
    lines: list[ChartLine] = field(default_factory=list)
    baselines: list[ChartBaseline] = field(default_factory=list)

    @property
    def starts_logarithmic(self) -> bool:
        """Whether the axis is logarithmic at first, since a linear one would flatten most of the line."""
        values = sorted(y for line in self.lines for y in line.y if y is not None and y > 0)
        return self.log_scale and len(values) > 1 and values[-1] > 10 * values[len(values) // 2]

    def last_values(self, runs: int) -> list[tuple[int, float] | None]:
        """Return `(step, value)` of the last finite point of each run; None for a run without one."""
        last: list[tuple[int, float] | None] = [None] * runs
        for line in self.lines:
            finite = [(x, y) for x, y in zip(line.x, line.y, strict=True) if y is not None]
            last[line.run] = finite[-1] if finite else None
        return last

    def to_dict(self) -> dict[str, Any]:
        """Return the chart as plain values for the page's script."""
        return {**asdict(self), "starts_logarithmic": self.starts_logarithmic}


def build_charts(runs: list[RunFolder], groups: list[SetGroup] | None = None) -> list[Chart]:
    """Return the charts of all logged quantities: scores by group of equal sets, losses, optimization, speed."""
    by_key: dict[str, Chart] = {}
    groups = group_sets(runs) if groups is None else groups
    titles = {(index, group.name): group.title for group in groups for index in group.runs}
    for index, run in enumerate(runs):
        for key, points in sorted(_read_eval_points(run, index, titles).items()):
            _add_line(by_key, key, index, points)
        for key, points in _read_log_points(run).items():
            _add_line(by_key, key, index, points)
    _add_baselines(by_key, runs, titles)
    _add_network_names(by_key)
    order = list(_GROUPS.values())
    return sorted(by_key.values(), key=lambda chart: order.index(chart.group))


def split_constants(charts: list[Chart]) -> tuple[list[Chart], list[Chart]]:
    """Return the charts to draw, and those in which every run kept one value: they need no axes.

    Scores, losses and lines of a single point are always drawn.
    """
    constants = [chart for chart in charts if chart.group in _MAY_BE_CONSTANT and _is_constant(chart)]
    return [chart for chart in charts if chart not in constants], constants


def _is_constant(chart: Chart) -> bool:
    return all(len(line.y) > 1 and len(set(line.y)) == 1 and line.y[0] is not None for line in chart.lines)


def _add_line(by_key: dict[str, Chart], key: str, run: int, points: list[tuple[int, float]]) -> None:
    chart = by_key.setdefault(key, _make_chart(key))
    shown = thin_points(points, POINTS_PER_LINE)
    values = [_round_digits(y) if math.isfinite(y) else None for _, y in shown]
    chart.lines.append(ChartLine(run, [x for x, _ in shown], values, len(points)))


def _read_eval_points(run: RunFolder, index: int, titles: _Titles) -> dict[str, list[tuple[int, float]]]:
    points: dict[str, list[tuple[int, float]]] = {}
    for line in run.evaluations:
        for name, scores in line["sets"].items():
            for metric in METRICS:
                if metric in ("psnr_rgb", "ssim_rgb"):
                    continue  # similar to the curves of the luma scores
                value = scores.get("mean", {}).get(metric)
                if isinstance(value, int | float):
                    points.setdefault(f"eval/{metric}/{titles[index, name]}", []).append((line["step"], float(value)))
    return points


def _read_log_points(run: RunFolder) -> dict[str, list[tuple[int, float]]]:
    points: dict[str, list[tuple[int, float]]] = {}
    for line in run.log:
        for path, value in _list_numbers(line):
            if path not in ("step", "epoch"):
                points.setdefault(path, []).append((line["step"], value))
    return points


def _list_numbers(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, float]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _list_numbers(value, f"{path}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{path}{key}", float(value)


def _make_chart(key: str) -> Chart:
    """Return the chart of a quantity, without lines; an unknown quantity has its path as the title."""
    head, *rest = key.split("/")
    tail = " ".join(rest)
    if head == "eval":
        metric, name = rest[0], "/".join(rest[1:])
        title, unit = f"{METRICS[metric].title} {ARROWS[METRICS[metric].better]}", METRICS[metric].unit
        return Chart(key, _GROUPS["eval"], f"{title}, {name}", unit, markers=True)
    if head == "loss":
        return Chart(key, _GROUPS["loss"], f"Loss: {rest[-1] if rest else key}", log_scale=True, noisy=True)
    match key:
        case "denoising/decoded_share":
            return Chart(key, _GROUPS["denoising"], "Share of samples with image losses", percent=True, noisy=True)
        case "steps_per_s":
            return Chart(key, _GROUPS["machine"], "Speed", "steps/s", noisy=True)
        case "data_wait_share":
            return Chart(key, _GROUPS["machine"], "Time spent waiting for data", percent=True, noisy=True)
        case "memory_mb":
            return Chart(key, _GROUPS["machine"], "Memory in use", "MB")
        case "pace/mean_weight":
            return Chart(key, _GROUPS["optimization"], "Mean self-paced pixel weight", noisy=True)
    if head == "denoising" and rest[-1] in _THIRDS:
        title = f"Denoising loss, {_THIRDS[rest[-1]]}"
        return Chart(key, _GROUPS["denoising"], title, log_scale=True, noisy=True)
    if head == "lr":
        return Chart(key, _GROUPS["optimization"], "Learning rate", log_scale=True)
    if head == "logits":
        return Chart(key, _GROUPS["optimization"], f"Discriminator {rest[0]}: mean logit, {rest[-1]}", noisy=True)
    if head == "weight":
        return Chart(key, _GROUPS["optimization"], f"Loss weight: {rest[-1]}", log_scale=True)
    if head == "grad_norm":
        return Chart(key, _GROUPS["optimization"], "Gradient norm", log_scale=True, noisy=True)
    return Chart(key, _GROUPS["optimization"], f"{head} {tail}".replace("_", " ").strip().capitalize(), noisy=True)


def _add_baselines(by_key: dict[str, Chart], runs: list[RunFolder], titles: _Titles) -> None:
    for index, run in enumerate(runs):
        for name, scores in run.bicubic.items():
            for metric, value in scores.get("mean", {}).items():
                chart = by_key.get(f"eval/{metric}/{titles.get((index, name), name)}")
                if chart is None or not isinstance(value, int | float):
                    continue
                # Runs of the same scale share a baseline; runs of different scales do not.
                if not any(math.isclose(value, b.y, rel_tol=1e-5) for b in chart.baselines):
                    chart.baselines.append(ChartBaseline("bicubic", _round_digits(value)))


def _add_network_names(by_key: dict[str, Chart]) -> None:
    """Add the network's name to titles if the run trains more than one."""
    for head in ("loss", "lr", "grad_norm"):
        of_head = [chart for key, chart in by_key.items() if key.split("/")[0] == head]
        nets = {chart.key.split("/")[1] for chart in of_head if chart.key.count("/")}
        if len(nets) > 1:
            for chart in of_head:
                chart.title += f" ({chart.key.split('/')[1]})"


def thin_points(points: list[tuple[int, float]], limit: int) -> list[tuple[int, float]]:
    """Return at most `limit` points: both ends, and the smallest and largest value of every interval between."""
    if len(points) <= limit:
        return points
    intervals = (limit - 2) // 2
    inner = points[1:-1]
    kept = [points[0]]
    for index in range(intervals):
        interval = inner[index * len(inner) // intervals : (index + 1) * len(inner) // intervals]
        # A value that is not finite counts as the largest, so that it stays visible.
        values = [math.inf if not math.isfinite(y) else y for _, y in interval]
        extremes = {values.index(min(values)), values.index(max(values))}
        kept += [interval[i] for i in sorted(extremes)]
    return [*kept, points[-1]]


def _round_digits(value: float) -> float:
    """Round to seven significant digits, more than the page shows."""
    return float(f"{value:.7g}")
