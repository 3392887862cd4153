"""The GPU baseline with atomics: values in Triton's interpreter, and the error without a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from selfsr.errors import InputError

pytest.importorskip("triton", reason="Triton comes with torch on Linux, and is not installed here")


@pytest.mark.triton
def test_interpreted_baseline_equals_the_definition():
    cases = Path(__file__).with_name("atomic_cases.py")
    command = [sys.executable, "-m", "pytest", str(cases), "-q", "-x", "-p", "no:cacheprovider"]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, cwd=cases.parents[2], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{done.stdout}{done.stderr}", pytrace=False)
    assert "2 passed" in done.stdout


def test_baseline_without_a_gpu_raises(monkeypatch):
    from atomic_baseline import atomic_loss

    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    image, mask = torch.zeros(1, 3, 9, 9), torch.ones(1, 1, 9, 9, dtype=torch.bool)
    with pytest.raises(
        InputError, match=r"^bench: the baseline with atomics needs a GPU with Triton, but the tensor is on cpu"
    ):
        atomic_loss(image, image, mask, search_px=7, window_px=3, sigma=0.1)
