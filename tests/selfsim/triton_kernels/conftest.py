"""Tests of the Triton kernels, on a GPU or interpreted on the CPU.

Triton decides when it is imported whether it interprets its kernels, so that the tests need a session of their own:

    TRITON_INTERPRET=1 pytest tests/selfsim/triton_kernels
"""

import importlib.util

import pytest
import torch

from interpreter import is_interpreted

collect_ignore_glob = [] if importlib.util.find_spec("triton") else ["test_*.py"]


@pytest.fixture(autouse=True)
def _can_launch(device: torch.device) -> None:
    if device.type == "cpu" and not is_interpreted():
        pytest.skip("needs a GPU (--device cuda), or the environment variable TRITON_INTERPRET=1")
    if device.type not in ("cpu", "cuda"):
        pytest.skip(f"Triton has no backend for {device.type}")
