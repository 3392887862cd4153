"""Error, time and peak memory of one implementation on one workload."""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfsr import self_similarity_graph, self_similarity_loss
from selfsr._ops import backends
from selfsr.bench.timing import added_cuda_bytes, added_resident_bytes, time_call, time_in_turns
from selfsr.bench.unfold import unfold_bytes, unfold_loss
from selfsr.bench.workload import Workload
from selfsr.errors import InputError
from selfsr.machine.memory import measure_free_bytes
from selfsr.selfsim import reference
from selfsr.selfsim.tolerances import LEAST_IN_A_TIE, NEAR_TIE, TOLERANCES

BASELINE = "unfold"
# Largest error of other formulations: they round differently, but must compute the same loss.
_FORMULATION_LIMIT = 1e-3
# Formulations of the loss other than our backends, with the arguments of `unfold_loss`; bench/ops.py adds one.
FORMULATIONS: dict[str, Callable[..., Tensor]] = {BASELINE: unfold_loss}
# Smallest share of the masked pixels on which gradients must be comparable.
_MIN_COMPARED = 0.5


@dataclass
class BenchResult:
    """Results of one implementation on one workload; None if not measured.

    Attributes:
        implementation: name of a backend, or "unfold".
        pixels: number of masked pixels.
        compared_pixels: masked pixels without a near-tie, on which gradients are compared; see `Float64Oracle`.
        l1_error: relative error of the L1 part.
        kl_error: relative error of the KL part.
        gradient_error: largest error of the gradient, relative to its largest element.
        ms: median time of value and gradient in milliseconds.
        speedup: median ratio of the baseline's time to this one within a turn.
        extra_mib: peak memory in addition to the inputs, in MiB.
        memory_ratio: ratio of the baseline's memory to this one.
        skipped: reason why it was not measured.
    """

    implementation: str
    pixels: int
    compared_pixels: int
    l1_error: float | None = None
    kl_error: float | None = None
    gradient_error: float | None = None
    ms: float | None = None
    speedup: float | None = None
    extra_mib: float | None = None
    memory_ratio: float | None = None
    skipped: str | None = None


def list_implementations(device: torch.device) -> list[str]:
    """Return the available backends, fastest first, then other formulations, the baseline last."""
    probe = torch.empty(0, device=device)
    runnable = [name for name, why_not in backends.WHY_NOT.items() if why_not(probe) is None]
    return [*runnable, *(name for name in FORMULATIONS if name != BASELINE), BASELINE]


def _compute_value(name: str, workload: Workload, sr: Tensor, hr: Tensor, mask: Tensor, **weights: Any) -> Tensor:
    if name in FORMULATIONS:
        return FORMULATIONS[name](sr, hr, mask, **workload.sizes, **weights)
    return self_similarity_loss(sr, hr, mask, **workload.sizes, **weights, backend=name)


