"""Error, time and peak memory of one implementation on one workload."""

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfsr import self_similarity_graph, self_similarity_loss
from selfsr._ops import backends
from selfsr.bench.unfold import unfold_bytes, unfold_loss
from selfsr.bench.workload import Workload
from selfsr.errors import InputError
from selfsr.machine.memory import free_bytes
from selfsr.selfsim import reference
from selfsr.selfsim.tolerances import LEAST_IN_A_TIE, NEAR_TIE, TOLERANCES

BASELINE = "unfold"
# The baseline is the published formulation, whose rounding errors are its own; it must be the same loss, though.
_BASELINE_LIMIT = 1e-3
# Other formulations of the loss than our backends, with the arguments of `unfold_loss`; bench/ops.py adds one.
FORMULATIONS: dict[str, Callable[..., Tensor]] = {BASELINE: unfold_loss}
# The gradient is judged on this share of the masked pixels at least.
_LEAST_JUDGED = 0.5


@dataclass
class Result:
    """One implementation on one workload; what was not measured is None.

    Attributes:
        implementation: name of a backend, or "unfold".
        pixels: masked pixels.
        judged: those of them on which the gradient's error is measured: all but near-ties, see `Judge`.
        l1_error: error of the L1 part, relative.
        kl_error: error of the KL part, relative.
        gradient_error: largest error of the gradient, relative to its largest element.
        ms: median time of value and gradient, in milliseconds.
        speedup: how many times faster than the baseline, in turns with it.
        extra_mib: peak memory beside the inputs, in MiB.
        memory_ratio: how many times less memory than the baseline.
        refused: why it was not measured, in words.
    """

    implementation: str
    pixels: int
    judged: int
    l1_error: float | None = None
    kl_error: float | None = None
    gradient_error: float | None = None
    ms: float | None = None
    speedup: float | None = None
    extra_mib: float | None = None
    memory_ratio: float | None = None
    refused: str | None = None


def implementations(device: torch.device) -> list[str]:
    """Return the backends that can run on `device`, fastest first, then other formulations, the baseline last."""
    probe = torch.empty(0, device=device)
    runnable = [name for name, why_not in backends.WHY_NOT.items() if why_not(probe) is None]
    return [*runnable, *(name for name in FORMULATIONS if name != BASELINE), BASELINE]


def _value(name: str, workload: Workload, sr: Tensor, hr: Tensor, mask: Tensor, **weights: Any) -> Tensor:
    if name in FORMULATIONS:
        return FORMULATIONS[name](sr, hr, mask, **workload.sizes, **weights)
    return self_similarity_loss(sr, hr, mask, **workload.sizes, **weights, backend=name)


def _parts(name: str, workload: Workload, *tensors: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        weights: tuple[dict[str, float], ...] = ({"kl_weight": 0.0}, {"l1_weight": 0.0})
        l1, kl = (_value(name, workload, *tensors, **weight) for weight in weights)
    return l1, kl


def _gradient(name: str, workload: Workload, sr: Tensor, hr: Tensor, mask: Tensor) -> Tensor:
    """Compute the loss and its gradient: what is timed."""
    leaf = sr.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(_value(name, workload, leaf, hr, mask), leaf)
    return gradient


class Judge:
    """The truth of one workload: both parts and the gradient in float64.

    The gradient is compared on the masked pixels without a near-tie (`selfsr.selfsim.tolerances`, docs/numerics.md).

    Attributes:
        clear: bool `[N, 1, H, W]`, the pixels of the mask on which the gradient is compared.
    """

    def __init__(self, workload: Workload, sr: Tensor, hr: Tensor, mask: Tensor):
        self.workload = workload
        self.tensors = (sr, hr, mask)
        wide = (sr.double().cpu(), hr.double().cpu(), mask.cpu())
        self.l1, self.kl = _parts("eager", workload, *wide)
        clear = _without_near_ties(workload, *wide)
        self.gradient = _gradient("eager", workload, *wide[:2], clear)
        self.clear = clear.to(mask.device)
        self._check_against_the_definition(*wide)

    def _check_against_the_definition(self, sr: Tensor, hr: Tensor, mask: Tensor) -> None:
        """Compare the truth with the definition on a few pixels: that one is slow."""
        few = torch.zeros_like(mask)
        chosen = mask.flatten().nonzero()[:: max(1, int(mask.sum()) // 16), 0][:16]
        few.view(-1)[chosen] = True
        leaf = sr.clone().requires_grad_()
        parts = reference.loss_parts(leaf, hr, few, **self.workload.sizes, normalize=True)
        (gradient,) = torch.autograd.grad(parts[0] + parts[1], leaf)
        found = (*_parts("eager", self.workload, sr, hr, few), _gradient("eager", self.workload, sr, hr, few))
        errors = [_relative(a, b) for a, b in zip(found, (*map(Tensor.detach, parts), gradient), strict=True)]
        assert max(errors) < 1e-9, f"the truth is wrong by {errors}"

    def errors(self, name: str) -> tuple[float, float, float]:
        """Return the relative errors of L1, KL and gradient."""
        sr, hr, mask = self.tensors
        l1, kl = _parts(name, self.workload, sr, hr, mask)
        gradient = _gradient(name, self.workload, sr, hr, self.clear)
        return _relative(l1, self.l1), _relative(kl, self.kl), _relative(gradient, self.gradient)


def _without_near_ties(workload: Workload, sr: Tensor, hr: Tensor, mask: Tensor) -> Tensor:
    """Return the mask less the pixels that have an entry whose sign of X - Y rounding may turn."""
    clear = mask.clone()
    # One image at a time: both graphs in float64 are large.
    for n in range(len(mask)):
        one = slice(n, n + 1)
        x, y = (self_similarity_graph(image[one], mask[one], **workload.sizes, backend="eager") for image in (sr, hr))
        larger = torch.maximum(x, y)
        near = ((x - y).abs() <= NEAR_TIE * larger) & (x != y) & (larger > LEAST_IN_A_TIE)
        clear[one][mask[one]] = ~near.any(1)
    return clear


def _relative(found: Tensor, truth: Tensor) -> float:
    scale = truth.abs().max().item()
    return ((found.double().cpu() - truth).abs().max().item()) / (scale or 1.0)


def run(
    workload: Workload,
    names: Iterable[str],
    device: torch.device,
    *,
    seconds: float,
    with_memory: bool,
    baseline_pixels: int | None = None,
    advance: Callable[..., None] = lambda *_, **__: None,
) -> list[Result]:
    """Measure every implementation on one workload, in turns, the baseline among them.

    Args:
        workload: what to measure.
        names: implementations; the baseline is "unfold".
        device: where.
        seconds: for how long to repeat the turns; there are three at least.
        with_memory: also measure peak memory (on a CPU in a process of its own).
        baseline_pixels: leave the baseline out above this many masked pixels.
        advance: called with a note before each piece of work.
    """
    sr, hr, mask = workload.tensors(device)
    pixels = int(mask.sum())
    if pixels == 0:
        raise InputError(f"bench: the mask of {workload} is empty; take a larger --size or another --image.")
    judge = Judge(workload, sr, hr, mask)
    judged = int(judge.clear.sum())
    results = []
    for name in names:
        advance(0, note=f"{workload}: errors of {name}")
        result = Result(name, pixels, judged)
        results.append(result)
        result.refused = _too_much(name, workload, pixels, device, baseline_pixels)
        if result.refused is None:
            result.l1_error, result.kl_error, result.gradient_error = judge.errors(name)
            result.refused = _wrong(result)
    timed = [result for result in results if result.refused is None]
    advance(0, note=f"{workload}: times")
    _time(timed, workload, (sr, hr, mask), seconds)
    if with_memory:
        for result in timed:
            advance(0, note=f"{workload}: memory of {result.implementation}")
            result.extra_mib = peak_bytes(result.implementation, workload, device) / 2**20
        baseline = next((r.extra_mib for r in timed if r.implementation == BASELINE), None)
        for result in timed:
            if baseline is not None and result.extra_mib is not None:
                result.memory_ratio = baseline / max(result.extra_mib, 0.1)
    return results


def _too_much(name: str, workload: Workload, pixels: int, device: torch.device, most: int | None) -> str | None:
    if name != BASELINE:
        return None
    if most is not None and pixels > most:
        return f"left out above {most} pixels"
    need = unfold_bytes(pixels, 3, workload.search_px, workload.window_px)
    free = free_bytes(device)
    return f"needs about {need / 2**30:.1f} GiB, {free / 2**30:.1f} are free" if need > 0.8 * free else None


def _wrong(result: Result) -> str | None:
    if result.judged < _LEAST_JUDGED * result.pixels:
        return f"{result.pixels - result.judged} of {result.pixels} pixels have near-ties, too many to judge; not timed"
    limit = TOLERANCES[torch.float32]
    errors = {
        "L1": (result.l1_error, limit.l1),
        "KL": (result.kl_error, limit.kl),
        "gradient": (result.gradient_error, limit.gradient),
    }
    for what, (error, most) in errors.items():
        most = _BASELINE_LIMIT if result.implementation in FORMULATIONS else most
        # Written so that NaN is wrong.
        if error is None or not error <= most:
            return f"{what} is wrong by {error:.2g}, allowed are {most:.2g}; not timed"
    return None


def _time(timed: list[Result], workload: Workload, tensors: tuple[Tensor, Tensor, Tensor], seconds: float) -> None:
    """Fill in times and speedups: medians, and medians of the ratio to the baseline within a turn."""
    turns: list[dict[str, float]] = []
    end = time.perf_counter() + seconds
    while len(turns) < 3 or time.perf_counter() < end:
        turns.append({r.implementation: _once(r.implementation, workload, tensors) for r in timed})
    for result in timed:
        name = result.implementation
        result.ms = 1e3 * statistics.median(turn[name] for turn in turns)
        if BASELINE in turns[0]:
            result.speedup = statistics.median(turn[BASELINE] / turn[name] for turn in turns)


def _once(name: str, workload: Workload, tensors: tuple[Tensor, Tensor, Tensor]) -> float:
    """Return seconds for value and gradient: the median of five runs, or one if it is long."""
    taken: list[float] = []
    while len(taken) < 5 and sum(taken) < 1:
        taken.append(elapsed(lambda: _gradient(name, workload, *tensors), tensors[0].device))
    return statistics.median(taken)


def elapsed(call: Callable[[], Any], device: torch.device, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the seconds that a call takes on `device`: by the GPU's own events on CUDA, else by `clock`."""
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


def peak_bytes(name: str, workload: Workload, device: torch.device) -> int:
    """Return the peak memory of value and gradient beside the inputs."""
    if device.type == "cuda":
        tensors = workload.tensors(device)
        _gradient(name, workload, *tensors)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        _gradient(name, workload, *tensors)
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != "cpu" or not Path("/proc/self/status").exists():
        raise InputError("bench: peak memory is measured on CUDA, and on a CPU under Linux; pass --no-memory.")
    question = json.dumps({"name": name, "workload": asdict(workload), "threads": torch.get_num_threads()})
    command = [sys.executable, "-m", "selfsr.bench.child"]
    done = subprocess.run(command, input=question, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {name} failed:\n{done.stderr}")
    return int(done.stdout)


def resident_bytes(highest: bool) -> int:
    """Return the resident memory of this process, now or at its highest."""
    key = "VmHWM:" if highest else "VmRSS:"
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {key}")


def growth(workload: Workload, name: str) -> int:
    """Return by how much one call, value and gradient, raises the resident memory of this process at its highest."""
    small = Workload(size_px=48, search_px=workload.search_px, window_px=workload.window_px, image=workload.image)
    _gradient(name, small, *small.tensors(torch.device("cpu")))  # loads and compiles what stays
    tensors = workload.tensors(torch.device("cpu"))
    # Starts the highest value anew; where that is forbidden it still holds unless importing took more.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before = resident_bytes(highest=False)
    _gradient(name, workload, *tensors)
    return max(resident_bytes(highest=True) - before, 0)
