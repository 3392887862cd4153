"""The stage `operators` of bench/gpu.py: times of the self-similarity loss."""

from typing import TYPE_CHECKING, Any

import torch

from gpu_floor import GpuPeaks, similarity_work
from gpu_values import backend_of
from selfsr import self_similarity_loss
from selfsr.bench.workload import Workload

if TYPE_CHECKING:
    from gpu_stages import StageRun

WORKLOADS = {
    "64 x 128^2": Workload(size_px=128, batch=64, mask="random", density=0.2),
    "16 x 128^2": Workload(size_px=128, batch=16, mask="random", density=0.2),
    "16 x 256^2": Workload(size_px=256, batch=16, mask="random", density=0.2),
}
TINY = {"2 x 24^2": Workload(size_px=24, batch=2, mask="random", density=0.2, search_px=7, window_px=3)}
BUDGETS_MB = [48, 96, 256, 1024, 4096]


def time_budgets(run: "StageRun") -> None:
    """Time loss and gradient for each workload and memory budget, against the floor of bench/gpu_floor.py."""
    for title, workload in run.size(WORKLOADS, TINY).items():
        tensors = workload.tensors(run.device)
        if run.on_gpu:
            run.attempt(
                f"{title}: floor_ms", lambda workload=workload, tensors=tensors: _floor_ms(run, workload, tensors)
            )
        floor = run.results.get(f"{title}: floor_ms")
        for memory_mb in run.size(BUDGETS_MB, [256]):
            call = _loss_call(run, workload, tensors, memory_mb)

            def measure(call=call, floor=floor) -> dict[str, Any]:
                ms = run.median_ms(call)
                return {"ms": ms, "times_floor": ms / floor if isinstance(floor, float) else None}

            run.attempt(f"{title}, {memory_mb} MB", measure)


def _floor_ms(run: "StageRun", workload: Workload, tensors: tuple[torch.Tensor, ...]) -> float:
    shape, masked = tuple(tensors[0].shape), int(tensors[2].sum())
    work = similarity_work(shape, masked, workload.search_px, workload.window_px)
    return 1e3 * work.minimum_seconds(GpuPeaks.read(run.device))


def _loss_call(run: "StageRun", workload: Workload, tensors: tuple[torch.Tensor, ...], memory_mb: float) -> Any:
    sr, hr, mask = tensors
    leaf = sr.detach().requires_grad_()

    def call() -> None:
        loss = self_similarity_loss(
            leaf, hr, mask, **workload.sizes, backend=backend_of(run), memory_mb=float(memory_mb)
        )
        torch.autograd.grad(loss, leaf)

    return call


def time_stages(run: "StageRun") -> None:
    """Time the three stages of the loss on one chunk of 16 crops of 128 px, without the operator around them."""
    import importlib

    from gpu_stages import _make_chunk

    # A copy of the sources would compile the CPU backend again.
    backend = importlib.import_module(f"selfsr.selfsim.{'triton' if run.on_gpu else 'eager'}")
    padded, pixels, geometry = _make_chunk(run, *run.size((16, 128), (2, 16)))
    q = backend.window_distances(padded, pixels, geometry)
    other = backend.window_distances(padded.flip(-1).contiguous(), pixels, geometry)
    gradient = backend.loss_and_row_gradient(q.clone(), other.clone(), geometry, 1.0, 1.0, True)[1]
    calls = {
        "distances_ms": lambda: backend.window_distances(padded, pixels, geometry),
        # It writes over its first argument; the time of the kernel does not depend on the numbers.
        "rows_ms": lambda: backend.loss_and_row_gradient(q, other, geometry, 1.0, 1.0, True),
        "backward_ms": lambda: backend.window_distances_backward(padded, gradient, pixels, geometry),
    }
    for name, call in calls.items():
        run.attempt(name, lambda call=call: run.median_ms(call, 0.5))


def time_launch_options(run: "StageRun") -> None:
    """Time the loss with other launch options than those of selfsim/triton/config.py."""
    if not run.on_gpu:
        run.add(launch_options="skipped: needs CUDA")
        return
    from selfsr.selfsim.triton import backend, config

    chosen, row_values, config_of = config._read_config(run.device), backend.ROW_VALUES, backend.config_of
    workload = WORKLOADS["16 x 128^2"]
    tensors = workload.tensors(run.device)
    run.add(chosen_options={"row_warps": chosen.row_warps, "collect_registers": chosen.collect_registers})
    for pixels in (8, 4):
        for warps in (4, 8, 16):
            for registers in (None, 80):
                options = config.LaunchConfig(warps, registers)
                backend.ROW_VALUES = 640 * pixels
                backend.config_of = lambda _, options=options: options
                name = f"rows of {pixels} pixels, {warps} warps; collect with {registers or 'any'} registers"
                try:
                    run.attempt(name, lambda: run.median_ms(_loss_call(run, workload, tensors, 1024.0), 0.3))
                finally:
                    backend.ROW_VALUES, backend.config_of = row_values, config_of
