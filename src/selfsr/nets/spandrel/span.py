"""SPAN by spandrel's class, with convolutions that can be trained."""

from typing import ClassVar, Literal

from pydantic import Field, PositiveInt
from torch import nn

from selfsr.nets.base import NetworkSpec
from selfsr.nets.spandrel.fixes import end_in_float32


class SpanSpec(NetworkSpec):
    """SPAN, parameter-free attention; each of its convolutions is trained as four and run as one."""

    title: ClassVar[str] = "SPAN"
    paper: ClassVar[str] = "Wan et al., CVPRW 2024"
    convolutional: ClassVar[bool] = True
    parameters: ClassVar[int] = 1_840_488

    kind: Literal["span"] = "span"
    features: PositiveInt = Field(default=48, description="channels of the body (feature_channels)")
    subtract_mean: bool = Field(
        default=True,
        description="take DIV2K's mean off and multiply by 255 first, as the authors do; without it the network "
        "starts nearer to a picture, as most community models do (norm)",
    )

    @property
    def colors(self) -> tuple[int, ...]:
        """Gray has no such mean."""
        return (3,) if self.subtract_mean else (1, 3)

    def _make(self, scale: int, channels: int) -> nn.Module:
        from spandrel.architectures.SPAN import SPAN
        from spandrel.architectures.SPAN.__arch.span import Conv3XC

        from selfsr.nets.spandrel.span_conv import FusedConv

        net = SPAN(
            num_in_ch=channels,
            num_out_ch=channels,
            feature_channels=self.features,
            upscale=scale,
            norm=self.subtract_mean,
        )
        for name, module in list(net.named_modules()):
            if isinstance(module, Conv3XC):
                net.set_submodule(name, FusedConv(module.sk.in_channels, module.sk.out_channels, gain1=2))
        return end_in_float32(net, "upsampler.0")
