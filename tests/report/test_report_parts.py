"""What the page is made of: reading, thinning, choosing crops and pixels, graphs, colors, scores."""

import base64
import io
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from selfsr.report import colors, crops, curves, encoding, image_cards, images, similarity
from selfsr.report.images import ImageVersion, ReportImage
from selfsr.report.scores import ScoreCell
from selfsr.runfolder.read import RunFolder, flatten, read_run_folders
from selfsr.selfsim.reference import graph as reference_graph


def decoded(uri: str) -> np.ndarray:
    head, data = uri.split(",")
    assert head in ("data:image/webp;base64", "data:image/png;base64")
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return np.asarray(image)


def write_lines(path: Path, lines: list[dict]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def run_of(folder: Path, log: list[dict] | None = None, evaluations: list[dict] | None = None) -> RunFolder:
    folder.mkdir(exist_ok=True)
    write_lines(folder / "metrics.jsonl", log or [])
    write_lines(folder / "eval.jsonl", evaluations or [])
    return read_run_folders([folder])[0]


def textured(height: int = 96, width: int = 128) -> np.ndarray:
    """A picture that is flat but for a texture in rows 40 to 80, columns 70 to 110."""
    rng = np.random.default_rng(0)
    pixels = np.full((height, width, 3), 120, dtype=np.uint8)
    pixels[40:80, 70:110] = rng.integers(0, 255, (40, 40, 1))
    return pixels


# --- Reading ----------------------------------------------------------------------------------------------------


def test_steps_that_a_resumed_run_wrote_again_count_once(tmp_path):
    steps = [10, 20, 30, 40, 20, 30]
    log = [{"step": step, "loss": {"g": {"pixel": float(i)}}} for i, step in enumerate(steps)]
    run = run_of(tmp_path / "run", log)
    assert [(line["step"], line["loss"]["g"]["pixel"]) for line in run.log] == [(10, 0.0), (20, 4.0), (30, 5.0)]


def test_read_run_merges_the_bicubic_line_with_the_first_evaluation(tmp_path):
    scores = {"Set5": {"mean": {"psnr_y": 30.0}, "images": {}}}
    better = {"Set5": {"mean": {"psnr_y": 31.0}, "images": {}}}
    run = run_of(tmp_path / "run", None, [{"step": 0, "bicubic": scores}, {"step": 0, "sets": better}])
    assert run.bicubic == scores
    assert [line["sets"] for line in run.evaluations] == [better]


def test_clock_adds_up_the_time_of_every_stretch(tmp_path):
    run = run_of(tmp_path / "run", [{"step": 100, "steps_per_s": 10.0}, {"step": 300, "steps_per_s": 4.0}])
    assert run.elapsed_times() == [(100, 10.0), (300, 60.0)]
    assert run.seconds == 60.0


def test_flatten_names_every_leaf():
    tree = {"a": {"b": [1, {"c": None}]}, "d": {}, "e": False}
    assert dict(flatten(tree)) == {"a.b.0": "1", "a.b.1.c": "none", "d": "{}", "e": "False"}


# --- Curves -----------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400), st.integers(6, 60))
def test_thinning_keeps_ends_and_extremes_in_order(values, limit):
    points = list(enumerate(values))
    kept = curves.thin_points(points, limit)
    assert len(kept) <= max(limit, 2)
    assert kept == sorted(set(kept))
    assert set(kept) <= set(points)
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert (min(y for _, y in kept), max(y for _, y in kept)) == (min(values), max(values))


def test_thinning_keeps_a_value_that_is_not_finite():
    points = [(step, math.nan if step == 777 else 1.0) for step in range(2000)]
    assert any(math.isnan(y) for _, y in curves.thin_points(points, 50))


def test_build_charts_covers_every_logged_number_and_names_networks(tmp_path):
    line = {
        "step": 5,
        "epoch": 0.1,
        "loss": {"g": {"pixel": 1.0, "gan": 2.0}, "d": {"real": 3.0}},
        "lr": {"g": 1e-4, "d": 1e-4},
        "grad_norm": {"g": 0.5},
        "steps_per_s": 3.0,
        "logits": {"d": {"real": 0.7}},
    }
    charts = {c.key: c for c in curves.build_charts([run_of(tmp_path / "run", [line])])}
    assert {key: (c.title, c.lines[0].y) for key, c in charts.items()} == {
        "loss/g/pixel": ("Loss: pixel (g)", [1.0]),
        "loss/g/gan": ("Loss: gan (g)", [2.0]),
        "loss/d/real": ("Loss: real (d)", [3.0]),
        "lr/g": ("Learning rate (g)", [1e-4]),
        "lr/d": ("Learning rate (d)", [1e-4]),
        "grad_norm/g": ("Gradient norm", [0.5]),
        "steps_per_s": ("Speed", [3.0]),
        "logits/d/real": ("Discriminator d: mean logit, real", [0.7]),
    }


def test_runs_share_a_baseline_only_if_it_is_the_same(tmp_path):
    def of(name, level):
        sets = {"Set5": {"mean": {"psnr_y": level + 1}, "images": {}}}
        bicubic = {"Set5": {"mean": {"psnr_y": level}, "images": {}}}
        return run_of(tmp_path / name, None, [{"step": 0, "sets": sets, "bicubic": bicubic}])

    same, other = curves.build_charts([of("a", 33.68), of("b", 33.68), of("c", 28.43)])
    assert [b.y for b in same.baselines] == [33.68]
    assert [line.y for line in same.lines] == [[34.68], [34.68]]
    assert ([b.y for b in other.baselines], [line.y for line in other.lines]) == ([28.43], [[29.43]])
    assert [same.title, other.title] == ["PSNR-Y \u2191, Set5 (a, b)", "PSNR-Y \u2191, Set5 (c)"]


def test_constant_quantities_have_no_chart_unless_they_are_scores_or_losses(tmp_path):
    def line(step, **changed):
        return {"step": step, "loss": {"g": {"pixel": 1.0}}, "lr": {"g": 1e-4}, "memory_mb": 800.0, **changed}

    constant = run_of(tmp_path / "constant", [line(1), line(2), line(3)])
    falling = run_of(tmp_path / "falling", [line(1), line(2, lr={"g": 5e-5})])
    begun = run_of(tmp_path / "begun", [line(1)])

    def split(*runs):
        return [[chart.key for chart in charts] for charts in curves.split_constants(curves.build_charts(list(runs)))]

    assert split(constant) == [["loss/g/pixel"], ["lr/g", "memory_mb"]]
    assert split(constant, falling) == [["loss/g/pixel", "lr/g"], ["memory_mb"]]
    assert split(begun) == [["loss/g/pixel", "lr/g", "memory_mb"], []]


# --- Scores -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gain", "text", "direction"),
    [(0.126, "+0.13", "up"), (-0.126, "-0.13", "down"), (-0.004, "+0.00", "level"), (None, "", "level")],
)
def test_gain_is_rounded_before_its_sign(gain, text, direction):
    cell = ScoreCell(30.0, gain, 2)
    assert (cell.gain_text, cell.direction) == (text, direction)


