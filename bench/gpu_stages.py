"""The stages of bench/gpu.py; each is run as a process of its own.

    python bench/gpu_stages.py STAGE --json FILE --work DIR [--device cuda] [--tiny] [--photos DIR]

A stage adds each result to FILE as soon as it has it. Where a part needs CUDA, its result says that it was skipped.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

BENCH = Path(__file__).resolve().parent
# Masked pixels: a fifth, as in the roofline of docs/gpu.md.
DENSITY = 0.2
# What a card must have next to the stage's own message.
NEEDS_CUDA = "skipped: needs CUDA"


class StageSkippedError(Exception):
    """A stage cannot run on this machine; its text says why."""


class StageRun:
    """Sizes, folders and results of a stage.

    Attributes:
        device: "cuda" or "cpu".
        tiny: whether sizes are tiny.
        work: folder that all stages share.
        photos: folder with training images, or None.
        results: by name, as in FILE.
    """

    def __init__(self, path: Path, device: torch.device, tiny: bool, work: Path, photos: Path | None):
        self.path = path
        self.device = device
        self.tiny = tiny
        self.work = work
        self.photos = photos
        self.results: dict[str, Any] = {}

    @property
    def on_gpu(self) -> bool:
        """Whether the stage runs on CUDA."""
        return self.device.type == "cuda"

    def add(self, **results: Any) -> None:
        """Add results and write the file."""
        self.results |= results
        temporary = self.path.with_suffix(".part")
        temporary.write_text(json.dumps(self.results), encoding="utf-8")
        temporary.replace(self.path)

    def attempt(self, name: str, measure: Callable[[], Any]) -> None:
        """Add the result of a measurement, or the reason why it failed; later ones still run."""
        try:
            self.add(**{name: measure()})
        except Exception as error:
            traceback.print_exc()
            self.add(**{name: f"failed: {_describe(error)}"})
            if self.on_gpu:
                torch.cuda.empty_cache()

    def size(self, full: Any, tiny: Any) -> Any:
        """Return the size to use."""
        return tiny if self.tiny else full

    def median_ms(self, call: Callable[[], Any], seconds: float = 1.0) -> float:
        """Return the median time of a call in milliseconds, after two calls to warm up."""
        from selfsr.bench.timing import time_call, time_in_turns

        call(), call()
        times = time_in_turns(
            {"call": partial(time_call, call, self.device)}, self.size(seconds, 0.01), min_turns=self.size(5, 2)
        )
        return 1e3 * statistics.median(times["call"])


def _describe(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]


def machine(run: StageRun) -> None:
    """Versions, the card, its memory and matrix rates, and the time of an empty launch."""
    import importlib.metadata

    versions = {}
    for package in ("torch", "triton", "numpy", "accelerate", "spandrel", "pydantic", "torchvision"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    run.add(python=platform.python_version(), versions=versions, cuda=torch.version.cuda, cores=os.cpu_count())
    if run.on_gpu:
        run.attempt("card", _describe_card)
        run.attempt("peaks", _read_peaks)
        if shutil.which("nvidia-smi"):
            fields = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.limit"
            query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv"]
            run.attempt("nvidia_smi", lambda: subprocess.run(query, capture_output=True, text=True, check=True).stdout)
    source = torch.rand(run.size(2**28, 2**16), device=run.device)
    target = torch.empty_like(source)
    run.attempt("copy_gb_per_s", lambda: 2 * source.nbytes / run.median_ms(lambda: target.copy_(source), 0.5) / 1e6)
    side = run.size(8192, 64)
    a, b = (torch.randn(side, side, device=run.device, dtype=torch.bfloat16) for _ in range(2))
    run.attempt("bf16_tflop_per_s", lambda: 2 * side**3 / run.median_ms(lambda: a @ b, 0.5) / 1e9)
    small = torch.zeros(16, device=run.device)

    def launch_many() -> None:
        for _ in range(1000):
            small.add_(1)

    run.attempt("launch_us", lambda: run.median_ms(launch_many, 0.3))


def _describe_card() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "l2_mib": properties.L2_cache_size / 2**20,
    }


def _read_peaks() -> dict[str, float]:
    from gpu_floor import GpuPeaks

    peaks = GpuPeaks.read(torch.device("cuda"))
    return {"gb_per_s": peaks.bytes_per_s / 1e9, "lanes_per_s": peaks.lanes_per_s}


def compile(run: StageRun) -> None:
    """Compile all kernels of the operators in threads; without a GPU for compute capability 9.0, ahead of time."""
    try:
        import triton
    except ImportError:
        raise StageSkippedError("triton is not installed") from None
    from selfsr._ops.launches import compile_kernels, drop_duplicates

    if not run.on_gpu:
        _stand_in_for_a_gpu()
    launches = []
    for images, side in run.size(((16, 128), (1, 96)), ((1, 16),)):
        launches += _list_loss_launches(run, images, side)
    launches += _list_pacing_launches(run)
    launches = drop_duplicates(launches)
    if run.tiny:
        # The kernels that compile in a second or two.
        launches = [launch for launch in launches if launch.kernel.fn.__name__ in ("pack_kernel", "slot_kernel")]
    done: list[float] = []
    start = time.perf_counter()
    compile_kernels(
        launches, run.device, os.cpu_count() or 1, lambda: done.append(round(time.perf_counter() - start, 2))
    )
    run.add(triton=triton.__version__, kernels=len(launches), threads=os.cpu_count(), seconds=done[-1], done_at_s=done)
    start = time.perf_counter()
    compile_kernels(launches, run.device, 1)
    run.add(again_ms=1e3 * (time.perf_counter() - start))


def _stand_in_for_a_gpu() -> None:
    """Let Triton compile for compute capability 9.0 on a machine without a GPU."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    class StandIn:
        def get_current_target(self) -> GPUTarget:
            return GPUTarget("cuda", 90, 32)

        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, _device: int) -> int:
            return 0

    driver.set_active(StandIn())


