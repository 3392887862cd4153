"""Time, peak memory and error of the self-similarity loss: `selfsr bench` from a checkout.

    python bench/ops.py [--sweep] [--json results.json] [--plot cost.svg] [--device cuda]

The baseline is the published unfold formulation (src/selfsr/bench/unfold.py). On a GPU there is a second one with a
thread for each (pixel, displacement) and float atomics (bench/atomic_baseline.py). There, before the table of single
crops, batches of training size are measured and compared with the peak rates of the GPU (bench/ops_gpu.py); with --json
results.json these results are in results-peaks.json. GPU times are between two CUDA events.
"""

import argparse
import sys
from pathlib import Path

import torch

from selfsr.cli import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--json", type=Path)
    known = parser.parse_known_args()[0]
    asks_for_help = "--help" in sys.argv
    if torch.cuda.is_available() and known.device.startswith(("auto", "cuda")) and not asks_for_help:
        import ops_gpu

        ops_gpu.add_baseline()
        device = torch.device("cuda" if known.device == "auto" else known.device)
        out = known.json and known.json.with_name(f"{known.json.stem}-peaks.json")
        ops_gpu.report(device, known.seconds, out)
    sys.argv[1:1] = ["bench"]
    main()
