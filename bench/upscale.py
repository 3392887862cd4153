"""Images per second of `selfsr upscale`, as a ratio to a loop that its users would write with spandrel.

    python bench/upscale.py --model spanx4_ch48.pth --images photos

The baseline loads the model, opens each file with Pillow, runs spandrel's network in float32 on the complete image, and
saves a PNG with Pillow. Both read and write the same files in this process, in turns. Ratios are medians over the
turns, of the time on the clock and of the processor; the latter depends less on other work on the machine. Without
`--model` the network is an untrained SPAN x4, whose rounding in bfloat16 is visible, so that `auto` is float32. Without
`--images` these are pieces of a photograph: 40 of 96 x 96 pixels, and 10 of 256 x 256.
"""

import argparse
import contextlib
import io
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from skimage.data import astronaut
from spandrel import ModelLoader

from selfsr.cli import app
from selfsr.machine.device import choose_device, why_not_bfloat16
from selfsr.nets.spandrel.span import SpanSpec
from selfsr.nets.weights.save import save_weights


def cut_images(folder: Path) -> dict[str, Path]:
    """Write pieces of a photograph; return the folders of small and of large ones."""
    pixels = astronaut()
    for name, side_px, count in (("small", 96, 40), ("large", 256, 10)):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            top, left = (int(x) for x in np.random.default_rng(index).integers(0, 512 - side_px, 2))
            piece = np.ascontiguousarray(pixels[top : top + side_px, left : left + side_px])
            Image.fromarray(piece).save(folder / name / f"{index:02d}.png")
    return {name: folder / name for name in ("small", "large")}


def make_baseline(model: Path, device: torch.device) -> Callable[[Sequence[Path], Path], None]:
    """Return the loop of the baseline, for files and an output folder."""

    def run(paths: Sequence[Path], out: Path) -> None:
        net = ModelLoader(device=device).load_from_file(model).eval()
        for path in paths:
            pixels = np.asarray(Image.open(path).convert("RGB"))
            lr = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].to(device).float() / 255
            with torch.inference_mode():
                sr = net(lr).clamp(0, 1)
            levels = (sr[0] * 255).round().byte().permute(1, 2, 0).cpu().numpy()
            Image.fromarray(levels).save(out / f"{path.stem}.png")

    return run


def measure_case(model: Path, images: Path, device: torch.device, precision: str, turns: int) -> dict[str, float]:
    """Return images per second of both, their ratio, and the largest and mean difference of their files."""
    paths = sorted(path for path in images.iterdir() if path.is_file())
    baseline = make_baseline(model, device)
    options = ["-m", str(model), "--device", str(device), "--precision", precision, "--overwrite", "--log", "plain"]
    clock_s: dict[str, list[float]] = {"baseline": [], "selfsr": []}
    processor_s: dict[str, list[float]] = {kind: [] for kind in clock_s}
    with tempfile.TemporaryDirectory() as name:
        outs = {kind: Path(name) / kind for kind in clock_s}
        for out in outs.values():
            out.mkdir()
        runs: dict[str, Callable[[], object]] = {
            "baseline": lambda: baseline(paths, outs["baseline"]),
            "selfsr": lambda: app(["upscale", str(images), "-o", str(outs["selfsr"]), *options], standalone_mode=False),
        }
        for _ in range(turns):
            for kind, run in runs.items():
                clock, processor = time.perf_counter(), time.process_time()
                with contextlib.redirect_stdout(io.StringIO()):
                    run()
                clock_s[kind].append(time.perf_counter() - clock)
                processor_s[kind].append(time.process_time() - processor)
        changes = []
        for path in paths:
            ours, theirs = (np.asarray(Image.open(out / f"{path.stem}.png")).astype(int) for out in outs.values())
            changes.append(np.abs(ours - theirs))
    per_second = {f"{kind}_images_per_s": round(len(paths) / median(each), 3) for kind, each in clock_s.items()}
    return {
        **per_second,
        "ratio": _compare(clock_s),
        "processor_ratio": _compare(processor_s),
        "largest_change": max(int(change.max()) for change in changes),
        "rms_change": round(float(np.sqrt(np.mean([np.square(change).mean() for change in changes]))), 4),
    }


def _compare(seconds: dict[str, list[float]]) -> float:
    """Return the median ratio of the times of a turn."""
    return round(median(a / b for a, b in zip(seconds["baseline"], seconds["selfsr"], strict=True)), 3)


def main() -> None:
    """Print the measurements as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="weights file that spandrel opens")
    parser.add_argument("--images", type=Path, help="folder of RGB images")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    device = choose_device(options.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = options.model or folder / "span.safetensors"
        if options.model is None:
            torch.manual_seed(0)
            save_weights(model, SpanSpec().build(4), {})
        cases = {options.images.name: options.images} if options.images else cut_images(folder / "images")
        reason = why_not_bfloat16(device)
        results = {"device": str(device), "threads": torch.get_num_threads(), "bfloat16": reason or "native"}
        for case, images in cases.items():
            for precision in ("float32", *(() if reason else ("auto",))):
                results[f"{case}_{precision}"] = measure_case(model, images, device, precision, options.turns)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
