"""Tiles leave no seam, no black rim, and no trace in the result."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from selfsr.machine.memory import PeakBytes, is_out_of_memory
from selfsr.upscaling.tile_size import find_largest_tile_px, halve_tile_px
from selfsr.upscaling.tiling import self_ensemble, split_axis, upscale_blocks, upscale_tiled

MULTIPLES = st.sampled_from([1, 1, 1, 2, 3, 8])


def conv_net(scale: int, radius: int, seed: int = 0) -> nn.Module:
    """A random upscaler whose output depends on `radius` input pixels on each side."""
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 8, 3, padding=1), *(nn.Conv2d(8, 8, 3, padding=1) for _ in range(radius - 2))]
    body = [module for conv in layers for module in (conv, nn.Tanh())]
    return nn.Sequential(*body, nn.Conv2d(8, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale)).double().eval()


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 700), st.integers(1, 40), st.data(), MULTIPLES)
def test_split_axis_covers_the_axis_once(length, tile_units, data, multiple_px):
    tile_px = tile_units * multiple_px
    overlap_px = data.draw(st.integers(0, tile_px - 1))
    found = split_axis(length, tile_px, overlap_px, multiple_px)
    assert found[0].fade_in == (0, 0)
    assert found[-1].fade_out == (length, length)
    for span in found:
        assert span.start % multiple_px == 0
        assert 0 < span.stop - span.start <= tile_px
        assert span.start <= span.fade_in[0] <= span.fade_in[1] <= span.fade_out[0] <= span.fade_out[1] <= span.stop
        assert span.fade_in[0] < span.fade_out[1]
    for a, b in itertools.pairwise(found):
        assert a.fade_out == b.fade_in
        assert a.stop - b.start >= min(overlap_px, tile_px - multiple_px) - multiple_px + 1 or multiple_px == 1
        if multiple_px == 1:
            shared = a.stop - b.start
            assert shared >= overlap_px
            # what is thrown away on either side is context
            assert a.stop - a.fade_out[1] >= shared * 3 // 8
            assert b.fade_in[0] - b.start >= shared * 3 // 8


def test_split_axis_has_the_fewest_and_smallest_tiles():
    assert [(s.start, s.stop) for s in split_axis(600, 512, 64)] == [(0, 332), (268, 600)]
    assert split_axis(100, 128, 32) == split_axis(100, 100, 32)
    assert len(split_axis(100, 128, 32)) == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 5), st.data(), MULTIPLES, st.integers(1, 3))
def test_upscale_tiled_of_identity_is_identity(height, width, tile_units, data, multiple_px, scale):
    tile_px = 7 * tile_units * multiple_px
    overlap_px = data.draw(st.integers(0, tile_px - 1))
    lr = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)) + 0.1
    before = lr.clone()
    sr = upscale_tiled(
        lambda x: x.repeat_interleave(scale, 2).repeat_interleave(scale, 3),
        lr,
        scale=scale,
        tile_px=tile_px,
        overlap_px=overlap_px,
        multiple_px=multiple_px,
    )
    assert torch.allclose(sr, before.repeat_interleave(scale, 2).repeat_interleave(scale, 3), rtol=0, atol=1e-6)
    assert torch.equal(lr, before)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(2, 30), st.data())
def test_upscale_tiled_keeps_positions(height, width, tile_px, data):
    """The pixels of the image are their coordinates; a linear upscaler must return a plane."""
    overlap_px = data.draw(st.integers(0, tile_px - 1))
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    lr = torch.stack([rows, columns])[None].double()

    def affine(x):
        offset = torch.tensor([-0.25, 0.25], dtype=x.dtype)
        up = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        up[:, 0] += offset.repeat(x.shape[2])[:, None]
        up[:, 1] += offset.repeat(x.shape[3])
        return up

    assert torch.allclose(
        upscale_tiled(affine, lr, scale=2, tile_px=tile_px, overlap_px=overlap_px), affine(lr), atol=1e-9
    )


def test_upscale_blocks_writes_each_pixel_once():
    """Weights that are zero at a tile's edge paint black there; this counts every written pixel."""
    written = torch.zeros(2 * 61, 2 * 83)
    lr = torch.full((1, 1, 61, 83), 0.7)

    def write(rows, columns, block):
        written[rows, columns] += 1
        assert torch.allclose(block, torch.tensor(0.7), atol=1e-6)

    upscale_blocks(
        lambda x: functional.interpolate(x, scale_factor=2),
        lambda rows, columns: lr[..., rows, columns],
        write,
        height=61,
        width=83,
        scale=2,
        tile_px=24,
        overlap_px=8,
    )
    assert bool((written == 1).all())


