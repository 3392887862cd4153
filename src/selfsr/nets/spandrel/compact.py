"""Compact, or SRVGGNetCompact (Wang et al., "Real-ESRGAN", ICCVW 2021)."""

from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import nn

from selfsr.nets.base import NetworkSpec
from selfsr.nets.spandrel.fixes import end_in_float32

# The slope with which PReLUs start, and a gain of the last layer that makes the first output nearly the input.
_PRELU_SLOPE, _LAST_GAIN = 0.25, 0.1


class CompactSpec(NetworkSpec):
    """Compact (SRVGGNetCompact), Real-ESRGAN's small network for anime and video."""

    title: ClassVar[str] = "Compact (SRVGG)"
    paper: ClassVar[str] = "Wang et al., Real-ESRGAN, ICCVW 2021"
    convolutional: ClassVar[bool] = True

    kind: Literal["compact"] = "compact"
    features: PositiveInt = Field(default=64, description="channels of the body (num_feat)")
    convs: PositiveInt = Field(default=16, description="convolutions of the body (num_conv)")
    init: Literal["published", "he"] = Field(
        default="published",
        description="initial weights: published (PyTorch's default, which shrinks the signal in every layer), or he, "
        "which keeps it and starts near the enlarged input: much faster from scratch",
    )

    def _make(self, scale: int, channels: int) -> nn.Module:
        from spandrel.architectures.Compact import Compact

        net = Compact(
            num_in_ch=channels, num_out_ch=channels, num_feat=self.features, num_conv=self.convs, upscale=scale
        )
        if self.init == "he":
            _initialize(net)
        return end_in_float32(net, f"body.{len(net.body) - 1}")


def _initialize(net: nn.Module) -> None:
    """Keep the variance through the PReLUs of slope 1/4 (He et al., ICCV 2015); the last layer starts small."""
    convs = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    for conv in convs:
        nn.init.kaiming_normal_(conv.weight, a=_PRELU_SLOPE)
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)
    with torch.no_grad():
        convs[-1].weight.mul_(_LAST_GAIN)
