"""Lower bounds of GPU times by hand, and the GPU part of the benchmark with made-up peak rates."""

import json
from dataclasses import replace

import pytest
import torch

import gpu_floor
import ops_gpu
from selfsr.bench import measure
from selfsr.bench.workload import Workload

MACHINE = gpu_floor.GpuPeaks("a GPU", 4e12, 30e12)


def test_floors_of_the_published_sizes():
    """312 displacements, three channels: two graphs of 14 instructions each and a backward of 20."""
    work = gpu_floor.similarity_work((64, 3, 128, 128), 209_715, 25, 9)
    assert work.lanes == 64 * 128**2 * 312 * (2 * 14 + 20)
    assert work.bytes == 6 * 4 * 209_715 * 625
    assert work.minimum_seconds(MACHINE) == pytest.approx(work.bytes / 4e12)
    assert replace(work, bytes=0).minimum_seconds(MACHINE) == pytest.approx(work.lanes / 30e12)
    assert work.peak_shares(MACHINE, 1e-3) == pytest.approx((work.lanes / 30e9, work.bytes / 4e9))
    assert gpu_floor.pacing_work((16, 3, 192, 192)).bytes == 3 * 4 * 16 * 3 * 192**2


def test_peaks_are_computed_from_the_clocks(monkeypatch):
    class H200:
        name, major, minor, multi_processor_count = "H200", 9, 0, 132
        clock_rate, memory_clock_rate, memory_bus_width = 1_980_000, 3_201_000, 6144

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: H200)
    machine = gpu_floor.GpuPeaks.read(torch.device("cuda"))
    assert machine.bytes_per_s == pytest.approx(4.9e12, rel=0.01)
    assert machine.lanes_per_s == pytest.approx(33.5e12, rel=0.01)


def test_report_lists_every_implementation_with_peak_shares(monkeypatch, tmp_path, capsys):
    """On the CPU, with made-up peaks and the unfold formulation in place of the atomics."""
    pytest.importorskip("skimage", reason="the photo to measure on comes with scikit-image")
    monkeypatch.setattr(measure, "FORMULATIONS", dict(measure.FORMULATIONS))
    monkeypatch.setattr(measure, "peak_bytes", lambda name, workload, device: 2**20)
    monkeypatch.setattr(gpu_floor.GpuPeaks, "read", classmethod(lambda cls, device: MACHINE))
    measure.FORMULATIONS[ops_gpu.ATOMICS] = measure.FORMULATIONS["unfold"]
    assert measure.list_implementations(torch.device("cpu"))[-2:] == ["atomics", "unfold"]
    out = tmp_path / "peaks.json"
    ops_gpu.report(torch.device("cpu"), 0, out, [Workload(size_px=32, stride=3, search_px=9, window_px=5)])
    rows = json.loads(out.read_text())["results"]
    assert rows[-1]["implementation"] == "atomics"
    assert rows[-1]["faster_than_atomics"] == 1
    assert all(row["ms"] > row["floor_ms"] > 0 for row in rows)
    assert all(0 < row["of_peak_bandwidth"] < 1 for row in rows)
    assert "atomics" in capsys.readouterr().out


def test_add_baseline_registers_the_atomics(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setattr(measure, "FORMULATIONS", dict(measure.FORMULATIONS))
    ops_gpu.add_baseline()
    from atomic_baseline import atomic_loss

    assert measure.FORMULATIONS["atomics"] is atomic_loss
