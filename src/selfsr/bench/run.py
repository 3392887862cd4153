"""One run of the benchmark: which workloads, the table, the JSON file and the plot."""

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

from selfsr import __version__
from selfsr.bench.measure import BASELINE, Result, implementations, run
from selfsr.bench.plot import Panel, draw
from selfsr.bench.workload import Workload, sweeps
from selfsr.console import bar
from selfsr.errors import InputError

# In a sweep the baseline is measured where it takes a second or two; its cost is linear in masked pixels.
SWEEP_BASELINE_PIXELS = 400

_AXES: dict[str, tuple[str, Callable[[Workload], float]]] = {
    "pixels": ("pixels in the image", lambda workload: workload.size_px**2),
    "mask density": ("per cent of the pixels masked", lambda workload: 100 * workload.density),
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
    """Measure, show a table, and write what was asked for.

    Args:
        workloads: what to measure against the baseline.
        sweep: also measure along each axis of cost.
        names: implementations; None takes all that run here.
        device: where.
        seconds: how long to repeat each workload; each is measured three times at least.
        with_memory: also measure peak memory.
        out: JSON file to write.
        plot: SVG file to write; needs `sweep`.
    """
    if plot is not None and not sweep:
        raise InputError("bench: --plot draws cost along the axes of a sweep; add --sweep.")
    names = _known(names, device)
    for path in filter(None, (out, plot)):
        path.parent.mkdir(parents=True, exist_ok=True)
    axes: dict[str, list[Workload]] = {"": workloads, **(sweeps() if sweep else {})}
    measured: list[tuple[str, Workload, list[Result]]] = []
    machine = describe(device)
    try:
        with bar("measuring", sum(map(len, axes.values()))) as advance:
            for axis, steps in axes.items():
                for workload in steps:
                    most = SWEEP_BASELINE_PIXELS if axis else None
                    results = run(
                        workload,
                        names,
                        device,
                        seconds=seconds / 3 if axis else seconds,
                        with_memory=with_memory and not axis,
                        baseline_pixels=most,
                        advance=advance,
                    )
                    measured.append((axis, workload, results))
                    _write(measured, machine, out, plot)
                    advance()
    finally:
        # Also of what an interrupted run has measured.
        if measured:
            _show(measured, machine)


def _write(
    measured: list[tuple[str, Workload, list[Result]]],
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
        out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if plot is not None:
        plot.write_text(draw(_panels(measured), f"value and gradient; {machine['summary']}"), encoding="utf-8")


def _known(names: list[str] | None, device: torch.device) -> list[str]:
    available = implementations(device)
    if not names:
        return available
    for name in names:
        if name not in available:
            raise InputError(
                f"bench: --backend must be one of {', '.join(available)} on {device}, got {name!r}; "
                "`selfsr doctor` says why one is not available."
            )
    return names


def describe(device: torch.device) -> dict[str, str | int]:
    """Say what was measured on."""
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


def _show(measured: list[tuple[str, Workload, list[Result]]], machine: dict[str, str | int]) -> None:
    table = Table("workload", "masked", "backend", box=None)
    for column in ("L1 error", "KL error", "gradient error", "ms", "x faster", "MiB", "x less"):
        table.add_column(column, justify="right")
    refused: dict[str, list[str]] = defaultdict(list)
    for _, workload, results in measured:
        for i, result in enumerate(results):
            first = (str(workload), str(result.pixels)) if i == 0 else ("", "")
            if result.refused is not None:
                table.add_row(*first, result.implementation, "", "", "", "[dim]-[/dim]")
                refused[f"{result.implementation}: {result.refused}"].append(str(workload))
                continue
            cells = (
                *(_number(error, ".1e") for error in (result.l1_error, result.kl_error, result.gradient_error)),
                _number(result.ms, ".1f"),
                _number(result.speedup, ".3g"),
                _number(result.extra_mib, ".1f"),
                _number(result.memory_ratio, ".3g"),
            )
            table.add_row(*first, result.implementation, *cells)
        table.add_section()
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    for reason, where in refused.items():
        console.print(f"[dim]- {reason} ({where[0]}{f' and {len(where) - 1} more' if len(where) > 1 else ''})[/dim]")
    print(f"Value and gradient in float32; errors against float64; {machine['summary']}")


def _number(value: float | None, spec: str) -> str:
    return "" if value is None else format(value, spec)


def _panels(measured: list[tuple[str, Workload, list[Result]]]) -> list[Panel]:
    panels = []
    for axis, (unit, place) in _AXES.items():
        lines: dict[str, list[tuple[float, float]]] = {}
        for found, workload, results in measured:
            if found != axis:
                continue
            for result in results:
                if result.ms is not None:
                    lines.setdefault(result.implementation, []).append((place(workload), result.ms))
        lines.setdefault(BASELINE, [])
        panels.append(Panel(f"Cost against {axis}", unit, lines))
    return panels
