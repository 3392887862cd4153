"""Time and peak memory of the self-paced weighting, against five depthwise convolutions in the same process.

    python bench/pacing.py [--json results.json] [--seconds 3] [--device cuda | --cpu-time]

Two products: the SSIM map alone, and the self-paced L1 loss with its gradient. Baseline: bench/ssim_naive.py. The
variants are timed in turns, so that a busy machine slows all; times are medians, ratios are medians over the turns.
Beside each time stands the largest error of the map, or the rms error of the gradient relative to its rms, against
the baseline in float64; a backend whose numbers are wrong is not timed. Peak memory is what one call adds at its
highest: resident memory in a process of its own on a CPU, the allocator's statistics on a GPU. Time on a GPU is that
between two of its own events; beside that of loss and gradient stands the least it could take (bench/gpu_floor.py).

On a machine that others use, --cpu-time runs one thread and counts the time that the processor gave it.
"""

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import ssim_naive
from gpu_floor import Machine, pacing_work
from selfsr import SelfPacedLoss, ssim_map
from selfsr._ops import backends
from selfsr.bench.measure import elapsed
from selfsr.machine.device import choose_device

SHAPES = [(16, 3, 192, 192), (1, 3, 128, 128)]
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
EPOCH = 2.0
# The largest error that a backend may have to be timed at all.
WRONG = {"map": 1e-5, "loss and gradient": 1e-4}


@dataclass(frozen=True)
class Row:
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


def images(shape: tuple[int, ...], device: str, layout: str) -> tuple[Tensor, Tensor]:
    """Return crops of a photo, and the same crops blurred by halving and doubling, as a network's output would be."""
    from skimage import data

    n, c, h, w = shape
    photo = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None] / 255
    corners = [((37 * k) % (512 - h), (91 * k) % (512 - w)) for k in range(n)]
    hr = torch.cat([photo[:, :c, i : i + h, j : j + w] for i, j in corners])
    small = torch.nn.functional.interpolate(hr, scale_factor=0.5, mode="bicubic", antialias=True)
    sr = torch.nn.functional.interpolate(small, size=(h, w), mode="bicubic")
    return sr.to(device, memory_format=LAYOUTS[layout]), hr.to(device, memory_format=LAYOUTS[layout])


def products(variant: str) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Return what a variant computes: the map; and the loss, whose gradient is returned."""
    if variant == "five convolutions":

        def taps(image: Tensor) -> Tensor:
            return ssim_naive.window(image.shape[1], image.dtype, image.device)

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


def error(product: str, result: Tensor, truth: Tensor) -> float:
    """Largest error of a map; rms error of a gradient over its rms."""
    difference = result.double() - truth
    if product == "map":
        return difference.abs().max().item()
    return (difference.square().mean() / truth.square().mean()).sqrt().item()


def peak_on_cpu(answer, variant: str, product: str, shape: tuple[int, ...], layout: str, threads: int) -> None:
    """Put into the queue by how many bytes one call raises the resident memory of this process."""
    torch.set_num_threads(threads)
    call = products(variant)[product]
    for _ in range(2):
        call(*images((1, shape[1], 16, 16), "cpu", layout))
    pair = images(shape, "cpu", layout)
    # Forget the peak of loading and compiling.
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    kept = call(*pair)
    answer.put(status("VmHWM") - before)
    del kept


def status(key: str) -> int:
    """Return a size from Linux's account of this process, in bytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[key].split()[0]) * 1024


def peak(variant: str, product: str, shape: tuple[int, ...], layout: str, device: str) -> int:
    """Return the bytes that one call adds at its highest, the result included."""
    if device == "cpu":
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch", "numba", "skimage.data"])
        answer = context.Queue()
        arguments = (answer, variant, product, shape, layout, torch.get_num_threads())
        child = context.Process(target=peak_on_cpu, args=arguments)
        child.start()
        bytes_added = answer.get(timeout=120)
        child.join()
        return bytes_added
    pair = images(shape, device, layout)
    call = products(variant)[product]
    call(*pair)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    kept = call(*pair)
    added = torch.cuda.max_memory_allocated(device) - before
    del kept
    return added


def in_turns(
    calls: dict[str, Callable[[], Tensor]], seconds: float, device: str, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Time the calls in turns, for `seconds` together and seven turns at least."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(3):
        for call in calls.values():
            call()
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or len(next(iter(times.values()))) < 7:
        for name, call in calls.items():
            times[name].append(elapsed(call, torch.device(device), clock))
    return times


def measure(
    shape: tuple[int, ...], product: str, layout: str, device: str, seconds: float, clock: Callable[[], float]
) -> list[Row]:
    """Measure all variants of one product on one shape."""
    sr, hr = images(shape, device, layout)
    truth = products("five convolutions")[product](sr.double(), hr.double())
    natural = "cpu" if device == "cpu" else "triton"
    variants = ["five convolutions", "eager", natural]
    calls, errors = {}, {}
    for variant in variants:
        if variant in backends.WHY_NOT and (reason := backends.WHY_NOT[variant](sr)):
            raise SystemExit(f"bench/pacing.py: {variant} cannot run here: {reason}")
        call = products(variant)[product]
        errors[variant] = error(product, call(sr, hr), truth)
        if variant != "five convolutions" and not errors[variant] <= WRONG[product]:
            raise SystemExit(
                f"bench/pacing.py: {variant} is wrong ({product} of {shape}: {errors[variant]:.2g}), not timed"
            )
        calls[variant] = lambda call=call: call(sr, hr)
    times = in_turns(calls, seconds, device, clock)
    peaks = {variant: peak(variant, product, shape, layout, device) for variant in variants}
    base = times["five convolutions"]
    rows = []
    for variant in variants:
        median_s = statistics.median(times[variant])
        faster = statistics.median(a / b for a, b in zip(base, times[variant], strict=True))
        smaller = peaks["five convolutions"] / max(peaks[variant], 1)
        rows.append(Row(shape, product, layout, variant, median_s, faster, errors[variant], peaks[variant], smaller))
        if device != "cpu" and product == "loss and gradient":
            machine, work = Machine.of(torch.device(device)), pacing_work(shape)
            bandwidth = work.shares(machine, median_s)[1]
            rows[-1] = replace(rows[-1], floor_s=work.floor_s(machine), of_peak_bandwidth=bandwidth)
    return rows


def main() -> None:
    """Measure, print a table, write JSON if asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the results here, too")
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each line of three variants (default 3)")
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
        about = {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "device": options.device,
            "clock": clock.__name__,
        }
        options.json.write_text(json.dumps({**about, "rows": [asdict(row) for row in rows]}, indent=1))


if __name__ == "__main__":
    main()
