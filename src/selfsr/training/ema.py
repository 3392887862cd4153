"""Exponential moving average of a network's weights: what is evaluated, sampled and published."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Ema:
    """The average `a <- decay * a + (1 - decay) * w` of a network's parameters, with its buffers copied.

    Buffers (batch-norm statistics among them) are taken as they are: they are averages already, and an average
    network that kept its first ones would be evaluated with statistics it never saw.

    Args:
        net: the network that is trained.
        decay: share of the old average kept at each step, in [0, 1).
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.net = copy.deepcopy(net).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Move the average one step towards `net`."""
        averages = [p.detach() for p in self.net.parameters()]
        weights = [p.detach() for p in net.parameters()]
        torch._foreach_lerp_(averages, weights, 1 - self.decay)  # pyright: ignore[reportPrivateImportUsage]
        for average, buffer in zip(self.net.buffers(), net.buffers(), strict=True):
            average.copy_(buffer)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged weights and the buffers."""
        return self.net.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up an average that was saved."""
        self.net.load_state_dict(state)
