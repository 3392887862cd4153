"""What the community's networks, as spandrel keeps them for inference, need before they can be trained.

Spandrel's classes are true to the authors' in structure and key names. Where they differ, or where the authors'
own code has a flaw that training would run into, is mended here:

* ESRGAN lacks the authors' initialization (dense blocks: He normal times 0.1, bias 0).
* RCAN's mean shifts are trainable (`requires_grad` is set on the module, where it does nothing), and its
  forward pass multiplies the caller's image by 255 in place.
* SPAN trains three convolutions and a skip in place of each one that it runs later. Spandrel leaves that later
  one (`eval_conv`) among the parameters to be trained, where no gradient reaches it; and it is fused anew with
  whatever precision and inference mode are in force.
* Every network ends in the precision of autocast, which is too coarse for a picture (see layers.py).
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from selfsr.nets.layers import Float32Conv2d


@contextmanager
def expected_warnings() -> Iterator[None]:
    """Silence what spandrel's window attention says of `torch.meshgrid` each time one is built."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.meshgrid", category=UserWarning)
        yield


def end_in_float32(net: nn.Module, *names: str) -> nn.Module:
    """Replace the last convolutions, by name, by ones that compute in float32 under autocast."""
    for name in names:
        conv = net.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        net.set_submodule(name, Float32Conv2d.like(conv))
    return net
