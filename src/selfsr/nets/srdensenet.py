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
from selfsr.nets.layers import VALUE_RANGE, Float32Conv2d, full_range, studio_range


class SrDenseNetSpec(NetworkSpec):
    """SRDenseNet, dense blocks with all of their outputs kept; published for luma at x4."""

    title: ClassVar[str] = "SRDenseNet"
    paper: ClassVar[str] = "Tong et al., ICCV 2017"
    convolutional: ClassVar[bool] = True
    parameters: ClassVar[int] = 2_666_499
    why_scales: ClassVar[str] = "each deconvolution doubles the image"

    kind: Literal["srdensenet"] = "srdensenet"
    growth: PositiveInt = Field(default=16, description="channels that each convolution of a block adds (k)")
    blocks: PositiveInt = Field(default=8, description="dense blocks")
    convs: PositiveInt = Field(default=8, description="convolutions in each block")
    bottleneck: PositiveInt = Field(default=256, description="channels that all outputs are fused to")

    @property
    def scales(self) -> tuple[int, ...]:
        """Powers of two."""
        return (2, 4, 8)

    def _make(self, scale: int, channels: int) -> nn.Module:
        return SrDenseNet(
            scale, channels, growth=self.growth, blocks=self.blocks, convs=self.convs, bottleneck=self.bottleneck
        )

    @classmethod
    def detect(cls, tensors: Mapping[str, Tensor], said: Mapping[str, str]) -> Detected | None:  # noqa: ARG003
        """Know the names of the common PyTorch implementation."""
        if not {"conv.conv.weight", "dense_blocks.0.block.0.conv.weight", "deconv.0.weight"} <= set(tensors):
            return None
        spec = cls(
            growth=tensors["dense_blocks.0.block.0.conv.weight"].shape[0],
            blocks=key_names.count(tensors, r"dense_blocks\.(\d+)\."),
            convs=key_names.count(tensors, r"dense_blocks\.0\.block\.(\d+)\."),
            bottleneck=tensors["deconv.0.weight"].shape[0],
        )
        scale = 2 ** (key_names.count(tensors, r"deconv\.(\d+)\.") // 2 + 1)
        return Detected(spec, (scale,), tensors["conv.conv.weight"].shape[1], dict(tensors))


class SrDenseNet(SrNetwork):
    """The network of SRDenseNet: `y = reconstruction(deconv(bottleneck([l, b1, ..., bB])))`, `l = relu(conv(x))`.

    Each block takes `l` and the outputs of all blocks before it, and each of its convolutions but the first takes
    the outputs of those before it in the block. The range inside is 0 to 1; gray goes in as Y of 16/255 to 235/255.
    Weights start He normal, biases 0.

    Args:
        scale: 2, 4 or 8.
        channels: 1 for gray, 3 for RGB.
        growth: channels that each convolution of a block adds.
        blocks: dense blocks.
        convs: convolutions in each block.
        bottleneck: channels that all outputs are fused to.
    """

    def __init__(self, scale: int, channels: int = 3, *, growth: int, blocks: int, convs: int, bottleneck: int) -> None:
        super().__init__(scale, channels)
        width = growth * convs
        self.conv = _Layer(channels, width)
        self.dense_blocks = nn.Sequential(*(_DenseBlock((n + 1) * width, growth, convs) for n in range(blocks)))
        self.bottleneck = nn.Sequential(conv((blocks + 1) * width, bottleneck, 1), nn.ReLU(inplace=True))
        stages = []
        for _ in range(round(math.log2(scale))):
            up = nn.ConvTranspose2d(bottleneck, bottleneck, 3, stride=2, padding=1, output_padding=1)
            stages += [up, nn.ReLU(inplace=True)]
        self.deconv = nn.Sequential(*stages)
        self.reconstruction = Float32Conv2d.like(conv(bottleneck, channels))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale `[N, C, h, w]` in [0, 1] to float32 `[N, C, scale * h, scale * w]`, not clamped."""
        image = studio_range(x) / VALUE_RANGE if self.channels == 1 else x
        features = self.dense_blocks(self.conv(image.to(self.conv.conv.weight.dtype)))
        image = self.reconstruction(self.deconv(self.bottleneck(features)))
        return full_range(image * VALUE_RANGE) if self.channels == 1 else image


class _Layer(nn.Module):
    """`relu(conv(x))`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = conv(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x))


class _DenseBlock(nn.Module):
    """The input, and after it the outputs of all convolutions of the block."""

    def __init__(self, inputs: int, growth: int, convs: int) -> None:
        super().__init__()
        layers = [_Layer(inputs, growth), *(_Layer(n * growth, growth) for n in range(1, convs))]
        self.block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        new: list[Tensor] = []
        for layer in self.block:
            new.append(layer(torch.cat(new, 1) if new else x))
        return torch.cat([x, *new], 1)