# --- Crops ------------------------------------------------------------------------------------------------------


def test_box_sums_are_those_of_a_plain_loop():
    values = np.random.default_rng(1).standard_normal((9, 12))
    sums = crops.sum_boxes(values, 4)
    expected = [[values[y : y + 4, x : x + 4].sum() for x in range(9)] for y in range(6)]
    np.testing.assert_allclose(sums, expected, atol=1e-12)


def test_crops_lie_where_their_reason_is(monkeypatch):
    monkeypatch.setattr(crops, "CROP_PX", 16)
    hr = textured()
    bicubic, sr = hr.astype(int), hr.astype(int)
    bicubic[4:20, 4:20] += 40  # the output mends this
    sr[72:88, 8:24] += 30  # and gets this wrong
    versions = [ImageVersion("run", sr.astype(np.uint8), 0, 10)]
    picture = ReportImage("p", hr, ImageVersion("bicubic", bicubic.astype(np.uint8)), versions)
    positions = {crop.reason: (crop.top, crop.left) for crop in crops.choose_crops(picture, 0)}
    assert positions["largest gain over bicubic"] == (4, 4)
    assert positions["largest remaining error"] == (72, 8)
    top, left = positions["most detail"]
    assert 38 <= top <= 66
    assert 68 <= left <= 96


def test_crop_of_a_gain_that_is_nowhere_is_left_out():
    hr = textured()
    picture = ReportImage("p", hr, ImageVersion("bicubic", hr), [ImageVersion("run", 255 - hr, 0, 10)])
    assert "largest gain over bicubic" not in [crop.reason for crop in crops.choose_crops(picture, 0)]


