"""Time and memory of a call, for `selfsr bench` and the scripts of bench/."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def time_call(call: Callable[[], Any], device: torch.device, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the seconds of a call: by the GPU's own events on CUDA, else by `clock`."""
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        with torch.cuda.device(device):
            torch.cuda.synchronize()
            begin.record()
            call()
            end.record()
            end.synchronize()
        return begin.elapsed_time(end) / 1e3
    if device.type == "mps":
        torch.mps.synchronize()
    start = clock()
    call()
    if device.type == "mps":
        torch.mps.synchronize()
    return clock() - start


def time_in_turns(timers: dict[str, Callable[[], float]], seconds: float, *, min_turns: int) -> dict[str, list[float]]:
    """Run all timers in turns, so that a busy machine slows all of them.

    Args:
        timers: functions that return their seconds, by name.
        seconds: start no further turn after this time.
        min_turns: smallest number of turns.

    Returns:
        The seconds of each timer, one for each turn.
    """
    times: dict[str, list[float]] = {name: [] for name in timers}
    end, turns = time.perf_counter() + seconds, 0
    while timers and (turns < min_turns or time.perf_counter() < end):
        for name, timer in timers.items():
            times[name].append(timer())
        turns += 1
    return times


def resident_bytes(*, peak: bool) -> int:
    """Return the resident memory of this process under Linux, now or at its peak."""
    key = "VmHWM:" if peak else "VmRSS:"
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {key}")


def added_resident_bytes(call: Callable[[], Any]) -> int:
    """Return by how much a call raises the peak resident memory of this process, its result included."""
    # Resets the peak. If that is forbidden, the result still holds unless importing took more memory than the call.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before = resident_bytes(peak=False)
    result = call()
    added = max(resident_bytes(peak=True) - before, 0)
    del result
    return added


def added_cuda_bytes(call: Callable[[], Any], device: torch.device) -> int:
    """Return the peak memory that a call allocates on a GPU, its result included; the first call warms up."""
    call()
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    result = call()
    added = torch.cuda.max_memory_allocated(device) - before
    del result
    return added
