"""Changes that several of spandrel's networks need before they can be trained."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from selfsr.nets.layers import Float32Conv2d


@contextmanager
def ignore_meshgrid_warning() -> Iterator[None]:
    """Silence PyTorch's warning about `torch.meshgrid`, which spandrel's window attention causes when it is built."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.meshgrid", category=UserWarning)
        yield


def end_in_float32(net: nn.Module, *names: str) -> nn.Module:
    """Replace the last convolutions, by name, with ones that compute in float32 under autocast (see layers.py)."""
    for name in names:
        conv = net.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        net.set_submodule(name, Float32Conv2d.like(conv))
    return net
