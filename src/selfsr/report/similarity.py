"""Self-similarity graphs of chosen pixels: what the ground truth looks like to itself, and what the outputs do.

Pixels and region are chosen on the ground truth alone, so that no output is favored.
"""

import base64
import io
import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from selfsr.masks import edge_mask
from selfsr.report.pictures import Picture, Version, box_sums, data_uri, luma
from selfsr.runfolder.read import Run
from selfsr.selfsim import self_similarity_graph

SEARCH_PX, WINDOW_PX, SIGMA = 25, 9, 0.004
REGION_PX = 160
POINTS_SHOWN = 6
PIXELS_COUNTED = 1500
# Entries below are drawn as this; a row of the graph sums to 1.
FLOOR_LOG10 = -6
# The clamp of the loss's logarithms.
_TINY = 1e-10


@dataclass(frozen=True)
class Panel:
    """One version's graph at one pixel.

    Attributes:
        label: which version.
        patch: the search area as a data URI.
        graph: the graph as a gray picture, a data URI; log10 from `FLOOR_LOG10` to 0.
        l1, kl: distances to the ground truth's graph, None for the ground truth.
        run: index of the run that made it, None for the ground truth.
    """

    label: str
    patch: str
    graph: str
    l1: float | None
    kl: float | None
    run: int | None


@dataclass(frozen=True)
class Point:
    """A chosen pixel: its place in the region, in shares of its size, and a panel per version."""

    left: float
    top: float
    row: int
    column: int
    panels: list[Panel]


@dataclass(frozen=True)
class Distance:
    """Mean distances of a version's graphs to the ground truth's, over the counted pixels."""

    label: str
    run: int | None
    l1: float
    kl: float


@dataclass(frozen=True)
class Study:
    """The graphs of one sample picture.

    Attributes:
        picture: name of the sample.
        region: the studied part of the ground truth as a data URI.
        side: of the square region, in px.
        points: the chosen pixels.
        distances: means over `counted` of the region's `edges` edge pixels, by version.
    """

    picture: str
    region: str
    side: int
    points: list[Point]
    distances: list[Distance]
    counted: int
    edges: int


def compared(picture: Picture, runs: list[Run], against: int | None) -> list[tuple[str, Version]]:
    """Return the versions to set beside the ground truth, with what to call them.

    Runs trained with the loss come first, then `against`, then the other runs. A run that stands alone is set
    beside its own first sample.
    """
    with_loss = [version for version in picture.last if _trained_with(version, runs)]
    without = [version for version in picture.last if version not in with_loss]
    without.sort(key=lambda version: version.run != against)
    named = [(f"{runs[v.run or 0].name}, with the loss", v) for v in with_loss]
    named += [(f"{runs[v.run or 0].name}, without the loss", v) for v in without]
    if len(named) == 1:
        earlier = [version for version in picture.versions if version.earlier]
        named += [(v.label, v) for v in earlier[:1]]
    return named


def _trained_with(version: Version, runs: list[Run]) -> bool:
    return version.run is not None and runs[version.run].has_similarity_term


def study(picture: Picture, versions: list[tuple[str, Version]]) -> Study | None:
    """Return the graphs of a picture, None where it is too small or has no edges."""
    if min(picture.hr.shape[:2]) <= SEARCH_PX // 2 or not versions:
        return None
    edges = edge_mask(_tensor([picture.hr]))[0, 0].numpy()
    top, left, side = _region(edges)
    edges = edges[top : top + side, left : left + side]
    if not edges.any():
        return None
    shown = picture.hr[top : top + side, left : left + side]
    points = _choose_points(np.where(edges, _edge_strength(shown), 0.0))
    places = np.argwhere(edges)
    places = places[:: math.ceil(len(places) / PIXELS_COUNTED)]

    wanted = np.zeros(picture.hr.shape[:2], dtype=bool)
    for y, x in (*places, *points):
        wanted[y + top, x + left] = True
    compared_to = [*versions, *([("bicubic", picture.bicubic)] if picture.bicubic else [])]
    truth, *graphs = _graphs([picture.hr, *(version.pixels for _, version in compared_to)], wanted)
    rows = _row_numbers(wanted)
    counted = [rows[y + top, x + left] for y, x in places]
    distances = [
        Distance(label, version.run, *_means(truth[counted], graph[counted]))
        for (label, version), graph in zip(compared_to, graphs, strict=True)
    ]

    found = []
    for y, x in points:
        row, column = int(y + top), int(x + left)
        index = rows[row, column]
        panels = [_panel("HR", picture.hr, row, column, truth[index], None, None)]
        panels += [
            _panel(label, version.pixels, row, column, graph[index], truth[index], version.run)
            for (label, version), graph in zip(versions, graphs, strict=False)
        ]
        found.append(Point((x + 0.5) / side, (y + 0.5) / side, row, column, panels))
    return Study(picture.name, data_uri(shown), side, found, distances, len(places), int(edges.sum()))


