"""Samples per second and core of each degradation, from a decoded image to a training pair.

    python bench/degrade.py [--json results.json] [--samples 100] [--scale 4]
    python bench/degrade.py --device cpu [--batch 16] [--samples 48] [--json results.json]
    python bench/degrade.py --border [--samples 100]

Measures the processor time of one thread (which other users of the machine do not change) on photos of scikit-image in
memory. A sample is a crop with its surroundings, flipped or rotated, and degraded. The shares of the steps are timed in
a second pass. The first line is the cost of the crop without a degradation; bicubic LR is made in the training process.

With --device, full batches are degraded on that device (`data.degrade_on: device`). "Loader" is the degradation in a
loader process, "sampling" what is left for that process: crops, plans and their tensors. "Device" is the rest including
the transfer: wall time on a GPU, processor time of one thread on a CPU. "Equal" is the share of a batch whose LR
without noise differs by less than 0.01 gray levels from the loader's.

With --border, it measures how far an image border reaches into LR. For crops of 32 x 32 LR pixels, the surroundings are
those of the image, or reflected from some distance on, as at the border of a window. The plan is the same, without
noise. The difference in the crop is the error that a window of that margin would cause.
"""

import argparse
import json
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from skimage import data as photos

from selfsr.data.loader import Loader
from selfsr.data.spec import FolderSpec
from selfsr.degrade.batched import merge_plans
from selfsr.degrade.plan import apply_plan
from selfsr.degrade.presets import PRESETS, get_preset
from selfsr.images.files import DecodedImage, write_image

CROPS_PX = (128, 256)
PHOTOS = ("astronaut", "chelsea", "coffee", "cat")
LARGE_PHOTOS = ("astronaut", "coffee", "rocket")
MARGINS_LR_PX = (0, 4, 8, 12, 16)


@dataclass(frozen=True)
class DegradeRow:
    """One line of the table; `shares` are the time of each kind of step relative to all steps."""

    preset: str
    crop_px: int
    window_px: int
    milliseconds: float
    samples_per_s: float
    shares: dict[str, float]


@dataclass(frozen=True)
class BatchRow:
    """One line of the table for batches; times are per sample."""

    preset: str
    crop_px: int
    loader_ms: float
    sampling_ms: float
    device_ms: float
    rounds: float
    equal_share: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--samples", type=int, default=100, help="samples for each line")
    parser.add_argument("--device", type=torch.device, help="degrade full batches on this device")
    parser.add_argument("--batch", type=int, default=16, help="batch size on the device")
    parser.add_argument("--scale", type=int, default=4, help="ratio of the sizes of HR and LR")
    parser.add_argument("--border", action="store_true", help="measure the effect of borders instead")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.border:
        print_border(options.samples)
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in PHOTOS:
            write_image(Path(folder) / f"{name}.png", DecodedImage(getattr(photos, name)()))
        cases = [(preset, crop_px) for crop_px in CROPS_PX for preset in ("bicubic", *PRESETS)]
        if options.device is None:
            rows = [time_samples(Path(folder), *case, options.scale, options.samples) for case in cases]
            print_samples(rows)
        else:
            rows = [time_batches(Path(folder), *case, options) for case in cases if case[0] != "bicubic"]
            print_batches(rows)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def time_samples(folder: Path, preset: str, crop_px: int, scale: int, samples: int) -> DegradeRow:
    """Time `samples` samples after ten for warming up."""
    degrade = None if preset == "bicubic" else preset
    dataset = FolderSpec(kind="folder", hr=folder, cache="memory", degrade=degrade).build(scale=scale, crop_px=crop_px)
    window_px = getattr(dataset, "window_px", crop_px + 2 * dataset.halo_px)
    for i in range(-10, samples):
        if i == 0:
            start = time.process_time()
        dataset.sample(i % len(dataset), np.random.default_rng((1, i + 10)))
    seconds = (time.process_time() - start) / samples
    shares = {} if degrade is None else measure_step_shares(degrade, window_px, scale, samples)
    return DegradeRow(preset, crop_px, window_px, 1000 * seconds, 1 / seconds, shares)


def measure_step_shares(preset: str, window_px: int, scale: int, samples: int) -> dict[str, float]:
    """Return the share of each kind of step in the time of all steps."""
    spent: dict[str, float] = defaultdict(float)
    photo = photos.astronaut()[:window_px, :window_px].astype(np.float32) / 255
    for i in range(samples):
        rng = np.random.default_rng((2, i))
        image = photo
        for step in get_preset(preset).sample(rng, window_px, window_px, scale):
            start = time.process_time()
            image = step(image, rng)
            spent[step.name] += time.process_time() - start
    total = sum(spent.values())
    return {name: seconds / total for name, seconds in sorted(spent.items(), key=lambda item: -item[1])}


