"""Cast the weights of a network for mixed precision in a few launches instead of one for each tensor.

Autocast casts each weight and bias where it is used, and each of their gradients back. A quarter of all kernels of a
training step are such casts, and each takes a few microseconds of the host.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Layers whose weights autocast casts. Subclasses may compute otherwise, so they are left to autocast.
_CAST_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)
# As many as one kernel over lists of tensors takes. Gradients of a group arrive together, so larger groups would also
# delay the exchange between processes.
_GROUP = 64


def cast_weights_together(net: nn.Module, dtype: torch.dtype) -> None:
    """Let every pass of a network compute with weights that are cast at its start, together.

    Values and gradients are those of autocast, bit for bit. Parameters and their names stay as they are: a layer has
    the cast weights only while it computes.

    Args:
        net: the network; its passes must run under autocast to `dtype`.
        dtype: bfloat16 or float16.
    """
    layers = [layer for layer in net.modules() if type(layer) in _CAST_LAYERS]
    places = [
        (layer, name, parameter)
        for layer in layers
        for name, parameter in layer._parameters.items()
        if parameter is not None and parameter.dtype == torch.float32
    ]
    if not places:
        return
    casts: dict[nn.Module, dict[str, Tensor]] = {}

    def cast(*_: Any) -> None:
        by_parameter = dict(_cast_groups([parameter for _, _, parameter in places], dtype))
        for layer, name, parameter in places:
            casts.setdefault(layer, {})[name] = by_parameter[parameter]

    net.register_forward_pre_hook(cast)
    net.register_forward_hook(lambda *_: casts.clear(), always_call=True)
    for layer in layers:
        _use_casts(layer, casts)


def _use_casts(layer: nn.Module, casts: dict[nn.Module, dict[str, Tensor]]) -> None:
    """Let the forward pass of a layer compute with its cast weights, if there are any.

    Other code that reads the weights of the layer still gets the parameters.
    """
    original = layer.forward
    parameters: dict[str, Any] = layer._parameters

    def forward(*arguments: Any, **options: Any) -> Tensor:
        cast = casts.get(layer)
        if cast is None:
            return original(*arguments, **options)
        kept = {name: parameters[name] for name in cast}
        parameters.update(cast)
        try:
            return original(*arguments, **options)
        finally:
            parameters.update(kept)

    layer.forward = forward


def _cast_groups(parameters: list[nn.Parameter], dtype: torch.dtype) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Yield each parameter with its cast; trained and frozen ones are in different groups."""
    unique = list(dict.fromkeys(parameters))
    for trained in (True, False):
        remaining = iter([parameter for parameter in unique if parameter.requires_grad == trained])
        while group := list(islice(remaining, _GROUP)):
            yield from zip(group, _Cast.apply(dtype, *group), strict=True)  # pyright: ignore[reportArgumentType]


class _Cast(torch.autograd.Function):
    """Cast tensors of one dtype to another, and their gradients back."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.dtype = tensors[0].dtype
        ctx.set_materialize_grads(False)
        return tuple(_cast_lists(tensors, dtype))

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        present = [gradient for gradient in gradients if gradient is not None]
        cast = iter(_cast_lists(present, ctx.dtype))
        return None, *(None if gradient is None else next(cast) for gradient in gradients)


def _cast_lists(tensors: "tuple[Tensor, ...] | list[Tensor]", dtype: torch.dtype) -> list[Tensor]:
    cast = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    if cast:
        torch._foreach_copy_(cast, list(tensors))  # pyright: ignore[reportPrivateImportUsage]
    return cast
