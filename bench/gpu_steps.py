"""The stages `steps`, `equal_bits` and `train` of bench/gpu.py: training on a GPU."""

import gc
import itertools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

import steps
from selfsr.machine.arithmetic import Arithmetic
from selfsr.recipe import Recipe
from selfsr.runfolder.log import Meter
from selfsr.step import Clock, Outputs
from selfsr.training.guard import FiniteGuard
from selfsr.training.loop import take_step

if TYPE_CHECKING:
    from gpu_stages import StageRun

# Options of the recipe that a comparison needs; versions that lack one leave out its variants.
COMPILE_CHOICES = ("default", "graphs")


def _make_cases(run: "StageRun") -> dict[str, steps.Case]:
    """Return EDSR-baseline and ESRGAN at batch 16, or small ones."""
    tiny = {"network": {"kind": "edsr", "blocks": 1, "features": 8}, "crop_px": 32, "batch": 2}
    tiny_gan = {"network": {"kind": "rrdb", "blocks": 1, "features": 8}, "crop_px": 32, "batch": 2}
    return {
        name: replace(steps.CASES[name], settings=steps.CASES[name].settings | run.size(full, small))
        for name, full, small in (("edsr", {"batch": 16}, tiny), ("esrgan", {"batch": 16}, tiny_gan))
    }


def _prepare_folder(run: "StageRun") -> Path:
    """Return a folder with training images and VGG19's layers with random weights."""
    folder = run.work / "images"
    if folder.is_dir():
        return folder
    folder.mkdir()
    if run.photos is None:
        steps.write_photo(folder)
    else:
        for photo in sorted(run.photos.iterdir()):
            if photo.suffix.lower() in (".png", ".jpg", ".jpeg"):
                shutil.copy(photo, folder)
    steps.write_random_vgg(folder)
    return folder


def _make_step(
    case: steps.Case, folder: Path, device: str, *, benchmark: bool = True, **changes: Any
) -> Callable[[], Any]:
    """Return a function that takes one of our steps, without waiting for the device; cuDNN may time its algorithms."""
    run, batches = steps.start_run(case, folder, device, **changes)
    run.arithmetic = replace(run.arithmetic, benchmark=run.arithmetic.benchmark and benchmark)
    meter, guard, count = Meter(), FiniteGuard(), itertools.count(steps.EPOCH * steps.STEPS_PER_EPOCH)

    def step() -> None:
        clock = Clock(next(count), steps.STEPS_PER_EPOCH, 10**6)
        take_step(run, batches, clock, meter, guard)

    return step


