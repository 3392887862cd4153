"""Draw a trade-off as a plane: the study's metric to the right, the other one upwards, a path for each arm."""

import math
from dataclasses import dataclass

from selfsr.study.trade_off import EvaluationPoint, TradeOff
from selfsr.study.wording import ScoreFormat

WIDTH, HEIGHT = 560, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 16, 14, 50
_TICKS = 6
_MARGIN = 0.06  # of the range, around the paths


@dataclass(frozen=True)
class Axis:
    """The positions of values along one side of the plane.

    Attributes:
        low, high: the values at its ends.
        start, end: the positions of these, in units of the drawing.
    """

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """Return the position of a value, rounded to a hundredth."""
        fraction = (value - self.low) / (self.high - self.low)
        return round(self.start + fraction * (self.end - self.start), 2)

    def list_ticks(self) -> list[tuple[float, str]]:
        """Return the positions of round values, with their texts."""
        step = _round_up((self.high - self.low) / _TICKS)
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(self.place(index * step), f"{index * step:.{decimals}f}") for index in range(first, last + 1)]


@dataclass(frozen=True)
class ChartPath:
    """The path of one arm in the plane.

    Attributes:
        arm: name of the arm.
        index: index of the arm, which selects color and shape.
        line: the points of the line, as SVG has them.
        points: position and description of each evaluation.
        final: position of the last evaluation, which has the arm's shape.
    """

    arm: str
    index: int
    line: str
    points: list[tuple[float, float, str]]
    final: tuple[float, float]


@dataclass(frozen=True)
class TradeOffChart:
    """What the template draws.

    Attributes:
        title: both metrics.
        x_label: label of the horizontal axis.
        y_label: label of the vertical axis.
        x: the horizontal axis.
        y: the vertical axis.
        paths: the paths of the arms.
        score_x: position of the score at which the arms are compared; None if there is none in the plane.
        width, height: the size of the drawing.
    """

    title: str
    x_label: str
    y_label: str
    x: Axis
    y: Axis
    paths: list[ChartPath]
    score_x: float | None
    width: int = WIDTH
    height: int = HEIGHT


def draw_trade_off(trade: TradeOff, score: str, arms: list[str], equal_score: float | None) -> TradeOffChart:
    """Return the drawing of a trade-off.

    Args:
        trade: the trade-off.
        score: key of the study's metric.
        arms: all arms of the study, whose order selects colors.
        equal_score: score at which the arms are compared, a line in the plane.
    """
    own, other = ScoreFormat(score), ScoreFormat(trade.metric)
    points = [point for path in trade.paths.values() for point in path]
    x = _fit([point.score for point in points], _LEFT, WIDTH - _RIGHT)
    y = _fit([point.value for point in points], HEIGHT - _BOTTOM, _TOP)
    in_plane = equal_score is not None and x.low <= equal_score <= x.high
    return TradeOffChart(
        f"{other.name} against {own.name}",
        own.ranked_heading,
        other.ranked_heading,
        x,
        y,
        [_draw_path(arm, arms.index(arm), path, x, y, own, other) for arm, path in trade.paths.items()],
        x.place(equal_score) if equal_score is not None and in_plane else None,
    )


def _draw_path(
    arm: str, index: int, path: list[EvaluationPoint], x: Axis, y: Axis, own: ScoreFormat, other: ScoreFormat
) -> ChartPath:
    places = [(x.place(point.score), y.place(point.value)) for point in path]
    texts = [
        f"{arm}, step {point.step:,}: {own.name} {own.format_score(point.score)} {own.unit}".rstrip()
        + f", {other.name} {other.format_score(point.value)} {other.unit}".rstrip()
        for point in path
    ]
    points = [(*place, text) for place, text in zip(places, texts, strict=True)]
    return ChartPath(arm, index, " ".join(f"{a:g},{b:g}" for a, b in places), points, places[-1])


def _fit(values: list[float], start: float, end: float) -> Axis:
    """Return the axis from the smallest to the largest value, with a margin."""
    low, high = min(values), max(values)
    margin = _MARGIN * (high - low) or abs(low) * 0.01 or 1.0
    return Axis(low - margin, high + margin, start, end)


def _round_up(step: float) -> float:
    """Return the smallest of 1, 2 and 5 times a power of ten that is not below `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))
