"""Time and peak memory of self-paced weighting, compared with five depthwise convolutions.

    python bench/pacing.py [--json results.json] [--seconds 3] [--device cuda | --cpu-time]

Two products: the SSIM map, and the self-paced L1 loss with its gradient. Baseline: bench/ssim_naive.py. The variants
are timed in turns, so that a busy machine slows all. Times are medians, ratios are medians over the turns. Errors are
against the baseline in float64: the largest error of the map, or the rms error of the gradient relative to its rms. A
backend with wrong results is not timed. Peak memory is what one call adds: resident memory in a separate process on a
CPU, the allocator's statistics on a GPU. GPU times are between two CUDA events; for loss and gradient the smallest
possible time is shown as well (bench/gpu_floor.py).

On a shared machine, --cpu-time runs one thread and counts its processor time.
"""

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import ssim_naive
from gpu_floor import GpuPeaks, pacing_work
from selfsr import SelfPacedLoss, ssim_map
from selfsr._ops import backends
from selfsr.bench.timing import added_cuda_bytes, added_resident_bytes, time_call, time_in_turns
from selfsr.machine.device import choose_device

SHAPES = [(16, 3, 192, 192), (1, 3, 128, 128)]
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
EPOCH = 2.0
# Largest error of a backend that is timed.
MAX_ERROR = {"map": 1e-5, "loss and gradient": 1e-4}


@dataclass(frozen=True)
class PacingRow:
    """One line of the table; times in seconds, memory in bytes, ratios against the baseline."""

    shape: tuple[int, ...]
    product: str
    layout: str
    variant: str
    median_s: float
    speedup: float
    error: float
    peak_bytes: int
    memory_ratio: float
    floor_s: float | None = None
    of_peak_bandwidth: float | None = None


def make_images(shape: tuple[int, ...], device: str, layout: str) -> tuple[Tensor, Tensor]:
    """Return blurred crops of a photo, like the output of a network, and the crops themselves."""
    from skimage import data

    n, c, h, w = shape
    photo = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None] / 255
    corners = [((37 * k) % (512 - h), (91 * k) % (512 - w)) for k in range(n)]
    hr = torch.cat([photo[:, :c, i : i + h, j : j + w] for i, j in corners])
    small = torch.nn.functional.interpolate(hr, scale_factor=0.5, mode="bicubic", antialias=True)
    sr = torch.nn.functional.interpolate(small, size=(h, w), mode="bicubic")
    return sr.to(device, memory_format=LAYOUTS[layout]), hr.to(device, memory_format=LAYOUTS[layout])


def make_calls(variant: str) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Return the functions of a variant that compute the map, and the gradient of the loss."""
    if variant == "five convolutions":

        def taps(image: Tensor) -> Tensor:
            return ssim_naive.make_window(image.shape[1], image.dtype, image.device)

        def loss(sr: Tensor, hr: Tensor) -> Tensor:
            return ssim_naive.self_paced_l1(sr, hr, EPOCH, taps(sr))

        def naive_map(sr: Tensor, hr: Tensor) -> Tensor:
            return ssim_naive.ssim_map(sr, hr, taps(sr))

        return {"map": torch.no_grad()(naive_map), "loss and gradient": differentiate(loss)}
    module = SelfPacedLoss("l1", backend=variant)
    return {
        "map": lambda sr, hr: ssim_map(sr, hr, backend=variant),
        "loss and gradient": differentiate(lambda sr, hr: module(sr, hr, EPOCH)),
    }


def differentiate(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function that computes the loss and returns its gradient."""

    def gradient(sr: Tensor, hr: Tensor) -> Tensor:
        x = sr.detach().requires_grad_()
        loss(x, hr).backward()
        assert x.grad is not None
        return x.grad

    return gradient


def measure_error(product: str, result: Tensor, truth: Tensor) -> float:
    """Return the largest error of a map, or the rms error of a gradient relative to its rms."""
    difference = result.double() - truth
    if product == "map":
        return difference.abs().max().item()
    return (difference.square().mean() / truth.square().mean()).sqrt().item()


def measure_on_cpu(queue, variant: str, product: str, shape: tuple[int, ...], layout: str, threads: int) -> None:
    """Put the bytes by which one call raises the resident memory of this process into the queue."""
    torch.set_num_threads(threads)
    call = make_calls(variant)[product]
    for _ in range(2):
        call(*make_images((1, shape[1], 16, 16), "cpu", layout))
    pair = make_images(shape, "cpu", layout)
    queue.put(added_resident_bytes(lambda: call(*pair)))


