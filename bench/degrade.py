"""Samples a second and core of each degradation, from a decoded picture to the pair that a batch takes.

    python bench/degrade.py [--json results.json] [--samples 100] [--scale 4]
    python bench/degrade.py --device cpu [--batch 16] [--samples 48] [--json results.json]
    python bench/degrade.py --border [--samples 100]

One thread, processor time (a machine that others use does not change it), photos that come with scikit-image, in
memory. A sample is a crop with its surroundings, drawn, turned and degraded. Beside the total stand the shares of the
steps by kind, timed in a second pass. The first line is what cutting the same crop costs without a degradation; its
bicubic LR is then made in the training process.

With --device: the same degradations carried out there, a batch together (`data.degrade_on: device`). "Drawn" is what is
left for a process that loads: crops, plans, and what the device needs to know of them. "Device" is the rest, with the
transfer: wall time on a GPU, processor time of one thread on a CPU. "Alike" is the share of a batch whose LR, noise
left out, differs by less than a hundredth of a level from the loader's.

With --border: how far a picture's border reaches into LR. For crops of 32 x 32 LR pixels, the surroundings are once the
picture's own and once mirrored from some distance on, as they are at the border of a window; noise is left out, and the
rest of the plan is the same. What differs in the crop is what a window of that margin would have spoilt.
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
from selfsr.degrade.batched import merged
from selfsr.degrade.plan import carry_out
from selfsr.degrade.presets import PRESETS
from selfsr.degrade.presets import preset as named
from selfsr.images.files import Picture, write_picture

CROPS_PX = (128, 256)
PHOTOS = ("astronaut", "chelsea", "coffee", "cat")
LARGE_PHOTOS = ("astronaut", "coffee", "rocket")
MARGINS_LR_PX = (0, 4, 8, 12, 16)


@dataclass(frozen=True)
class Row:
    """One line of the table; `shares` are of the time that steps take, by kind."""

    preset: str
    crop_px: int
    window_px: int
    milliseconds: float
    samples_per_s: float
    shares: dict[str, float]


@dataclass(frozen=True)
class BatchRow:
    """One line of the table of the device; times are of one sample."""

    preset: str
    crop_px: int
    loader_ms: float
    drawn_ms: float
    device_ms: float
    rounds: float
    alike: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--samples", type=int, default=100, help="samples for each line")
    parser.add_argument("--device", type=torch.device, help="time the degradations of whole batches on this device")
    parser.add_argument("--batch", type=int, default=16, help="samples of a batch on the device")
    parser.add_argument("--scale", type=int, default=4, help="how many times smaller LR is")
    parser.add_argument("--border", action="store_true", help="measure what borders change instead")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.border:
        show_border(options.samples)
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in PHOTOS:
            write_picture(Path(folder) / f"{name}.png", Picture(getattr(photos, name)()))
        cases = [(preset, crop_px) for crop_px in CROPS_PX for preset in ("bicubic", *PRESETS)]
        if options.device is None:
            rows = [timed(Path(folder), *case, options.scale, options.samples) for case in cases]
            show(rows)
        else:
            rows = [timed_batches(Path(folder), *case, options) for case in cases if case[0] != "bicubic"]
            show_batches(rows)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def timed(folder: Path, preset: str, crop_px: int, scale: int, samples: int) -> Row:
    """Time `samples` samples after a few for warming up."""
    degrade = None if preset == "bicubic" else preset
    dataset = FolderSpec(kind="folder", hr=folder, cache="memory", degrade=degrade).build(scale=scale, crop_px=crop_px)
    window_px = getattr(dataset, "window_px", crop_px + 2 * dataset.halo_px)
    for i in range(-10, samples):
        if i == 0:
            start = time.process_time()
        dataset.sample(i % len(dataset), np.random.default_rng((1, i + 10)))
    seconds = (time.process_time() - start) / samples
    shares = {} if degrade is None else step_shares(degrade, window_px, scale, samples)
    return Row(preset, crop_px, window_px, 1000 * seconds, 1 / seconds, shares)


def step_shares(preset: str, window_px: int, scale: int, samples: int) -> dict[str, float]:
    """Return the share of each kind of step in the time of all steps."""
    spent: dict[str, float] = defaultdict(float)
    photo = photos.astronaut()[:window_px, :window_px].astype(np.float32) / 255
    for i in range(samples):
        rng = np.random.default_rng((2, i))
        image = photo
        for step in named(preset).draw(rng, window_px, window_px, scale):
            start = time.process_time()
            image = step(image, rng)
            spent[step.name] += time.process_time() - start
    whole = sum(spent.values())
    return {name: seconds / whole for name, seconds in sorted(spent.items(), key=lambda item: -item[1])}


def timed_batches(folder: Path, preset: str, crop_px: int, options: argparse.Namespace) -> BatchRow:
    """Time batches on the device, after one for warming up, and the loader's samples beside."""
    device, count = options.device, max(options.samples // options.batch, 1)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    data = FolderSpec(kind="folder", hr=folder, cache="memory", degrade=preset, degrade_on="device")
    loader = Loader(data.build(scale=options.scale, crop_px=crop_px), batch=options.batch, seed=1, workers=0)
    drawn = device_s = rounds = 0.0
    for i in range(-1, count):
        start = time.process_time()
        raw = next(loader)
        middle = time.process_time()
        begun = clock()
        loader.prepare(raw, device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if i >= 0:
            drawn, device_s = drawn + middle - start, device_s + clock() - begun
            rounds += len(raw.drawn.program.rounds) / count
    samples = count * options.batch
    one = timed(folder, preset, crop_px, options.scale, samples).milliseconds
    share = alike(folder, preset, crop_px, options)
    return BatchRow(preset, crop_px, one, 1000 * drawn / samples, 1000 * device_s / samples, rounds, share)


def alike(folder: Path, preset: str, crop_px: int, options: argparse.Namespace) -> float:
    """Return the share of samples of one batch whose LR without noise is the loader's, to a hundredth of a level."""
    dataset = FolderSpec(kind="folder", hr=folder, degrade=preset, degrade_on="device").build(
        scale=options.scale, crop_px=crop_px
    )
    crops = [dataset.sample(i % len(dataset), np.random.default_rng((4, i))) for i in range(options.batch)]
    quiet = [tuple(step for step in crop.draw.plan if not step.name.endswith("noise")) for crop in crops]
    windows = np.stack([crop.hr for crop in crops]).astype(np.float32) / 255
    program = merged(quiet, [windows.shape[1:3]] * len(crops), range(len(crops)))
    there = program(torch.from_numpy(windows).permute(0, 3, 1, 2).contiguous().to(options.device)).cpu().numpy()
    here = [carry_out(plan, window, np.random.default_rng(0)) for plan, window in zip(quiet, windows, strict=True)]
    return float((255 * np.abs(there.transpose(0, 2, 3, 1) - here).max(axis=(1, 2, 3)) < 0.01).mean())


def show_batches(rows: list[BatchRow]) -> None:
    table = Table("Preset", "Crop", "Loader, ms", "Drawn, ms", "Device, ms", "Samples/s", "Rounds", "Alike", box=None)
    for row in rows:
        times = (f"{x:.2f}" for x in (row.loader_ms, row.drawn_ms, row.device_ms))
        rest = (f"{1000 / row.device_ms:,.0f}", f"{row.rounds:.1f}", f"{100 * row.alike:.0f} %")
        table.add_row(row.preset, f"{row.crop_px}", *times, *rest)
    Console(width=160).print(table)


def show_border(samples: int) -> None:
    """Print, by preset and margin, the share of changed pixels and the rms change in levels of 255."""
    table = Table("Preset", *(f"{margin} LR px" for margin in MARGINS_LR_PX), box=None)
    for preset in PRESETS:
        found = np.mean([border(preset, i) for i in range(samples)], axis=0)
        table.add_row(preset, *(f"{100 * share:.0f} %, {rms:.2f}" for share, rms in found))
    Console(width=120).print(table)


def border(preset: str, seed: int) -> list[tuple[float, float]]:
    """Return for each margin the share of LR pixels that change by more than a level, and the rms change."""
    scale, crop, widest = 4, 32, MARGINS_LR_PX[-1] + 8
    rng = np.random.default_rng((3, seed))
    photo = getattr(photos, LARGE_PHOTOS[seed % len(LARGE_PHOTOS)])()
    side = (crop + 2 * widest) * scale
    top, left = (int(rng.integers(length - side + 1)) for length in photo.shape[:2])
    window = photo[top : top + side, left : left + side].astype(np.float32) / 255
    plan = tuple(step for step in named(preset).draw(rng, side, side, scale) if not step.name.endswith("noise"))
    truth = carry_out(plan, window, rng)[widest:-widest, widest:-widest]
    found = []
    for margin in MARGINS_LR_PX:
        cut = (widest - margin) * scale
        mirrored = np.pad(window[cut:-cut, cut:-cut], ((cut, cut), (cut, cut), (0, 0)), "symmetric")
        change = np.abs(carry_out(plan, mirrored, rng)[widest:-widest, widest:-widest] - truth) * 255
        found.append((float((change.max(2) > 1).mean()), float(np.sqrt(np.square(change).mean()))))
    return found


def show(rows: list[Row]) -> None:
    table = Table("Preset", "Crop", "Window", "ms", "Samples/s and core", "Steps, by their share", box=None)
    for row in rows:
        shares = ", ".join(f"{name.replace('_', ' ')} {100 * share:.0f} %" for name, share in row.shares.items())
        numbers = (f"{row.crop_px}", f"{row.window_px}", f"{row.milliseconds:.2f}", f"{row.samples_per_s:,.0f}")
        table.add_row(row.preset, *numbers, shares)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
