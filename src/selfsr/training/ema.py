"""Exponential moving average (EMA) of a network's weights; it is evaluated, sampled and saved."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class _Lists:
    """The tensors of an average and of its network in the same order; listing them costs more than updating them.

    Args:
        average: the average.
        net: the network.

    Attributes:
        averages: parameters of the average, without those that it shares with the network, which are frozen.
        weights: parameters of the network.
        buffers: buffers of the average and of the network, by dtype: one kernel takes tensors of one dtype.
    """

    def __init__(self, average: nn.Module, net: nn.Module) -> None:
        pairs = zip(average.parameters(), net.parameters(), strict=True)
        changing = [(averaged, weight) for averaged, weight in pairs if averaged is not weight]
        self.averages: list[Tensor] = [averaged.detach() for averaged, _ in changing]
        self.weights: list[Tensor] = [weight.detach() for _, weight in changing]
        self.buffers: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
        for copied, buffer in zip(average.buffers(), net.buffers(), strict=True):
            copies, buffers = self.buffers.setdefault(buffer.dtype, ([], []))
            copies.append(copied)
            buffers.append(buffer)


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
        self._source: nn.Module | None = None  # the network of `_lists`
        self._lists: _Lists

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Update the average with the weights of `net`."""
        if self._source is not net:
            self._source, self._lists = net, _Lists(self.net, net)
        lists = self._lists
        torch._foreach_lerp_(lists.averages, lists.weights, 1 - self.decay)  # pyright: ignore[reportPrivateImportUsage]
        for copies, buffers in lists.buffers.values():
            torch._foreach_copy_(copies, buffers)  # pyright: ignore[reportPrivateImportUsage]

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged parameters and the buffers."""
        return self.net.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the average from a checkpoint."""
        self.net.load_state_dict(state)