@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize("size", [(50, 91), (20, 64), (33, 32)])
def test_tiled_equals_untiled_if_context_covers_receptive_field(scale, size):
    radius = 6
    net = conv_net(scale, radius)
    lr = torch.rand(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        whole = net(lr)
        assert torch.allclose(upscale_tiled(net, lr, scale=scale, tile_px=32, overlap_px=16), whole, rtol=0, atol=1e-12)
        worse = upscale_tiled(net, lr, scale=scale, tile_px=32, overlap_px=0)
    if max(size) > 32:  # the test can fail: without overlap there is a seam
        assert float((worse - whole).abs().max()) > 1e-4


def test_tiles_start_on_the_grid_of_the_network():
    """A network that works on blocks of 4 gives the same blocks, tiled."""

    def blocks(x):
        return functional.interpolate(functional.avg_pool2d(x, 4), scale_factor=4)

    lr = torch.rand(1, 1, 48, 48, dtype=torch.float64)
    assert torch.equal(upscale_tiled(blocks, lr, scale=1, tile_px=20, overlap_px=8, multiple_px=4), blocks(lr))
    assert not torch.equal(upscale_tiled(blocks, lr, scale=1, tile_px=20, overlap_px=6), blocks(lr))


def test_self_ensemble_is_the_mean_over_the_eight_symmetries():
    net = conv_net(2, 4)
    lr = torch.rand(1, 3, 9, 14, dtype=torch.float64)
    with torch.no_grad():
        ours = self_ensemble(lambda x: net(x.double()))(lr)
        outs = []
        for turns in range(4):
            for flip in (False, True):
                x = torch.rot90(lr.flip(-1) if flip else lr, turns, (-2, -1))
                y = torch.rot90(net(x), -turns, (-2, -1))
                outs.append(y.flip(-1) if flip else y)
        assert len({float(y.sum()) for y in outs}) == 8
        assert torch.allclose(ours.double(), torch.stack(outs).mean(0), atol=1e-6)
        # and so it commutes with them
        assert torch.allclose(self_ensemble(net)(lr.flip(-1).mT), ours.flip(-1).mT, atol=1e-6)


def test_memory_does_not_grow_with_the_height_of_the_image():
    net = conv_net(2, 3).float()

    def peak(height):
        with torch.inference_mode(), PeakBytes() as counted:
            upscale_blocks(
                net,
                lambda rows, columns: torch.zeros(1, 3, rows.stop - rows.start, columns.stop - columns.start),
                lambda rows, columns, block: None,
                height=height,
                width=80,
                scale=2,
                tile_px=48,
                overlap_px=16,
            )
        return counted.peak

    # tiles of the two heights are within a pixel of the same size
    assert peak(480) <= 1.05 * peak(160)
    assert peak(160) < 2 * 48 * 48 * (8 + 8 + 12) * 4


def test_peak_bytes_counts_what_is_alive_at_once():
    with PeakBytes() as counted:
        a = torch.zeros(1000)
        b = a + 1
        c = b.view(10, 100)
        del a, b
        d = torch.zeros(500)
        c.add_(1)
    assert counted.peak == 8000
    del c, d


def test_tile_fits_the_free_memory(monkeypatch):
    net = conv_net(2, 3).float()
    cpu = torch.device("cpu")
    for free, expected in ((2**40, 512), (2**25, 256), (2**10, 32)):
        monkeypatch.setattr("selfsr.upscaling.tile_size.measure_free_bytes", lambda _, free=free: free)
        assert find_largest_tile_px(net, 3, cpu) == expected
        assert find_largest_tile_px(net, 3, cpu, multiple_px=48) == max(expected // 48, 1) * 48
        assert find_largest_tile_px(net, 3, cpu, minimum_px=100) == max(expected, 100)

    def starved(_):
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.")

    assert find_largest_tile_px(starved, 3, cpu) == 64


def test_halve_tile_px_keeps_multiples():
    assert [halve_tile_px(512), halve_tile_px(64), halve_tile_px(63), halve_tile_px(200, 48)] == [
        256,
        32,
        None,
        96,
    ]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes. Error code 12"),
            True,
        ),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"), True),
        (MemoryError(), True),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_is_out_of_memory_knows_the_errors(error, expected):
    assert is_out_of_memory(error) is expected


def test_is_out_of_memory_knows_a_real_error():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**55, dtype=torch.float64)
    assert is_out_of_memory(error.value)
