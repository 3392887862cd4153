"""The Triton backend: its kernels, in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

CASES = Path(__file__).with_name("triton_cases.py")


def test_the_kernels(device: torch.device) -> None:
    """On a CPU they are interpreted, which Triton decides when it is imported: hence the other process."""
    pytest.importorskip("triton")
    if device.type not in ("cpu", "cuda"):
        pytest.skip(f"Triton does not drive {device.type}")
    environment = dict(os.environ)
    if device.type == "cpu":
        environment["TRITON_INTERPRET"] = "1"
    command = [
        sys.executable,
        "-m",
        "pytest",
        str(CASES),
        "-q",
        "-x",
        "--device",
        str(device),
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(command, env=environment, cwd=CASES.parents[2], capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert " passed" in done.stdout
