"""Leave no trace of a pass that is not a part of the training."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


@contextlib.contextmanager
def keep_state(net: nn.Module, device: torch.device) -> Iterator[None]:
    """Restore buffers, such as those of batch norm, and the state of the random numbers after a pass."""
    buffers = [(buffer, buffer.clone()) for buffer in net.buffers()]
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
    with torch.no_grad():
        for buffer, saved in buffers:
            buffer.copy_(saved)
