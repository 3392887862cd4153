"""Self-similarity graphs of chosen pixels, in the ground truth and in the outputs.

The region and its pixels depend only on the ground truth, so that no output has an advantage.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from selfsr.masks import edge_mask
from selfsr.report.crops import compute_luma, sum_boxes
from selfsr.report.encoding import encode_png, encode_webp
from selfsr.report.images import ImageVersion, ReportImage
from selfsr.runfolder.read import RunFolder
from selfsr.selfsim import self_similarity_graph
from selfsr.selfsim.contract import Geometry

GEOMETRY = Geometry()
REGION_PX = 160
POINTS_SHOWN = 6
PIXELS_COUNTED = 1500
# The lower end of the color scale; a row of the graph sums to 1.
FLOOR_LOG10 = -6
# Lower bound of the logarithms' arguments, as in the loss.
_TINY = 1e-10


@dataclass(frozen=True)
class GraphPanel:
    """The graph of one pixel in one version.

    Attributes:
        label: name of the version.
        patch: the search area as a data URI.
        graph: the graph as a data URI, gray: log10 from `FLOOR_LOG10` (black) to 0 (white).
        l1: L1 distance to the ground truth's graph; None for the ground truth.
        kl: KL divergence from the ground truth's graph; None for the ground truth.
        run: index of the run; None for the ground truth.
    """

    label: str
    patch: str
    graph: str
    l1: float | None
    kl: float | None
    run: int | None


@dataclass(frozen=True)
class GraphPoint:
    """A chosen pixel.

    Attributes:
        left: distance from the left side of the region, as a share of its width.
        top: distance from the upper side of the region, as a share of its height.
        row: row in the image.
        column: column in the image.
        panels: one for each version.
    """

    left: float
    top: float
    row: int
    column: int
    panels: list[GraphPanel]


@dataclass(frozen=True)
class GraphDistance:
    """Mean distances of a version's graphs to the ground truth's, over the counted pixels."""

    label: str
    run: int | None
    l1: float
    kl: float


@dataclass(frozen=True)
class ImageGraphs:
    """The graphs of one sample image.

    Attributes:
        name: name of the sample.
        region: the region of the ground truth as a data URI.
        side: side of the square region, in px.
        points: the chosen pixels.
        distances: mean distances of each version.
        counted: number of edge pixels in the means.
        edges: number of all edge pixels of the region.
    """

    name: str
    region: str
    side: int
    points: list[GraphPoint]
    distances: list[GraphDistance]
    counted: int
    edges: int


def choose_versions(image: ReportImage, runs: list[RunFolder], against: int | None) -> list[tuple[str, ImageVersion]]:
    """Return the versions to compare to the ground truth, with their labels.

    Runs with the loss come first, then the run `against`, then the other runs. A single run is compared to its own
    first output.
    """
    with_loss = [version for version in image.last if _has_loss(version, runs)]
    without = [version for version in image.last if version not in with_loss]
    without.sort(key=lambda version: version.run != against)
    versions = [(f"{runs[v.run or 0].name}, with the loss", v) for v in with_loss]
    versions += [(f"{runs[v.run or 0].name}, without the loss", v) for v in without]
    if len(versions) == 1:
        earlier = [version for version in image.versions if version.earlier]
        versions += [(v.label, v) for v in earlier[:1]]
    return versions


def _has_loss(version: ImageVersion, runs: list[RunFolder]) -> bool:
    return version.run is not None and runs[version.run].has_similarity_term


def compute_graphs(image: ReportImage, versions: list[tuple[str, ImageVersion]]) -> ImageGraphs | None:
    """Return the graphs of an image; None if it is too small, has no edges or has no versions."""
    if min(image.hr.shape[:2]) <= GEOMETRY.half_search or not versions:
        return None
    edges = edge_mask(_to_tensor([image.hr]))[0, 0].numpy()
    top, left, side = _find_region(edges)
    edges = edges[top : top + side, left : left + side]
    if not edges.any():
        return None
    region = image.hr[top : top + side, left : left + side]
    points = _choose_points(np.where(edges, _compute_edge_strength(region), 0.0))
    counted_pixels = np.argwhere(edges)
    counted_pixels = counted_pixels[:: math.ceil(len(counted_pixels) / PIXELS_COUNTED)]

    mask = np.zeros(image.hr.shape[:2], dtype=bool)
    for y, x in (*counted_pixels, *points):
        mask[y + top, x + left] = True
    with_bicubic = [*versions, *([("bicubic", image.bicubic)] if image.bicubic else [])]
    truth, *graphs = _compute_graph_rows([image.hr, *(version.pixels for _, version in with_bicubic)], mask)
    row_numbers = _number_rows(mask)
    counted = [row_numbers[y + top, x + left] for y, x in counted_pixels]
    distances = [
        GraphDistance(label, version.run, *_mean_distances(truth[counted], graph[counted]))
        for (label, version), graph in zip(with_bicubic, graphs, strict=True)
    ]

    graph_points = []
    for y, x in points:
        row, column = int(y + top), int(x + left)
        index = row_numbers[row, column]
        panels = [_make_panel("HR", image.hr, row, column, truth[index], None, None)]
        panels += [
            _make_panel(label, version.pixels, row, column, graph[index], truth[index], version.run)
            for (label, version), graph in zip(versions, graphs, strict=False)
        ]
        graph_points.append(GraphPoint((x + 0.5) / side, (y + 0.5) / side, row, column, panels))
    return ImageGraphs(
        image.name, encode_webp(region), side, graph_points, distances, len(counted_pixels), int(edges.sum())
    )


def _to_tensor(images: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images).astype(np.float32) / 255).permute(0, 3, 1, 2)


def _find_region(edges: np.ndarray) -> tuple[int, int, int]:
    """Return top, left and side of the square with the most edge pixels."""
    side = min(REGION_PX, *edges.shape)
    sums = sum_boxes(edges, side)
    top, left = np.unravel_index(int(np.argmax(sums)), sums.shape)
    return int(top), int(left), side


def _compute_edge_strength(pixels: np.ndarray) -> np.ndarray:
    rows, columns = np.gradient(compute_luma(pixels))
    return np.hypot(rows, columns)


def _choose_points(strength: np.ndarray) -> np.ndarray:
    """Return `[P, 2]` (row, column) of the strongest edges, far from one another and from the border."""
    strength = strength.copy()
    side = min(strength.shape)
    border, least_distance = side // 16, side // 4
    inner = np.zeros_like(strength)
    inner[border : strength.shape[0] - border, border : strength.shape[1] - border] = 1
    if (strength * inner).any():
        strength *= inner
    rows, columns = np.indices(strength.shape)
    points = []
    while len(points) < POINTS_SHOWN and strength.any():
        y, x = np.unravel_index(int(np.argmax(strength)), strength.shape)
        points.append((int(y), int(x)))
        strength[np.hypot(rows - y, columns - x) < least_distance] = 0
    return np.array(sorted(points))


def _number_rows(mask: np.ndarray) -> np.ndarray:
    """Return for each masked pixel the number of its row in the graph, `[H, W]`."""
    return mask.cumsum().reshape(mask.shape) - 1


def _compute_graph_rows(images: list[np.ndarray], mask: np.ndarray) -> list[np.ndarray]:
    """Return the graphs `[M, S*S]` of the masked pixels in each image, float64."""
    reach = GEOMETRY.half_search
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    # Cut off all but the search areas to save time. One pixel more keeps the reflection at the cut out of them.
    window = tuple(slice(max(0, int(line[0]) - reach - 1), int(line[-1]) + reach + 2) for line in (rows, columns))
    batch = _to_tensor([pixels[window] for pixels in images])
    batch_mask = torch.from_numpy(mask[window])[None, None].expand(len(images), -1, -1, -1)
    graph = self_similarity_graph(
        batch, batch_mask, search_px=GEOMETRY.search_px, window_px=GEOMETRY.window_px, sigma=GEOMETRY.sigma
    )
    return list(graph.double().reshape(len(images), -1, GEOMETRY.entries).numpy())


def _compute_distances(truth: np.ndarray, graph: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums over each row of |X - Y| and of Y ln(Y / X), `[M]` each (Y is the ground truth's graph)."""
    l1 = np.abs(graph - truth).sum(-1)
    clamped = np.maximum(truth, _TINY)
    return l1, (clamped * (np.log(clamped) - np.log(np.maximum(graph, _TINY)))).sum(-1)


def _mean_distances(truth: np.ndarray, graph: np.ndarray) -> tuple[float, float]:
    l1, kl = _compute_distances(truth, graph)
    return float(l1.mean()), float(kl.mean())


def _make_panel(
    label: str,
    pixels: np.ndarray,
    row: int,
    column: int,
    graph: np.ndarray,
    truth: np.ndarray | None,
    run: int | None,
) -> GraphPanel:
    reach, side = GEOMETRY.half_search, GEOMETRY.search_px
    padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    patch = padded[row : row + side, column : column + side]
    l1, kl = (None, None) if truth is None else (float(v) for v in _compute_distances(truth, graph))
    return GraphPanel(label, encode_webp(patch), _encode_graph(graph), l1, kl, run)


def _encode_graph(graph: np.ndarray) -> str:
    """Return a gray PNG of a row of the graph: log10 from `FLOOR_LOG10` (black) to 0 (white)."""
    logarithm = np.log10(np.maximum(graph, 10.0**FLOOR_LOG10)) / -FLOOR_LOG10 + 1
    gray = np.round(255 * np.clip(logarithm, 0, 1)).astype(np.uint8)
    return encode_png(gray.reshape(GEOMETRY.search_px, GEOMETRY.search_px))
