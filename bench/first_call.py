"""What the first call of the self-similarity loss costs a process: seconds and resident memory.

    python bench/first_call.py [--turns 5] [--cold]

Every turn is a process of its own for each backend. It imports selfsr, makes images of 64 x 64, and computes loss and
gradient twice: what the first call takes beyond the second is what loading, and compiling where no cache of numba's
is warm, took. With --cold the compiled backend is given an empty cache.
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
from selfsr.bench.measure import resident_bytes
imported_s = time.perf_counter() - start
sr, hr = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
sr.requires_grad_()
torch.autograd.grad((sr * hr).sum(), sr)
before, taken = resident_bytes(highest=False), []
for _ in range(2):
    start = time.perf_counter()
    torch.autograd.grad(self_similarity_loss(sr, hr, backend=sys.argv[1]), sr)
    taken.append(time.perf_counter() - start)
added = resident_bytes(highest=False) - before
names = ("torch_s", "selfsr_s", "first_s", "second_s", "added")
print(json.dumps(dict(zip(names, (torch_s, imported_s - torch_s, *taken, added)))))
"""


def first_call(backend: str, environment: dict[str, str]) -> dict[str, float]:
    """Return the seconds and bytes of one process."""
    command = [sys.executable, "-c", CALLS, backend]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"bench/first_call.py: {backend} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5, help="processes for each backend (default 5)")
    parser.add_argument("--cold", action="store_true", help="give each process of the compiled backend an empty cache")
    options = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {"eager": [], "cpu": []}
    first_call("cpu", {})  # fills the cache
    for _ in range(options.turns):
        for backend, results in found.items():
            with tempfile.TemporaryDirectory() as place:
                results.append(first_call(backend, {"NUMBA_CACHE_DIR": place} if options.cold else {}))
    for backend, results in found.items():
        middle = {key: statistics.median(result[key] for result in results) for key in results[0]}
        print(
            f"{backend:5}  import torch {middle['torch_s']:.2f} s, then selfsr {middle['selfsr_s']:.2f} s; "
            f"first call {middle['first_s']:.2f} s, second {middle['second_s']:.3f} s; "
            f"{middle['added'] / 2**20:.0f} MiB added"
        )


if __name__ == "__main__":
    main()
