"""What the curves of the report show: one chart per quantity, one line per run."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from selfsr.evaluation.metrics import METRICS
from selfsr.runfolder.read import Run

# More points than a wide screen has columns are not seen; the extremes of every stretch are kept.
POINTS_PER_LINE = 1200

_GROUPS = {
    "eval": "Scores on the evaluation sets",
    "loss": "Losses by term",
    "health": "Optimization",
    "machine": "Speed",
}


@dataclass(frozen=True)
class Line:
    """One run's line in a chart.

    Attributes:
        run: index of the run.
        x: steps, rising.
        y: values; None where the logged value is not finite.
        logged: how many points were logged, of which `x` may show fewer.
        low, high: edges of a band around the line, as many values as `y`; None draws no band.
    """

    run: int
    x: list[int]
    y: list[float | None]
    logged: int
    low: list[float] | None = None
    high: list[float] | None = None


@dataclass(frozen=True)
class Baseline:
    """A level to compare with, drawn across the chart."""

    label: str
    y: float


@dataclass
class Chart:
    """One quantity over the steps of all runs.

    Attributes:
        key: where the quantity stands in the log, parts joined by "/".
        group: heading under which the chart stands.
        title: what it shows.
        unit: unit of the values, may be empty.
        percent: whether values are shares, to be shown in per cent.
        log_scale: whether a logarithmic axis is offered.
        noisy: whether smoothing applies.
        markers: whether every point gets a mark (few points, each of them a measurement).
        signed: whether values are differences: told with their sign, and shown to the lowest.
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
    lines: list[Line] = field(default_factory=list)
    baselines: list[Baseline] = field(default_factory=list)

    @property
    def starts_logarithmic(self) -> bool:
        """Whether the values span so much that a linear axis would hide most of the line."""
        values = sorted(y for line in self.lines for y in line.y if y is not None and y > 0)
        return self.log_scale and len(values) > 1 and values[-1] > 10 * values[len(values) // 2]

    def last_values(self, runs: int) -> list[tuple[int, float] | None]:
        """Return (step, value) of the last finite point of each run."""
        found: list[tuple[int, float] | None] = [None] * runs
        for line in self.lines:
            finite = [(x, y) for x, y in zip(line.x, line.y, strict=True) if y is not None]
            found[line.run] = finite[-1] if finite else None
        return found

    def payload(self) -> dict[str, Any]:
        """Return what the page's script needs to draw the chart."""
        return {**asdict(self), "starts_logarithmic": self.starts_logarithmic}


def charts(runs: list[Run]) -> list[Chart]:
    """Return the charts of all runs, those that judge first, and none without a point."""
    found: dict[str, Chart] = {}
    for index, run in enumerate(runs):
        for key, points in sorted(_eval_points(run).items()):
            _add(found, key, index, points)
        for key, points in _log_points(run).items():
            _add(found, key, index, points)
    _add_baselines(found, runs)
    _tell_nets_apart(found)
    order = list(_GROUPS.values())
    return sorted(found.values(), key=lambda chart: order.index(chart.group))


def _add(found: dict[str, Chart], key: str, run: int, points: list[tuple[int, float]]) -> None:
    chart = found.setdefault(key, _blank(key))
    shown = thin(points, POINTS_PER_LINE)
    values = [_compact(y) if math.isfinite(y) else None for _, y in shown]
    chart.lines.append(Line(run, [x for x, _ in shown], values, len(points)))


def _eval_points(run: Run) -> dict[str, list[tuple[int, float]]]:
    points: dict[str, list[tuple[int, float]]] = {}
    for line in run.evaluations:
        for name, scores in line["sets"].items():
            for metric in METRICS:
                if metric in ("psnr_rgb", "ssim_rgb"):
                    continue  # their curves say what those of luma say
                value = scores.get("mean", {}).get(metric)
                if isinstance(value, int | float):
                    points.setdefault(f"eval/{metric}/{name}", []).append((line["step"], float(value)))
    return points


def _log_points(run: Run) -> dict[str, list[tuple[int, float]]]:
    points: dict[str, list[tuple[int, float]]] = {}
    for line in run.log:
        for path, value in _numbers(line):
            if path not in ("step", "epoch"):
                points.setdefault(path, []).append((line["step"], value))
    return points


def _numbers(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, float]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{path}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{path}{key}", float(value)


def _blank(key: str) -> Chart:
    """Return the empty chart of a quantity; one that this module does not know is drawn under its own path."""
    head, *rest = key.split("/")
    tail = " ".join(rest)
    if head == "eval":
        metric, name = rest[0], "/".join(rest[1:])
        facts = METRICS[metric]
        return Chart(key, _GROUPS["eval"], f"{facts.title}, {name}", facts.unit, markers=True)
    if head == "loss":
        return Chart(key, _GROUPS["loss"], f"Loss: {rest[-1] if rest else key}", log_scale=True, noisy=True)
    match key:
        case "steps_per_s":
            return Chart(key, _GROUPS["machine"], "Speed", "steps/s", noisy=True)
        case "data_wait_share":
            return Chart(key, _GROUPS["machine"], "Share of time waiting for data", percent=True, noisy=True)
        case "memory_mb":
            return Chart(key, _GROUPS["machine"], "Memory in use", "MB")
        case "pace/mean_weight":
            return Chart(key, _GROUPS["health"], "Mean self-paced weight", noisy=True)
    if head == "lr":
        return Chart(key, _GROUPS["health"], "Learning rate", log_scale=True)
    if head == "logits":
        return Chart(key, _GROUPS["health"], f"Discriminator {rest[0]}: mean logit, {rest[-1]}", noisy=True)
    if head == "weight":
        return Chart(key, _GROUPS["health"], f"Weight of {rest[-1]}", log_scale=True)
    if head == "grad_norm":
        return Chart(key, _GROUPS["health"], "Gradient norm", log_scale=True, noisy=True)
    return Chart(key, _GROUPS["health"], f"{head} {tail}".replace("_", " ").strip().capitalize(), noisy=True)


def _add_baselines(found: dict[str, Chart], runs: list[Run]) -> None:
    for run in runs:
        for name, scores in run.bicubic.items():
            for metric, value in scores.get("mean", {}).items():
                chart = found.get(f"eval/{metric}/{name}")
                if chart is None or not isinstance(value, int | float):
                    continue
                # Runs of one scale share the baseline; runs of two scales have two.
                if not any(math.isclose(value, b.y, rel_tol=1e-5) for b in chart.baselines):
                    chart.baselines.append(Baseline("bicubic", _compact(value)))


def _tell_nets_apart(found: dict[str, Chart]) -> None:
    """Name the network in the titles where more than one is trained."""
    for head in ("loss", "lr", "grad_norm"):
        of_head = [chart for key, chart in found.items() if key.split("/")[0] == head]
        nets = {chart.key.split("/")[1] for chart in of_head if chart.key.count("/")}
        if len(nets) > 1:
            for chart in of_head:
                chart.title += f" ({chart.key.split('/')[1]})"


def thin(points: list[tuple[int, float]], limit: int) -> list[tuple[int, float]]:
    """Return at most `limit` points: the ends, and the smallest and largest value of every stretch between."""
    if len(points) <= limit:
        return points
    stretches = (limit - 2) // 2
    inner = points[1:-1]
    kept = [points[0]]
    for index in range(stretches):
        stretch = inner[index * len(inner) // stretches : (index + 1) * len(inner) // stretches]
        # A value that is not finite is an event, and is kept in place of the largest.
        key = [math.inf if not math.isfinite(y) else y for _, y in stretch]
        chosen = {key.index(min(key)), key.index(max(key))}
        kept += [stretch[i] for i in sorted(chosen)]
    return [*kept, points[-1]]


def _compact(value: float) -> float:
    """Round to seven significant digits, which no screen shows the loss of."""
    return float(f"{value:.7g}")
