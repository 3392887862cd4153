"""SRResNet (Ledig et al., "Photo-Realistic Single Image Super-Resolution Using a GAN", CVPR 2017), with instance norm.

The self-paced paper's variant: leaky ReLU in place of PReLU, instance norm in place of batch norm, no biases in the
convolutions.
"""

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from selfsr.nets import key_names
from selfsr.nets.base import Detected, NetworkSpec, SrNetwork
from selfsr.nets.blocks import conv
from selfsr.nets.layers import VALUE_RANGE, Float32Conv2d, MeanShift

_SLOPE = 0.2


class SrResNetSpec(NetworkSpec):
    """SRResNet in the self-paced paper's variant, with instance norm; published for x4."""

    title: ClassVar[str] = "SRResNet"
    paper: ClassVar[str] = "Ledig et al., CVPR 2017"
    convolutional: ClassVar[bool] = True
    tiling: ClassVar[Literal["supported", "discouraged"]] = "discouraged"
    scales_reason: ClassVar[str] = "each stage doubles the image"

    kind: Literal["srresnet"] = "srresnet"
    features: PositiveInt = Field(default=64, description="channels of the body")
    blocks: PositiveInt = Field(default=16, description="residual blocks of the body")

    @property
    def scales(self) -> tuple[int, ...]:
        """Powers of two."""
        return (2, 4, 8)

    @property
    def minimum_px(self) -> int:
        """Two, because instance norm maps a single pixel to 0."""
        return 2

    def _make(self, scale: int, channels: int) -> nn.Module:
        return SrResNet(scale, channels, features=self.features, blocks=self.blocks)

    @classmethod
    def detect(cls, tensors: Mapping[str, Tensor]) -> Detected | None:
        """Detect the names of the self-paced paper's code, and of the code it is based on, which has no mean shift."""
        if not {"conv_input.weight", "residual.0.in1.weight", "upscale4x.0.weight"} <= set(tensors):
            return None
        features, channels = tensors["conv_input.weight"].shape[:2]
        spec = cls(features=features, blocks=key_names.count_layers(tensors, r"residual\.(\d+)\."))
        stages = key_names.count_layers(tensors, r"upscale4x\.(\d+)\.") // 3 + 1
        if "sub_mean.bias" not in tensors:  # the code without it trains on 0 to 1
            eye, zeros = torch.eye(channels).view(channels, channels, 1, 1), torch.zeros(channels)
            ends = {"sub_mean.weight": eye / VALUE_RANGE, "sub_mean.bias": zeros}
            ends |= {"add_mean.weight": eye * VALUE_RANGE, "add_mean.bias": zeros}
            tensors = {**tensors, **ends}
        return Detected(spec, (2**stages,), channels, dict(tensors))


class SrResNet(SrNetwork):
    """SRResNet: `y = add_mean(output(stages(h + norm(mid(blocks(h))))))`, `h = lrelu(input(sub_mean(x)))`.

    Instance norm uses the mean and the variance of the complete input, so the output for a crop differs from the output
    for the same pixels of a larger image. Weights start as He normal by the number of outputs, as in the self-paced
    paper's code. That code also draws the mean shifts at random, by mistake, so that they mix colors; its published
    file contains them.

    Args:
        scale: 2, 4 or 8.
        channels: 3 for RGB, 1 for gray.
        features: channels of the body.
        blocks: residual blocks of the body.
    """

    def __init__(self, scale: int, channels: int = 3, *, features: int, blocks: int) -> None:
        super().__init__(scale, channels)
        self.sub_mean: MeanShift = MeanShift(channels, -1, VALUE_RANGE)
        self.add_mean: MeanShift = MeanShift(channels, 1, VALUE_RANGE)
        self.conv_input: nn.Conv2d = conv(channels, features, 9, bias=False)
        self.relu: nn.LeakyReLU = nn.LeakyReLU(_SLOPE)
        self.residual: nn.Sequential = nn.Sequential(*(_InstanceNormBlock(features) for _ in range(blocks)))
        self.conv_mid: nn.Conv2d = conv(features, features, bias=False)
        self.bn_mid: nn.InstanceNorm2d = nn.InstanceNorm2d(features, affine=True)
        stages = []
        for _ in range(round(math.log2(scale))):
            stages += [conv(features, 4 * features, bias=False), nn.PixelShuffle(2), nn.LeakyReLU(_SLOPE)]
        self.upscale4x: nn.Sequential = nn.Sequential(*stages)  # the name in the published files, whatever the scale
        self.conv_output: Float32Conv2d = Float32Conv2d.like(conv(features, channels, 9, bias=False))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Upscale `[N, C, h, w]` in [0, 1] to float32 `[N, C, scale * h, scale * w]`, not clamped."""
        shifted = self.sub_mean(x * VALUE_RANGE).to(self.conv_input.weight.dtype)
        features = self.relu(self.conv_input(shifted))
        body = self.bn_mid(self.conv_mid(self.residual(features)))
        return self.add_mean(self.conv_output(self.upscale4x(features + body))) / VALUE_RANGE


class _InstanceNormBlock(nn.Module):
    """Compute `x + norm(conv(lrelu(norm(conv(x)))))`."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = conv(features, features, bias=False)
        self.in1 = nn.InstanceNorm2d(features, affine=True)
        self.relu = nn.LeakyReLU(_SLOPE)
        self.conv2 = conv(features, features, bias=False)
        self.in2 = nn.InstanceNorm2d(features, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.in2(self.conv2(self.relu(self.in1(self.conv1(x)))))
