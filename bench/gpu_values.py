"""The stage `values` of bench/gpu.py: errors of both operators on the device, equal bits, waits, CUDA graphs."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from selfsr import SelfPacedLoss, self_similarity_loss
from selfsr.bench.measure import Float64Oracle
from selfsr.bench.workload import Workload
from selfsr.selfsim.tolerances import TOLERANCES

if TYPE_CHECKING:
    from gpu_stages import StageRun

# Small and wide panels, several images, other search areas and windows.
WORKLOADS = [
    Workload(size_px=48, batch=1, mask="random", density=0.2),
    Workload(size_px=40, batch=9, mask="random", density=0.05),
    Workload(size_px=96, batch=2, mask="edges", stride=3),
    Workload(size_px=64, batch=1, mask="random", density=0.1, search_px=13, window_px=5),
    Workload(size_px=200, batch=1, mask="random", density=0.01),
    Workload(size_px=64, batch=3, mask="random", density=0.05, search_px=9, window_px=9),
]
TINY = [Workload(size_px=24, batch=2, mask="random", density=0.1, search_px=7, window_px=3)]
# Largest error of the self-paced gradient, rms relative to its rms; see bench/pacing.py.
PACING_ERROR = 1e-4


def backend_of(run: "StageRun") -> str:
    """Return the backend that the device should use."""
    return "triton" if run.on_gpu else "cpu"


def compare_similarity(run: "StageRun") -> None:
    """Compare loss parts and gradient with float64, within docs/numerics.md."""
    limit = TOLERANCES[torch.float32]

    def compare(workload: Workload) -> dict[str, Any]:
        oracle = Float64Oracle(workload, *workload.tensors(run.device))
        l1, kl, gradient = oracle.measure_errors(backend_of(run))
        good = l1 <= limit.l1 and kl <= limit.kl and gradient <= limit.gradient
        return {"good": good, "l1": l1, "kl": kl, "gradient": gradient, "masked": int(oracle.compared.sum())}

    for workload in run.size(WORKLOADS, TINY):
        run.attempt(f"similarity: {workload}", lambda workload=workload: compare(workload))


def compare_pacing(run: "StageRun") -> None:
    """Compare the gradient of the self-paced loss with five convolutions in float64."""
    import pacing

    def compare(shape: tuple[int, ...], layout: str) -> dict[str, Any]:
        sr, hr = pacing.make_images(shape, run.device.type, layout)
        truth = pacing.make_calls("five convolutions")["loss and gradient"](sr.double(), hr.double())
        result = pacing.make_calls(backend_of(run))["loss and gradient"](sr, hr)
        error = pacing.measure_error("loss and gradient", result, truth)
        return {"good": error <= PACING_ERROR, "gradient": error}

    for shape in run.size([(4, 3, 96, 96), (2, 3, 75, 133)], [(1, 3, 24, 33)]):
        for layout in pacing.LAYOUTS:
            name = f"pacing: {'x'.join(map(str, shape))}, {layout}"
            run.attempt(name, lambda shape=shape, layout=layout: compare(shape, layout))


def _make_loss_call(run: "StageRun", **options: Any) -> tuple[Tensor, Tensor, Any]:
    """Return sr with a gradient, the mask, and a function that computes loss and gradient."""
    side, sizes = run.size((64, {}), (16, {"search_px": 7, "window_px": 3}))
    generator = torch.Generator().manual_seed(0)
    sr, hr = torch.rand(2, 4, 3, side, side, generator=generator).to(run.device)
    mask = (torch.rand(4, 1, side, side, generator=generator) < 0.2).to(run.device)
    sr.requires_grad_()

    def step() -> Tensor:
        sr.grad = None
        loss = self_similarity_loss(sr, hr, mask, backend=backend_of(run), **sizes, **options)
        loss.backward()
        return loss

    return sr, mask, step


def repeat_calls(run: "StageRun") -> None:
    """Compute each loss three times and compare the bits."""

    def repeat() -> dict[str, Any]:
        sr, _, step = _make_loss_call(run)
        calls = []
        for _ in range(3):
            loss = step()
            assert sr.grad is not None
            calls.append((loss.detach(), sr.grad.clone()))
        paced = SelfPacedLoss("l1", backend=backend_of(run))
        images = torch.rand(2, 2, 3, 40, 40, generator=torch.Generator().manual_seed(1)).to(run.device)
        results = [paced(images[0], images[1], 2.0) for _ in range(3)]
        same = all(torch.equal(a, b) for call in calls[1:] for a, b in zip(calls[0], call, strict=True))
        return {"good": same and all(torch.equal(results[0], other) for other in results[1:])}

    run.attempt("three calls have the same bits", repeat)


def check_waiting(run: "StageRun") -> None:
    """Call the loss with `max_pixels` while waiting for the device is an error."""

    def call() -> Any:
        if not run.on_gpu:
            return "skipped: needs CUDA"
        _, _, step = _make_loss_call(run, max_pixels=4000)
        step()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return {"good": True}

    run.attempt("the host never waits", call)


def replay_graph(run: "StageRun") -> None:
    """Record loss and gradient in a CUDA graph, and replay it with other images and another mask."""

    def replay() -> Any:
        if not run.on_gpu:
            return "skipped: needs CUDA"
        sr, mask, step = _make_loss_call(run, max_pixels=4000)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            recorded = step()
        recorded_gradient = sr.grad
        assert recorded_gradient is not None
        with torch.no_grad():
            sr.copy_(torch.rand_like(sr))
            mask.copy_(torch.rand_like(mask, dtype=torch.float32) < 0.1)
        graph.replay()
        value, gradient = recorded.clone(), recorded_gradient.clone()
        again = step()
        assert sr.grad is not None
        return {"good": torch.equal(value, again.detach()) and torch.equal(gradient, sr.grad)}

    run.attempt("a CUDA graph replays the same bits", replay)