def _list_loss_launches(run: StageRun, images: int, side: int) -> list[Any]:
    from selfsr._ops.launches import list_launches
    from selfsr.selfsim.triton import backend

    padded, pixels, geometry = _make_chunk(run, images, side)
    with list_launches() as launches:
        q = backend.window_distances(padded, pixels, geometry)
        backend.loss_and_row_gradient(q, q.clone(), geometry, 1.0, 1.0, True)
        backend.window_distances_backward(padded, q, pixels, geometry)
    return launches


def _list_pacing_launches(run: StageRun) -> list[Any]:
    from selfsr._ops.launches import list_launches
    from selfsr.pacing import triton as pacing
    from selfsr.pacing.contract import PacingOptions, SsimOptions

    side = run.size(96, 16)
    options = SsimOptions(1e-4, 9e-4, "zero")
    with list_launches() as launches:
        for layout in (torch.contiguous_format, torch.channels_last):
            x = torch.rand(2, 3, side, side, device=run.device).contiguous(memory_format=layout)
            sigma = torch.ones((), device=run.device)
            pacing.loss(x, x.clone(), sigma, options, PacingOptions(2.0, "l1", 0.0), "mean", True)
            pacing.ssim(x, x.clone(), options)
    return launches


def _make_chunk(run: StageRun, images: int, side: int) -> tuple[Tensor, Any, Any]:
    """Return padded images, masked pixels and the geometry."""
    from selfsr.selfsim.contract import Geometry, Pixels

    geometry = Geometry() if not run.tiny else Geometry(7, 3)
    generator = torch.Generator().manual_seed(0)
    side += 2 * geometry.half_search
    padded = torch.rand(images, 3, side, side, generator=generator).to(run.device)
    inner = side - 2 * geometry.half_search
    mask = (torch.rand(images, inner, inner, generator=generator) < DENSITY).to(run.device)
    return padded, Pixels(*mask.nonzero(as_tuple=True)), geometry


def values(run: StageRun) -> None:
    """Compare both operators with float64, call them three times, record a CUDA graph."""
    import gpu_values

    gpu_values.compare_similarity(run)
    gpu_values.compare_pacing(run)
    gpu_values.repeat_calls(run)
    gpu_values.check_waiting(run)
    gpu_values.replay_graph(run)
    failed = [name for name, value in run.results.items() if isinstance(value, dict) and value.get("good") is False]
    if failed or any(str(value).startswith("failed") for value in run.results.values()):
        raise RuntimeError(f"wrong values: {', '.join(failed) or 'see the log'}")


def operators(run: StageRun) -> None:
    """Time the self-similarity loss: batches, memory budgets, launch options, stages."""
    import gpu_operators

    gpu_operators.time_budgets(run)
    gpu_operators.time_stages(run)
    gpu_operators.time_launch_options(run)


def unhinted(run: StageRun) -> None:
    """Time the stages of the loss from a copy of the sources without the contiguity hint."""
    source = run.work / "unhinted" / "selfsr"
    shutil.copytree(BENCH.parent / "src" / "selfsr", source, ignore=shutil.ignore_patterns("__pycache__"))
    walk = source / "selfsim" / "triton" / "walk.py"
    text = walk.read_text(encoding="utf-8")
    hint = "tl.max_contiguous(base + offsets, [1, LANES])"
    assert hint in text, "the hint is not where it was"
    walk.write_text(text.replace(hint, "base + offsets"), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(source.parent), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, __file__, "chunk", "--json", str(run.work / "chunk.json"), "--work", str(run.work)]
    command += ["--device", run.device.type, *(["--tiny"] if run.tiny else [])]
    subprocess.run(command, env=environment, check=True)
    results = json.loads((run.work / "chunk.json").read_text(encoding="utf-8"))
    assert results["sources_are_a_copy"], "the timed sources were not the copy"
    run.add(**results)


