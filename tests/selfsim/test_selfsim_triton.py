"""The Triton backend: its kernels, and tests of all backends, in a process of their own.

By hand, all tests of all backends: TRITON_INTERPRET=1 pytest tests/selfsim --backend triton (some minutes).
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
# Of the tests that run for every backend, those that say most about this one for the seconds they take.
SHARED = [
    "test_selfsim_exactness.py::test_the_graph_and_its_gradient_are_those_of_the_definition"
    "[float32-triton-2x1x10x7-5-5-random]",
    "test_selfsim_properties.py::test_nan_and_infinity_stay_in_their_image[triton-nan]",
    "test_selfsim_properties.py::test_a_known_number_of_pixels_gives_the_same[triton-5]",
    "test_selfsim_torch.py::test_compile_sees_one_opaque_node[triton-True]",
]


def test_the_kernels(device: torch.device) -> None:
    """On a CPU they are interpreted, which Triton decides when it is imported: hence the other process."""
    pytest.importorskip("triton")
    if device.type not in ("cpu", "cuda"):
        pytest.skip(f"Triton does not drive {device.type}")
    environment = dict(os.environ)
    chosen = [str(HERE / "triton_cases.py")]
    if device.type == "cpu":
        environment["TRITON_INTERPRET"] = "1"
        # On a GPU the whole suite runs for this backend anyway.
        chosen += [str(HERE / name) for name in SHARED]
    options = ["-q", "-x", "--device", str(device), "--backend", "triton", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *chosen, *options]
    done = subprocess.run(command, env=environment, cwd=HERE.parents[1], capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert " passed" in done.stdout
