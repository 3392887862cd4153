"""RDN (Zhang et al., "Residual Dense Network for Image Super-Resolution", CVPR 2018)."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from selfsr.nets import key_names
from selfsr.nets.base import Detected, NetworkSpec, SrNetwork
from selfsr.nets.blocks import build_upsampler, conv
from selfsr.nets.layers import VALUE_RANGE, Float32Conv2d

# Names in EDSR's PyTorch code, and ours; there the last convolution is numbered after the upsampling stages.
_EDSR_CODE = (
    (r"SFENet(\d)\.", r"sfe\1."),
    (r"RDBs\.(\d+)\.convs\.(\d+)\.conv\.0\.", r"rdbs.\1.layers.\2.conv."),
    (r"RDBs\.(\d+)\.LFF\.", r"rdbs.\1.lff."),
    (r"GFF\.", "gff."),
    (r"UPNet\.{last}\.", "output."),
    (r"UPNet\.", "upscale."),
)


class RdnSpec(NetworkSpec):
    """RDN, residual dense blocks; the defaults are the paper's (and configuration B of EDSR's code)."""

    title: ClassVar[str] = "RDN"
    paper: ClassVar[str] = "Zhang et al., CVPR 2018"
    convolutional: ClassVar[bool] = True

    kind: Literal["rdn"] = "rdn"
    features: PositiveInt = Field(default=64, description="channels between the blocks (G0)")
    growth: PositiveInt = Field(default=64, description="channels that each convolution of a block adds (G)")
    blocks: PositiveInt = Field(default=16, description="residual dense blocks (D)")
    convs: PositiveInt = Field(default=8, description="convolutions in each block before the fusion (C)")

    def _make(self, scale: int, channels: int) -> nn.Module:
        return Rdn(scale, channels, features=self.features, growth=self.growth, blocks=self.blocks, convs=self.convs)

    @classmethod
    def detect(cls, tensors: Mapping[str, Tensor]) -> Detected | None:
        """Detect the names of the published PyTorch files, and those of EDSR's code with its range of 0 to 255."""
        if {"SFENet1.weight", "RDBs.0.LFF.weight", "UPNet.0.weight"} <= set(tensors):
            last = str(key_names.count_layers(tensors, r"UPNet\.(\d+)\.") - 1)
            renamed = key_names.rename_keys(tensors, [(old.replace("{last}", last), new) for old, new in _EDSR_CODE])
            tensors = key_names.scale_biases(renamed, 1 / VALUE_RANGE)
        if not {"sfe1.weight", "rdbs.0.layers.0.conv.weight", "upscale.0.weight"} <= set(tensors):
            return None
        features, channels = tensors["sfe1.weight"].shape[:2]
        spec = cls(
            features=features,
            growth=tensors["rdbs.0.layers.0.conv.weight"].shape[0],
            blocks=key_names.count_layers(tensors, r"rdbs\.(\d+)\."),
            convs=key_names.count_layers(tensors, r"rdbs\.0\.layers\.(\d+)\."),
        )
        scale = key_names.infer_pixel_shuffle(tensors, r"upscale\.\d+\.weight")
        return Detected(spec, (scale,), channels, dict(tensors))


class Rdn(SrNetwork):
    """RDN: `y = output(upscale(sfe1 + gff([b1, ..., bD])))`, with the blocks one after the other from `sfe2(sfe1)` on.

    There is no mean shift, and the internal range is 0 to 1, as in the published files. Weights have PyTorch's default
    initialization.

    Args:
        scale: 2, 3, 4 or 8.
        channels: 3 for RGB, 1 for gray.
        features: channels between the blocks.
        growth: channels that each convolution adds.
        blocks: residual dense blocks.
        convs: convolutions in each block.
    """

    def __init__(self, scale: int, channels: int = 3, *, features: int, growth: int, blocks: int, convs: int) -> None:
        super().__init__(scale, channels)
        self.sfe1: nn.Conv2d = conv(channels, features)
        self.sfe2: nn.Conv2d = conv(features, features)
        self.rdbs: nn.ModuleList = nn.ModuleList(_RdnBlock(features, growth, convs) for _ in range(blocks))
        self.gff: nn.Sequential = nn.Sequential(conv(blocks * features, features, 1), conv(features, features))
        self.upscale: nn.Sequential = build_upsampler(scale, features)
        self.output: Float32Conv2d = Float32Conv2d.like(conv(features, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Upscale `[N, C, h, w]` in [0, 1] to float32 `[N, C, scale * h, scale * w]`, not clamped."""
        shallow = self.sfe1(x.to(self.sfe1.weight.dtype))
        block = self.sfe2(shallow)
        blocks = [block := dense(block) for dense in self.rdbs]
        return self.output(self.upscale(shallow + self.gff(torch.cat(blocks, 1))))


class _RdnBlock(nn.Module):
    """Compute `x + lff([x, c1, ..., cC])`; each `c = relu(conv)` has all values before it as input (figure 3)."""

    def __init__(self, features: int, growth: int, convs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(_RdnLayer(features + n * growth, growth) for n in range(convs)))
        self.lff = conv(features + convs * growth, features, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.lff(self.layers(x))


class _RdnLayer(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.conv = conv(inputs, growth)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, torch.relu(self.conv(x))], 1)