def _tensor(pictures: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures).astype(np.float32) / 255).permute(0, 3, 1, 2)


def _region(edges: np.ndarray) -> tuple[int, int, int]:
    """Return top, left and side of the square with the most edge pixels."""
    side = min(REGION_PX, *edges.shape)
    sums = box_sums(edges, side)
    top, left = np.unravel_index(int(np.argmax(sums)), sums.shape)
    return int(top), int(left), side


def _edge_strength(pixels: np.ndarray) -> np.ndarray:
    rows, columns = np.gradient(luma(pixels))
    return np.hypot(rows, columns)


def _choose_points(strength: np.ndarray) -> np.ndarray:
    """Return `[P, 2]` (row, column) of the strongest edges, far from one another and from the rim."""
    strength = strength.copy()
    side = min(strength.shape)
    rim, apart = side // 16, side // 4
    inner = np.zeros_like(strength)
    inner[rim : strength.shape[0] - rim, rim : strength.shape[1] - rim] = 1
    if (strength * inner).any():
        strength *= inner
    rows, columns = np.indices(strength.shape)
    points = []
    while len(points) < POINTS_SHOWN and strength.any():
        y, x = np.unravel_index(int(np.argmax(strength)), strength.shape)
        points.append((int(y), int(x)))
        strength[np.hypot(rows - y, columns - x) < apart] = 0
    return np.array(sorted(points))


def _row_numbers(wanted: np.ndarray) -> np.ndarray:
    """Return where in the graph the row of each wanted pixel stands."""
    return wanted.cumsum().reshape(wanted.shape) - 1


def _graphs(versions: list[np.ndarray], wanted: np.ndarray) -> list[np.ndarray]:
    """Return the graphs `[M, S*S]` of the wanted pixels in each version, float64."""
    reach = SEARCH_PX // 2
    rows, columns = (np.flatnonzero(wanted.any(axis)) for axis in (1, 0))
    # No more than the search areas is computed on, and one pixel more: nothing cut off is then reflected into them.
    window = tuple(slice(max(0, int(line[0]) - reach - 1), int(line[-1]) + reach + 2) for line in (rows, columns))
    image = _tensor([pixels[window] for pixels in versions])
    mask = torch.from_numpy(wanted[window])[None, None].expand(len(versions), -1, -1, -1)
    graph = self_similarity_graph(image, mask, search_px=SEARCH_PX, window_px=WINDOW_PX, sigma=SIGMA)
    return list(graph.double().reshape(len(versions), -1, SEARCH_PX**2).numpy())


def _l1_kl(truth: np.ndarray, graph: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums over a row of |X - Y| and of Y ln(Y / X), `[M]` each (Y is the ground truth's)."""
    l1 = np.abs(graph - truth).sum(-1)
    clamped = np.maximum(truth, _TINY)
    return l1, (clamped * (np.log(clamped) - np.log(np.maximum(graph, _TINY)))).sum(-1)


def _means(truth: np.ndarray, graph: np.ndarray) -> tuple[float, float]:
    l1, kl = _l1_kl(truth, graph)
    return float(l1.mean()), float(kl.mean())


def _panel(
    label: str,
    pixels: np.ndarray,
    row: int,
    column: int,
    graph: np.ndarray,
    truth: np.ndarray | None,
    run: int | None,
) -> Panel:
    reach = SEARCH_PX // 2
    padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    patch = padded[row : row + SEARCH_PX, column : column + SEARCH_PX]
    l1, kl = (None, None) if truth is None else (float(v) for v in _l1_kl(truth, graph))
    return Panel(label, data_uri(patch), _graph_png(graph), l1, kl, run)


def _graph_png(graph: np.ndarray) -> str:
    """Return a gray PNG of a row of the graph, log10 from `FLOOR_LOG10` (black) to 0 (white)."""
    logarithm = np.log10(np.maximum(graph, 10.0**FLOOR_LOG10)) / -FLOOR_LOG10 + 1
    gray = np.round(255 * np.clip(logarithm, 0, 1)).astype(np.uint8).reshape(SEARCH_PX, SEARCH_PX)
    buffer = io.BytesIO()
    Image.fromarray(gray).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
