"""The command `selfsr bench`: measure the workloads, print a table, write the JSON file and the plot."""

import json
import os
import platform
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from selfsr import __version__
from selfsr.bench.measure import BASELINE, BenchResult, list_implementations, measure_workload
from selfsr.bench.plot import CostPanel, draw_plot
from selfsr.bench.workload import Workload, make_sweeps
from selfsr.console import progress_bar
from selfsr.errors import InputError
from selfsr.fileio import write_atomic

# Largest number of masked pixels for the baseline in a sweep: it takes a second or two, and its cost is linear.
SWEEP_BASELINE_PIXELS = 400

# Axis of the sweep ("" outside of it), workload and results.
Measured = list[tuple[str, Workload, list[BenchResult]]]

_AXES: dict[str, tuple[str, Callable[[Workload], float]]] = {
    "pixels": ("pixels of the image", lambda workload: workload.size_px**2),
    "mask density": ("masked pixels in percent", lambda workload: 100 * workload.density),
    "batch": ("images", lambda workload: workload.batch),
    "search size": ("side of the search area in pixels", lambda workload: workload.search_px),
}


def run_bench(
    workloads: list[Workload],
    *,
    sweep: bool,
    names: list[str] | None,
    device: torch.device,
    seconds: float,
    with_memory: bool,
    out: Path | None,
    plot: Path | None,
) -> None:
    """Measure the workloads, print a table, and write the requested files.

    Args:
        workloads: workloads to compare with the baseline.
        sweep: also measure along each axis of cost.
        names: implementations; None selects all available ones.
        device: device of the images.
        seconds: time for each workload; each is measured at least three times.
        with_memory: also measure peak memory.
        out: path of the JSON file.
        plot: path of the SVG file; needs `sweep`.

    Raises:
        InputError: an implementation is unknown or not available, a mask is empty, or `plot` is given without `sweep`.
    """
    if plot is not None and not sweep:
        raise InputError("bench: --plot needs the results of a sweep; add --sweep.")
    names = _check_names(names, device)
    for path in filter(None, (out, plot)):
        path.parent.mkdir(parents=True, exist_ok=True)
    axes: dict[str, list[Workload]] = {"": workloads, **(make_sweeps() if sweep else {})}
    measured: Measured = []
    machine = describe_machine(device)
    try:
        with progress_bar("measuring", sum(map(len, axes.values()))) as advance:
            for axis, steps in axes.items():
                for workload in steps:
                    results = measure_workload(
                        workload,
                        names,
                        device,
                        seconds=seconds / 3 if axis else seconds,
                        with_memory=with_memory and not axis,
                        baseline_pixels=SWEEP_BASELINE_PIXELS if axis else None,
                        advance=advance,
                    )
                    measured.append((axis, workload, results))
                    _write_files(measured, machine, out, plot)
                    advance()
    finally:
        # Also after an interruption.
        if measured:
            _print_table(measured, machine)


def _write_files(
    measured: Measured,
    machine: dict[str, str | int],
    out: Path | None,
    plot: Path | None,
) -> None:
    if out is not None:
        record = {
            "machine": machine,
            "results": [
                {"axis": axis, "workload": asdict(workload), **asdict(result)}
                for axis, workload, results in measured
                for result in results
            ],
        }
        write_atomic(out, json.dumps(record, indent=2) + "\n")
    if plot is not None:
        write_atomic(plot, draw_plot(_collect_panels(measured), f"value and gradient; {machine['summary']}"))


def _check_names(names: list[str] | None, device: torch.device) -> list[str]:
    available = list_implementations(device)
    if not names:
        return available
    for name in names:
        if name not in available:
            raise InputError(
                f"bench: --backend must be one of {', '.join(available)} on {device}, got {name!r}; "
                "run `selfsr doctor` to see why one is not available."
            )
    return names


def describe_machine(device: torch.device) -> dict[str, str | int]:
    """Return the hardware and software versions of the measurement."""
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    else:
        hardware = _cpu_name()
    threads = torch.get_num_threads()
    summary = f"{hardware}, {threads} threads, torch {torch.__version__}, selfsr {__version__}"
    return {
        "summary": summary,
        "device": str(device),
        "hardware": hardware,
        "cores": os.cpu_count() or 0,
        "threads": threads,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def _print_table(measured: Measured, machine: dict[str, str | int]) -> None:
    table = Table("workload", "masked", "backend", box=None)
    for column in ("L1 error", "KL error", "gradient error", "ms", "x faster", "MiB", "x less"):
        table.add_column(column, justify="right")
    skipped: dict[str, list[str]] = defaultdict(list)
    for _, workload, results in measured:
        for i, result in enumerate(results):
            first = (str(workload), str(result.pixels)) if i == 0 else ("", "")
            if result.skipped is not None:
                table.add_row(*first, result.implementation, "", "", "", Text("-", style="dim"))
                skipped[f"{result.implementation}: {result.skipped}"].append(str(workload))
                continue
            cells = (
                *(_format_number(error, ".1e") for error in (result.l1_error, result.kl_error, result.gradient_error)),
                _format_number(result.ms, ".1f"),
                _format_number(result.speedup, ".3g"),
                _format_number(result.extra_mib, ".1f"),
                _format_number(result.memory_ratio, ".3g"),
            )
            table.add_row(*first, result.implementation, *cells)
        table.add_section()
    console = Console(width=None if sys.stdout.isatty() else 120, markup=False, emoji=False)
    console.print(table)
    for reason, names in skipped.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        console.print(f"- {reason} ({names[0]}{more})", style="dim")
    print(f"Value and gradient in float32; errors against float64; {machine['summary']}")


def _format_number(value: float | None, spec: str) -> str:
    return "" if value is None else format(value, spec)


def _collect_panels(measured: Measured) -> list[CostPanel]:
    panels = []
    for axis, (unit, position) in _AXES.items():
        lines: dict[str, list[tuple[float, float]]] = {}
        for measured_axis, workload, results in measured:
            if measured_axis != axis:
                continue
            for result in results:
                if result.ms is not None:
                    lines.setdefault(result.implementation, []).append((position(workload), result.ms))
        lines.setdefault(BASELINE, [])
        panels.append(CostPanel(f"Cost against {axis}", unit, lines))
    return panels
