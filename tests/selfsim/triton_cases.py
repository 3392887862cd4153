"""Tests of the Triton kernels; `test_selfsim_triton.py` runs this file in a process of its own.

There the kernels are interpreted on the CPU, unless the tests run on a GPU. Sizes are as small as they can be for
every class of displacement, several strips, several panels and cut walks to occur.
"""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from interpreter import overflow_is_an_error
from selfsr import self_similarity_loss
from selfsr.selfsim.contract import Geometry, Pixels
from selfsr.selfsim.operator import loss_and_gradient
from selfsr.selfsim.triton import backend as kernels
from selfsr.selfsim.triton import walk as triton_walk

# Shape, search, window: all classes of displacement, with several images and channels; wider windows; only cut
# windows; windows of one pixel, with and without displacements.
SIZES = [
    ((2, 2, 5, 6), 7, 3),
    ((1, 1, 5, 6), 9, 5),
    ((1, 4, 4, 3), 5, 5),
    ((3, 1, 4, 3), 5, 1),
    ((1, 1, 4, 3), 1, 1),
]


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
    center = areas[:, :, h - f : h + f + 1, h - f : h + f + 1]
    rows = [(center - walled[:, :, i : i + k, j : j + k]).square().mean((1, 2, 3)) for i in range(s) for j in range(s)]
    return torch.stack(rows)


def _error(value: Tensor, truth: Tensor) -> float:
    return ((value - truth).abs().max() / truth.abs().max().clamp(min=1e-30)).item()


def _assert_is_the_definition(shape: tuple[int, ...], geometry: Geometry, device: torch.device) -> None:
    """Compare distances and gradient in float32 with the definition in float64."""
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


@pytest.mark.parametrize(("shape", "search_px", "window_px"), SIZES)
@pytest.mark.usefixtures("poisoned_memory")
def test_distances_and_gradients_are_those_of_the_definition(
    shape: tuple[int, ...], search_px: int, window_px: int, device: torch.device
) -> None:
    _assert_is_the_definition(shape, Geometry(search_px, window_px), device)


@pytest.mark.usefixtures("poisoned_memory")
def test_the_published_window_reaches_three_lanes(device: torch.device) -> None:
    geometry = Geometry(11, 9)
    exact = _pad(_images((1, 1, 6, 6), device), geometry)
    pixels = _pixels(_mask((1, 1, 6, 6), device))
    q = kernels.graph_sums(exact.float(), pixels, geometry)
    assert _error(q, _distances(exact, pixels, geometry)) < 5e-7


def test_float64_is_computed_in_float64(device: torch.device) -> None:
    geometry = Geometry(3, 3, 0.05)
    exact = _pad(_images((1, 2, 3, 3), device), geometry).requires_grad_()
    pixels = _pixels(_mask((1, 2, 3, 3), device))
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


class _FirstPrograms:
    """A kernel of which only the first programs are launched."""

    def __init__(self, kernel, programs: int):
        self.kernel, self.programs = kernel, programs

    def __getitem__(self, grid: tuple[int]):
        return self.kernel[(min(grid[0], self.programs),)]


def test_graphs_of_more_than_two_to_the_31_entries(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: torch.device
) -> None:
    """128 pixels whose graph has the addresses of one of 2^27: its rows lie that far apart, in a file full of holes."""
    if device.type != "cpu":
        pytest.skip("files with holes stand in for memory on the CPU only")
    overflow_is_an_error(monkeypatch)
    many, shape, geometry = 2**27, (1, 1, 8, 16), Geometry(5, 3, 0.05)
    padded = _pad(_images(shape, device), geometry).float()
    pixels = _pixels(torch.ones(1, 1, 8, 16, dtype=torch.bool))
    q = kernels.graph_sums(padded, pixels, geometry)
    _, grad_q = kernels.row_pass(q.clone(), q.flip(1), geometry, 1, 1, True)
    assert grad_q is not None
    grad = kernels.graph_backward(padded, grad_q.clone(), pixels, geometry)

    new_empty, files = torch.Tensor.new_empty, iter(range(100))

    def sparse(self: Tensor, *size, **options) -> Tensor:
        made = new_empty(self, *size, **{**options, "device": "meta"})
        if made.numel() < 2**26:
            return new_empty(self, *size, **options)
        name = str(tmp_path / f"{next(files)}")
        return torch.from_file(name, shared=True, size=made.numel(), dtype=made.dtype).view(made.shape)

    def spread_out(values: Tensor) -> Tensor:
        wide = sparse(values, values.shape[0], many)
        wide[:, :128] = values
        return wide

    monkeypatch.setattr(torch.Tensor, "new_empty", sparse)
    for name, programs in (("cut_energy_kernel", 1), ("cut_gradient_kernel", 1), ("row_kernel", 4)):
        monkeypatch.setattr(kernels, name, _FirstPrograms(getattr(kernels, name), programs))
    set_up = kernels._Panels.__init__

    def set_up_many(self, *arguments) -> None:
        set_up(self, *arguments)
        self.count = many

    monkeypatch.setattr(kernels._Panels, "__init__", set_up_many)
    assert geometry.entries * many > 2**31
    assert torch.equal(kernels.graph_sums(padded, pixels, geometry)[:, :128], q)
    _, wide_grad_q = kernels.row_pass(spread_out(q), spread_out(q.flip(1)), geometry, 1, 1, True)
    assert wide_grad_q is not None
    assert torch.equal(wide_grad_q[:, :128], grad_q)
    assert torch.equal(kernels.graph_backward(padded, wide_grad_q, pixels, geometry), grad)