def chunk(run: StageRun) -> None:
    """Time the stages of the loss; part of `unhinted`, and what `counters` looks at."""
    import gpu_operators
    import selfsr

    run.add(sources_are_a_copy=Path(selfsr.__file__).resolve().parents[1] != BENCH.parent / "src")
    gpu_operators.time_stages(run)


def pacing(run: StageRun) -> None:
    """Time self-paced weighting as bench/pacing.py does."""
    from dataclasses import asdict

    import pacing as pacing_bench

    for shape in run.size(pacing_bench.SHAPES, [(1, 3, 32, 32)]):
        for layout in pacing_bench.LAYOUTS:
            run.attempt(
                f"{'x'.join(map(str, shape))}, {layout}",
                lambda shape=shape, layout=layout: [
                    asdict(row)
                    for row in pacing_bench.measure(
                        shape, "loss and gradient", layout, run.device.type, run.size(0.5, 0.01), time.perf_counter
                    )
                ],
            )


def data(run: StageRun) -> None:
    """Measure how fast crops are ready on the device with each cache."""
    import cache

    images = cache.write_images(run.work / "data", run.size(200, 4), 512)
    run.add(**cache.measure_crops(images, run.work / "data_cache", run.device, run.size(1.0, 0.05)))


def steps(run: StageRun) -> None:
    """Time training steps against the plain loop."""
    import gpu_steps

    gpu_steps.time_steps(run)


def equal_bits(run: StageRun) -> None:
    """Train twice and compare the bits; compare TF32 with float64."""
    import gpu_steps

    run.attempt("trained_twice", lambda: gpu_steps.train_twice(run, deterministic=False))
    run.attempt("trained_twice_deterministic", lambda: gpu_steps.train_twice(run, deterministic=True))
    run.attempt("tf32", lambda: gpu_steps.compare_tf32(run))


def train(run: StageRun) -> None:
    """Train and upscale by the command line."""
    import gpu_steps

    gpu_steps.train_by_command_line(run)


def suite(run: StageRun) -> None:
    """Run the tests of the operators on the device."""
    folders = run.size(["tests/selfsim", "tests/pacing"], ["tests/bench/test_gpu_floor.py"])
    processes = [] if run.tiny else ["-n", str(min(8, os.cpu_count() or 1))]
    command = [sys.executable, "-m", "pytest", "-q", *folders, *processes, "--device", run.device.type]
    command += ["-o", "filterwarnings=default", "--ignore", "tests/selfsim/test_selfsim_ahead_of_time.py"]
    done = subprocess.run(command, cwd=BENCH.parent, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    run.add(last_lines=done.stdout.strip().splitlines()[-12:], exit_status=done.returncode)
    if done.returncode:
        raise RuntimeError("tests failed: " + " ".join(done.stdout.strip().splitlines()[-1:]))


def counters(run: StageRun) -> None:
    """Read hardware counters of the kernel of distances, if Nsight Compute is installed."""
    if not run.on_gpu:
        raise StageSkippedError("needs CUDA")
    if shutil.which("ncu") is None:
        raise StageSkippedError("ncu is not installed")
    command = ["ncu", "--clock-control", "none", "-k", "regex:distance", "-c", "1", "--set", "detailed"]
    command += [sys.executable, __file__, "chunk", "--json", str(run.work / "counted.json"), "--work", str(run.work)]
    done = subprocess.run([*command, "--device", "cuda"], capture_output=True, text=True)
    print(done.stdout, done.stderr)
    lines = [line.strip() for line in done.stdout.splitlines() if "%" in line or "Duration" in line]
    run.add(exit_status=done.returncode, lines=lines[:60])
    if done.returncode:
        raise RuntimeError(f"ncu failed: {_describe(RuntimeError(done.stderr))}")


FUNCTIONS: dict[str, Callable[[StageRun], None]] = {
    function.__name__: function
    for function in (
        machine, compile, values, operators, unhinted, chunk, pacing, data, steps, equal_bits, train, suite,
        counters,
    )
}  # fmt: skip


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=FUNCTIONS)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--photos", type=Path)
    options = parser.parse_args()
    run = StageRun(options.json, torch.device(options.device), options.tiny, options.work, options.photos)
    try:
        FUNCTIONS[options.stage](run)
    except StageSkippedError as reason:
        run.add(skipped=str(reason))
    except Exception as error:
        run.add(error=_describe(error))
        traceback.print_exc()
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
