"""The plot of cost: milliseconds against pixels, mask density, batch and search size, as one SVG file."""

import math
from dataclasses import dataclass
from html import escape

_COLORS = {"eager": "#3b6fb6", "cpu": "#1f8a5b", "triton": "#b8621b", "unfold": "#8a8f98"}
_WIDTH, _HEIGHT = 420, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 78, 34, 44


@dataclass(frozen=True)
class Panel:
    """One axis of cost.

    Attributes:
        title: what grows along x.
        unit: of x, in words.
        lines: for each implementation the points (x, milliseconds), by x.
    """

    title: str
    unit: str
    lines: dict[str, list[tuple[float, float]]]


def draw(panels: list[Panel], caption: str) -> str:
    """Return an SVG document with the panels in two columns; both axes are logarithmic."""
    rows = math.ceil(len(panels) / 2)
    width, height = 2 * _WIDTH, rows * _HEIGHT + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#24292f">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for i, panel in enumerate(panels):
        parts.append(f'<g transform="translate({i % 2 * _WIDTH} {i // 2 * _HEIGHT})">')
        parts += _panel(panel)
        parts.append("</g>")
    parts.append(f'<text x="12" y="{height - 12}" fill="#57606a">{escape(caption)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel) -> list[str]:
    points = [point for line in panel.lines.values() for point in line]
    if not points:
        return [f'<text x="{_LEFT}" y="22">{escape(panel.title)}: nothing was measured</text>']
    low_x, high_x = min(x for x, _ in points), max(x for x, _ in points)
    low_y = 10 ** math.floor(math.log10(min(y for _, y in points)))
    high_y = 10 ** math.ceil(math.log10(max(y for _, y in points) * 1.01))

    def at(x: float, y: float) -> tuple[float, float]:
        share_x = math.log(x / low_x) / math.log(high_x / low_x) if high_x > low_x else 0.5
        share_y = math.log(y / low_y) / math.log(high_y / low_y)
        return _LEFT + share_x * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - share_y * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f'<text x="{_LEFT}" y="20" font-weight="600">{escape(panel.title)}</text>']
    for power in range(round(math.log10(low_y)), round(math.log10(high_y)) + 1):
        _, y = at(low_x, 10.0**power)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#d8dee4"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    parts.append(f'<text x="{_LEFT - 6}" y="{_TOP - 12}" text-anchor="end" fill="#57606a">ms</text>')
    for x in _thinned(sorted({x for x, _ in points}), lambda x: at(x, low_y)[0]):
        place, bottom = at(x, low_y)
        parts.append(f'<text x="{place:.1f}" y="{bottom + 17:.1f}" text-anchor="middle">{x:g}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle" fill="#57606a">{escape(panel.unit)}</text>'
    )
    names = _spread({name: at(*line[-1])[1] for name, line in panel.lines.items() if line})
    for name, line in panel.lines.items():
        if not line:
            continue
        color = _COLORS.get(name, "#24292f")
        places = [at(x, y) for x, y in line]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path d="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in places]
        label_x = places[-1][0] + 8
        parts.append(f'<text x="{label_x:.1f}" y="{names[name] + 4:.1f}" fill="{color}">{escape(name)}</text>')
    return parts


def _thinned(values: list[float], place) -> list[float]:
    """Leave out labels that would touch the one before."""
    kept: list[float] = []
    for value in values:
        if not kept or place(value) - place(kept[-1]) > 34:
            kept.append(value)
    return kept


def _spread(places: dict[str, float]) -> dict[str, float]:
    """Move labels apart that would lie on each other."""
    moved: dict[str, float] = {}
    last = -math.inf
    for name, place in sorted(places.items(), key=lambda item: item[1]):
        last = moved[name] = max(place, last + 14)
    return moved