def measure_peak(variant: str, product: str, shape: tuple[int, ...], layout: str, device: str) -> int:
    """Return the peak memory in bytes that one call adds, its result included."""
    if device == "cpu":
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch", "numba", "skimage.data"])
        queue = context.Queue()
        arguments = (queue, variant, product, shape, layout, torch.get_num_threads())
        child = context.Process(target=measure_on_cpu, args=arguments)
        child.start()
        added = queue.get(timeout=120)
        child.join()
        return added
    pair = make_images(shape, device, layout)
    call = make_calls(variant)[product]
    return added_cuda_bytes(lambda: call(*pair), torch.device(device))


def time_calls(
    calls: dict[str, Callable[[], Tensor]], seconds: float, device: str, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Time the calls in turns, for `seconds` together and seven turns at least."""
    for _ in range(3):
        for call in calls.values():
            call()
    timers = {name: partial(time_call, call, torch.device(device), clock) for name, call in calls.items()}
    return time_in_turns(timers, seconds, min_turns=7)


def measure(
    shape: tuple[int, ...], product: str, layout: str, device: str, seconds: float, clock: Callable[[], float]
) -> list[PacingRow]:
    """Measure all variants of one product on one shape."""
    sr, hr = make_images(shape, device, layout)
    truth = make_calls("five convolutions")[product](sr.double(), hr.double())
    compiled = "cpu" if device == "cpu" else "triton"
    variants = ["five convolutions", "eager", compiled]
    calls, errors = {}, {}
    for variant in variants:
        if variant in backends.WHY_NOT and (reason := backends.WHY_NOT[variant](sr)):
            raise SystemExit(f"bench/pacing.py: {variant} cannot run here: {reason}")
        call = make_calls(variant)[product]
        errors[variant] = measure_error(product, call(sr, hr), truth)
        if variant != "five convolutions" and not errors[variant] <= MAX_ERROR[product]:
            raise SystemExit(
                f"bench/pacing.py: {variant} is wrong ({product} of {shape}: {errors[variant]:.2g}), not timed"
            )
        calls[variant] = lambda call=call: call(sr, hr)
    times = time_calls(calls, seconds, device, clock)
    peaks = {variant: measure_peak(variant, product, shape, layout, device) for variant in variants}
    baseline = times["five convolutions"]
    rows = []
    for variant in variants:
        median_s = statistics.median(times[variant])
        faster = statistics.median(a / b for a, b in zip(baseline, times[variant], strict=True))
        smaller = peaks["five convolutions"] / max(peaks[variant], 1)
        rows.append(
            PacingRow(shape, product, layout, variant, median_s, faster, errors[variant], peaks[variant], smaller)
        )
        if device != "cpu" and product == "loss and gradient":
            machine, work = GpuPeaks.read(torch.device(device)), pacing_work(shape)
            bandwidth = work.peak_shares(machine, median_s)[1]
            rows[-1] = replace(rows[-1], floor_s=work.minimum_seconds(machine), of_peak_bandwidth=bandwidth)
    return rows


def main() -> None:
    """Measure, print a table, and write JSON on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="seconds for the three variants of a product (default 3)"
    )
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--cpu-time", action="store_true", help="one thread, processor time instead of elapsed time")
    options = parser.parse_args()
    try:
        choose_device(options.device)
    except ValueError as error:
        raise SystemExit(f"bench/pacing.py: {error}") from None
    if options.cpu_time:
        torch.set_num_threads(1)
    clock = time.process_time if options.cpu_time else time.perf_counter
    table = Table(
        "images", "product", "layout", "variant", "median", "faster", "error", "adds", "smaller", "floor", box=None
    )
    rows = []
    for shape in SHAPES:
        for layout, product in (("contiguous", "map"), *((layout, "loss and gradient") for layout in LAYOUTS)):
            rows += measure(shape, product, layout, options.device, options.seconds, clock)
    for row in rows:
        table.add_row(
            "x".join(map(str, row.shape)),
            row.product,
            row.layout,
            row.variant,
            f"{1000 * row.median_s:.2f} ms",
            f"{row.speedup:.1f}x",
            f"{row.error:.1e}",
            f"{row.peak_bytes / 2**20:.1f} MiB",
            f"{row.memory_ratio:.1f}x",
            "" if row.floor_s is None else f"{1000 * row.floor_s:.3f} ms, {100 * row.of_peak_bandwidth:.0f} % of GB/s",
        )
    Console(width=160).print(table)
    if options.json:
        machine = {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "device": options.device,
            "clock": clock.__name__,
        }
        options.json.write_text(json.dumps({**machine, "rows": [asdict(row) for row in rows]}, indent=1))


if __name__ == "__main__":
    main()
