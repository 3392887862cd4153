"""The SVG plot of a sweep: milliseconds against pixels, mask density, batch and search size."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

_COLORS = {"eager": "#3b6fb6", "cpu": "#1f8a5b", "triton": "#b8621b", "unfold": "#8a8f98"}
_WIDTH, _HEIGHT = 420, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 78, 34, 44


@dataclass(frozen=True)
class CostPanel:
    """The plot of one axis of the sweep.

    Attributes:
        title: title of the panel.
        unit: label of the x axis.
        lines: points (x, milliseconds) of each implementation, sorted by x.
    """

    title: str
    unit: str
    lines: dict[str, list[tuple[float, float]]]


def draw_plot(panels: list[CostPanel], caption: str) -> str:
    """Return an SVG document with the panels in two columns; both axes are logarithmic."""
    rows = math.ceil(len(panels) / 2)
    width, height = 2 * _WIDTH, rows * _HEIGHT + 34
    elements = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#24292f">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for i, panel in enumerate(panels):
        elements.append(f'<g transform="translate({i % 2 * _WIDTH} {i // 2 * _HEIGHT})">')
        elements += _draw_panel(panel)
        elements.append("</g>")
    elements.append(f'<text x="12" y="{height - 12}" fill="#57606a">{escape(caption)}</text>')
    return "\n".join([*elements, "</svg>", ""])


def _draw_panel(panel: CostPanel) -> list[str]:
    points = [point for line in panel.lines.values() for point in line]
    if not points:
        return [f'<text x="{_LEFT}" y="22">{escape(panel.title)}: nothing was measured</text>']
    low_x, high_x = min(x for x, _ in points), max(x for x, _ in points)
    low_y = 10 ** math.floor(math.log10(min(y for _, y in points)))
    high_y = 10 ** math.ceil(math.log10(max(y for _, y in points) * 1.01))

    def to_pixels(x: float, y: float) -> tuple[float, float]:
        share_x = math.log(x / low_x) / math.log(high_x / low_x) if high_x > low_x else 0.5
        share_y = math.log(y / low_y) / math.log(high_y / low_y)
        return _LEFT + share_x * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - share_y * (_HEIGHT - _TOP - _BOTTOM)

    elements = [f'<text x="{_LEFT}" y="20" font-weight="600">{escape(panel.title)}</text>']
    for power in range(round(math.log10(low_y)), round(math.log10(high_y)) + 1):
        _, y = to_pixels(low_x, 10.0**power)
        elements.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#d8dee4"/>')
        elements.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    elements.append(f'<text x="{_LEFT - 6}" y="{_TOP - 12}" text-anchor="end" fill="#57606a">ms</text>')
    for x in _thin_labels(sorted({x for x, _ in points}), lambda x: to_pixels(x, low_y)[0]):
        label_x, bottom = to_pixels(x, low_y)
        elements.append(f'<text x="{label_x:.1f}" y="{bottom + 17:.1f}" text-anchor="middle">{x:g}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    elements.append(
        f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle" fill="#57606a">{escape(panel.unit)}</text>'
    )
    label_ys = _spread_labels({name: to_pixels(*line[-1])[1] for name, line in panel.lines.items() if line})
    for name, line in panel.lines.items():
        if not line:
            continue
        color = _COLORS.get(name, "#24292f")
        pixels = [to_pixels(x, y) for x, y in line]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in pixels)
        elements.append(f'<path d="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        elements += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in pixels]
        label_x = pixels[-1][0] + 8
        elements.append(f'<text x="{label_x:.1f}" y="{label_ys[name] + 4:.1f}" fill="{color}">{escape(name)}</text>')
    return elements


def _thin_labels(values: list[float], to_x: Callable[[float], float]) -> list[float]:
    """Drop labels that would overlap the previous one."""
    kept: list[float] = []
    for value in values:
        if not kept or to_x(value) - to_x(kept[-1]) > 34:
            kept.append(value)
    return kept


def _spread_labels(label_ys: dict[str, float]) -> dict[str, float]:
    """Move labels down that would overlap."""
    spread: dict[str, float] = {}
    last = -math.inf
    for name, y in sorted(label_ys.items(), key=lambda item: item[1]):
        last = spread[name] = max(y, last + 14)
    return spread
