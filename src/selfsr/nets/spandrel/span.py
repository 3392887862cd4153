"""SPAN (Wan et al., "Swift Parameter-free Attention Network for Efficient Super-Resolution", CVPRW 2024)."""

from typing import ClassVar, Literal

from pydantic import Field, PositiveInt
from torch import nn

from selfsr.nets.base import NetworkSpec
from selfsr.nets.spandrel.fixes import end_in_float32


class SpanSpec(NetworkSpec):
    """SPAN, parameter-free attention; each convolution is trained as four convolutions and run as one."""

    title: ClassVar[str] = "SPAN"
    paper: ClassVar[str] = "Wan et al., CVPRW 2024"
    convolutional: ClassVar[bool] = True

    kind: Literal["span"] = "span"
    features: PositiveInt = Field(default=48, description="channels of the body (feature_channels)")
    subtract_mean: bool = Field(
        default=True,
        description="subtract DIV2K's mean and multiply by 255 first, as the authors do; most community models do not, "
        "so that the untrained output is closer to an image (norm)",
    )

    @property
    def channel_counts(self) -> tuple[int, ...]:
        """Only RGB with `subtract_mean`, because spandrel's mean has three channels."""
        return (3,) if self.subtract_mean else (1, 3)

    def _make(self, scale: int, channels: int) -> nn.Module:
        from spandrel.architectures.SPAN import SPAN
        from spandrel.architectures.SPAN.__arch.span import Conv3XC

        from selfsr.nets.spandrel.span_conv import TrainableConv3XC

        net = SPAN(
            num_in_ch=channels,
            num_out_ch=channels,
            feature_channels=self.features,
            upscale=scale,
            norm=self.subtract_mean,
        )
        # Spandrel's convolutions cannot be trained, see span_conv.py.
        for name, module in list(net.named_modules()):
            if isinstance(module, Conv3XC):
                net.set_submodule(name, TrainableConv3XC(module.sk.in_channels, module.sk.out_channels, gain1=2))
        return end_in_float32(net, "upsampler.0")
