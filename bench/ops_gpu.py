"""The GPU part of bench/ops.py: the baseline with atomics, and results relative to peak rates."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from gpu_floor import GpuPeaks, similarity_work
from selfsr._ops import backends
from selfsr.bench import measure
from selfsr.bench.workload import Workload

ATOMICS = "atomics"
# A training batch with a fifth of the pixels masked, and larger crops.
WORKLOADS = [
    Workload(size_px=128, batch=64, mask="random", density=0.2),
    Workload(size_px=256, batch=16, mask="random", density=0.2),
]


def add_baseline() -> None:
    """Add the baseline with atomics to the implementations of the benchmark."""
    from atomic_baseline import atomic_loss

    measure.FORMULATIONS[ATOMICS] = atomic_loss


def report(device: torch.device, seconds: float, out: Path | None, workloads: list[Workload] | None = None) -> None:
    """Measure workloads of training size and compare with the baseline with atomics and the peak rates."""
    machine = GpuPeaks.read(device)
    names = [name for name, why_not in backends.WHY_NOT.items() if why_not(torch.empty(0, device=device)) is None]
    table = Table("workload", "masked", "backend", box=None)
    for column in (
        "ms",
        "x atomics",
        "floor ms",
        "of peak instructions",
        "of peak GB/s",
        "GB/s",
        "MiB",
        "gradient error",
    ):
        table.add_column(column, justify="right")
    rows = []
    for workload in WORKLOADS if workloads is None else workloads:
        results = measure.measure_workload(workload, [*names, ATOMICS], device, seconds=seconds, with_memory=True)
        atomics = next(result for result in results if result.implementation == ATOMICS)
        for result in results:
            shape = (workload.batch, 3, workload.size_px, workload.size_px)
            work = similarity_work(shape, result.pixels, workload.search_px, workload.window_px)
            if result.ms is None:
                table.add_row(str(workload), str(result.pixels), result.implementation, f"[dim]{result.skipped}[/dim]")
                continue
            lanes, traffic = work.peak_shares(machine, result.ms / 1e3)
            faster = None if atomics.ms is None else atomics.ms / result.ms
            table.add_row(
                str(workload),
                str(result.pixels),
                result.implementation,
                f"{result.ms:.2f}",
                "" if faster is None else f"{faster:.3g}",
                f"{1e3 * work.minimum_seconds(machine):.2f}",
                f"{100 * lanes:.0f} %",
                f"{100 * traffic:.0f} %",
                f"{work.bytes / result.ms / 1e6:.0f}",
                f"{result.extra_mib:.0f}",
                f"{result.gradient_error:.1e}",
            )
            more = {
                "floor_ms": 1e3 * work.minimum_seconds(machine),
                "of_peak_lanes": lanes,
                "of_peak_bandwidth": traffic,
            }
            rows.append({"workload": asdict(workload), **asdict(result), "faster_than_atomics": faster, **more})
    Console(width=150).print(table)
    print(
        f"{machine.name}: {machine.bytes_per_s / 1e9:.0f} GB/s, {machine.lanes_per_s / 1e12:.1f}e12 lane instructions/s"
        " by its clocks; floors count the work of the fast form (bench/gpu_floor.py)"
    )
    if out is not None:
        out.write_text(json.dumps({"machine": asdict(machine), "results": rows}, indent=1) + "\n", encoding="utf-8")
