"""Build a network without allocating its tensors, to count its parameters or compare its shapes."""

from functools import cache
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from selfsr.nets.base import NetworkSpec

_DATA = torch.Tensor.data
# In-place methods that only change values. On meta tensors PyTorch computes their shapes in Python, which takes seconds
# for a large network.
_SETTERS = {"add_", "clamp_", "copy_", "div_", "erfinv_", "fill_", "mul_", "normal_", "sub_", "uniform_", "zero_"}


class _WithoutValues(TorchFunctionMode):
    """Leave out initial values, and replace two operations with which spandrel's classes read or set values."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", None)
        if name in _SETTERS and args and args[0].is_meta:
            return args[0]
        if func is torch.linspace:  # transformers read the rates of drop path from it
            return func(*args, **{**kwargs, "device": "cpu"})
        if getattr(func, "__self__", None) is _DATA and name == "__set__":  # RCAN's mean shifts
            return None
        return func(*args, **kwargs)


def build_on_meta(spec: NetworkSpec, scale: int, channels: int) -> nn.Module:
    """Build a network whose tensors have names, shapes and dtypes, but no values (PyTorch's device "meta").

    Raises:
        InputError: the network cannot be built for this scale or number of channels.
    """
    with torch.device("meta"), _WithoutValues():
        return spec.build(scale, channels)


@cache
def count_parameters(spec_type: type[NetworkSpec]) -> int:
    """Count the trained parameters of a network with default options, at x4 and for RGB where it supports them."""
    spec = spec_type()
    net = build_on_meta(spec, 4 if 4 in spec.scales else max(spec.scales), max(spec.channel_counts))
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)
