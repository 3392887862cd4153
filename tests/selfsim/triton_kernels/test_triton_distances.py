"""Window distances and their gradient by the Triton kernels, compared with the definition in float64."""

import pytest
import torch
import triton
import triton.language as tl
from kernel_cases import SIZES, define_distances, list_pixels, pad_reflect, random_images, random_mask, relative_error

from selfsr.selfsim.contract import Geometry
from selfsr.selfsim.triton import backend, packing, walk
from selfsr.selfsim.triton.packing import PanelLayout

pytestmark = pytest.mark.triton


def assert_matches_definition(shape: tuple[int, ...], geometry: Geometry, device: torch.device) -> None:
    """Compare distances and gradient in float32 with the definition in float64."""
    exact = pad_reflect(random_images(shape, device), geometry).requires_grad_()
    pixels = list_pixels(random_mask(shape, device))
    truth = define_distances(exact, pixels, geometry)
    grad_q = random_images(tuple(truth.shape), device, seed=2) - 0.5
    (grad_truth,) = torch.autograd.grad(truth, exact, grad_q)
    padded = exact.detach().float()

    q = backend.window_distances(padded, pixels, geometry)
    grad = backend.window_distances_backward(padded, grad_q.float(), pixels, geometry)

    assert q.shape == truth.shape
    assert grad.shape == padded.shape
    assert relative_error(q, truth.detach()) < 5e-7
    assert relative_error(grad, grad_truth) < 1e-6


@pytest.mark.parametrize(("shape", "search_px", "window_px"), SIZES)
@pytest.mark.usefixtures("poisoned_memory")
def test_distances_and_gradient_match_the_definition(
    shape: tuple[int, ...], search_px: int, window_px: int, device: torch.device
) -> None:
    assert_matches_definition(shape, Geometry(search_px, window_px), device)


@pytest.mark.usefixtures("poisoned_memory")
def test_published_window_over_three_lanes_matches_the_definition(device: torch.device) -> None:
    geometry = Geometry(11, 9)
    exact = pad_reflect(random_images((1, 1, 6, 6), device), geometry)
    pixels = list_pixels(random_mask((1, 1, 6, 6), device))
    q = backend.window_distances(exact.float(), pixels, geometry)
    assert relative_error(q, define_distances(exact, pixels, geometry)) < 5e-7


def test_float64_images_are_computed_in_float64(device: torch.device) -> None:
    geometry = Geometry(3, 3, 0.05)
    exact = pad_reflect(random_images((1, 2, 3, 3), device), geometry).requires_grad_()
    pixels = list_pixels(random_mask((1, 2, 3, 3), device))
    truth = define_distances(exact, pixels, geometry)
    grad_q = random_images(tuple(truth.shape), device, seed=2) - 0.5
    (grad_truth,) = torch.autograd.grad(truth, exact, grad_q)
    assert relative_error(backend.window_distances(exact.detach(), pixels, geometry), truth.detach()) < 1e-14
    assert (
        relative_error(backend.window_distances_backward(exact.detach(), grad_q, pixels, geometry), grad_truth) < 1e-13
    )


@pytest.mark.parametrize("panels", [1, 2])
@pytest.mark.usefixtures("poisoned_memory")
def test_several_strips_and_panels_match_the_definition(
    panels: int, monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    shape, geometry = (41, 1, 2, 2), Geometry(3, 3, 0.05)
    monkeypatch.setattr(PanelLayout, "per_panel", -(-41 // panels))
    layout = PanelLayout.from_image(pad_reflect(random_images(shape, device), geometry), geometry)
    assert (layout.panels, layout.strips) == (panels, 3 - panels)
    assert_matches_definition(shape, geometry, device)


@pytest.mark.usefixtures("poisoned_memory")
def test_several_walks_per_column_match_the_definition(device: torch.device) -> None:
    shape, geometry = (1, 1, 26, 2), Geometry(3, 3, 0.05)
    layout = PanelLayout.from_image(pad_reflect(random_images(shape, device), geometry), geometry)
    assert layout.split_walks(2, 1, layout.height)[2] > 1
    assert_matches_definition(shape, geometry, device)


@pytest.mark.usefixtures("poisoned_memory")
def test_gradient_is_bitwise_equal_for_any_spread_memory(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    """Sums over displacements are continued from one part of a class to the next."""
    geometry = Geometry(3, 3, 0.05)
    padded = pad_reflect(random_images((1, 1, 2, 3), device), geometry).float()
    pixels = list_pixels(random_mask((1, 1, 2, 3), device))
    grad_q = (random_images((9, pixels.row.numel()), device, seed=2) - 0.5).float()
    grad = backend.window_distances_backward(padded, grad_q.clone(), pixels, geometry)
    monkeypatch.setattr(backend, "SPREAD_BYTES", 0)
    monkeypatch.setattr(packing, "ROWS", 1)
    assert torch.equal(backend.window_distances_backward(padded, grad_q.clone(), pixels, geometry), grad)


def test_nan_reaches_only_search_areas_that_contain_it(device: torch.device) -> None:
    geometry = Geometry(5, 3, 0.05)
    image = random_images((2, 1, 7, 5), device).float()
    mask = torch.ones(2, 1, 7, 5, dtype=torch.bool, device=device)
    clean = backend.window_distances(pad_reflect(image, geometry), list_pixels(mask), geometry)
    image[0, 0, 3, 4] = torch.nan
    q = backend.window_distances(pad_reflect(image, geometry), list_pixels(mask), geometry)
    _, y, x = list_pixels(mask)
    # Search areas reach two pixels; in the last column, the reflected border hides nothing and shows no more.
    near = (torch.arange(70, device=device) < 35) & ((y - 3).abs() <= 2) & (x >= 2)
    assert q[:, near].isnan().any(0).all()
    assert torch.equal(q[:, ~near], clean[:, ~near])


@triton.jit
def _list_kernel(
    out, H: tl.constexpr, F: tl.constexpr, TRUNCATED_Y: tl.constexpr, TRUNCATED_X: tl.constexpr, SIZE: tl.constexpr
):
    j = tl.arange(0, SIZE)
    dy, dx = walk.displacements(j, H, F, TRUNCATED_Y, TRUNCATED_X)
    tl.store(out + 2 * j, dy)
    tl.store(out + 2 * j + 1, dx)


@pytest.mark.parametrize(("search_px", "window_px"), [(25, 9), (7, 7), (9, 1), (3, 3), (1, 1)])
def test_classes_list_each_displacement_of_the_half_plane_once(
    search_px: int, window_px: int, device: torch.device
) -> None:
    h, f = search_px // 2, window_px // 2
    layout = PanelLayout(1, 1, 3 * h + 1, 3 * h + 1, h, f)
    displacements = []
    for truncated_y, truncated_x, size in layout.classes():
        out = torch.zeros(512, 2, dtype=torch.int32, device=device)
        _list_kernel[(1,)](out, H=h, F=f, TRUNCATED_Y=truncated_y, TRUNCATED_X=truncated_x, SIZE=512)
        for dy, dx in out[:size].tolist():
            assert (dy > h - f, abs(dx) > h - f) == (truncated_y, truncated_x)
            displacements.append((dy, dx))
    half = [(dy, dx) for dy in range(h + 1) for dx in range(-h, h + 1) if dy > 0 or dx > 0]
    assert sorted(displacements) == half
