"""The caches of decoded images: start-up with many images, memory of several processes, crops per second.

    python bench/cache.py --images 100000
    python bench/cache.py --only crops --device cuda

Start-up is listing the folder, making the dataset, recording its files and loading the first batch. The baseline is
`cache: off`, which reads all headers. Times are those of the processor, since other work may load the machine. Memory
is the growth of the proportional set size (PSS) by the dataset once all images have been read; a page that n processes
share counts as 1 / n in each. The baseline is one process. Crops are batches of 64 crops of 96 x 96 pixels with their
bicubic x2 input, from images of 512 x 512 pixels, ready on the device; medians of turns, on a CPU in seconds of the
processor. The images are generated in a temporary folder.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import torch

from selfsr.data.loader import Loader
from selfsr.data.prefetch import choose_source
from selfsr.data.spec import FolderSpec
from selfsr.training.data_record import record_data

CROP_PX = 16
BATCH = 16


def write_images(folder: Path, count: int, side_px: int) -> Path:
    """Write JPEG images, of which each hundredth is another one, in folders of a thousand."""
    rng = np.random.default_rng(0)
    kinds = [
        cv2.imencode(".jpg", rng.integers(0, 255, (side_px, side_px, 3), np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
        for _ in range(min(count, 100))
    ]
    for number in range(count):
        path = folder / f"{number // 1000:04d}" / f"{number % 1000:03d}.jpg"
        if number % 1000 == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(kinds[number % len(kinds)].tobytes())
    return folder


def make_spec(images: Path, cache: Path | None) -> FolderSpec:
    """Return the data of a recipe, with a cache on disk in `cache`, or without one."""
    if cache is None:
        return FolderSpec(kind="folder", hr=images, cache="off")
    return FolderSpec(kind="folder", hr=images, cache="disk", cache_folder=cache)


def measure_start(images: Path, cache: Path | None) -> float:
    """Return the processor time from the recipe to the first batch, in seconds."""
    with tempfile.TemporaryDirectory() as run:
        start = time.process_time()
        dataset = make_spec(images, cache).build(scale=2, crop_px=CROP_PX)
        record_data(Path(run), [dataset], resume=False)
        next(Loader(dataset, batch=BATCH, seed=0, workers=0))
        return time.process_time() - start


def read_pss_mb() -> float:
    """Return the proportional set size of this process in MB of 2**20 (Linux)."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def run_child(images: Path, cache: Path) -> None:
    """Read all images, then print the growth of memory each time that a line comes."""
    before = read_pss_mb()
    dataset = make_spec(images, cache).build(scale=2, crop_px=CROP_PX)
    total = sum(int(dataset._hr.read(index).sum()) for index in range(len(dataset)))
    print(total, flush=True)
    for _ in sys.stdin:
        print(read_pss_mb() - before, flush=True)


def measure_memory(images: Path, cache: Path, processes: int) -> float:
    """Return the memory that the datasets of several processes take together, in MB of 2**20."""
    command = [sys.executable, __file__, "--child", str(images), str(cache)]
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()
    total = 0.0
    for child in children:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("\n")
        child.stdin.flush()
        total += float(child.stdout.readline())
    for child in children:
        child.communicate()
    return total


def measure_crops(images: Path, cache: Path, device: torch.device, seconds: float, turns: int = 3) -> dict[str, float]:
    """Return crops per second, and host time for each batch, of each cache; in each turn every cache has its time."""
    rates: dict[str, list[float]] = {}
    host_ms: dict[str, list[float]] = {}
    for _ in range(turns):
        for kind in ("memory", "disk", "device"):
            folder = {"cache_folder": cache} if kind == "disk" else {}
            dataset = FolderSpec(kind="folder", hr=images, cache=kind, **folder).build(scale=2, crop_px=96)
            loader = Loader(dataset, batch=64, seed=0, workers=0)
            loader.fill_device(device)
            for index in range(len(dataset) if kind != "device" else 0):
                dataset.stores["hr"].read(index)
            per_s = _count_per_s(lambda loader=loader: next(loader), time.process_time, seconds / 2)
            host_ms.setdefault(kind, []).append(1000 / per_s)
            with closing(choose_source(loader, device)) as source:
                rates.setdefault(kind, []).append(
                    _count_per_s(
                        lambda source=source, loader=loader: loader.prepare(source.load(), device),
                        time.process_time if device.type == "cpu" else time.perf_counter,
                        seconds,
                    )
                )
    crops = {f"crops_{kind}_per_s": round(64 * statistics.median(values)) for kind, values in rates.items()}
    return crops | {f"host_{kind}_ms": round(statistics.median(values), 3) for kind, values in host_ms.items()}


def _count_per_s(call: Callable[[], object], clock: Callable[[], float], seconds: float) -> float:
    """Return how often a call ends in a second of a clock."""
    call()
    start, count = clock(), 0
    while clock() - start < seconds:
        call()
        count += 1
        if torch.cuda.is_available() and count % 16 == 0:  # work must not queue up behind the clock
            torch.cuda.synchronize()
    return count / (clock() - start)


def main() -> None:
    """Print the measurements as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000, help="number of small images for the start-up")
    parser.add_argument("--large", type=int, default=200, help="number of images of 512 x 512 pixels for the memory")
    parser.add_argument("--only", choices=["start", "memory", "crops"], help="one of the measurements")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="device for the crops")
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each cache in each turn, for the crops")
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_child(*options.child)
        return
    results = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        if options.only in (None, "start"):
            results |= compare_starts(root, options.images)
        if options.only != "start":
            large = write_images(root / "large", options.large, 512)
        if options.only in (None, "memory"):
            results |= compare_memory(root, large)
        if options.only in (None, "crops"):
            results |= measure_crops(large, root / "large_cache", options.device, options.seconds)
    print(json.dumps(results, indent=2))


def compare_starts(root: Path, count: int) -> dict[str, float]:
    """Return the times of start-ups: with few images, without a cache, the first and the next time with one."""
    few, many = (write_images(root / str(number), number, 32) for number in (100, count))
    results: dict[str, float] = {"images": count}
    kinds = [("few", few, root / "few"), ("off", many, None)]
    kinds += [(key, many, root / "many") for key in ("first", "next")]
    for key, images, cache in kinds:
        results[f"start_{key}_s"] = round(measure_start(images, cache), 2)
    return results | {"start_next_to_off": round(results["start_next_s"] / results["start_off_s"], 3)}


def compare_memory(root: Path, images: Path) -> dict[str, float]:
    """Return the memory of one process and of two, with a cache on disk."""
    results: dict[str, float] = {}
    for processes in (1, 1, 2):  # the first one fills the cache
        results[f"memory_{processes}_mb"] = round(measure_memory(images, root / "large_cache", processes), 1)
    return results | {"memory_2_to_1": round(results["memory_2_mb"] / results["memory_1_mb"], 3)}


if __name__ == "__main__":
    main()
