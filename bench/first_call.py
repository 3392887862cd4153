"""Time and resident memory of the first call of the self-similarity loss in a process.

    python bench/first_call.py [--turns 5] [--cold]

Each turn starts a new process for each backend. It imports selfsr, makes images of 64 x 64 pixels, and computes loss
and gradient twice. The first call takes longer than the second by the time of loading and, with a cold numba cache,
compiling. With --cold the compiled backend has an empty cache.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

CALLS = """
import json, sys, time
start = time.perf_counter()
import torch
torch_s = time.perf_counter() - start
from selfsr import self_similarity_loss
from selfsr.bench.timing import resident_bytes
imported_s = time.perf_counter() - start
sr, hr = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
sr.requires_grad_()
torch.autograd.grad((sr * hr).sum(), sr)
before, times = resident_bytes(peak=False), []
for _ in range(2):
    start = time.perf_counter()
    torch.autograd.grad(self_similarity_loss(sr, hr, backend=sys.argv[1]), sr)
    times.append(time.perf_counter() - start)
added = resident_bytes(peak=False) - before
names = ("torch_s", "selfsr_s", "first_s", "second_s", "added")
print(json.dumps(dict(zip(names, (torch_s, imported_s - torch_s, *times, added)))))
"""


def run_process(backend: str, environment: dict[str, str]) -> dict[str, float]:
    """Run one process and return its seconds and bytes by name."""
    command = [sys.executable, "-c", CALLS, backend]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"bench/first_call.py: {backend} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def main() -> None:
    """Measure and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5, help="processes for each backend (default 5)")
    parser.add_argument("--cold", action="store_true", help="empty numba cache for each process")
    options = parser.parse_args()
    results: dict[str, list[dict[str, float]]] = {"eager": [], "cpu": []}
    run_process("cpu", {})  # fills numba's cache
    for _ in range(options.turns):
        for backend, turns in results.items():
            with tempfile.TemporaryDirectory() as folder:
                turns.append(run_process(backend, {"NUMBA_CACHE_DIR": folder} if options.cold else {}))
    for backend, turns in results.items():
        median = {key: statistics.median(turn[key] for turn in turns) for key in turns[0]}
        print(
            f"{backend:5}  import torch {median['torch_s']:.2f} s, then selfsr {median['selfsr_s']:.2f} s; "
            f"first call {median['first_s']:.2f} s, second {median['second_s']:.3f} s; "
            f"{median['added'] / 2**20:.0f} MiB added"
        )


if __name__ == "__main__":
    main()