def _compute_parts(name: str, workload: Workload, *tensors: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        weights: tuple[dict[str, float], ...] = ({"kl_weight": 0.0}, {"l1_weight": 0.0})
        l1, kl = (_compute_value(name, workload, *tensors, **weight) for weight in weights)
    return l1, kl


def compute_gradient(name: str, workload: Workload, sr: Tensor, hr: Tensor, mask: Tensor) -> Tensor:
    """Compute the loss and return its gradient; this is the call that is timed."""
    leaf = sr.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(_compute_value(name, workload, leaf, hr, mask), leaf)
    return gradient


class Float64Oracle:
    """The correct results of one workload: both parts of the loss and the gradient in float64.

    Gradients are compared on the masked pixels without a near-tie (`selfsr.selfsim.tolerances`, docs/numerics.md).

    Attributes:
        compared: bool `[N, 1, H, W]`, the pixels of the mask on which gradients are compared.
    """

    def __init__(self, workload: Workload, sr: Tensor, hr: Tensor, mask: Tensor):
        self.workload = workload
        self.tensors: tuple[Tensor, Tensor, Tensor] = (sr, hr, mask)
        wide = (sr.double().cpu(), hr.double().cpu(), mask.cpu())
        l1, kl = _compute_parts("eager", workload, *wide)
        self.l1: Tensor = l1
        self.kl: Tensor = kl
        compared = _remove_near_ties(workload, *wide)
        self.gradient: Tensor = compute_gradient("eager", workload, *wide[:2], compared)
        self.compared: Tensor = compared.to(mask.device)
        self._check_against_definition(*wide)

    def _check_against_definition(self, sr: Tensor, hr: Tensor, mask: Tensor) -> None:
        """Compare with the definition on a few pixels, since the definition is slow."""
        few = torch.zeros_like(mask)
        chosen = mask.flatten().nonzero()[:: max(1, int(mask.sum()) // 16), 0][:16]
        few.view(-1)[chosen] = True
        leaf = sr.clone().requires_grad_()
        parts = reference.loss_parts(leaf, hr, few, **self.workload.sizes, normalize=True)
        (gradient,) = torch.autograd.grad(parts[0] + parts[1], leaf)
        ours = (
            *_compute_parts("eager", self.workload, sr, hr, few),
            compute_gradient("eager", self.workload, sr, hr, few),
        )
        definition = (*map(Tensor.detach, parts), gradient)
        errors = [relative_error(a, b) for a, b in zip(ours, definition, strict=True)]
        assert max(errors) < 1e-9, f"float64 results differ from the definition by {errors}"

    def measure_errors(self, name: str) -> tuple[float, float, float]:
        """Return the relative errors of L1, KL and gradient."""
        sr, hr, mask = self.tensors
        l1, kl = _compute_parts(name, self.workload, sr, hr, mask)
        gradient = compute_gradient(name, self.workload, sr, hr, self.compared)
        return relative_error(l1, self.l1), relative_error(kl, self.kl), relative_error(gradient, self.gradient)


def _remove_near_ties(workload: Workload, sr: Tensor, hr: Tensor, mask: Tensor) -> Tensor:
    """Return the mask without pixels that have an entry of X - Y whose sign depends on rounding."""
    compared = mask.clone()
    # One image at a time: both graphs in float64 are large.
    for n in range(len(mask)):
        one = slice(n, n + 1)
        x, y = (self_similarity_graph(image[one], mask[one], **workload.sizes, backend="eager") for image in (sr, hr))
        larger = torch.maximum(x, y)
        near = ((x - y).abs() <= NEAR_TIE * larger) & (x != y) & (larger > LEAST_IN_A_TIE)
        compared[one][mask[one]] = ~near.any(1)
    return compared


def relative_error(result: Tensor, truth: Tensor) -> float:
    """Return the largest error relative to the largest element."""
    scale = truth.abs().max().item()
    return ((result.double().cpu() - truth).abs().max().item()) / (scale or 1.0)


def measure_workload(
    workload: Workload,
    names: Iterable[str],
    device: torch.device,
    *,
    seconds: float,
    with_memory: bool,
    baseline_pixels: int | None = None,
    advance: Callable[..., None] = lambda *_, **__: None,
) -> list[BenchResult]:
    """Measure all implementations on one workload, in turns.

    Args:
        workload: images, mask and sizes.
        names: implementations; the baseline is "unfold".
        device: device of the images.
        seconds: time of all turns together; there are at least three.
        with_memory: also measure peak memory (on a CPU in a separate process).
        baseline_pixels: skip the baseline above this number of masked pixels.
        advance: called with a note before each step, for a progress bar.
    """
    sr, hr, mask = workload.tensors(device)
    pixels = int(mask.sum())
    if pixels == 0:
        raise InputError(f"bench: the mask of {workload} is empty; pass a larger --size or another --image.")
    oracle = Float64Oracle(workload, sr, hr, mask)
    compared_pixels = int(oracle.compared.sum())
    results = []
    for name in names:
        advance(0, note=f"{workload}: errors of {name}")
        result = BenchResult(name, pixels, compared_pixels)
        results.append(result)
        result.skipped = _check_cost(name, workload, pixels, device, baseline_pixels)
        if result.skipped is None:
            result.l1_error, result.kl_error, result.gradient_error = oracle.measure_errors(name)
            result.skipped = _check_errors(result)
    timed = [result for result in results if result.skipped is None]
    advance(0, note=f"{workload}: times")
    _measure_times(timed, workload, (sr, hr, mask), seconds)
    if with_memory:
        for result in timed:
            advance(0, note=f"{workload}: memory of {result.implementation}")
            result.extra_mib = peak_bytes(result.implementation, workload, device) / 2**20
        baseline = next((r.extra_mib for r in timed if r.implementation == BASELINE), None)
        for result in timed:
            if baseline is not None and result.extra_mib is not None:
                result.memory_ratio = baseline / max(result.extra_mib, 0.1)
    return results


def _check_cost(name: str, workload: Workload, pixels: int, device: torch.device, max_pixels: int | None) -> str | None:
    """Return why the baseline takes too long or too much memory, or None."""
    if name != BASELINE:
        return None
    if max_pixels is not None and pixels > max_pixels:
        return f"skipped above {max_pixels} pixels"
    need = unfold_bytes(pixels, 3, workload.search_px, workload.window_px)
    free = measure_free_bytes(device)
    return f"needs about {need / 2**30:.1f} GiB, {free / 2**30:.1f} are free" if need > 0.8 * free else None


def _check_errors(result: BenchResult) -> str | None:
    """Return why the results are wrong, or None."""
    if result.compared_pixels < _MIN_COMPARED * result.pixels:
        ties = result.pixels - result.compared_pixels
        return f"{ties} of {result.pixels} pixels have near-ties, too many for a comparison; not timed"
    limit = TOLERANCES[torch.float32]
    errors = {
        "L1": (result.l1_error, limit.l1),
        "KL": (result.kl_error, limit.kl),
        "gradient": (result.gradient_error, limit.gradient),
    }
    for quantity, (error, largest) in errors.items():
        largest = _FORMULATION_LIMIT if result.implementation in FORMULATIONS else largest
        # NaN is also an error.
        if error is None or not error <= largest:
            return f"{quantity} is wrong by {error:.2g}, allowed are {largest:.2g}; not timed"
    return None


def _measure_times(
    timed: list[BenchResult], workload: Workload, tensors: tuple[Tensor, Tensor, Tensor], seconds: float
) -> None:
    """Set times and speedups: medians, and medians of the ratio to the baseline within a turn."""
    names = [result.implementation for result in timed]
    timers = {name: partial(_time_gradient, name, workload, tensors) for name in names}
    times = time_in_turns(timers, seconds, min_turns=3)
    for result in timed:
        own = times[result.implementation]
        result.ms = 1e3 * statistics.median(own)
        if BASELINE in times:
            result.speedup = statistics.median(a / b for a, b in zip(times[BASELINE], own, strict=True))


def _time_gradient(name: str, workload: Workload, tensors: tuple[Tensor, Tensor, Tensor]) -> float:
    """Return the seconds of value and gradient: the median of five calls, or of fewer that take a second."""
    times: list[float] = []
    while len(times) < 5 and sum(times) < 1:
        times.append(time_call(lambda: compute_gradient(name, workload, *tensors), tensors[0].device))
    return statistics.median(times)


def peak_bytes(name: str, workload: Workload, device: torch.device) -> int:
    """Return the peak memory of value and gradient in addition to the inputs.

    Raises:
        InputError: memory cannot be measured on this device and system.
    """
    if device.type == "cuda":
        tensors = workload.tensors(device)
        return added_cuda_bytes(lambda: compute_gradient(name, workload, *tensors), device)
    if device.type != "cpu" or not Path("/proc/self/status").exists():
        raise InputError(f"bench: peak memory needs CUDA, or a CPU under Linux, got {device}; pass --no-memory.")
    request = json.dumps({"name": name, "workload": asdict(workload), "threads": torch.get_num_threads()})
    command = [sys.executable, "-m", "selfsr.bench.child"]
    done = subprocess.run(command, input=request, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {name} failed:\n{done.stderr}")
    return int(done.stdout)


def measure_own_memory(name: str, workload: Workload) -> int:
    """Return by how much value and gradient raise the peak resident memory of this process."""
    small = Workload(size_px=48, search_px=workload.search_px, window_px=workload.window_px, image=workload.image)
    # Imports and compiles first: that memory belongs to no call.
    compute_gradient(name, small, *small.tensors(torch.device("cpu")))
    tensors = workload.tensors(torch.device("cpu"))
    return added_resident_bytes(lambda: compute_gradient(name, workload, *tensors))
