"""Keep image values in float32 where a network of spandrel's runs in half precision.

bfloat16 has 8 significant bits, so that an image value is rounded by up to half a gray level (see nets/layers.py). Our
networks keep their first and last layers in float32 by themselves; these functions do it from outside.
"""

from typing import Any

import torch
from torch import Tensor, nn

from selfsr.nets.layers import Float32Conv2d, Float32ConvTranspose2d


def compute_in_float32(conv: nn.Module) -> None:
    """Let a convolution compute in float32 under autocast, if its class has no forward pass of its own."""
    for plain, float32 in ((nn.Conv2d, Float32Conv2d), (nn.ConvTranspose2d, Float32ConvTranspose2d)):
        original = type(conv)
        if isinstance(conv, plain) and original.forward is plain.forward:
            conv.__class__ = float32 if original is plain else type(original.__name__, (float32, original), {})


def keep_image_values_in_float32(net: nn.Module, lr: Tensor) -> None:
    """Let the first and the last convolution of a network compute in float32, in place.

    They are those that run first and last on an input. SPAN also needs its attention in float32: it subtracts 0.5 from
    a sigmoid, which leaves few of bfloat16's bits (its authors' weights for x4 differ from float32 by 0.9 gray levels
    without and 0.4 with it, root mean square over an image).

    Args:
        net: in evaluation mode.
        lr: an input `[1, C, h, w]` that the network accepts.
    """
    convs: list[nn.Module] = []
    handles = [
        module.register_forward_hook(lambda module, _inputs, _output: convs.append(module))
        for module in net.modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    ]
    with torch.inference_mode():
        net(lr)
    for handle in handles:
        handle.remove()
    if convs:
        compute_in_float32(convs[0])
        compute_in_float32(convs[-1])
    for module in net.modules():
        if type(module).__name__ == "SPAB" and not hasattr(module, "_returns_float32"):
            module.get_submodule("c3_r").register_forward_hook(_return_float32)
            module._returns_float32 = True  # pyright: ignore[reportArgumentType]


def _return_float32(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    return output.to(torch.promote_types(output.dtype, torch.float32))
