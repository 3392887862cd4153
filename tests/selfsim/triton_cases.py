"""Tests of the Triton kernels; `test_selfsim_triton.py` runs this file in a process of its own.

There the kernels are interpreted on the CPU, unless the tests run on a GPU. Sizes are as small as they can be for
every class of displacement, several strips, several panels and cut walks to occur.
"""

import pytest
import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from selfsr import self_similarity_loss
from selfsr.selfsim import kernels, triton_kernels
from selfsr.selfsim.contract import Geometry, Pixels

# Shape, search, window: all classes of displacement, with several images and channels; wider windows; only cut
# windows; windows of one pixel, with and without displacements.
SIZES = [
    ((2, 2, 5, 6), 7, 3),
    ((1, 1, 5, 6), 9, 5),
    ((1, 4, 4, 3), 5, 5),
    ((3, 1, 4, 3), 5, 1),
    ((1, 1, 4, 3), 1, 1),
]


@pytest.fixture(autouse=True)
def _tall_tiles(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    """Interpreted operations cost the same whatever their size, so let tiles have more rows than on a GPU."""
    if device.type == "cpu":
        monkeypatch.setattr(kernels, "ROWS", 32)


def _images(shape: tuple[int, ...], device: torch.device, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(device)


def _mask(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """A third of the pixels, with all four corners of the batch."""
    n, _, height, width = shape
    mask = torch.rand(n, 1, height, width, generator=torch.Generator().manual_seed(1)) < 1 / 3
    mask[0, :, :: height - 1, :: width - 1] = True
    return mask.to(device)


def _pixels(mask: Tensor) -> Pixels:
    return Pixels(*mask[:, 0].nonzero(as_tuple=True))


def _pad(image: Tensor, geometry: Geometry) -> Tensor:
    h = geometry.half_search
    return F.pad(image, (h, h, h, h), mode="reflect") if h else image


def _distances(padded: Tensor, pixels: Pixels, geometry: Geometry) -> Tensor:
    """q by its definition, one displacement after another, differentiable."""
    s, k, h, f = geometry.search_px, geometry.window_px, geometry.half_search, geometry.half_window
    n, y, x = pixels
    areas = padded.unfold(2, s, 1).unfold(3, s, 1)[n, :, y, x]
    walled = F.pad(areas, (f, f, f, f))
    centre = areas[:, :, h - f : h + f + 1, h - f : h + f + 1]
    rows = [(centre - walled[:, :, i : i + k, j : j + k]).square().mean((1, 2, 3)) for i in range(s) for j in range(s)]
    return torch.stack(rows)


def _error(value: Tensor, truth: Tensor) -> float:
    return ((value - truth).abs().max() / truth.abs().max().clamp(min=1e-30)).item()


@pytest.mark.parametrize(("shape", "search_px", "window_px"), SIZES)
@pytest.mark.usefixtures("poisoned_memory")
def test_distances_and_gradients_are_those_of_the_definition(
    shape: tuple[int, ...], search_px: int, window_px: int, device: torch.device
) -> None:
    geometry = Geometry(search_px, window_px)
    exact = _pad(_images(shape, device), geometry).requires_grad_()
    pixels = _pixels(_mask(shape, device))
    truth = _distances(exact, pixels, geometry)
    grad_q = _images(tuple(truth.shape), device, seed=2) - 0.5
    (grad_truth,) = torch.autograd.grad(truth, exact, grad_q)
    padded = exact.detach().float()

    q = kernels.graph_sums(padded, pixels, geometry)
    grad = kernels.graph_backward(padded, grad_q.float(), pixels, geometry)

    assert q.shape == truth.shape
    assert grad.shape == padded.shape
    assert _error(q, truth.detach()) < 5e-7
    assert _error(grad, grad_truth) < 1e-6


@pytest.mark.usefixtures("poisoned_memory")
def test_the_published_window_reaches_three_lanes(device: torch.device) -> None:
    geometry = Geometry(11, 9)
    exact = _pad(_images((1, 1, 6, 6), device), geometry)
    pixels = _pixels(_mask((1, 1, 6, 6), device))
    q = kernels.graph_sums(exact.float(), pixels, geometry)
    assert _error(q, _distances(exact, pixels, geometry)) < 5e-7


def test_float64_is_computed_in_float64(device: torch.device) -> None:
    geometry = Geometry(5, 3, 0.05)
    exact = _pad(_images((1, 2, 4, 5), device), geometry).requires_grad_()
    pixels = _pixels(_mask((1, 2, 4, 5), device))
    truth = _distances(exact, pixels, geometry)
    grad_q = _images(tuple(truth.shape), device, seed=2) - 0.5
    (grad_truth,) = torch.autograd.grad(truth, exact, grad_q)
    assert _error(kernels.graph_sums(exact.detach(), pixels, geometry), truth.detach()) < 1e-14
    assert _error(kernels.graph_backward(exact.detach(), grad_q, pixels, geometry), grad_truth) < 1e-13


def _row_truth(q_sr: Tensor, q_hr: Tensor, geometry: Geometry, weights: tuple[float, float]) -> tuple[Tensor, Tensor]:
    q = q_sr.double().requires_grad_()
    x, y = torch.exp(-q / geometry.sigma), torch.exp(-q_hr.double() / geometry.sigma)
    if geometry.normalize:
        x, y = x / x.sum(0), y / y.sum(0)
    x_floored, y_floored = x.clamp(min=1e-10), y.clamp(min=1e-10)
    l1 = weights[0] * (x - y).abs().mean(0).sum()
    kl = weights[1] * (y_floored * (y_floored.log() - x_floored.log())).mean(0).sum()
    (gradient,) = torch.autograd.grad(l1 + kl, q)
    return torch.stack([l1, kl]).detach(), gradient


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("search_px", "sigma"), [(7, 0.004), (25, 0.05), (25, 0.002)])
@pytest.mark.usefixtures("poisoned_memory")
def test_row_pass_is_the_definition(search_px: int, sigma: float, normalize: bool, device: torch.device) -> None:
    geometry = Geometry(search_px, 1, sigma, normalize)
    q_hr = _images((search_px**2, 11), device) * 0.1
    q_hr[search_px**2 // 2] = 0
    q_sr = (q_hr * (1 + 0.2 * _images((search_px**2, 11), device, seed=1))).float()
    # Ties, where the sign of the difference must be 0.
    q_hr, q_hr[:, 0] = q_hr.float(), q_sr[:, 0]
    for weights in [(1000.0, 500.0), (0.0, 1.0), (1.0, 0.0)][: 3 if search_px == 7 else 1]:
        truth, grad_truth = _row_truth(q_sr, q_hr, geometry, weights)
        parts, grad = kernels.row_pass(q_sr.clone(), q_hr.clone(), geometry, *weights, with_gradient=True)
        assert grad is not None
        assert parts.dtype == torch.float64
        assert (parts[0] - truth[0]).abs() <= 1e-6 * truth[0]
        assert (parts[1] - truth[1]).abs() <= 1e-5 * truth[1]
        assert _error(grad, grad_truth) < 4e-6
    only, none = kernels.row_pass(q_sr.clone(), q_hr.clone(), geometry, *weights, with_gradient=False)
    assert none is None
    assert torch.equal(only, parts)


def test_equal_graphs_have_no_loss_and_no_gradient(device: torch.device) -> None:
    q = _images((81, 20), device).float() * 0.1
    geometry = Geometry(9, 1, 0.05)
    parts, grad = kernels.row_pass(q.clone(), q.clone(), geometry, 1000.0, 1000.0, with_gradient=True)
    assert parts.tolist() == [0, 0]
    assert grad is not None
    assert grad.abs().max() == 0


def test_golden_values_through_the_public_function(device: torch.device) -> None:
    """The first of the golden values: 1000 times L1 and KL for a search of 7 and a window of 3."""
    b, c, i, j = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in (2, 3, 24, 20)), indexing="ij")
    hr = 0.5 + 0.3 * torch.sin(0.7 * i + 1.3 * c + 0.9 * b) * torch.cos(0.45 * j - 0.6 * c)
    hr += 0.15 * torch.sin(0.11 * i * j + 0.4 * b)
    sr = (hr + 0.06 * torch.sin(1.9 * i - 0.8 * j + c + 0.5 * b)).float().to(device).requires_grad_()
    mask = ((3 * i + 5 * j + 7 * b) % 11 == 0)[:, :1].to(device)
    options = {"search_px": 7, "window_px": 3, "sigma": 0.004, "backend": "triton"}
    loss = self_similarity_loss(sr, hr.float().to(device), mask, l1_weight=1000, kl_weight=1000, **options)
    loss.backward()
    assert loss.item() == pytest.approx(2.708688926841 + 1.208832949131, rel=5e-6)
    assert sr.grad is not None
    assert sr.grad.abs().sum().item() == pytest.approx(1.992121687e2, rel=5e-6)
    assert sr.grad[0, 1, 10, 9].item() == pytest.approx(-5.727826716e-2, rel=2e-5)
    assert sr.grad[1, 2, 0, 0].item() == pytest.approx(8.777751671e-3, rel=2e-5)


@pytest.mark.usefixtures("poisoned_memory")
def test_every_way_to_cut_the_work_gives_the_same(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    shape, geometry = (41, 1, 26, 2), Geometry(3, 3, 0.05)
    padded = _pad(_images(shape, device), geometry).float()
    pixels = _pixels(_mask(shape, device))
    grad_q = (_images((9, pixels.row.numel()), device, seed=2) - 0.5).float()
    layout = kernels._Layout.of(padded, geometry)
    assert (layout.panels, layout.strips) == (1, 2)
    assert layout.walks(8, 1, layout.height)[2] > 1
    q = kernels.graph_sums(padded, pixels, geometry)
    grad = kernels.graph_backward(padded, grad_q.clone(), pixels, geometry)

    # Sums over displacements are continued, so what is kept at once changes no bit.
    monkeypatch.setattr(kernels, "SPREAD_BYTES", 0)
    monkeypatch.setattr(kernels, "ROWS", 1)
    assert torch.equal(kernels.graph_backward(padded, grad_q.clone(), pixels, geometry), grad)
    monkeypatch.setattr(kernels, "ROWS", 8)
    # More panels, and walks over all rows: other sums end at other rows.
    monkeypatch.setattr(kernels._Layout, "per_panel", 21)
    monkeypatch.setattr(kernels, "ENOUGH_PROGRAMS", 0)
    assert layout.panels == 2
    assert layout.walks(8, 2, layout.height)[2] == 1
    assert _error(kernels.graph_sums(padded, pixels, geometry), q) < 5e-7
    assert _error(kernels.graph_backward(padded, grad_q.clone(), pixels, geometry), grad) < 1e-6


def test_the_same_bits_each_time(device: torch.device) -> None:
    shape, geometry = (2, 2, 4, 5), Geometry(3, 3, 0.05)
    padded = _pad(_images(shape, device), geometry).float()
    pixels = _pixels(_mask(shape, device))
    first, second = (kernels.graph_sums(padded, pixels, geometry) for _ in range(2))
    assert torch.equal(first, second)
    other = torch.flip(first, (1,))
    rows = [kernels.row_pass(first.clone(), other.clone(), geometry, 1, 1, True) for _ in range(2)]
    assert torch.equal(rows[0][0], rows[1][0])
    assert torch.equal(rows[0][1], rows[1][1])
    grads = [kernels.graph_backward(padded, first.clone(), pixels, geometry) for _ in range(2)]
    assert torch.equal(*grads)


@pytest.mark.usefixtures("poisoned_memory")
def test_unused_slots_add_nothing(device: torch.device) -> None:
    shape, geometry = (2, 1, 4, 5), Geometry(3, 3, 0.05)
    padded = _pad(_images(shape, device), geometry).float()
    other = _pad(_images(shape, device, seed=3), geometry).float()
    mask = _mask(shape, device)
    listed = _pixels(mask)
    count = listed.row.numel()
    slots = Pixels(*(torch.nn.functional.pad(coordinate, (0, 5), value=-1) for coordinate in listed))
    q, q_other = (kernels.graph_sums(p, slots, geometry) for p in (padded, other))
    alone = kernels.graph_sums(padded, listed, geometry)
    assert torch.equal(q[:, :count], alone)
    assert torch.equal(q[:, count:], torch.zeros(9, 5, device=device))
    parts, grad_q = kernels.row_pass(q.clone(), q_other.clone(), geometry, 1, 1, True)
    short, short_grad_q = kernels.row_pass(
        q[:, :count].contiguous(), q_other[:, :count].contiguous(), geometry, 1, 1, True
    )
    torch.testing.assert_close(parts, short, rtol=1e-12, atol=0)
    assert grad_q is not None
    assert short_grad_q is not None
    grad = kernels.graph_backward(padded, grad_q, slots, geometry)
    assert torch.equal(grad, kernels.graph_backward(padded, short_grad_q, listed, geometry))


@pytest.mark.usefixtures("poisoned_memory")
def test_no_pixel_at_all(device: torch.device) -> None:
    geometry = Geometry(3, 3, 0.05)
    padded = torch.rand(1, 1, 6, 6, device=device)
    nowhere = torch.full((1,), -1, device=device)
    q = kernels.graph_sums(padded, Pixels(nowhere, nowhere, nowhere), geometry)
    assert torch.equal(q, torch.zeros(9, 1, device=device))
    grad = kernels.graph_backward(padded, torch.ones_like(q), Pixels(nowhere, nowhere, nowhere), geometry)
    assert torch.equal(grad, torch.zeros_like(padded))


def test_nan_stays_in_its_search_areas(device: torch.device) -> None:
    geometry = Geometry(5, 3, 0.05)
    image = _images((2, 1, 7, 5), device).float()
    mask = torch.ones(2, 1, 7, 5, dtype=torch.bool, device=device)
    clean = kernels.graph_sums(_pad(image, geometry), _pixels(mask), geometry)
    image[0, 0, 3, 4] = torch.nan
    q = kernels.graph_sums(_pad(image, geometry), _pixels(mask), geometry)
    _, y, x = _pixels(mask)
    # Search areas reach two pixels; in the last column, the reflected border hides nothing and shows no more.
    near = (torch.arange(70, device=device) < 35) & ((y - 3).abs() <= 2) & (x >= 2)
    assert q[:, near].isnan().any(0).all()
    assert torch.equal(q[:, ~near], clean[:, ~near])


@triton.jit
def _list_kernel(out, H: tl.constexpr, F: tl.constexpr, FAR_Y: tl.constexpr, FAR_X: tl.constexpr, SIZE: tl.constexpr):
    j = tl.arange(0, SIZE)
    dy, dx = triton_kernels._displacements(j, H, F, FAR_Y, FAR_X)
    tl.store(out + 2 * j, dy)
    tl.store(out + 2 * j + 1, dx)


@pytest.mark.parametrize(("search_px", "window_px"), [(25, 9), (7, 7), (9, 1), (3, 3), (1, 1)])
def test_classes_list_the_half_plane_once(search_px: int, window_px: int, device: torch.device) -> None:
    h, f = search_px // 2, window_px // 2
    layout = kernels._Layout(1, 1, 3 * h + 1, 3 * h + 1, h, f)
    listed = []
    for far_y, far_x, size in kernels._classes(layout):
        out = torch.zeros(512, 2, dtype=torch.int32, device=device)
        _list_kernel[(1,)](out, H=h, F=f, FAR_Y=far_y, FAR_X=far_x, SIZE=512)
        for dy, dx in out[:size].tolist():
            assert (dy > h - f, abs(dx) > h - f) == (far_y, far_x)
            listed.append((dy, dx))
    half = [(dy, dx) for dy in range(h + 1) for dx in range(-h, h + 1) if dy > 0 or dx > 0]
    assert sorted(listed) == half


def test_recorded_in_a_cuda_graph(device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("needs a GPU")
    sr, hr = torch.rand(2, 2, 3, 40, 32, device=device)
    mask = torch.rand(2, 1, 40, 32, device=device) < 0.2
    sr.requires_grad_()

    def step() -> Tensor:
        sr.grad = None
        loss = self_similarity_loss(sr, hr, mask, backend="triton", max_pixels=1000)
        loss.backward()
        return loss

    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = step()
    recorded_grad = sr.grad
    assert recorded_grad is not None
    with torch.no_grad():
        sr.copy_(torch.rand_like(sr))
        mask.copy_(torch.rand_like(mask, dtype=torch.float32) < 0.1)
    graph.replay()
    value, gradient = recorded.clone(), recorded_grad.clone()
    again = step()
    assert torch.equal(value, again.detach())
    assert sr.grad is not None
    assert torch.equal(gradient, sr.grad)


def test_a_device_that_is_not_the_current_one() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    sr, hr = torch.rand(2, 1, 3, 30, 30, device="cuda:1")
    mask = torch.rand(1, 1, 30, 30, device="cuda:1") < 0.2
    with torch.cuda.device(0):
        away = self_similarity_loss(sr, hr, mask, backend="triton")
    with torch.cuda.device(1):
        home = self_similarity_loss(sr, hr, mask, backend="triton")
    assert torch.equal(away, home)