def _make_plain_step(case: steps.Case, folder: Path, device: str) -> Callable[[], Any]:
    """Return a step of the plain loop: autocast to bfloat16, channels-last, Adam, EMA, and the loss read each time.

    As in BasicSR, cuDNN times its algorithms.
    """
    run, (batch,) = steps.start_run(case, folder, device, precision="bfloat16", memory_format="channels_last")
    nets = {name: run.accelerator.unwrap_model(net) for name, net in run.method.nets.items()}
    kind = run.accelerator.device.type
    optimizers = {name: torch.optim.Adam(net.parameters(), lr=1e-5) for name, net in nets.items()}
    ema = [weight.detach().clone() for weight in nets["g"].parameters()]
    perceptual = run.method.objective.terms.get("perceptual")

    def forward(name: str, image: torch.Tensor) -> torch.Tensor:
        with torch.autocast(kind, torch.bfloat16):
            return nets[name](image).float()

    def relativistic(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        ones, zeros = torch.ones_like(first), torch.zeros_like(first)
        loss = F.binary_cross_entropy_with_logits
        return (loss(first - second.mean(), ones) + loss(second - first.mean(), zeros)) / 2

    @Arithmetic(tf32="convolutions", benchmark=True).use()
    def step() -> None:
        sr = forward("g", batch.lr)
        loss = F.l1_loss(sr, batch.hr)
        if perceptual is not None:
            nets["d"].requires_grad_(False)
            loss = 0.01 * loss + perceptual(Outputs(sr), batch, Clock(1, 1, 1))
            loss = loss + 0.005 * relativistic(forward("d", sr), forward("d", batch.hr).detach())
        optimizers["g"].zero_grad()
        loss.backward()
        optimizers["g"].step()
        loss.item()
        if perceptual is not None:
            nets["d"].requires_grad_(True)
            loss = relativistic(forward("d", batch.hr), forward("d", sr.detach()))
            optimizers["d"].zero_grad()
            loss.backward()
            optimizers["d"].step()
            loss.item()
        torch._foreach_lerp_(ema, [weight.detach() for weight in nets["g"].parameters()], 0.001)

    return step


def _measure_rate(run: "StageRun", make: Callable[[], Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Return steps per second without waiting between steps, the first step's seconds and the peak memory."""
    gc.collect()
    if run.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    step = make()
    start = time.perf_counter()
    step()
    _synchronize(run)
    first_s = time.perf_counter() - start
    for _ in range(run.size(5, 1)):
        step()
    _synchronize(run)
    count, start = 0, time.perf_counter()
    while count < run.size(10, 2) or time.perf_counter() - start < run.size(seconds, 0):
        step()
        count += 1
        if count % 10 == 0:
            _synchronize(run)  # otherwise the host could be far ahead when the time is over
    _synchronize(run)
    rate = count / (time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() / 2**20 if run.on_gpu else 0.0
    return {"steps_per_s": rate, "first_step_s": first_s, "peak_mib": peak}


def _synchronize(run: "StageRun") -> None:
    if run.on_gpu:
        torch.cuda.synchronize()


def time_steps(run: "StageRun") -> None:
    """Time the variants of each case, count the launches of a step, and time compiled networks at last."""
    folder, device, cases = _prepare_folder(run), run.device.type, _make_cases(run)

    def ours(case: steps.Case, added: dict[str, Any] | None = None, **changes: Any) -> Callable[[], Any]:
        method = {**case.method, "terms": {**case.method["terms"], **(added or {})}}
        return _make_step(case, folder, device, method=method, **changes)

    def measure(title: str, make: Callable[..., Callable[[], Any]], *arguments: Any, **changes: Any) -> None:
        run.attempt(title, lambda: _measure_rate(run, lambda: make(*arguments, **changes), 1.5))

    for name, case in cases.items():
        measure(f"{name}: plain loop, bfloat16, channels-last", _make_plain_step, case, folder, device)
        measure(f"{name}: ours", ours, case)
        for title, added in case.added.items():
            measure(f"{name}: ours + {title}", ours, case, added)
        measure(f"{name}: ours, without cudnn.benchmark", ours, case, benchmark=False)
        run.attempt(f"{name}: launches", lambda case=case: _count_launches(run, ours(case)))
        for title, added in case.added.items():
            run.attempt(
                f"{name}: ms of {title} only",
                lambda case=case, added=added: 1e3 * steps.measure_loss_cost(case, folder, device, added),
            )
    for name, case in cases.items():
        for choice in COMPILE_CHOICES:
            if "compile" in Recipe.model_fields:
                measure(f"{name}: ours, compile {choice}", ours, case, compile=choice)
            else:
                run.add(**{f"{name}: ours, compile {choice}": "skipped: this version has no such option"})


def _count_launches(run: "StageRun", step: Callable[[], Any]) -> dict[str, float]:
    """Return the operations that a step starts on the device, and the share of the time in which they run."""
    from torch.profiler import ProfilerActivity, profile

    count = run.size(3, 1)
    step(), step()
    _synchronize(run)
    activities = [ProfilerActivity.CUDA] if run.on_gpu else [ProfilerActivity.CPU]
    with profile(activities=activities) as profiler:
        start = time.perf_counter()
        for _ in range(count):
            step()
        _synchronize(run)
        seconds = time.perf_counter() - start
    events = profiler.events() or []
    if not run.on_gpu:
        return {"operations": len(events) / count}
    ran = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA]
    busy_us = sum(event.time_range.elapsed_us() for event in ran)
    return {"launches": len(ran) / count, "busy_share": busy_us / 1e6 / seconds}


def train_twice(run: "StageRun", *, deterministic: bool) -> dict[str, Any]:
    """Take steps from the same start twice; return whether all weights have the same bits."""
    folder, case = _prepare_folder(run), _make_cases(run)["esrgan"]
    if not run.tiny:
        case = replace(case, settings=case.settings | {"network": {"kind": "rrdb", "blocks": 3}, "batch": 4})
    method = {**case.method, "terms": {**case.method["terms"], **steps.SIMILARITY["self-similarity, stride 3"]}}
    weights = []
    for _ in range(2):
        started, batches = steps.start_run(case, folder, run.device.type, method=method, deterministic=deterministic)
        meter, guard = Meter(), FiniteGuard()
        for number in range(1, run.size(30, 3) + 1):
            take_step(started, batches, Clock(number, steps.STEPS_PER_EPOCH, 10**6), meter, guard)
        weights.append([parameter.detach().clone() for parameter in started.generator.parameters()])
    same = sum(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    largest = max((a - b).abs().max().item() for a, b in zip(*weights, strict=True))
    return {"tensors": len(weights[0]), "equal": same, "largest_difference": largest}


def compare_tf32(run: "StageRun") -> dict[str, float]:
    """Return the error of a network's output in float32 against float64 on the CPU, with and without TF32."""
    started, (batch,) = steps.start_run(
        _make_cases(run)["edsr"], _prepare_folder(run), run.device.type, precision="float32"
    )
    net = started.generator.eval()
    errors, allowed = {}, torch.backends.cudnn.allow_tf32
    with torch.no_grad():
        outputs = {}
        for name, tf32 in (("float32", False), ("tf32", True)):
            torch.backends.cudnn.allow_tf32 = tf32
            outputs[name] = net(batch.lr).double().cpu()
        torch.backends.cudnn.allow_tf32 = allowed
        truth = net.double().cpu()(batch.lr.double().cpu())
    hr = batch.hr.double().cpu()

    def psnr(image: torch.Tensor) -> float:
        return -10 * (image - hr).square().mean().log10().item()

    for name, output in outputs.items():
        errors[f"{name}_largest_error"] = (output - truth).abs().max().item()
        errors[f"{name}_psnr_difference"] = psnr(output) - psnr(truth)
    return errors | {"torch_allows_tf32": float(allowed)}


def train_by_command_line(run: "StageRun") -> None:
    """Train by `selfsr train` with the self-similarity loss, and upscale an image by `selfsr upscale`."""
    folder, case = _prepare_folder(run), _make_cases(run)["edsr"]
    added = {"similarity": {"kind": "self_similarity"}}
    method = {**case.method, "terms": {**case.method["terms"], **added}}
    count = run.size(300, 3)
    recipe = steps.make_recipe(case, folder, method=method, steps=count, log={"every_steps": max(1, count // 3)})
    path = run.work / "recipe.yaml"
    path.write_text(json.dumps(recipe), encoding="utf-8")  # JSON is YAML
    device = ["--device", run.device.type]
    runs = run.work / "runs"
    run.attempt("train_s", lambda: _time_command("train", str(path), "--runs", str(runs), "--no-report", *device))
    (metrics,) = runs.rglob("metrics.jsonl")
    run.add(metrics=[json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()])
    (model,) = metrics.parent.glob("weights/last.*")
    image = next(path for path in sorted(folder.iterdir()) if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    target = ["--output", str(run.work / "upscaled.png"), *device]
    run.attempt("upscale_s", lambda: _time_command("upscale", str(image), "--model", str(model), *target))
    if any(str(run.results[name]).startswith("failed") for name in ("train_s", "upscale_s")):
        raise RuntimeError("a command failed, see the log")


def _time_command(*arguments: str) -> float:
    """Run `selfsr` with arguments and return its seconds, its start included."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "selfsr", *arguments], capture_output=True, text=True)
    print(done.stdout, done.stderr)
    if done.returncode:
        raise RuntimeError(f"selfsr {arguments[0]}: {(done.stderr.strip().splitlines() or [''])[-1]}")
    return time.perf_counter() - start
