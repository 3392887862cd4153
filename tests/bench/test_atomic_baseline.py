"""The GPU baseline with atomics: right numbers in the interpreter, and a refusal where there is no GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from selfsr.errors import InputError

pytest.importorskip("triton", reason="Triton comes with torch on Linux, and is not installed here")


def test_it_is_the_definition():
    cases = Path(__file__).with_name("atomic_cases.py")
    command = [sys.executable, "-m", "pytest", str(cases), "-q", "-x", "-p", "no:cacheprovider"]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, cwd=cases.parents[2], capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert "2 passed" in done.stdout


def test_without_a_gpu_it_says_so(monkeypatch):
    from atomic_baseline import atomic_loss

    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    image, mask = torch.zeros(1, 3, 9, 9), torch.ones(1, 1, 9, 9, dtype=torch.bool)
    with pytest.raises(InputError, match=r"^bench: the baseline with atomics cannot run because the tensor is on cpu"):
        atomic_loss(image, image, mask, search_px=7, window_px=3, sigma=0.1)
