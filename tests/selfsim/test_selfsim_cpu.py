"""The compiled CPU backend: threads, bands of rows, numba's cache, exp and memory."""

import math
import os
import threading
import tracemalloc

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from selfsr.selfsim import reference
from selfsr.selfsim.contract import Geometry, Pixels, working_bytes

numba = pytest.importorskip("numba")
from selfsr._ops import compiled  # noqa: E402
from selfsr.selfsim.cpu import backend as cpu  # noqa: E402

pytestmark = pytest.mark.compile

GEOMETRY = Geometry(search_px=25, window_px=9, sigma=0.01, normalize=True)


def images(*shape: int, dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return two smooth images that differ a little, equal in both dtypes."""
    generator = torch.Generator().manual_seed(seed)
    hr = F.avg_pool2d(torch.rand(*shape, generator=generator), 3, 1, 1)
    return (hr + 0.05 * torch.randn(*shape, generator=generator)).to(dtype), hr.to(dtype)


def make_mask(n: int, height: int, width: int, density: float, seed: int = 0) -> Tensor:
    return torch.rand(n, 1, height, width, generator=torch.Generator().manual_seed(seed)) < density


def list_pixels(mask: Tensor) -> Pixels:
    return Pixels(*mask[:, 0].nonzero(as_tuple=True))


def pad(image: Tensor, geometry: Geometry) -> Tensor:
    h = geometry.half_search
    return F.pad(image, (h, h, h, h), mode="reflect")


def run_stages(sr: Tensor, hr: Tensor, mask: Tensor, geometry: Geometry) -> tuple[Tensor, ...]:
    """Return window distances, loss parts, and the gradients towards q and the padded image."""
    pixels = list_pixels(mask)
    q = cpu.window_distances(pad(sr, geometry), pixels, geometry)
    parts, grad_q = cpu.loss_and_row_gradient(
        q.clone(), cpu.window_distances(pad(hr, geometry), pixels, geometry), geometry, 2.0, 3.0, True
    )
    assert grad_q is not None
    return q, parts, grad_q, cpu.window_distances_backward(pad(sr, geometry), grad_q.clone(), pixels, geometry)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_any_number_of_threads_gives_the_same_bits(threads):
    sr, hr = images(2, 3, 70, 50, dtype=torch.float32)
    mask = make_mask(2, 70, 50, 0.3)
    results = []
    for count in (1, 2, 3, 8):
        threads(count)
        results.append(run_stages(sr, hr, mask, GEOMETRY))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


def test_concurrent_callers_get_the_same_bits(threads):
    threads(3)
    inputs = [(*images(1, 3, 40, 30, dtype=torch.float32, seed=n), make_mask(1, 40, 30, 0.3, seed=n)) for n in range(4)]
    expected = [run_stages(*one, GEOMETRY) for one in inputs]
    wrong, finished = [], []

    def repeat(n: int) -> None:
        for _ in range(8):
            got = run_stages(*inputs[n], GEOMETRY)
            if not all(torch.equal(a, b) for a, b in zip(expected[n], got, strict=True)):
                wrong.append(n)
        finished.append(n)

    callers = [threading.Thread(target=repeat, args=(n,)) for n in range(len(inputs))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert sorted(finished) == [0, 1, 2, 3]
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_process_makes_its_own_threads(threads):
    threads(2)
    sr, _ = images(1, 3, 40, 30, dtype=torch.float32)
    padded, pixels = pad(sr, GEOMETRY), list_pixels(make_mask(1, 40, 30, 0.3))
    expected = cpu.window_distances(padded, pixels, GEOMETRY).numpy()
    child = os.fork()
    if child == 0:
        # numpy only: torch's own threads do not survive a fork.
        same = np.array_equal(cpu.window_distances(padded, pixels, GEOMETRY).numpy(), expected)
        os._exit(0 if same else 1)
    waiting = threading.Timer(60, os.kill, (child, 9))
    waiting.start()
    _, status = os.waitpid(child, 0)
    waiting.cancel()
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize("band_rows", [1, 3, 1000])
@pytest.mark.parametrize(("search_px", "window_px", "channels"), [(9, 5, 3), (7, 7, 2), (5, 1, 5), (13, 11, 1)])
def test_bands_of_any_height_match_the_definition(monkeypatch, band_rows, search_px, window_px, channels):
    monkeypatch.setattr(cpu, "_BAND_ROWS", band_rows)
    monkeypatch.setattr(cpu, "_TRUNCATED_ROWS", band_rows)
    geometry = Geometry(search_px=search_px, window_px=window_px, sigma=0.05, normalize=True)
    sr, hr = images(2, channels, 41, 19, dtype=torch.float64)
    mask = make_mask(2, 41, 19, 0.2)
    mask[0, 0, 11:30] = False
    options = {"search_px": search_px, "window_px": window_px, "sigma": 0.05, "normalize": True}
    leaf = sr.clone().requires_grad_()
    l1, kl = reference.loss_parts(leaf, hr, mask, **options, l1_weight=2.0, kl_weight=3.0)
    (expected,) = torch.autograd.grad(l1 + kl, leaf)
    q, parts, _, gradient = run_stages(sr, hr, mask, geometry)
    graph = torch.softmax(-q / geometry.sigma, 0).t()
    torch.testing.assert_close(graph, reference.graph(sr, mask, **options), rtol=1e-11, atol=0)
    count = int(mask.sum())
    torch.testing.assert_close(parts / count, torch.stack([l1, kl]), rtol=1e-10, atol=0)
    padding = sr.clone().requires_grad_()
    pad(padding, geometry).backward(gradient / count)
    assert (padding.grad - expected).abs().max() <= 1e-11 * expected.abs().max()


def test_uninitialized_memory_is_never_read(monkeypatch, poisoned_memory):
    sr, hr = images(3, 3, 23, 30, dtype=torch.float32)
    mask = make_mask(3, 23, 30, 0.1)
    mask[1] = False
    # Compiled before numpy.empty changes: numba knows it by identity.
    expected = run_stages(sr, hr, mask, GEOMETRY)
    empty = np.empty

    def poisoned(shape, dtype=float, **options):
        array = empty(shape, dtype, **options)
        if array.dtype.kind == "f":
            array.fill(np.nan)
        return array

    monkeypatch.setattr(np, "empty", poisoned)
    for a, b in zip(expected, run_stages(sr, hr, mask, GEOMETRY), strict=True):
        assert torch.isfinite(b).all()
        assert torch.equal(a, b)


def test_no_pixels_give_empty_graphs_and_zero_gradient(monkeypatch):
    sr, hr = images(1, 3, 20, 20, dtype=torch.float32)
    q, parts, grad_q, gradient = run_stages(sr, hr, torch.zeros(1, 1, 20, 20, dtype=torch.bool), GEOMETRY)
    assert q.shape == grad_q.shape == (625, 0)
    assert parts.tolist() == [0, 0]
    assert torch.equal(gradient, torch.zeros(1, 3, 44, 44))


def test_nan_reaches_only_windows_that_contain_it():
    sr, hr = images(1, 3, 60, 60, dtype=torch.float32)
    mask = torch.zeros(1, 1, 60, 60, dtype=torch.bool)
    mask[0, 0, 30, 30] = mask[0, 0, 5, 5] = True
    sr[0, 1, 40, 25] = math.nan
    q, parts, grad_q, gradient = run_stages(sr, hr, mask, GEOMETRY)
    # Pixel (5, 5) does not see the NaN; pixel (30, 30) sees it at (10, -5), in the windows of d = (6..12, -9..-1).
    nan = q.isnan()
    assert not nan[:, 0].any()
    seen = torch.zeros(25, 25, dtype=torch.bool)
    seen[6 + 12 :, -9 + 12 : -1 + 12 + 1] = True
    assert torch.equal(nan[:, 1], seen.flatten())
    assert parts.isnan().all()
    assert not grad_q[:, 0].isnan().any()
    assert gradient.isnan().any()


def test_kl_has_five_digits_in_float32():
    """With broad similarities a row's KL is thousands of times smaller than its logarithms."""
    geometry = Geometry(search_px=25, window_px=9, sigma=0.05, normalize=True)
    sr, hr = images(1, 3, 64, 64, dtype=torch.float32)
    mask = make_mask(1, 64, 64, 0.1)
    exact = run_stages(sr.double(), hr.double(), mask, geometry)[1]
    torch.testing.assert_close(run_stages(sr, hr, mask, geometry)[1], exact, rtol=3e-6, atol=0)


def test_exp_in_float32_is_exact_to_one_unit():
    @numba.njit
    def exp(values, out):
        for i in range(values.size):
            out[i] = compiled.exp(values[i])

    values = np.linspace(-87, 0, 500_001, dtype=np.float32)
    out = np.zeros_like(values)
    exp(values, out)
    exact = np.exp(values.astype(np.float64))
    assert np.abs(out / exact - 1).max() < 1.2e-7  # one unit in the last place
    assert out[-1] == 1
    edge = np.array([math.nan, -math.inf, -1e30, -0.0], np.float32)
    out = np.zeros_like(edge)
    exp(edge, out)
    assert np.isnan(out[0])
    assert (out[1:3] == 0).all()
    assert out[3] == 1


def _fill(team, *arguments):
    return compiled.share(team, _fill_tasks, arguments)


@compiled.helper
def _fill_tasks(counter, out):
    while True:
        task = compiled.next_task(counter)
        if task >= out.size:
            return
        out[task] += task + 1


@pytest.fixture
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    compiled._compile.cache_clear()
    yield tmp_path
    compiled._compile.cache_clear()


def _run_fill() -> list[float]:
    out = np.zeros(100)
    compiled.run(_fill, 100, out)
    return out.tolist()


def test_each_task_runs_once_and_kernels_are_cached_on_disk(cache_folder):
    assert _run_fill() == list(range(1, 101))
    assert list(cache_folder.rglob("*.nbc"))


def _count(team, *arguments):
    return compiled.share(team, _count_calls, arguments)


@compiled.helper
def _count_calls(_counter, calls):
    compiled.next_task(calls)


def test_every_thread_of_torch_runs_the_kernel(threads):
    if not compiled._openmp():
        pytest.skip("torch's OpenMP cannot be called here")
    for number in (2, 3, 1):
        threads(number)
        calls = np.zeros(1, np.int64)
        compiled.run(_count, 100, calls)
        assert calls[0] == number


def test_pool_without_openmp_gives_the_same_bits(threads, monkeypatch):
    threads(2)
    sr, _ = images(1, 3, 40, 30, dtype=torch.float32)
    padded, pixels = pad(sr, GEOMETRY), list_pixels(make_mask(1, 40, 30, 0.3))
    expected = cpu.window_distances(padded, pixels, GEOMETRY)
    monkeypatch.setattr(compiled, "_openmp", lambda: 0)
    assert torch.equal(cpu.window_distances(padded, pixels, GEOMETRY), expected)
    assert _run_fill() == list(range(1, 101))


def _want_too_much(team, *arguments):
    return compiled.share(team, _allocate, arguments)


@compiled.helper
def _allocate(_counter, size, out):
    out[0] = np.empty(size)[0]


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("openmp", [True, False])
def test_kernel_without_memory_raises_memory_error(threads, monkeypatch, number, openmp):
    threads(number)
    if not openmp:
        monkeypatch.setattr(compiled, "_openmp", lambda: 0)
    compiled.run(_want_too_much, 2, 10, np.zeros(1))
    with pytest.raises(MemoryError, match=r"^_want_too_much: could not allocate the work memory of this kernel\.$"):
        compiled.run(_want_too_much, 2, 2**58, np.zeros(1))


def test_damaged_cache_is_compiled_again(cache_folder):
    _run_fill()
    for file in cache_folder.rglob("*.nb?"):
        file.write_bytes(b"\x80damaged")
    compiled._compile.cache_clear()
    assert _run_fill() == list(range(1, 101))


def test_kernel_runs_without_a_cache_folder(cache_folder, monkeypatch):
    def nowhere(self):
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(numba.core.dispatcher.Dispatcher, "enable_caching", nowhere)
    assert _run_fill() == list(range(1, 101))
    assert not list(cache_folder.rglob("*"))


def test_kernel_runs_with_a_full_disk(cache_folder, monkeypatch):
    def full(self, name, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(numba.core.caching.IndexDataCacheFile, "_save_data", full)
    assert _run_fill() == list(range(1, 101))


@pytest.mark.parametrize("search_px", [7, 25])
def test_memory_stays_within_working_bytes(search_px, monkeypatch):
    monkeypatch.setattr(cpu, "empty", np.empty)  # count the requested bytes, not the full pages
    geometry = Geometry(search_px=search_px, window_px=5, sigma=0.01, normalize=True)
    shape = (2, 3, 150, 130)
    sr, hr = images(*shape, dtype=torch.float32)
    mask = make_mask(2, 150, 130, 0.02)
    run_stages(sr, hr, mask, geometry)
    padded, pixels = pad(sr, geometry), list_pixels(mask)
    count = len(pixels.row)
    graph = geometry.entries * count * 4
    bound = working_bytes(count, 2, 150, 130, geometry, 4)
    grad_q = cpu.window_distances(padded, pixels, geometry)
    tracemalloc.start()
    try:
        cpu.window_distances(padded, pixels, geometry)
        # torch's own memory, q, is not traced; the graph of the other image may be there too.
        assert tracemalloc.get_traced_memory()[1] <= bound - 2 * graph
        tracemalloc.reset_peak()
        cpu.window_distances_backward(padded, grad_q, pixels, geometry)
        gradient = padded.numel() * 4
        assert gradient < tracemalloc.get_traced_memory()[1] <= bound - 2 * graph + gradient
    finally:
        tracemalloc.stop()
