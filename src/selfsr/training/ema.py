"""Exponential moving average (EMA) of a network's weights; it is evaluated, sampled and saved."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Ema:
    """The average `a <- decay * a + (1 - decay) * w` of a network's parameters, with a copy of its buffers.

    Buffers, such as batch-norm statistics, are copied without averaging: they are averages already.

    Args:
        net: the network in training.
        decay: fraction of the old average that is kept at each update, in [0, 1).
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.net: nn.Module = copy.deepcopy(net).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Update the average with the weights of `net`."""
        averages = [p.detach() for p in self.net.parameters()]
        weights = [p.detach() for p in net.parameters()]
        torch._foreach_lerp_(averages, weights, 1 - self.decay)  # pyright: ignore[reportPrivateImportUsage]
        for average, buffer in zip(self.net.buffers(), net.buffers(), strict=True):
            average.copy_(buffer)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged parameters and the buffers."""
        return self.net.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the average from a checkpoint."""
        self.net.load_state_dict(state)