class _Recorder(TorchDispatchMode):
    """Writes down each operation with the shapes it was given, and refuses those that read a value on the host."""

    def __init__(self):
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)]
        name = func._overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique"), name
        if name in ("index", "index_put", "index_put_"):
            assert all(index.dtype != torch.bool for index in tensors[1:]), "the host waits for an index of booleans"
        self.seen.append(f"{func} {[tuple(tensor.shape) for tensor in tensors]}")
        return func(*args, **(kwargs or {}))


def test_with_a_known_number_of_pixels_no_shape_and_no_launch_depends_on_the_mask(
    monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    """What a CUDA graph needs, to be replayed with another mask."""
    sr, hr = _images((2, 1, 3, 4), device).float(), _images((2, 1, 3, 4), device, seed=1).float()
    launches: list[tuple] = []
    launch = type(kernels.row_kernel).run

    def counted(self, *arguments, grid, **options):
        launches.append((self.__name__, grid, *(a for a in arguments if not isinstance(a, Tensor))))
        return launch(self, *arguments, grid=grid, **options)

    monkeypatch.setattr(type(kernels.row_kernel), "run", counted)
    traces, values = [], []
    for share in (0.0, 0.3, 1.0):
        mask = torch.rand(2, 1, 3, 4, generator=torch.Generator().manual_seed(1)).to(device) < share
        launches.clear()
        with _Recorder() as recorder:
            arguments = (Geometry(3, 1, 0.05), 1.0, 1.0, True, "triton", 256.0, 12)
            total, gradient = loss_and_gradient(sr, hr, mask, *arguments)
        traces.append((recorder.seen, list(launches)))
        values.append(total.item())
        assert gradient.shape == sr.shape
    assert traces[0] == traces[1] == traces[2]
    assert len(traces[0][1]) > 8
    assert values[0] == 0
    assert values[1] != values[2]


@pytest.mark.parametrize("panels", [1, 2])
@pytest.mark.usefixtures("poisoned_memory")
def test_images_in_several_strips_and_panels(
    panels: int, monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    shape, geometry = (41, 1, 2, 2), Geometry(3, 3, 0.05)
    monkeypatch.setattr(kernels._Layout, "per_panel", -(-41 // panels))
    layout = kernels._Layout.of(_pad(_images(shape, device), geometry), geometry)
    assert (layout.panels, layout.strips) == (panels, 3 - panels)
    _assert_is_the_definition(shape, geometry, device)


@pytest.mark.usefixtures("poisoned_memory")
def test_walks_one_below_the_other(device: torch.device) -> None:
    shape, geometry = (1, 1, 26, 2), Geometry(3, 3, 0.05)
    layout = kernels._Layout.of(_pad(_images(shape, device), geometry), geometry)
    assert layout.walks(2, 1, layout.height)[2] > 1
    _assert_is_the_definition(shape, geometry, device)


@pytest.mark.usefixtures("poisoned_memory")
def test_what_is_kept_at_once_changes_no_bit(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    """Sums over displacements are continued from one part of a class to the next."""
    geometry = Geometry(3, 3, 0.05)
    padded = _pad(_images((1, 1, 2, 3), device), geometry).float()
    pixels = _pixels(_mask((1, 1, 2, 3), device))
    grad_q = (_images((9, pixels.row.numel()), device, seed=2) - 0.5).float()
    grad = kernels.graph_backward(padded, grad_q.clone(), pixels, geometry)
    monkeypatch.setattr(kernels, "SPREAD_BYTES", 0)
    monkeypatch.setattr(kernels, "ROWS", 1)
    assert torch.equal(kernels.graph_backward(padded, grad_q.clone(), pixels, geometry), grad)


def test_the_same_bits_each_time(device: torch.device) -> None:
    shape, geometry = (2, 1, 2, 3), Geometry(3, 3, 0.05)
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
    dy, dx = triton_walk.displacements(j, H, F, FAR_Y, FAR_X)
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
