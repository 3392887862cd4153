"""Starts a program as two processes on the CPU, with a group between them, as torchrun does."""

import os
import subprocess
import sys
from pathlib import Path


def run_in_two_processes(*program: str | Path, cwd: Path, timeout_s: float = 240, restarts: int = 0) -> str:
    """Run Python with these arguments in each of two processes; assert that both end well, and return stderr.

    They can import the modules of this folder, too. If one fails, torchrun starts both again, up to `restarts` times.
    """
    found = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "--max-restarts", str(restarts)]
    done = subprocess.run(
        [sys.executable, *launcher, *map(str, program)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": found},
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr
