"""Compact, or SRVGGNetCompact (Wang et al., "Real-ESRGAN", ICCVW 2021)."""

from typing import ClassVar, Literal

from pydantic import Field, PositiveInt
from torch import nn

from selfsr.nets.base import NetworkSpec
from selfsr.nets.spandrel.fixes import end_in_float32


class CompactSpec(NetworkSpec):
    """Compact (SRVGGNetCompact), Real-ESRGAN's small network for anime and video."""

    title: ClassVar[str] = "Compact (SRVGG)"
    paper: ClassVar[str] = "Wang et al., Real-ESRGAN, ICCVW 2021"
    convolutional: ClassVar[bool] = True

    kind: Literal["compact"] = "compact"
    features: PositiveInt = Field(default=64, description="channels of the body (num_feat)")
    convs: PositiveInt = Field(default=16, description="convolutions of the body (num_conv)")

    def _make(self, scale: int, channels: int) -> nn.Module:
        from spandrel.architectures.Compact import Compact

        net = Compact(
            num_in_ch=channels, num_out_ch=channels, num_feat=self.features, num_conv=self.convs, upscale=scale
        )
        return end_in_float32(net, f"body.{len(net.body) - 1}")
