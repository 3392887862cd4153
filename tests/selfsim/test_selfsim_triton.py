"""The Triton backend: its kernels, in a process of their own, and its list of pixels."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from selfsr.selfsim.pixel_list import pixels_without_sync

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


@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("spare", [-7, 0, 9])
def test_pixels_without_sync_lists_the_first_pixels_in_order(density: float, spare: int, device: torch.device) -> None:
    mask = torch.rand(3, 1, 5, 7, generator=torch.Generator().manual_seed(0)) < density
    mask = mask.to(device)
    truth = mask[:, 0].nonzero()
    slots = max(1, truth.shape[0] + spare)
    pixels, total = pixels_without_sync(mask, slots)
    listed = torch.stack(pixels, 1)
    used = min(slots, truth.shape[0])
    assert total.item() == truth.shape[0]
    assert total.device == mask.device
    assert torch.equal(listed[:used], truth[:used])
    assert torch.equal(listed[used:], torch.full((slots - used, 3), -1, device=device))


def test_pixels_without_sync_does_not_wait(device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("needs a GPU")
    mask = torch.rand(3, 1, 50, 70, device=device) < 0.2
    pixels_without_sync(mask, 4000)
    torch.cuda.set_sync_debug_mode("error")
    try:
        pixels_without_sync(mask, 4000)
    finally:
        torch.cuda.set_sync_debug_mode("default")