def test_part_of_a_large_image_has_the_largest_error_and_a_matching_input():
    rng = np.random.default_rng(5)
    hr = rng.integers(0, 255, (120, 200, 3), dtype=np.uint8)
    sr = hr.astype(int)
    sr[70:110, 130:190] = 255 - sr[70:110, 130:190]
    lr = rng.integers(0, 255, (30, 50, 3), dtype=np.uint8)
    picture = ReportImage("p", hr, None, [ImageVersion("run", sr.astype(np.uint8), 0, 10)], lr)
    assert picture.scale == 4
    assert crops.choose_part(picture, 0, 200) is None
    part = crops.choose_part(picture, 0, 66)
    assert part is not None
    assert (part.side, part.left % 4, part.top % 4) == (64, 0, 0)
    assert part.top + 64 >= 110
    assert (part.left <= 130, part.left + 64 >= 190) == (True, True)
    cut = picture.cut(part.top, part.left, part.side, part.side)
    np.testing.assert_array_equal(cut.hr, hr[part.top : part.top + 64, part.left : part.left + 64])
    np.testing.assert_array_equal(cut.lr, lr[part.top // 4 : part.top // 4 + 16, part.left // 4 : part.left // 4 + 16])
    np.testing.assert_array_equal(cut.versions[0].pixels, part.cut(sr).astype(np.uint8))
    assert picture.cut(1, 0, 64, 64).lr is None


def test_viewers_show_whole_images_as_long_as_the_page_stays_small(monkeypatch):
    hr = textured(96, 128)
    lr = hr[::2, ::2]
    picture = ReportImage("p", hr, ImageVersion("bicubic", hr), [ImageVersion("r", 255 - hr, 0, 10)], lr)
    run = cast(RunFolder, SimpleNamespace(is_fine_tune=False))
    (card,) = image_cards.make_image_cards([picture], 0, [run])
    assert (card["size"], card["part_of"]) == ("128 x 96", "")
    assert [version["label"] for version in card["versions"]] == ["LR", "bicubic", "r", "HR"]
    shown = [decoded(version["image"]) for version in card["versions"]]
    for image, pixels in zip(shown, (lr, hr, 255 - hr, hr), strict=True):
        np.testing.assert_array_equal(image, pixels)
    assert card["versions"][0]["psnr"] == card["versions"][3]["psnr"] == []
    assert len(card["versions"][2]["psnr"]) == 1 + len(card["crops"])
    assert card["versions"][2]["psnr"][0] == f"{crops.compute_psnr_y(255 - hr, hr):.2f} dB"

    monkeypatch.setattr(image_cards, "LONGEST_PX", 64)
    monkeypatch.setattr(image_cards, "SHORTEST_PART_PX", 32)
    (card,) = image_cards.make_image_cards([picture], 0, [run])
    assert (card["size"], card["part_of"]) == ("64 x 64", "128 x 96")


def test_crop_psnr_is_that_of_the_luma():
    hr = np.zeros((8, 8, 3), dtype=np.uint8)
    sr = hr + np.array([0, 10, 0], dtype=np.uint8)
    assert crops.compute_psnr_y(sr, hr) == pytest.approx(20 * math.log10(255 / (10 * 128.553 / 255)))
    assert crops.compute_psnr_y(hr, hr) == math.inf


def test_lossless_encoding_is_lossless():
    pixels = textured()
    np.testing.assert_array_equal(decoded(encoding.encode_webp(pixels)), pixels)
    np.testing.assert_array_equal(decoded(encoding.encode_webp(pixels, fast=True)), pixels)


@pytest.mark.parametrize("count", [2, 3, 10])
def test_spread_takes_both_ends_and_is_denser_early(count):
    steps = list(range(100, 10_001, 100))
    chosen = images.choose_steps(steps, count)
    assert len(set(chosen)) == count
    assert chosen == sorted(chosen)
    assert (chosen[0], chosen[-1]) == (100, 10_000)
    if count == 3:
        assert chosen[1] == 1000
    assert images.choose_steps([3, 7], 10) == [3, 7]


# --- Self-similarity --------------------------------------------------------------------------------------------


def test_graphs_of_chosen_pixels_are_those_of_the_whole_picture():
    rng = np.random.default_rng(2)
    hr = rng.integers(0, 255, (40, 44, 3), dtype=np.uint8)
    wanted = np.zeros(hr.shape[:2], dtype=bool)
    wanted[[0, 3, 20, 39], [0, 43, 21, 5]] = True  # corners and rims, where the picture is reflected
    (graph,) = similarity._compute_graph_rows([hr], wanted)
    image = torch.from_numpy(hr / 255).permute(2, 0, 1)[None]
    mask = torch.from_numpy(wanted)[None, None]
    expected = reference_graph(image, mask, search_px=25, window_px=9, sigma=0.004, normalize=True)
    np.testing.assert_allclose(graph, expected.numpy(), atol=2e-6)


def test_compute_graphs_of_the_ground_truth_have_zero_distance():
    rng = np.random.default_rng(3)
    hr = textured()
    noisy = np.clip(hr + rng.normal(0, 12, hr.shape), 0, 255).astype(np.uint8)
    picture = ReportImage("p", hr, ImageVersion("bicubic", noisy), [])
    found = similarity.compute_graphs(
        picture, [("same", ImageVersion("same", hr, 0, 1)), ("noisy", ImageVersion("n", noisy, 1, 1))]
    )
    assert found is not None
    same, other, bicubic = found.distances
    assert (same.l1, same.kl) == (0, pytest.approx(0, abs=1e-9))
    assert 0 < other.l1 <= 2
    assert other.kl > 0
    # The same picture at another place in the batch: equal to float32's rounding, not to the bit.
    assert bicubic.label == "bicubic"
    assert (bicubic.l1, bicubic.kl) == (pytest.approx(other.l1, rel=1e-6), pytest.approx(other.kl, rel=1e-5))
    assert [panel.label for panel in found.points[0].panels] == ["HR", "same", "noisy"]
    assert found.points[0].panels[1].l1 == 0


def test_compute_graphs_chooses_edge_pixels_with_centered_patches():
    hr = textured()
    found = similarity.compute_graphs(ReportImage("p", hr, None, []), [("a", ImageVersion("a", hr, 0, 1))])
    assert found is not None
    assert 3 <= len(found.points) <= similarity.POINTS_SHOWN
    for point in found.points:
        assert 38 <= point.row <= 81
        assert 68 <= point.column <= 111
        patch = decoded(point.panels[0].patch)
        assert patch.shape == (25, 25, 3)
        np.testing.assert_array_equal(patch[12, 12], hr[point.row, point.column])


def test_choose_versions_orders_with_loss_then_against_then_rest(make_run, tmp_path):
    names = ("plain", "similar", "other")
    folders = [make_run(tmp_path / n, similarity=n == "similar", samples=False) for n in names]
    runs = read_run_folders(folders)
    hr = textured()
    last = [ImageVersion("", hr, index, 1000) for index in range(3)]
    earlier = [
        ImageVersion("similar, step 0", hr, 1, 0, earlier=True),
        ImageVersion("similar, step 500", hr, 1, 500, earlier=True),
    ]
    picture = ReportImage("p", hr, None, [*last, *earlier])

    def labels(picture, against):
        return [label for label, _ in similarity.choose_versions(picture, runs, against)]

    assert labels(picture, 2) == ["similar, with the loss", "other, without the loss", "plain, without the loss"]
    assert labels(picture, None) == ["similar, with the loss", "plain, without the loss", "other, without the loss"]
    alone = ReportImage("p", hr, None, [last[1], *earlier])
    assert labels(alone, None) == ["similar, with the loss", "similar, step 0"]


def test_study_needs_room_and_edges():
    flat = np.full((64, 64, 3), 90, dtype=np.uint8)
    small = textured()[40:52, 70:110]
    for hr in (flat, small):
        assert similarity.compute_graphs(ReportImage("p", hr, None, []), [("a", ImageVersion("a", hr, 0, 1))]) is None


def test_graph_picture_holds_the_logarithm_of_its_entries():
    row = np.geomspace(1e-9, 1, 625)
    gray = decoded(similarity._encode_graph(row)).ravel()
    back = 10.0 ** (-6 * (1 - gray / 255.0))
    assert (gray[row <= 1e-6] == 0).all()
    np.testing.assert_allclose(np.log10(back[row > 1e-6]), np.log10(row[row > 1e-6]), atol=6 / 255)


# --- Colors ----------------------------------------------------------------------------------------------------


def test_lightness_of_the_scale_rises_evenly():
    color = pytest.importorskip("skimage.color", reason="CIELAB of scikit-image is the independent judge")
    lightness = color.rgb2lab(np.array(colors.SCALE_COLORS)[None])[0, :, 0]
    steps = np.diff(lightness)
    assert (steps > 0).all()
    assert lightness[-1] - lightness[0] > 80
    assert steps.max() < 2 * steps.mean()
