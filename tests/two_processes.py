"""Starts a program as two processes on the CPU, with a group between them, as torchrun does."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from programs import start_python

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def run_in_two_processes(*program: str | Path, cwd: Path, timeout_s: float = 240) -> str:
    """Run Python with these arguments in each of two processes; assert that both end well, and return stderr.

    They have the environment that torchrun sets, except for that of its agent.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
    processes = [
        start_python(*program, cwd=cwd, RANK=rank, LOCAL_RANK=rank, **ENVIRONMENT, **meeting, **world)
        for rank in ("0", "1")
    ]
    deadline = time.monotonic() + timeout_s
    try:
        while {process.poll() for process in processes} & {None} and time.monotonic() < deadline:
            if any(process.returncode for process in processes):
                break
            time.sleep(0.01)
    finally:
        for process in processes:
            process.kill()
    stderr = "".join(process.stderr for process in processes)
    assert [process.returncode for process in processes] == [0, 0], stderr
    return stderr


def run_by_torchrun(*program: str | Path, cwd: Path, restarts: int, timeout_s: float = 240) -> str:
    """Run Python with these arguments in each of two processes below torchrun; assert success, and return stderr.

    If one fails, torchrun starts both again, up to `restarts` times.
    """
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "--max-restarts", str(restarts)]
    done = subprocess.run(
        [sys.executable, *launcher, *map(str, program)],
        cwd=cwd,
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr
