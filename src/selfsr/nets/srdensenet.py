"""SRDenseNet (Tong et al., "Image Super-Resolution Using Dense Skip Connections", ICCV 2017), the variant "All"."""

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from selfsr.nets import key_names
from selfsr.nets.base import Detected, NetworkSpec, SrNetwork
from selfsr.nets.blocks import conv
from selfsr.nets.layers import VALUE_RANGE, Float32Conv2d, from_studio_range, to_studio_range


class SrDenseNetSpec(NetworkSpec):
    """SRDenseNet: dense blocks whose outputs are all concatenated; published for luma at x4."""

    title: ClassVar[str] = "SRDenseNet"
    paper: ClassVar[str] = "Tong et al., ICCV 2017"
    convolutional: ClassVar[bool] = True
    scales_reason: ClassVar[str] = "each deconvolution doubles the image"

    kind: Literal["srdensenet"] = "srdensenet"
    growth: PositiveInt = Field(default=16, description="channels that each convolution of a block adds (k)")
    blocks: PositiveInt = Field(default=8, description="dense blocks")
    convs: PositiveInt = Field(default=8, description="convolutions in each block")
    bottleneck: PositiveInt = Field(default=256, description="channels after the 1x1 convolution of all outputs")

    @property
    def scales(self) -> tuple[int, ...]:
        """Powers of two."""
        return (2, 4, 8)

    def _make(self, scale: int, channels: int) -> nn.Module:
        return SrDenseNet(
            scale, channels, growth=self.growth, blocks=self.blocks, convs=self.convs, bottleneck=self.bottleneck
        )

    @classmethod
    def detect(cls, tensors: Mapping[str, Tensor]) -> Detected | None:
        """Detect the names of the common PyTorch implementation."""
        if not {"conv.conv.weight", "dense_blocks.0.block.0.conv.weight", "deconv.0.weight"} <= set(tensors):
            return None
        spec = cls(
            growth=tensors["dense_blocks.0.block.0.conv.weight"].shape[0],
            blocks=key_names.count_layers(tensors, r"dense_blocks\.(\d+)\."),
            convs=key_names.count_layers(tensors, r"dense_blocks\.0\.block\.(\d+)\."),
            bottleneck=tensors["deconv.0.weight"].shape[0],
        )
        scale = 2 ** (key_names.count_layers(tensors, r"deconv\.(\d+)\.") // 2 + 1)
        return Detected(spec, (scale,), tensors["conv.conv.weight"].shape[1], dict(tensors))


class SrDenseNet(SrNetwork):
    """SRDenseNet: `y = reconstruction(deconv(bottleneck([l, b1, ..., bB])))`, `l = relu(conv(x))`.

    Each block takes `l` and the outputs of all blocks before it. In a block, the first convolution takes this input,
    and the others take the outputs of the convolutions before them. The internal range is 0 to 1; gray becomes Y of
    16/255 to 235/255. Weights start as He normal, biases at 0.

    Args:
        scale: 2, 4 or 8.
        channels: 1 for gray, 3 for RGB.
        growth: channels that each convolution of a block adds.
        blocks: dense blocks.
        convs: convolutions in each block.
        bottleneck: channels after the 1x1 convolution of all outputs.
    """

    def __init__(self, scale: int, channels: int = 3, *, growth: int, blocks: int, convs: int, bottleneck: int) -> None:
        super().__init__(scale, channels)
        width = growth * convs
        self.conv: _SrDenseLayer = _SrDenseLayer(channels, width)
        self.dense_blocks: nn.Sequential = nn.Sequential(
            *(_SrDenseBlock((n + 1) * width, growth, convs) for n in range(blocks))
        )
        self.bottleneck: nn.Sequential = nn.Sequential(conv((blocks + 1) * width, bottleneck, 1), nn.ReLU(inplace=True))
        stages = []
        for _ in range(round(math.log2(scale))):
            up = nn.ConvTranspose2d(bottleneck, bottleneck, 3, stride=2, padding=1, output_padding=1)
            stages += [up, nn.ReLU(inplace=True)]
        self.deconv: nn.Sequential = nn.Sequential(*stages)
        self.reconstruction: Float32Conv2d = Float32Conv2d.like(conv(bottleneck, channels))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale `[N, C, h, w]` in [0, 1] to float32 `[N, C, scale * h, scale * w]`, not clamped."""
        image = to_studio_range(x) / VALUE_RANGE if self.channels == 1 else x
        features = self.dense_blocks(self.conv(image.to(self.conv.conv.weight.dtype)))
        image = self.reconstruction(self.deconv(self.bottleneck(features)))
        return from_studio_range(image * VALUE_RANGE) if self.channels == 1 else image


class _SrDenseLayer(nn.Module):
    """Compute `relu(conv(x))`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv: nn.Conv2d = conv(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x))


class _SrDenseBlock(nn.Module):
    """Return the input, concatenated with the outputs of all convolutions."""

    def __init__(self, inputs: int, growth: int, convs: int) -> None:
        super().__init__()
        layers = [_SrDenseLayer(inputs, growth), *(_SrDenseLayer(n * growth, growth) for n in range(1, convs))]
        self.block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        outputs: list[Tensor] = []
        for layer in self.block:
            outputs.append(layer(torch.cat(outputs, 1) if outputs else x))
        return torch.cat([x, *outputs], 1)
