"""How the Triton kernels are launched: addresses, CUDA graphs, repetition and devices."""

from pathlib import Path

import pytest
import torch
from kernel_cases import list_pixels, pad_reflect, random_images, random_mask
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from interpreter import raise_on_overflow
from selfsr import self_similarity_loss
from selfsr.selfsim.contract import Geometry
from selfsr.selfsim.operator import loss_and_gradient
from selfsr.selfsim.triton import backend
from selfsr.selfsim.triton.packing import PackedBatch

pytestmark = pytest.mark.triton


class _FirstPrograms:
    """A kernel of which only the first programs are launched."""

    def __init__(self, kernel, programs: int):
        self.kernel, self.programs = kernel, programs

    def __getitem__(self, grid: tuple[int]):
        return self.kernel[(min(grid[0], self.programs),)]


def test_graph_above_two_to_the_31_entries_gives_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: torch.device
) -> None:
    """The graph of 128 pixels has rows 2^27 apart, in a sparse file."""
    if device.type != "cpu":
        pytest.skip("files with holes stand in for memory on the CPU only")
    raise_on_overflow(monkeypatch)
    many, shape, geometry = 2**27, (1, 1, 8, 16), Geometry(5, 3, 0.05)
    padded = pad_reflect(random_images(shape, device), geometry).float()
    pixels = list_pixels(torch.ones(1, 1, 8, 16, dtype=torch.bool))
    q = backend.window_distances(padded, pixels, geometry)
    _, grad_q = backend.loss_and_row_gradient(q.clone(), q.flip(1), geometry, 1, 1, True)
    assert grad_q is not None
    grad = backend.window_distances_backward(padded, grad_q.clone(), pixels, geometry)

    new_empty, files = torch.Tensor.new_empty, iter(range(100))

    def sparse(self: Tensor, *size, **options) -> Tensor:
        tensor = new_empty(self, *size, **{**options, "device": "meta"})
        if tensor.numel() < 2**26:
            return new_empty(self, *size, **options)
        name = str(tmp_path / f"{next(files)}")
        return torch.from_file(name, shared=True, size=tensor.numel(), dtype=tensor.dtype).view(tensor.shape)

    def spread_out(values: Tensor) -> Tensor:
        wide = sparse(values, values.shape[0], many)
        wide[:, :128] = values
        return wide

    monkeypatch.setattr(torch.Tensor, "new_empty", sparse)
    for name, programs in (("truncated_energy_kernel", 1), ("truncated_weight_kernel", 1), ("row_kernel", 4)):
        monkeypatch.setattr(backend, name, _FirstPrograms(getattr(backend, name), programs))
    set_up = PackedBatch.__init__

    def set_up_many(self, *arguments) -> None:
        set_up(self, *arguments)
        self.count = many

    monkeypatch.setattr(PackedBatch, "__init__", set_up_many)
    assert geometry.entries * many > 2**31
    assert torch.equal(backend.window_distances(padded, pixels, geometry)[:, :128], q)
    _, wide_grad_q = backend.loss_and_row_gradient(spread_out(q), spread_out(q.flip(1)), geometry, 1, 1, True)
    assert wide_grad_q is not None
    assert torch.equal(wide_grad_q[:, :128], grad_q)
    assert torch.equal(backend.window_distances_backward(padded, wide_grad_q, pixels, geometry), grad)


class _Recorder(TorchDispatchMode):
    """Records each operation with its shapes, and refuses those that read a value on the host."""

    def __init__(self):
        super().__init__()
        self.operations: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)]
        name = func._overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique"), name
        if name in ("index", "index_put", "index_put_"):
            assert all(index.dtype != torch.bool for index in tensors[1:]), "the host waits for an index of booleans"
        self.operations.append(f"{func} {[tuple(tensor.shape) for tensor in tensors]}")
        return func(*args, **(kwargs or {}))


def test_with_max_pixels_no_shape_or_launch_depends_on_the_mask(
    monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    """A CUDA graph can then be replayed with another mask."""
    sr, hr = random_images((2, 1, 3, 4), device).float(), random_images((2, 1, 3, 4), device, seed=1).float()
    launches: list[tuple] = []
    launch = type(backend.row_kernel).run

    def counted(self, *arguments, grid, **options):
        assert not arguments, "a launch by position"
        numbers = {name: value for name, value in options.items() if not isinstance(value, Tensor)}
        launches.append((self.__name__, grid, numbers))
        return launch(self, *arguments, grid=grid, **options)

    monkeypatch.setattr(type(backend.row_kernel), "run", counted)
    traces, values = [], []
    for share in (0.0, 0.3, 1.0):
        mask = torch.rand(2, 1, 3, 4, generator=torch.Generator().manual_seed(1)).to(device) < share
        launches.clear()
        with _Recorder() as recorder:
            arguments = (Geometry(3, 1, 0.05), 1.0, 1.0, True, "triton", 256.0, 12)
            total, gradient = loss_and_gradient(sr, hr, mask, *arguments)
        traces.append((recorder.operations, list(launches)))
        values.append(total.item())
        assert gradient.shape == sr.shape
    assert traces[0] == traces[1] == traces[2]
    assert len(traces[0][1]) > 8
    assert values[0] == 0
    assert values[1] != values[2]


def test_repeated_calls_give_the_same_bits(device: torch.device) -> None:
    shape, geometry = (2, 1, 2, 3), Geometry(3, 3, 0.05)
    padded = pad_reflect(random_images(shape, device), geometry).float()
    pixels = list_pixels(random_mask(shape, device))
    first, second = (backend.window_distances(padded, pixels, geometry) for _ in range(2))
    assert torch.equal(first, second)
    other = torch.flip(first, (1,))
    rows = [backend.loss_and_row_gradient(first.clone(), other.clone(), geometry, 1, 1, True) for _ in range(2)]
    assert torch.equal(rows[0][0], rows[1][0])
    assert torch.equal(rows[0][1], rows[1][1])
    grads = [backend.window_distances_backward(padded, first.clone(), pixels, geometry) for _ in range(2)]
    assert torch.equal(*grads)


def test_cuda_graph_replays_loss_and_gradient(device: torch.device) -> None:
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


def test_gpu_that_is_not_current_gives_the_same_loss() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    sr, hr = torch.rand(2, 1, 3, 30, 30, device="cuda:1")
    mask = torch.rand(1, 1, 30, 30, device="cuda:1") < 0.2
    with torch.cuda.device(0):
        away = self_similarity_loss(sr, hr, mask, backend="triton")
    with torch.cuda.device(1):
        home = self_similarity_loss(sr, hr, mask, backend="triton")
    assert torch.equal(away, home)
