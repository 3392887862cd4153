"""Chunks of a batch: they contain every masked pixel once, in order, within the budget."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from selfsim_cases import CASES, Case, images

from selfsr._ops.dispatch import load_backend
from selfsr.machine.memory import PeakBytes
from selfsr.selfsim import eager
from selfsr.selfsim.chunks import Chunk, plan_chunks, split_into_chunks
from selfsr.selfsim.contract import FIXED_BYTES, Geometry, working_bytes
from selfsr.selfsim.operator import PACKAGE, loss_and_gradient

GEOMETRY = Geometry(search_px=5, window_px=3)
WIDTH = 6
COUNTS = st.integers(1, 5).flatmap(
    lambda height: st.lists(st.lists(st.integers(0, WIDTH), min_size=height, max_size=height), min_size=1, max_size=5)
)


@given(counts=COUNTS, share=st.floats(0, 1))
def test_each_masked_row_is_in_one_chunk_within_the_budget(counts, share):
    one_row = working_bytes(WIDTH, 1, 1, WIDTH, GEOMETRY, 4)
    everything = working_bytes(sum(map(sum, counts)), len(counts), len(counts[0]), WIDTH, GEOMETRY, 4)
    budget = one_row + share * max(everything - one_row, 0)
    chunks = plan_chunks(counts, WIDTH, GEOMETRY, 4, budget)
    seen = []
    for chunk in chunks:
        assert chunk.working_bytes(WIDTH, GEOMETRY, 4) <= budget
        rows = [
            (n, y)
            for n in range(chunk.first_image, chunk.last_image)
            for y in range(chunk.first_row, chunk.last_row)
            if counts[n][y]
        ]
        assert sum(counts[n][y] for n, y in rows) == chunk.pixels > 0
        seen += rows
    assert seen == [(n, y) for n, rows in enumerate(counts) for y, pixels in enumerate(rows) if pixels]


def test_small_images_share_a_chunk_without_unmasked_rims():
    counts = [[0, 0, 0], [0, 2, 0], [0, 0, 0], [0, 1, 3], [0, 0, 0]]
    assert plan_chunks(counts, WIDTH, GEOMETRY, 4, 1e9) == [Chunk(1, 4, 1, 3, 6)]


@settings(deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.just(1), st.integers(1, 6), st.integers(1, 6)),
    seed=st.integers(0, 99),
    share=st.floats(0, 1),
)
def test_chunks_list_the_pixels_of_the_mask(shape, seed, share):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.4
    wanted = mask[:, 0].nonzero()
    budget_mb = (working_bytes(6, 1, 1, 6, GEOMETRY, 4) + share * 20000) / 2**20
    listed = [
        torch.stack((pixels.image + chunk.first_image, pixels.row + chunk.first_row, pixels.column), 1)
        for chunk, pixels in split_into_chunks(mask, GEOMETRY, 4, budget_mb, None)
    ]
    assert torch.equal(torch.cat([wanted[:0], *listed]), wanted)


def test_given_counts_decide_the_chunks_and_nothing_else_is_counted():
    mask = torch.rand((3, 1, 6, 6), generator=torch.Generator().manual_seed(1)) < 0.4
    counted = list(split_into_chunks(mask, GEOMETRY, 4, 0.05, None))
    given_counts = list(split_into_chunks(mask, GEOMETRY, 4, 0.05, None, mask.sum((1, 3))))
    assert [chunk for chunk, _ in given_counts] == [chunk for chunk, _ in counted]
    assert len(counted) > 1
    none = torch.zeros(3, 6, dtype=torch.int64)
    assert list(split_into_chunks(mask, GEOMETRY, 4, 0.05, None, none)) == []


@given(seed=st.integers(0, 99), maximum=st.integers(1, 100))
def test_max_pixels_lists_distinct_ordered_pixels_with_the_first_masked(seed, maximum):
    mask = torch.rand(2, 1, 5, 4, generator=torch.Generator().manual_seed(seed)) < 0.4
    ((chunk, pixels),) = split_into_chunks(mask, GEOMETRY, 4, 100, maximum)
    flat = (pixels.image * 5 + pixels.row) * 4 + pixels.column
    assert len(flat) == chunk.pixels == min(maximum, 40)
    assert (flat.diff() > 0).all()
    masked = mask.flatten().nonzero()[:, 0][:maximum]
    assert torch.isin(masked, flat).all()


@pytest.mark.parametrize(
    "sizes",
    [*CASES[6:10], Case(1, 3, 13, 100, 25, 9, 0.004, mask="all"), Case(3, 1, 40, 30, 13, 5, 0.004, mask="all")],
    ids=str,
)
def test_eager_backend_stays_within_working_bytes(sizes):
    """Count the bytes of live tensors; both graphs exist before `loss_and_row_gradient`."""
    sr, hr, mask = (tensor[:, :, :] for tensor in images(sizes))
    geometry = Geometry(sizes.search_px, sizes.window_px, sizes.sigma)
    ((chunk, pixels),) = split_into_chunks(mask, geometry, 8, 1e6, None)
    bound = chunk.working_bytes(sizes.width, geometry, 8)
    bands = [chunk.select(torch.nn.functional.pad(image, (geometry.half_search,) * 4, "reflect"), geometry.half_search)
             for image in (sr, hr)]  # fmt: skip
    bands = [band.contiguous() for band in bands]
    graph_bytes = 8 * geometry.entries * chunk.pixels
    with PeakBytes() as counted:
        q_sr = eager.window_distances(bands[0], pixels, geometry)
    image_bytes = 8 * bands[0].numel() + 8 * 8 * chunk.pixels
    assert counted.peak <= bound - graph_bytes + 3 * image_bytes
    q_hr = eager.window_distances(bands[1], pixels, geometry)
    with PeakBytes() as counted:
        _, grad_q = eager.loss_and_row_gradient(q_sr, q_hr, geometry, 1.0, 1.0, True)
    assert counted.peak <= bound - 2 * graph_bytes
    assert grad_q is not None
    with PeakBytes() as counted:
        eager.window_distances_backward(bands[0], grad_q, pixels, geometry)
    assert counted.peak <= bound - graph_bytes + 4 * image_bytes


TINY_SIZES = [(1, 1, 1, 1, 1, 1), (1, 3, 2, 2, 3, 1), (1, 3, 40, 4, 3, 3), (1, 3, 4, 40, 7, 7), (3, 3, 20, 20, 5, 3),
              (1, 3, 13, 13, 25, 9), (1, 3, 13, 13, 25, 1), (1, 4, 32, 32, 7, 7)]  # fmt: skip


def _peak(backend: str, work) -> int:
    """Return the peak bytes of tensors (arrays of the compiled backend, without numba's own)."""
    if backend == "eager":
        with PeakBytes() as counted:
            work()
        return counted.peak
    cpu = pytest.importorskip("selfsr.selfsim.cpu.backend")
    work()  # compiles, and fills caches
    with pytest.MonkeyPatch.context() as patch:
        # Count the requested bytes, not the full pages.
        patch.setattr(cpu, "empty", np.empty)
        tracemalloc.start()
        try:
            work()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("density", [0.02, 1.0])
@pytest.mark.parametrize("sizes", TINY_SIZES, ids=str)
def test_tiny_images_stay_within_working_bytes(sizes, density, backend):
    if backend == "triton":
        pytest.skip("counts on a CPU")
    n, c, height, width, search_px, window_px = sizes
    geometry = Geometry(search_px, window_px)
    mask = torch.rand(n, 1, height, width, generator=torch.Generator().manual_seed(0)) < density
    mask[0, 0, 0, 0] = True
    ((chunk, pixels),) = split_into_chunks(mask, geometry, 4, 1e6, None)
    padded = chunk.select(
        torch.rand(n, c, height + search_px - 1, width + search_px - 1), geometry.half_search
    ).contiguous()
    stages = load_backend(PACKAGE, "test", backend, padded)

    def work():
        q_sr, q_hr = (
            stages.window_distances(image, pixels, geometry) for image in (padded, padded.flip(3).contiguous())
        )
        _, grad_q = stages.loss_and_row_gradient(q_sr, q_hr, geometry, 1.0, 1.0, True)
        assert grad_q is not None
        stages.window_distances_backward(padded, grad_q, pixels, geometry)

    images_and_gradient = 4 * 4 * padded.numel()
    assert _peak(backend, work) <= chunk.working_bytes(width, geometry, 4) - FIXED_BYTES + 2**16 + images_and_gradient


@pytest.mark.parametrize("memory_mb", [6, 24])
def test_call_stays_within_its_budget(memory_mb, backend):
    if backend == "triton":
        pytest.skip("counts on a CPU")
    generator = torch.Generator().manual_seed(0)
    sr, hr = torch.rand(2, 2, 3, 64, 48, generator=generator)
    mask = torch.rand(2, 1, 64, 48, generator=generator) < 0.5

    def work(budget=memory_mb):
        # The function behind the operator, which counters of tensors do not look into.
        loss_and_gradient(sr, hr, mask, Geometry(), 1.0, 1.0, True, backend, budget, None)

    padded_bytes = 4 * 2 * 3 * (64 + 24) * (48 + 24)
    assert _peak(backend, work) <= memory_mb * 2**20 + 6 * padded_bytes
    # A single chunk takes more than the smaller budget.
    assert memory_mb > 6 or _peak(backend, lambda: work(256)) > 8 * 2**20
