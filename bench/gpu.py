"""Measure selfsr on the GPU of this machine, in stages of known length; see docs/gpu.md.

    python bench/gpu.py [--out gpu-results] [--seconds 540] [--stages machine values] [--photos DIR]
    python bench/gpu.py --kit DIR [--photos DIR] [--python 3.12] [--installed FILE]
    python bench/gpu.py --rehearse
    python bench/gpu.py --page gpu-results/results.json

Each stage is a process with a time limit. Its results are written to OUT/results.json as soon as they are measured, so
that a stage that fails, hangs or is stopped loses nothing, and the next stage runs. OUT/log.txt has the output of all
stages, OUT/gpu.md the page for docs/gpu.md.

With --kit a folder is filled with everything that a machine without network needs: sources, photos, and wheels of the
packages that are not in the list of --installed. With --rehearse every stage runs on the CPU with tiny sizes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gpu_kit
import gpu_page
from gpu_page import STAGES, Stage

BENCH = Path(__file__).resolve().parent
# Seconds between two looks at the results of a running stage.
_POLL_S = 0.2
# A stage is not started with less time than this.
_LEAST_S = 5
# Times the limits in a rehearsal: on a busy CPU even tiny sizes take long.
REHEARSAL_PATIENCE = 10


def run_stages(
    stages: list[Stage], out: Path, device: str, tiny: bool, seconds: float, photos: Path | None
) -> dict[str, Any]:
    """Run stages one after another; return their results, which OUT/results.json also has after each measurement.

    Args:
        stages: the stages to run.
        out: folder for results.json, log.txt and gpu.md.
        device: "cuda" or "cpu".
        tiny: use tiny sizes.
        seconds: time for all stages together; stages that no longer fit are skipped.
        photos: folder with training images; None generates some.
    """
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + seconds
    report: dict[str, Any] = {"device": device, "tiny": tiny, "stages": {}}
    with tempfile.TemporaryDirectory(prefix="selfsr-gpu-") as work, (out / "log.txt").open("w") as log:
        for stage in stages:
            entry = report["stages"][stage.name] = {"status": "running", "seconds": 0.0, "results": {}}
            limit = min(stage.limit_s * (REHEARSAL_PATIENCE if tiny else 1), end - time.monotonic())
            if limit < _LEAST_S:
                entry["status"] = f"skipped: less than {_LEAST_S} s of {seconds:g} s were left"
            else:
                _run_stage(stage.name, limit, device, tiny, Path(work), photos, log, report, out)
            _write(out, report)
            print(f"{stage.name}: {entry['status']} ({entry['seconds']:.0f} s)", flush=True)
    (out / "gpu.md").write_text(gpu_page.render_page(report), encoding="utf-8")
    return report


def _run_stage(
    name: str,
    limit_s: float,
    device: str,
    tiny: bool,
    work: Path,
    photos: Path | None,
    log: Any,
    report: dict[str, Any],
    out: Path,
) -> None:
    """Run one stage as a process, and copy its results to the report while it runs."""
    entry, results = report["stages"][name], work / f"{name}.json"
    command = [sys.executable, str(BENCH / "gpu_stages.py"), name, "--json", str(results), "--work", str(work)]
    command += ["--device", device, *(["--tiny"] if tiny else []), *(["--photos", str(photos)] if photos else [])]
    log.write(f"\n=== {name}\n")
    log.flush()
    start = time.monotonic()
    # A group of its own, so that the stage's own processes end with it.
    process = subprocess.Popen(
        command, stdout=log, stderr=subprocess.STDOUT, env=_environment(work), start_new_session=True
    )
    try:
        while process.poll() is None and time.monotonic() - start < limit_s:
            time.sleep(_POLL_S)
            if _read(results, entry):
                _write(out, report)
    finally:
        stopped = process.poll() is None
        if stopped:
            os.killpg(process.pid, 9)
            process.wait()
        _read(results, entry)
        entry["seconds"] = round(time.monotonic() - start, 1)
        entry["status"] = _describe_end(process.returncode, stopped, limit_s, entry["results"])


def _environment(work: Path) -> dict[str, str]:
    source = str(BENCH.parent / "src")
    paths = [source, str(BENCH), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "TRITON_CACHE_DIR": str(work / "triton"),
        "PYTHONUNBUFFERED": "1",
    }


def _describe_end(code: int, stopped: bool, limit_s: float, results: dict[str, Any]) -> str:
    if stopped:
        return f"stopped after {limit_s:.0f} s"
    if code:
        return f"failed: {results.pop('error', f'exit status {code}')}"
    return f"skipped: {results['skipped']}" if "skipped" in results else "done"


def _read(path: Path, entry: dict[str, Any]) -> bool:
    """Copy results that have changed; a stage replaces its file in one step."""
    if not path.exists():
        return False
    found = json.loads(path.read_text(encoding="utf-8"))
    changed = found != entry["results"]
    entry["results"] = found
    return changed


def _write(out: Path, report: dict[str, Any]) -> None:
    temporary = out / "results.json.part"
    temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    temporary.replace(out / "results.json")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [stage.name for stage in STAGES]
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="folder for the results")
    parser.add_argument("--seconds", type=float, help="time for all stages together (default 540; 3600 to rehearse)")
    parser.add_argument("--stages", nargs="+", choices=names, default=names, metavar="NAME", help="stages to run")
    parser.add_argument("--photos", type=Path, help="folder with training images; without it some are generated")
    parser.add_argument("--rehearse", action="store_true", help="run on the CPU with tiny sizes")
    parser.add_argument("--kit", type=Path, metavar="DIR", help="only fill a folder for a machine without network")
    parser.add_argument("--python", default="3.12", help="Python version of that machine (default 3.12)")
    parser.add_argument("--installed", type=Path, help="file with its packages, as pip list prints them there")
    parser.add_argument("--page", type=Path, metavar="RESULTS", help="only print the page of a results.json")
    options = parser.parse_args()
    if options.photos is not None and not options.photos.is_dir():
        raise SystemExit(
            f"bench/gpu.py: --photos must be a folder with images, got {options.photos}; name another one."
        )
    return options


def main() -> None:
    """Run the stages, or make the kit or the page."""
    options = _parse()
    if options.page is not None:
        print(gpu_page.render_page(json.loads(options.page.read_text(encoding="utf-8"))), end="")
        return
    if options.kit is not None:
        gpu_kit.make_kit(options.kit, options.photos, options.python, options.installed)
        return
    if not options.rehearse:
        import torch

        if not torch.cuda.is_available():
            raise SystemExit(
                "bench/gpu.py: a CUDA device was expected, got none; pass --rehearse to run on the CPU with tiny sizes."
            )
    stages = [stage for stage in STAGES if stage.name in options.stages]
    device = "cpu" if options.rehearse else "cuda"
    seconds = options.seconds or (3600.0 if options.rehearse else 540.0)
    report = run_stages(stages, options.out, device, options.rehearse, seconds, options.photos)
    failed = [name for name, entry in report["stages"].items() if entry["status"].startswith(("failed", "stopped"))]
    print(f"results: {options.out}/results.json, page: {options.out}/gpu.md")
    if failed:
        raise SystemExit(f"bench/gpu.py: {', '.join(failed)} did not finish; see {options.out}/log.txt.")


if __name__ == "__main__":
    main()