def time_batches(folder: Path, preset: str, crop_px: int, options: argparse.Namespace) -> BatchRow:
    """Time batches on the device, after one for warming up, and samples in the loader."""
    device, count = options.device, max(options.samples // options.batch, 1)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    data = FolderSpec(kind="folder", hr=folder, cache="memory", degrade=preset, degrade_on="device")
    loader = Loader(data.build(scale=options.scale, crop_px=crop_px), batch=options.batch, seed=1, workers=0)
    sampling_s = device_s = rounds = 0.0
    for i in range(-1, count):
        start = time.process_time()
        raw = next(loader)
        middle = time.process_time()
        begun = clock()
        loader.prepare(raw, device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if i >= 0:
            sampling_s, device_s = sampling_s + middle - start, device_s + clock() - begun
            rounds += len(raw.parts[0].degradation.plan.rounds) / count
    samples = count * options.batch
    loader_ms = time_samples(folder, preset, crop_px, options.scale, samples).milliseconds
    share = compare_with_loader(folder, preset, crop_px, options)
    return BatchRow(preset, crop_px, loader_ms, 1000 * sampling_s / samples, 1000 * device_s / samples, rounds, share)


def compare_with_loader(folder: Path, preset: str, crop_px: int, options: argparse.Namespace) -> float:
    """Return the share of one batch whose LR without noise equals the loader's within 0.01 gray levels."""
    dataset = FolderSpec(kind="folder", hr=folder, degrade=preset, degrade_on="device").build(
        scale=options.scale, crop_px=crop_px
    )
    crops = [dataset.sample(i % len(dataset), np.random.default_rng((4, i))) for i in range(options.batch)]
    noiseless = [tuple(step for step in crop.degradation.plan if not step.name.endswith("noise")) for crop in crops]
    windows = np.stack([crop.hr for crop in crops]).astype(np.float32) / 255
    program = merge_plans(noiseless, [windows.shape[1:3]] * len(crops), range(len(crops)))
    batched = program(torch.from_numpy(windows).permute(0, 3, 1, 2).contiguous().to(options.device)).cpu().numpy()
    loaded = [
        apply_plan(plan, window, np.random.default_rng(0)) for plan, window in zip(noiseless, windows, strict=True)
    ]
    return float((255 * np.abs(batched.transpose(0, 2, 3, 1) - loaded).max(axis=(1, 2, 3)) < 0.01).mean())


def print_batches(rows: list[BatchRow]) -> None:
    table = Table(
        "Preset", "Crop", "Loader, ms", "Sampling, ms", "Device, ms", "Samples/s", "Rounds", "Equal", box=None
    )
    for row in rows:
        times = (f"{x:.2f}" for x in (row.loader_ms, row.sampling_ms, row.device_ms))
        rest = (f"{1000 / row.device_ms:,.0f}", f"{row.rounds:.1f}", f"{100 * row.equal_share:.0f} %")
        table.add_row(row.preset, f"{row.crop_px}", *times, *rest)
    Console(width=160).print(table)


def print_border(samples: int) -> None:
    """Print the share of changed pixels and the rms change in gray levels for each preset and margin."""
    table = Table("Preset", *(f"{margin} LR px" for margin in MARGINS_LR_PX), box=None)
    for preset in PRESETS:
        changes = np.mean([measure_border(preset, i) for i in range(samples)], axis=0)
        table.add_row(preset, *(f"{100 * share:.0f} %, {rms:.2f}" for share, rms in changes))
    Console(width=120).print(table)


def measure_border(preset: str, seed: int) -> list[tuple[float, float]]:
    """Return for each margin the share of LR pixels that change by a gray level, and the rms change."""
    scale, crop, widest = 4, 32, MARGINS_LR_PX[-1] + 8
    rng = np.random.default_rng((3, seed))
    photo = getattr(photos, LARGE_PHOTOS[seed % len(LARGE_PHOTOS)])()
    side = (crop + 2 * widest) * scale
    top, left = (int(rng.integers(length - side + 1)) for length in photo.shape[:2])
    window = photo[top : top + side, left : left + side].astype(np.float32) / 255
    plan = tuple(step for step in get_preset(preset).sample(rng, side, side, scale) if not step.name.endswith("noise"))
    truth = apply_plan(plan, window, rng)[widest:-widest, widest:-widest]
    changes = []
    for margin in MARGINS_LR_PX:
        cut = (widest - margin) * scale
        reflected = np.pad(window[cut:-cut, cut:-cut], ((cut, cut), (cut, cut), (0, 0)), "symmetric")
        change = np.abs(apply_plan(plan, reflected, rng)[widest:-widest, widest:-widest] - truth) * 255
        changes.append((float((change.max(2) > 1).mean()), float(np.sqrt(np.square(change).mean()))))
    return changes


def print_samples(rows: list[DegradeRow]) -> None:
    table = Table("Preset", "Crop", "Window", "ms", "Samples/s per core", "Steps by share of time", box=None)
    for row in rows:
        shares = ", ".join(f"{name.replace('_', ' ')} {100 * share:.0f} %" for name, share in row.shares.items())
        numbers = (f"{row.crop_px}", f"{row.window_px}", f"{row.milliseconds:.2f}", f"{row.samples_per_s:,.0f}")
        table.add_row(row.preset, *numbers, shares)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
